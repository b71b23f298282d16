//! A worker's datagrams over the system's own sockets: what the simulation assumes of them holds.

use std::collections::HashMap;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::*;
use crate::config::Way;
use crate::net::{self, Departure, Kernel, Load, Poller, Quota, SocketOptions};
use crate::reactor::mailbox;
use crate::session::{Close, Cx, Seat, Session, Transport};
use crate::stats::Counters;
use crate::sys;
use crate::worker::{Phase, Setup};

/// What the sessions of a test have been told.
#[derive(Default)]
struct Heard {
    trains: AtomicUsize,
    bounced: AtomicUsize,
}

/// Passes datagrams on to one address by a socket for each source, and the answers back.
struct Forwarder {
    to: SocketAddr,
    main: Option<SocketKey>,
    flows: HashMap<SocketAddr, SocketKey>,
    heard: Arc<Heard>,
}

impl Session for Forwarder {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Bound { socket, .. } => self.main = Some(socket),
            Event::Datagrams { socket, train } if Some(socket) == self.main => {
                self.heard.trains.fetch_add(1, Ordering::Relaxed);
                let flow = match self.flows.get(&train.from) {
                    Some(flow) => *flow,
                    None => cx.associate(self.to).unwrap(),
                };
                self.flows.insert(train.from, flow);
                cx.train(flow, None, &train);
            }
            Event::Datagrams { socket, train } => {
                let back = self.flows.iter().find(|(_, flow)| **flow == socket);
                let source = *back.unwrap().0;
                for datagram in train.datagrams() {
                    cx.datagram(self.main.unwrap(), Some(source), &[datagram]);
                }
            }
            Event::Bounced { why, .. } => {
                assert_eq!(why, io::ErrorKind::ConnectionRefused);
                self.heard.bounced.fetch_add(1, Ordering::Relaxed);
            }
            other => panic!("unexpected {other:?}"),
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

struct Forwarding(SocketAddr, Arc<Heard>);

impl Seat for Forwarding {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        panic!("nobody connects")
    }

    fn datagrams(&mut self, _: usize) -> Option<Box<dyn Session>> {
        Some(Box::new(Forwarder {
            to: self.0,
            main: None,
            flows: HashMap::new(),
            heard: Arc::clone(&self.1),
        }))
    }
}

/// A worker with a datagram listener, stepped by hand.
struct Bench {
    poller: Poller,
    worker: Worker<Kernel>,
    counters: Arc<Counters>,
    heard: Arc<Heard>,
    at: SocketAddr,
}

impl Bench {
    fn new(listen: &str, upstream: SocketAddr) -> Self {
        let minute = Duration::from_secs(60);
        let options = SocketOptions {
            user_timeout: minute,
            keepalive: minute,
        };
        let (poller, kernel, bell) = net::open(options).unwrap();
        let (_, letters) = mailbox(10, Arc::clone(&bell));
        let (_, post) = mailbox(10, Arc::clone(&bell));
        let (_, orders) = mailbox(10, bell);
        let counters = Arc::new(Counters::default());
        let heard = Arc::new(Heard::default());
        let setup = Setup {
            core: 0,
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: minute,
            drain_timeout: minute,
            drain_spread: Duration::ZERO,
            buffer_memory: 1 << 20,
            socket_options: options,
            way: Way::Auto,
            pipe_size: 1 << 20,
            seed: 1,
            control: bounded(1).0,
            mailbox: letters,
            post,
            orders,
            cores: Vec::new(),
            phase: Arc::new(Phase::default()),
            quota: Arc::new(Quota::new(100, 0)),
            doors: Arc::default(),
            load: Arc::new(Load::new(Default::default())),
            counters: Arc::clone(&counters),
            seats: vec![Box::new(Forwarding(upstream, Arc::clone(&heard)))],
            roles: vec!["test"],
        };
        let mut worker = Worker::new(kernel, setup, Instant::now());
        let socket = net::bind_datagrams(listen.parse().unwrap()).unwrap();
        let at = socket.address().unwrap();
        let listen = Listen {
            role: "test",
            name: None,
            address: at,
            transport: Transport::Datagram,
            terms: Arc::default(),
        };
        worker.listen_datagrams(socket, listen, 0, 0).unwrap();
        Self {
            poller,
            worker,
            counters,
            heard,
            at,
        }
    }

    /// Turns until `done`, which must come to pass.
    fn until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done(self) {
            assert!(Instant::now() < deadline, "it never comes to pass");
            let nap = Duration::from_millis(5);
            let rest = self.worker.rest().unwrap_or(nap).min(nap);
            let ready = self.poller.wait(Some(rest), Duration::ZERO).unwrap();
            self.worker.turn(Instant::now(), ready);
            self.worker.check();
        }
    }

    /// Turns until so many datagrams have come to `socket`; in their order.
    fn receive(&mut self, socket: &UdpSocket, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
        let mut got = Vec::new();
        let mut room = vec![0; 65_536];
        self.until(|_| {
            while let Ok((len, from)) = socket.recv_from(&mut room) {
                got.push((room[..len].to_vec(), from));
            }
            got.len() >= count
        });
        got
    }
}

fn socket(at: &str) -> UdpSocket {
    let socket = UdpSocket::bind(at).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

#[test]
fn datagrams_of_all_sizes_pass_and_answers_return() {
    for (listen, near) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("[::]:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
    ] {
        let upstream = socket("127.0.0.1:0");
        let mut bench = Bench::new(listen, upstream.local_addr().unwrap());
        let to = SocketAddr::new(near.parse().unwrap(), bench.at.port());
        let client = socket(&SocketAddr::new(to.ip(), 0).to_string());
        let payloads = [
            vec![],
            vec![1],
            vec![2; 65_507],
            vec![3; 1_200],
            vec![4; 1_200],
            vec![],
        ];
        for payload in &payloads {
            client.send_to(payload, to).unwrap();
        }
        let arrived = bench.receive(&upstream, payloads.len());
        assert!(arrived.iter().map(|(bytes, _)| bytes).eq(&payloads));
        for (bytes, from) in &arrived {
            upstream.send_to(bytes, from).unwrap();
        }
        let answers = bench.receive(&client, payloads.len());
        assert!(answers.iter().map(|(bytes, _)| bytes).eq(&payloads));
        assert!(answers.iter().all(|(_, from)| *from == to));
        let count = 2 * payloads.len() as u64;
        assert_eq!(bench.counters.get(Metric::DatagramsIn), count);
        assert_eq!(bench.counters.get(Metric::DatagramsOut), count);
        assert_eq!(bench.counters.get(Metric::DatagramsDropped), 0);
    }
}

#[test]
fn a_train_passes_as_one_and_comes_out_as_its_datagrams() {
    let upstream = socket("127.0.0.1:0");
    let mut bench = Bench::new("127.0.0.1:0", upstream.local_addr().unwrap());
    let client = socket("127.0.0.1:0");
    let payload: Vec<u8> = (0..30_000u32).map(|n| (n / 1_000) as u8).collect();
    let train = Departure {
        to: Some(bench.at),
        payload: &payload,
        segment: 1_000,
    };
    sys::send_datagrams(client.as_fd(), [train]).unwrap();
    let arrived = bench.receive(&upstream, 30);
    assert!(
        arrived
            .iter()
            .map(|(bytes, _)| &bytes[..])
            .eq(payload.chunks(1_000))
    );
    assert_eq!(bench.heard.trains.load(Ordering::Relaxed), 1);
    assert_eq!(bench.counters.get(Metric::DatagramsOut), 30);
}

#[test]
fn an_upstream_that_is_not_there_is_told_of_and_may_come() {
    // A port below those that the system gives out: no other test comes to be there.
    let free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).ok();
    let gone = (20_000..30_000).find_map(free).unwrap();
    let at = gone.local_addr().unwrap();
    drop(gone);
    let mut bench = Bench::new("127.0.0.1:0", at);
    let client = socket("127.0.0.1:0");
    client.send_to(b"anybody?", bench.at).unwrap();
    bench.until(|bench| bench.heard.bounced.load(Ordering::Relaxed) == 1);
    let upstream = socket(&at.to_string());
    client.send_to(b"again", bench.at).unwrap();
    assert_eq!(bench.receive(&upstream, 1)[0].0, b"again");
    assert_eq!(bench.heard.bounced.load(Ordering::Relaxed), 1, "told once");
}

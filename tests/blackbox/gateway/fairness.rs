//! Many clients on one server's link: nobody's flood keeps another's message waiting for more than
//! its share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{Dialect, Gateway, Got, PAIRS, data};
use crate::support::kernel::bytes_under_way;
use crate::support::until;
use crate::support::window::{paced, standing_still};

const ID: u32 = 91;

/// What one flooding connection may send before it is another's turn.
const QUANTUM: usize = 64 * 1024;

/// Clients that send large messages without a pause.
struct Flood {
    stopping: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
    _clients: Vec<Endpoint>,
}

impl Flood {
    fn start(gateway: &Gateway, server: &mut Endpoint, dialect: Dialect, count: usize) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let mut clients: Vec<Endpoint> = (0..count).map(|_| gateway.client(dialect)).collect();
        let conns: Vec<u32> = clients.iter_mut().map(|client| client.dial(ID)).collect();
        for conn in &conns {
            assert_eq!(server.joined().0, *conn);
        }
        let threads = clients.iter().zip(conns).map(|(client, conn)| {
            let mut writer = client.writer();
            let (stopping, sent) = (Arc::clone(&stopping), Arc::clone(&sent));
            let frame = data(conn, &vec![0xf1; QUANTUM - 8]);
            std::thread::spawn(move || {
                while !stopping.load(Ordering::SeqCst) && writer.try_send(&frame) {
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        Self {
            threads: threads.collect(),
            stopping,
            sent,
            _clients: clients,
        }
    }

    /// Waits until nothing more goes in, nor moves on its way to the server at this address.
    fn expect_stuck(&self, gateway: &Gateway, server: SocketAddr) {
        let sent = || self.sent.load(Ordering::SeqCst);
        until("something is sent", || sent() > 0);
        let waiting = || bytes_under_way(server, gateway.servers);
        standing_still("the flood", || (sent(), waiting()));
    }

    /// Ends it; the server must be gone, or read on.
    fn stop(self) {
        self.stopping.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// Reads up to the message on `conn`; how many bytes of others came before it.
fn bytes_before(server: &mut Endpoint, conn: u32) -> usize {
    let mut bytes = 0;
    loop {
        match server.got() {
            Got::Data(on, _) if on == conn => return bytes,
            Got::Data(_, payload) => bytes += payload.len() + 8,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_small_message_waits_for_two_quanta_of_each_flood_at_most() {
    for (of_client, of_server) in PAIRS {
        for floods in [1, 4] {
            let gateway = Gateway::new(of_server);
            let mut pair = gateway.pair(of_client, ID);
            let flood = Flood::start(&gateway, &mut pair.server, of_client, floods);
            let address = pair.server.peer().local();
            for round in 0..3 {
                // Nobody reads, so everything between the clients and the server is full.
                flood.expect_stuck(&gateway, address);
                // The gateway has it, and then some time to put it where it belongs.
                pair.client.data(pair.conn, &[round; 64]).peer().settle();
                let mut parts = 0..3;
                paced(Duration::from_millis(100), || parts.next().is_some());
                // What the kernel has of the link is in front of anything.
                let in_front = bytes_under_way(address, gateway.servers);
                let before = bytes_before(&mut pair.server, pair.conn);
                eprintln!("{floods} floods: {before} bytes, {in_front} of them in the kernel");
                // The gateway's own buffer of the link is in front as well. A flood, on whichever core
                // it is, adds at most a quantum in its turn and the frame that crosses it, which is as
                // long here; what waits behind that in other places is megabytes.
                let most = in_front + (2 * floods + 4) * QUANTUM;
                assert!(before <= most, "{before} bytes instead of {most}");
            }
            drop(pair);
            flood.stop();
        }
    }
}

#[test]
fn a_flood_on_a_link_does_not_stop_the_echoes_on_it() {
    for (of_client, of_server) in PAIRS {
        let gateway = Gateway::new(of_server);
        let mut pair = gateway.pair(of_client, ID);
        // What the kernel has of the link is in front of every echo, and by itself it lets that grow
        // to tens of megabytes.
        let link = socket2::SockRef::from(pair.server.peer().stream());
        link.set_recv_buffer_size(4 * QUANTUM).unwrap();
        let flood = Flood::start(&gateway, &mut pair.server, of_client, 2);
        let (conn, mut server) = (pair.conn, pair.server);
        let echoing = std::thread::spawn(move || {
            while let Some(got) = server.maybe() {
                match got {
                    Got::Data(on, payload) if on == conn => {
                        server.data(conn, &payload);
                    }
                    Got::Close(on) if on == conn => return,
                    _ => {}
                }
            }
        });
        let mut times = Vec::new();
        for round in 0..100 {
            let start = Instant::now();
            pair.client.data(conn, &[round; 64]);
            pair.client.expect(Got::Data(conn, vec![round; 64]));
            times.push(start.elapsed());
        }
        times.sort_unstable();
        eprintln!("median {:?}, worst {:?}", times[50], times[99]);
        assert!(times[50] < Duration::from_millis(500), "{:?}", times[50]);
        pair.client.close(conn).expect(Got::Close(conn));
        echoing.join().unwrap();
        flood.stop();
    }
}

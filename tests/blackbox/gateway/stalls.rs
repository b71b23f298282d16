//! Endpoints that do not read: they cost bounded memory, lose nothing while they may come back, and
//! stop nobody but those who send to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::gateway::bystander::Bystander;
use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::stream::Stream;
use crate::support::gateway::{Dialect, Gateway, Got, PAIRS, Pair, Plan};
use crate::support::kernel;
use crate::support::window::{paced, standing_still};

const ID: u32 = 81;
const FRAME: usize = 64 * 1024;
const OFFERED: usize = 64 << 20;
/// How far the process may grow for it.
const MOST: u64 = 96 << 20;

fn resident(gateway: &Gateway) -> u64 {
    kernel::resident_bytes(gateway.process())
}

fn expect_small_growth(gateway: &Gateway, before: u64) {
    let growth = resident(gateway).saturating_sub(before);
    eprintln!("grown by {} KiB", growth >> 10);
    assert!(growth < MOST, "grown by {growth} bytes");
}

/// Lets some time pass.
fn pass(time: Duration) {
    let mut parts = 0..10;
    paced(time / 10, || parts.next().is_some());
}

/// An endpoint that sends in a thread of its own.
struct Sending {
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Sending {
    /// Sends `count` messages, or until it is told to stop.
    fn start(
        endpoint: &Endpoint,
        conn: u32,
        seed: u64,
        count: usize,
        stopping: &Arc<AtomicBool>,
    ) -> Self {
        let mut writer = endpoint.writer();
        let sent = Arc::new(AtomicUsize::new(0));
        let (counter, stopping) = (Arc::clone(&sent), Arc::clone(stopping));
        let thread = std::thread::spawn(move || {
            let mut stream = Stream::of(seed, FRAME);
            while counter.load(Ordering::SeqCst) < count && !stopping.load(Ordering::SeqCst) {
                writer.send(stream.frame(conn));
                counter.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { sent, thread }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

/// Reads messages until every stream has come to its count.
fn read_all(reader: &mut Endpoint, streams: &mut [(u32, Stream)], count: u64) {
    while streams.iter().any(|(_, stream)| stream.count() < count) {
        match reader.got() {
            Got::Data(conn, payload) => {
                let stream = streams.iter_mut().find(|(of, _)| *of == conn);
                stream
                    .expect("data of a known connection")
                    .1
                    .check(&payload);
            }
            other => panic!("{other:?} instead of data"),
        }
    }
}

/// Eight clients offer their messages to a server that reads nothing for longer than a slow
/// *client* would be given.
fn stall_server(of_client: Dialect, of_server: Dialect) {
    eprintln!("{of_client:?} clients, a stalled {of_server:?} server");
    let gateway = Plan::new(of_server)
        .text("slow_receiver_timeout", "1s")
        .start();
    let reference = Bystander::start(&gateway, of_client);
    let mut server = gateway.server(ID);
    let mut clients: Vec<Endpoint> = (0..8).map(|_| gateway.client(of_client)).collect();
    let conns: Vec<u32> = clients.iter_mut().map(|client| client.dial(ID)).collect();
    for conn in &conns {
        assert_eq!(server.joined().0, *conn);
    }
    let each = OFFERED / FRAME / conns.len();
    let before = resident(&gateway);
    let stopping = Arc::new(AtomicBool::new(false));
    let sending: Vec<Sending> = (0..)
        .zip(clients.iter().zip(&conns))
        .map(|(seed, (client, conn))| Sending::start(client, *conn, seed, each, &stopping))
        .collect();
    let taken = || sending.iter().map(Sending::sent).sum::<usize>();
    let taken = standing_still("the senders", taken);
    eprintln!("{taken} messages of {} went in", each * conns.len());
    pass(Duration::from_secs(2));
    expect_small_growth(&gateway, before);
    reference.expect_going_on();
    let mut streams: Vec<_> = (0..)
        .zip(&conns)
        .map(|(seed, conn)| (*conn, Stream::of(seed, FRAME)))
        .collect();
    read_all(&mut server, &mut streams, each as u64);
    for one in sending {
        one.thread.join().unwrap();
    }
    expect_small_growth(&gateway, before);
    for (client, conn) in clients.iter_mut().zip(&conns) {
        client.expect_quiet();
        server.data(*conn, b"thanks");
        client.expect(Got::Data(*conn, b"thanks".into()));
    }
    reference.expect_undisturbed();
}

#[test]
fn a_stalled_server_costs_little_and_gets_every_byte_when_it_reads_again() {
    for (of_client, of_server) in PAIRS {
        stall_server(of_client, of_server);
    }
}

/// A server reads nothing of what a client sends for so long that a silent client would be closed,
/// whole frame or not.
fn hold_up_client(of_client: Dialect, of_server: Dialect) {
    eprintln!("{of_client:?} client, a stalled {of_server:?} server");
    let plan = Plan::new(of_server).text("client_idle_timeout", "2s");
    let gateway = plan.text("slow_receiver_timeout", "1s").start();
    let Pair {
        mut client,
        mut server,
        conn,
        ..
    } = gateway.pair(of_client, ID);
    let stopping = Arc::new(AtomicBool::new(false));
    let sending = Sending::start(&client, conn, 1, 4 * OFFERED / FRAME, &stopping);
    standing_still("the sender", || sending.sent());
    pass(Duration::from_secs(8));
    assert!(sending.sent() < 4 * OFFERED / FRAME, "nothing held it up");
    stopping.store(true, Ordering::SeqCst);
    // Whether a message was under way when it was told to stop, only its thread knows.
    let ending = std::thread::spawn(move || {
        sending.thread.join().unwrap();
        client.data(conn, b"the end");
        (client, sending.sent.load(Ordering::SeqCst))
    });
    let mut seen = Stream::of(1, FRAME);
    loop {
        match server.got() {
            Got::Data(_, payload) if payload == b"the end" => break,
            Got::Data(_, payload) => seen.check(&payload),
            other => panic!("{other:?} instead of data"),
        }
    }
    server.expect_quiet();
    let (_client, sent) = ending.join().unwrap();
    assert_eq!(seen.count(), sent as u64);
}

#[test]
fn a_client_that_is_held_up_by_its_server_is_not_taken_for_silent() {
    // All at the same time, as all they do is wait.
    let one =
        |(of_client, of_server)| std::thread::spawn(move || hold_up_client(of_client, of_server));
    for thread in PAIRS.map(one) {
        thread.join().unwrap();
    }
}

/// A server offers messages to a client that reads nothing, and echoes for another one meanwhile.
fn stall_client(of_client: Dialect, of_server: Dialect, offered: usize) {
    eprintln!("a stalled {of_client:?} client of a {of_server:?} server, {offered} bytes");
    let gateway = Plan::new(of_server)
        .text("slow_receiver_timeout", "60s")
        .start();
    let reference = Bystander::start(&gateway, of_client);
    let mut pair = gateway.pair(of_client, ID);
    let mut slow = gateway.client(of_client);
    let conn = slow.dial(ID);
    assert_eq!(pair.server.joined().0, conn);
    let before = resident(&gateway);
    let mut made = Stream::of(1, FRAME);
    for number in 0..offered / FRAME {
        pair.server.send(made.frame(conn));
        if number % 16 == 0 {
            pair.expect_echo();
        }
    }
    pair.expect_echo();
    expect_small_growth(&gateway, before);
    reference.expect_going_on();
    let mut seen = [(conn, Stream::of(1, FRAME))];
    read_all(&mut slow, &mut seen, made.count());
    slow.expect_quiet().data(conn, b"thanks");
    pair.server.expect(Got::Data(conn, b"thanks".into()));
    pair.expect_close();
    reference.expect_undisturbed();
}

#[test]
fn a_client_that_falls_behind_a_little_holds_up_nobody() {
    for (of_client, of_server) in PAIRS {
        stall_client(of_client, of_server, 4 << 20);
    }
}

#[test]
fn a_stalled_client_costs_little_and_gets_every_byte_when_it_reads_again() {
    for (of_client, of_server) in PAIRS {
        stall_client(of_client, of_server, OFFERED);
    }
}

#[test]
fn a_client_that_stalls_too_long_is_closed_alone() {
    for (of_client, of_server) in PAIRS {
        eprintln!("a {of_client:?} client of a {of_server:?} server stalls");
        let gateway = Plan::new(of_server)
            .text("slow_receiver_timeout", "1s")
            .start();
        let reference = Bystander::start(&gateway, of_client);
        let mut pair = gateway.pair(of_client, ID);
        let mut slow = gateway.client(of_client);
        let [flooded, quiet] = [slow.dial(ID), slow.dial(ID)];
        let slow_id = pair.server.joined().1;
        pair.server.joined();
        let before = resident(&gateway);
        let stopping = Arc::new(AtomicBool::new(false));
        let count = OFFERED / FRAME;
        let sending = Sending::start(&pair.server, flooded, 1, count, &stopping);
        let mut closed = [0; 2];
        while closed.contains(&0) {
            match pair.server.got() {
                Got::Close(conn) if conn == flooded => closed[0] += 1,
                Got::Close(conn) if conn == quiet => closed[1] += 1,
                other => panic!("{other:?} instead of a Close"),
            }
        }
        sending.thread.join().unwrap();
        // What is sent behind the end is answered like any unknown id, in batches.
        let more = pair.server.closes_before_quiet();
        assert!(more.iter().all(|conn| *conn == flooded), "{more:?}");
        assert!(closed[0] + more.len() < count, "an answer for every frame");
        assert_eq!(closed[1], 1);
        pair.expect_echo();
        pair.server.expect_refused(slow_id);
        expect_small_growth(&gateway, before);
        slow.peer().rest();
        reference.expect_undisturbed();
    }
}

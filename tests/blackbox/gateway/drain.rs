//! A gateway that is told to stop: what it has taken arrives, nobody new comes in, and it ends well.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use crate::support::gateway::stream::Stream;
use crate::support::gateway::{DIALECTS, Gateway, Got, PAIRS, Pair, Plan};
use crate::support::kernel::bytes_under_way;
use crate::support::until;
use crate::support::window::standing_still;

const ID: u32 = 111;
const FRAME: usize = 64 * 1024;

fn expect_nobody_new(gateway: &Gateway) {
    for address in [gateway.clients, gateway.servers] {
        until("new connections are refused", || {
            TcpStream::connect(address).is_err()
        });
    }
}

#[test]
fn frames_that_were_taken_arrive_and_the_end_is_a_good_one() {
    for (of_client, of_server) in PAIRS {
        let plan = Plan::new(of_server).limit("drain_timeout = \"20s\"");
        let mut gateway = plan.start();
        let mut pair = gateway.pair(of_client, ID);
        let mut made = Stream::between(1, 0, 400);
        let mut seen = Stream::between(1, 0, 400);
        let frames: Vec<u8> = (0..300).flat_map(|_| made.frame(pair.conn)).collect();
        pair.client.send(frames).peer().settle();
        gateway.server.signal("TERM");
        for _ in 0..300 {
            let Got::Data(_, payload) = pair.server.got() else {
                panic!("no data");
            };
            seen.check(&payload);
        }
        expect_nobody_new(&gateway);
        // Who was not closed leaves.
        drop(pair);
        assert_eq!(gateway.server.ended(), Some(0), "{}", gateway.server.log());
        assert!(!gateway.server.log().contains("panicked"));
    }
}

#[test]
fn frames_that_the_gateway_holds_for_a_slow_server_arrive() {
    for (of_client, of_server) in PAIRS {
        let plan = Plan::new(of_server).limit("drain_timeout = \"10s\"");
        let mut gateway = plan.start();
        let mut pair = gateway.pair(of_client, ID);
        let flood = Flood::start(&pair);
        // Nobody reads: the kernel is full on both sides, and the gateway between them.
        let sent = standing_still("the client", || flood.sent.load(Ordering::SeqCst));
        flood.stopping.store(true, Ordering::SeqCst);
        let waiting = bytes_under_way(gateway.clients, pair.client.peer().local());
        let taken = (sent * (FRAME + 8)).saturating_sub(waiting) / (FRAME + 8);
        gateway.server.signal("TERM");
        let mut seen = Stream::of(1, FRAME);
        // The one that was being sent is the last.
        while seen.count() <= sent as u64 {
            match pair.server.maybe() {
                Some(Got::Data(_, payload)) => seen.check(&payload),
                Some(Got::Close(_)) | None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
        let seen = usize::try_from(seen.count()).unwrap();
        eprintln!("{sent} messages sent, {taken} taken, {seen} seen");
        // One of those that were taken may have been cut.
        assert!(seen + 1 >= taken, "{seen} of {taken} messages");
        drop(pair);
        flood.thread.join().unwrap();
        assert!(gateway.server.ended().is_some());
    }
}

/// A client that sends without a pause.
struct Flood {
    stopping: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Flood {
    fn start(pair: &Pair) -> Self {
        let (mut writer, conn) = (pair.client.writer(), pair.conn);
        let stopping = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&stopping), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut stream = Stream::of(1, FRAME);
            while !stop.load(Ordering::SeqCst) && writer.try_send(&stream.frame(conn)) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self {
            stopping,
            sent,
            thread,
        }
    }
}

#[test]
fn an_idle_gateway_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::new(DIALECTS[0]);
        gateway.server.signal(signal);
        assert_eq!(gateway.server.ended(), Some(0), "{}", gateway.server.log());
    }
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    for dialect in DIALECTS {
        let plan = Plan::new(dialect).limit("drain_timeout = \"500ms\"");
        let mut gateway = plan.start();
        let mut pair = gateway.pair(dialect, ID);
        let (_silent, _) = gateway.knock();
        gateway.server.signal("TERM");
        assert!(gateway.server.ended().is_some());
        // Closed, perhaps with the Close of the connection before.
        for end in [&mut pair.client, &mut pair.server] {
            while let Some(got) = end.maybe() {
                assert_eq!(got, Got::Close(pair.conn));
            }
        }
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let plan = Plan::new(DIALECTS[1]).limit("drain_timeout = \"10m\"");
    let mut gateway = plan.start();
    let _pair = gateway.pair(DIALECTS[1], ID);
    gateway.server.signal("TERM");
    expect_nobody_new(&gateway);
    if gateway.server.is_running() {
        gateway.server.signal("TERM");
    }
    assert!(gateway.server.ended().is_some());
}

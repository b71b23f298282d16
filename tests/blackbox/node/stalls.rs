//! A node that does not read: its visitors wait, nobody else does, and nothing is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::bulk::Numbers;
use crate::support::node::Visited;
use crate::support::node::bystander::Bystander;
use crate::support::node::message::{HEAD, frame, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;
use crate::support::window::standing_still;
use crate::support::{kernel, until};

/// What the server may hold of a flood that nobody takes, beside what the kernel does.
const HELD: u64 = 24 << 20;

/// The frame of this number of a visitor. Each part of it differs from every other, so that a lost,
/// doubled or swapped one shows; made anew for every byte it would cost more than what is tested.
fn numbered(visitor: u8, number: u32, length: usize) -> Vec<u8> {
    const PART: usize = 1024;
    let part = Numbers::new(u64::from(number) * 256 + u64::from(visitor)).bytes(PART);
    let mut body = part.repeat(length.div_ceil(PART));
    for (at, part) in (0_u64..).zip(body.chunks_exact_mut(PART)) {
        part[8..16].copy_from_slice(&at.to_be_bytes());
    }
    body.truncate(length);
    body[0] = visitor;
    body[1..5].copy_from_slice(&number.to_be_bytes());
    frame(&body)
}

/// A visitor that sends numbered frames in a thread of its own.
struct Flood {
    sent: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Flood {
    /// Sends so many, or until the connection ends.
    fn start(mut peer: Peer, visitor: u8, count: u32, length: usize) -> Self {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&sent);
        let thread = std::thread::spawn(move || {
            for number in 0..count {
                if !peer.try_send(&numbered(visitor, number, length)) {
                    return;
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
            peer.try_finish();
            let _ = peer.rest();
        });
        Self { sent, thread }
    }

    fn sent(&self) -> usize {
        self.sent.load(Ordering::SeqCst)
    }
}

/// Waits until no more is taken of any flood. All of them at once: one after the other would take so
/// long that the first gave up.
fn stand_still(floods: &[Flood]) {
    let sent = || floods.iter().map(Flood::sent).sum::<usize>();
    standing_still("the floods", sent);
}

/// The same of floods each of which begins, and none of which comes to its end.
fn expect_stuck(floods: &[Flood], count: u32) {
    let begun = |flood: &Flood| flood.sent() > 0;
    until("something is sent", || floods.iter().all(begun));
    stand_still(floods);
    let unfinished = |flood: &Flood| flood.sent() < count as usize;
    assert!(floods.iter().all(unfinished), "everything was taken");
}

#[test]
fn a_node_that_does_not_read_holds_up_its_own_visitors_only() {
    const COUNT: u32 = 2000;
    for workers in [1, 2] {
        let proxy = Plan::new(4).workers(workers).start();
        let reference = Bystander::start(&proxy);
        let Visited {
            node: mut slow,
            public,
            visitor,
        } = proxy.visited(1);
        let before = kernel::resident_bytes(proxy.process());
        let floods: Vec<Flood> = (0..4)
            .map(|number| Flood::start(Peer::connect(public), number, COUNT, 20_000))
            .collect();
        expect_stuck(&floods, COUNT);
        // 160 MB want to come; none of them may be here.
        let grown = kernel::resident_bytes(proxy.process()).saturating_sub(before);
        eprintln!("{workers} workers: {} KiB held of the flood", grown >> 10);
        assert!(grown < HELD, "{grown} bytes");
        reference.expect_going_on();
        let start = Instant::now();
        let (mut other, _) = proxy.registered(2);
        for _ in 0..20 {
            other.expect_keepalive().request();
        }
        let each = start.elapsed() / 41;
        eprintln!("{each:?} for each answer meanwhile");
        assert!(each < Duration::from_millis(500), "{each:?}");
        // Everything comes when it reads again, and in order.
        let mut next = [0; 4];
        for _ in 0..4 * COUNT {
            let got = slow.next_frame().unwrap();
            let visitor = got[HEAD];
            let number = &mut next[usize::from(visitor)];
            assert!(
                got == numbered(visitor, *number, 20_000),
                "frame {number} of {visitor}"
            );
            *number += 1;
        }
        for flood in floods {
            flood.thread.join().unwrap();
        }
        slow.expect_quiet();
        drop(visitor);
        reference.expect_undisturbed();
    }
}

#[test]
fn frames_that_are_long_wait_within_bounds() {
    const COUNT: u32 = 12;
    let proxy = Plan::new(4)
        .workers(1)
        .text("max_frame_memory", "32M")
        // It says nothing until it has read all of it.
        .text("keepalive_timeout", "1h")
        .start();
    let (mut slow, public) = proxy.registered(1);
    let before = kernel::resident_bytes(proxy.process());
    let floods: Vec<Flood> = (0..6)
        .map(|number| Flood::start(Peer::connect(public), number, COUNT, 4_000_000))
        .collect();
    // All of it is 288 MB.
    stand_still(&floods);
    let grown = kernel::resident_bytes(proxy.process()).saturating_sub(before);
    eprintln!("{} KiB held", grown >> 10);
    assert!(grown < (32 << 20) + HELD, "{grown} bytes");
    let mut other = proxy.visited(2);
    other.expect_passing(&[1; 60_000]);
    other.node.expect_keepalive();
    let mut next = [0; 6];
    for _ in 0..6 * COUNT {
        let got = slow.next_frame().unwrap();
        let visitor = got[HEAD];
        let number = &mut next[usize::from(visitor)];
        assert!(
            got == numbered(visitor, *number, 4_000_000),
            "frame {number} of {visitor}"
        );
        *number += 1;
    }
    for flood in floods {
        flood.thread.join().unwrap();
    }
    slow.expect_quiet();
}

#[test]
fn long_frames_of_a_slow_node_hold_up_no_other_nodes() {
    let proxy = Plan::new(4).workers(1).start();
    let (slow, public) = proxy.registered(1);
    let floods: Vec<Flood> = (0..100)
        .map(|number| Flood::start(Peer::connect(public), number, 100, 1_000_000))
        .collect();
    stand_still(&floods);
    let mut other = proxy.visited(2);
    let bytes = frame(&[9; 1_000_000]);
    let mut writer = other.visitor.twin();
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || writer.try_send(&sent));
    other.node.expect(&bytes);
    assert!(sending.join().unwrap());
    slow.reset();
    for flood in floods {
        flood.thread.join().unwrap();
    }
}

#[test]
fn a_node_that_does_not_read_what_it_asks_for_is_bounded_too() {
    let proxy = Plan::new(2).workers(1).start();
    let reference = Bystander::start(&proxy);
    let (mut node, _) = proxy.registered(1);
    let before = kernel::resident_bytes(proxy.process());
    let keepalives = node.message(opcode::KEEPALIVE).frame().repeat(1000);
    let mut writer = node.peer().twin();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let asking = std::thread::spawn(move || {
        for _ in 0..200 {
            writer.send(&keepalives);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    standing_still("the questions", || sent.load(Ordering::SeqCst));
    let grown = kernel::resident_bytes(proxy.process()).saturating_sub(before);
    assert!(grown < HELD, "{grown} bytes");
    reference.expect_going_on();
    // It has all of its answers when it reads.
    for _ in 0..200 * 1000 {
        node.expect_keepalive_answer();
    }
    asking.join().unwrap();
    reference.expect_undisturbed();
}

#[test]
fn a_flood_ends_with_its_node_and_leaves_nothing() {
    let proxy = Plan::new(2).workers(2).start();
    let reference = Bystander::start(&proxy);
    let mut sizes = Vec::new();
    for round in 0..6 {
        let (node, public) = proxy.registered(1);
        let floods: Vec<Flood> = (0..8)
            .map(|number| Flood::start(Peer::connect(public), number, 100_000, 30_000))
            .collect();
        expect_stuck(&floods, 100_000);
        match round % 2 {
            0 => node.reset(),
            _ => drop(node),
        }
        for flood in floods {
            flood.thread.join().unwrap();
        }
        sizes.push(kernel::resident_bytes(proxy.process()) >> 10);
    }
    eprintln!("resident KiB by round: {sizes:?}");
    assert!(sizes[5] < sizes[1] + 8192, "{sizes:?}");
    reference.expect_undisturbed();
    proxy.stop();
}

#[test]
fn many_slow_nodes_leave_room_for_one_that_reads() {
    let proxy = Proxy::new(40);
    let slow: Vec<_> = (0..30).map(|number| proxy.registered(number)).collect();
    let floods: Vec<Flood> = slow
        .iter()
        .map(|(_, public)| Flood::start(Peer::connect(*public), 1, 10_000, 50_000))
        .collect();
    expect_stuck(&floods, 10_000);
    let size = kernel::resident_bytes(proxy.process()) >> 20;
    eprintln!("{size} MiB");
    assert!(size < 200, "{size} MiB");
    let mut visited = proxy.visited(100);
    for number in 0..50 {
        visited.expect_passing(&[number; 30_000]);
    }
    drop(slow);
    for flood in floods {
        flood.thread.join().unwrap();
    }
    visited.expect_passing(b"still");
}

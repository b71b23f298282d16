//! Credit: what one visitor of mode mux may have under way, and that it costs the others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::mux::Muxed;
use crate::support::bulk::Numbers;
use crate::support::peer::Peer;
use crate::support::tunnel::frames::{WINDOW, What, frame};
use crate::support::tunnel::plan::Plan;
use crate::support::tunnel::wire::Uuid;
use crate::support::window::standing_still;
use crate::support::{kernel, until};

const TOTAL: usize = 8 << 20;

/// Sends without end in a thread of its own; how much has gone so far.
fn flood(visitor: &Peer, seed: u64) -> (Arc<AtomicUsize>, thread::JoinHandle<()>) {
    // Or the kernel might hold all of it by itself.
    let socket = socket2::SockRef::from(visitor.stream());
    socket.set_send_buffer_size(64 << 10).unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, mut writer) = (Arc::clone(&sent), visitor.twin());
    let bytes = Numbers::new(seed).bytes(TOTAL);
    let thread = thread::spawn(move || {
        for piece in bytes.chunks(16 << 10) {
            if !writer.try_send(piece) {
                return;
            }
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        writer.try_finish();
    });
    (sent, thread)
}

/// Waits until no more is taken of a flood, before its end.
fn expect_stuck(sent: &AtomicUsize) {
    let count = || sent.load(Ordering::SeqCst);
    until("something is sent", || count() > 0);
    standing_still("the flood", count);
    assert!(count() < TOTAL, "everything was taken");
}

/// Reads up to a marker, which a visitor of its own sends; the other frames' bytes are of `uuid`.
fn bytes_before_marker(muxed: &mut Muxed, uuid: &Uuid, marker: &mut (Peer, Uuid)) -> Vec<u8> {
    marker.0.send(b"marker");
    let mut bytes = Vec::new();
    loop {
        match muxed.from.next() {
            (of, What::Data(raw)) if of == marker.1 => {
                assert_eq!(raw, b"marker");
                return bytes;
            }
            (of, What::Data(raw)) if of == *uuid => bytes.extend(raw),
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_server_never_sends_more_than_it_was_granted() {
    for workers in [1, 2] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut muxed = Muxed::new(&tunnel, 1);
        let mut marker = muxed.visitor();
        let (visitor, uuid) = muxed.visitor();
        let expected = Numbers::new(1).bytes(TOTAL);
        let (sent, flooding) = flood(&visitor, 1);
        // All that needs no grant comes, however slowly, and nothing behind it.
        let mut got = muxed.from.take(&uuid, WINDOW);
        expect_stuck(&sent);
        let more = bytes_before_marker(&mut muxed, &uuid, &mut marker);
        assert!(more.is_empty(), "{} bytes before any grant", more.len());
        for grant in [1, 1000, 65_536, WINDOW - 65_536 - 1001, WINDOW] {
            muxed.from.grant(&uuid, grant);
            let before = got.len();
            while got.len() < before + grant {
                let What::Data(raw) = muxed.from.next_of(&uuid) else {
                    panic!("ended");
                };
                got.extend(raw);
            }
            assert_eq!(got.len(), before + grant, "more than was granted");
            let more = bytes_before_marker(&mut muxed, &uuid, &mut marker);
            assert!(more.is_empty(), "{} bytes of no credit", more.len());
        }
        assert!(expected.starts_with(&got), "other bytes than were sent");
        drop(visitor);
        drop(muxed);
        flooding.join().unwrap();
    }
}

#[test]
fn a_visitor_that_floods_holds_up_no_other_and_costs_no_memory() {
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let mut other = muxed.visitor();
    let before = kernel::resident_bytes(tunnel.process());
    let mut floods = Vec::new();
    for seed in 0..8 {
        let (visitor, uuid) = muxed.visitor();
        floods.push((flood(&visitor, seed), visitor, uuid));
        // All that it may send without a grant.
        muxed.from.take(&uuid, WINDOW);
    }
    for ((sent, _), _, _) in &floods {
        expect_stuck(sent);
    }
    for _ in 0..50 {
        muxed.expect_passing(&mut other, b"undisturbed");
    }
    let grown = kernel::resident_bytes(tunnel.process()).saturating_sub(before);
    eprintln!("{} KiB held of the floods", grown >> 10);
    assert!(grown < 16 << 20, "{grown} bytes");
    drop(muxed);
    for ((_, flooding), visitor, _) in floods {
        drop(visitor);
        flooding.join().unwrap();
    }
}

/// Sends to a visitor that does not read until there is no more credit for it.
fn exhaust(muxed: &mut Muxed, uuid: &Uuid) -> usize {
    let granted = Arc::new(AtomicUsize::new(WINDOW));
    let (count, mut grants, of) = (Arc::clone(&granted), muxed.to.twin(), *uuid);
    thread::spawn(move || {
        // Until the connection ends with the test.
        let mut grant = [0; 20];
        let mut have = 0;
        while let Ok(more @ 1..) = grants.peer.some(&mut grant[have..]) {
            have += more;
            if have == grant.len() {
                assert_eq!(grant[..16], of);
                let bytes = u32::from_le_bytes(grant[16..].try_into().unwrap());
                count.fetch_add(bytes as usize, Ordering::SeqCst);
                have = 0;
            }
        }
    });
    let mut sent = 0;
    let block = vec![0x5a; 16 << 10];
    loop {
        let credit = standing_still("the credit", || granted.load(Ordering::SeqCst));
        if credit - sent < block.len() {
            return sent;
        }
        while granted.load(Ordering::SeqCst) - sent >= block.len() {
            muxed.to.send(uuid, &block);
            sent += block.len();
        }
        assert!(sent < 1 << 30, "there is no end of the credit");
    }
}

#[test]
fn a_visitor_that_does_not_read_holds_up_no_other() {
    for workers in [1, 2] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut muxed = Muxed::new(&tunnel, 1);
        let (mut slow, uuid) = muxed.visitor();
        let mut other = muxed.visitor();
        let before = kernel::resident_bytes(tunnel.process());
        let sent = exhaust(&mut muxed, &uuid);
        for _ in 0..50 {
            muxed.expect_passing(&mut other, b"undisturbed");
        }
        let grown = kernel::resident_bytes(tunnel.process()).saturating_sub(before);
        eprintln!(
            "{workers} workers: {sent} bytes sent, {} KiB held",
            grown >> 10
        );
        assert!(grown < 8 << 20, "{grown} bytes");
        // Nothing of it is lost.
        muxed.to.end(&uuid);
        let (got, _) = slow.rest();
        assert!(got.len() == sent && got.iter().all(|byte| *byte == 0x5a));
    }
}

#[test]
fn a_client_that_exceeds_its_credit_is_closed_and_others_live_on() {
    for workers in [1, 2] {
        let tunnel = Plan::new(2).workers(workers).start();
        let mut bystander = Muxed::new(&tunnel, 2);
        let mut undisturbed = bystander.visitor();
        let mut muxed = Muxed::new(&tunnel, 1);
        let (visitor, uuid) = muxed.visitor();
        // Its visitor reads nothing, and grants are passed over.
        let block = vec![1; 64 << 10];
        let mut pieces = 0;
        while muxed.to.try_send(&uuid, &block) {
            pieces += 1;
            assert!(pieces < 4096, "256 MiB were taken on credit");
        }
        drop(visitor);
        for _ in 0..10 {
            bystander.expect_passing(&mut undisturbed, b"undisturbed");
        }
        bystander.client.expect_quiet();
    }
}

#[test]
fn grants_of_what_was_not_sent_end_their_connection() {
    let tunnel = Plan::new(2).workers(2).start();
    let mut bystander = Muxed::new(&tunnel, 2);
    let mut undisturbed = bystander.visitor();
    for bytes in [0, 1, 262_144, u32::MAX] {
        eprintln!("a grant of {bytes}");
        let mut muxed = Muxed::new(&tunnel, 1);
        let (mut visitor, uuid) = muxed.visitor();
        // It has sent nothing, so that its window is whole.
        muxed.from.peer.send(frame(&uuid, bytes, &[]));
        visitor.rest();
        bystander.expect_passing(&mut undisturbed, b"undisturbed");
    }
}

#[test]
fn grants_for_those_who_have_left_are_passed_over() {
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let mut other = muxed.visitor();
    for _ in 0..20 {
        let (mut visitor, uuid) = muxed.visitor();
        visitor.send([7; 1000]);
        muxed.from.expect(&uuid, &[7; 1000]);
        visitor.reset();
        assert_eq!(muxed.from.next_of(&uuid), What::Reset);
        muxed.from.grant(&uuid, 1000);
        muxed.expect_passing(&mut other, b"undisturbed");
    }
}

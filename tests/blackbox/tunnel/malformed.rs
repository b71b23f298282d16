//! Control frames that no client sends: their connection is closed, and nobody else notices.

use crate::support::bulk::Numbers;
use crate::support::kernel;
use crate::support::tunnel::bystander::Bystander;
use crate::support::tunnel::client::Client;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Expose, Uuid, closed, frame, kind, ping, withdraw};

/// A head that promises so many bytes.
fn head(kind: u8, length: u32) -> Vec<u8> {
    [&[kind], &length.to_le_bytes()[..]].concat()
}

/// Everything that ends the connection which it comes on.
fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: Vec<u8>| cases.push((name.to_owned(), bytes));
    for unknown in [0, 13, 14, 127, 255] {
        add(&format!("type {unknown}"), frame(unknown, &[]));
        add(&format!("head of type {unknown}"), head(unknown, 8));
    }
    // The head alone says enough: nobody waits for such a body.
    for length in [0, 7, 9, 65_531, 65_532, 1 << 20, 1 << 31, u32::MAX] {
        add(&format!("a ping of {length}"), head(kind::PING, length));
    }
    for length in [0, 20, 277, 65_536, u32::MAX] {
        add(&format!("a wish of {length}"), head(kind::EXPOSE, length));
    }
    let wish = Expose::named("web");
    let spoilt = |at: usize, byte: u8| {
        let mut body = wish.body();
        body[at] = byte;
        frame(kind::EXPOSE, &body)
    };
    for byte in [0, 3, 255] {
        add(&format!("transport {byte}"), spoilt(4, byte));
        add(&format!("mode {byte}"), spoilt(5, byte));
    }
    add("a name that is longer than the frame", spoilt(NAME, 200));
    add("a name that is shorter than the frame", spoilt(NAME, 1));
    add("a byte too many", {
        let body = [wish.body(), vec![0]].concat();
        frame(kind::EXPOSE, &body)
    });
    // What only a server says.
    let [v4, uuid] = [&[4, 127, 0, 0, 1, 80, 0][..], &[7; 16]];
    add("Welcome", frame(kind::WELCOME, uuid));
    add("Drain", frame(kind::DRAIN, &[0; 4]));
    add("Exposed", frame(kind::EXPOSED, &[&[0; 18], v4].concat()));
    add("Refused", frame(kind::REFUSED, &[0; 5]));
    add("Superseded", frame(kind::SUPERSEDED, &[0; 10]));
    add("PoolWanted", frame(kind::POOL_WANTED, &[0; 2]));
    add("Visit", frame(kind::VISIT, &[&[1; 50], v4].concat()));
    cases
}

/// Where a wish's name has its length.
const NAME: usize = 20;

#[test]
fn the_offset_of_the_name_is_the_one_that_the_cases_spoil() {
    assert_eq!(usize::from(Expose::named("web").body()[NAME]), 3);
}

#[test]
fn a_frame_that_no_client_sends_ends_its_connection() {
    let tunnel = Plan::new(3).workers(2).start();
    let bystanders = Bystander::start(&tunnel);
    for (number, (name, bytes)) in cases().iter().enumerate() {
        eprintln!("{name}");
        let mut client = tunnel.client(9);
        match number % 3 {
            0 => {
                client.peer.try_send(bytes);
            }
            1 => {
                // Behind good ones in one piece.
                client.peer.try_send(&[ping(1), bytes.clone()].concat());
            }
            _ => {
                let _ = bytes.iter().all(|byte| client.peer.try_send(&[*byte]));
            }
        }
        client.expect_end();
    }
    bystanders.expect_undisturbed();
    tunnel.expect_alive();
    tunnel.stop();
}

#[test]
fn garbage_behind_a_handshake_ends_its_connection() {
    let tunnel = Tunnel::new(2);
    let bystanders = Bystander::start(&tunnel);
    let mut numbers = Numbers::new(11);
    for _ in 0..50 {
        let mut client = tunnel.client(9);
        let garbage = [&[0xee][..], &numbers.bytes(4096)].concat();
        client.peer.try_send(&garbage);
        client.expect_end();
    }
    bystanders.expect_undisturbed();
    tunnel.stop();
}

#[test]
fn frames_about_what_there_is_not_are_passed_over() {
    let tunnel = Tunnel::new(2);
    let mut visited = tunnel.visited(1);
    let mut numbers = Numbers::new(3);
    for _ in 0..200 {
        // Of somebody who has just left, they are no mistake.
        let uuid: Uuid = numbers.bytes(16).try_into().unwrap();
        let service = u16::try_from(1000 + numbers.below(60_000)).unwrap();
        visited.client.send(closed(&uuid, 1));
        visited.client.send(withdraw(service));
        visited.client.send(frame(kind::PONG, &[5; 8]));
    }
    visited.client.expect_quiet();
    visited.expect_passing(b"undisturbed");
}

#[test]
fn nobody_ends_the_visitor_of_another() {
    let tunnel = Tunnel::new(2);
    let mut visited = tunnel.visited(1);
    let mut other: Client = tunnel.client(2);
    for reason in 0..=9 {
        other.send(closed(&visited.pair.visit.uuid, reason));
        other.send(withdraw(visited.service.number));
    }
    other.expect_quiet();
    visited.expect_passing(b"undisturbed");
    visited.client.expect_quiet();
    visited.expect_serving(b"still exposed");
}

#[test]
fn frames_may_come_in_any_segments() {
    let tunnel = Plan::new(40).workers(1).start();
    let mut client = tunnel.client(1);
    let wish = Expose::named("a-longer-name").frame();
    let ping = ping(7);
    for at in 1..ping.len() {
        client.send(&ping[..at]).peer.settle();
        client.send(&ping[at..]);
    }
    for byte in wish {
        client.send([byte]).peer.settle();
    }
    client.find("an answer", |got| match got {
        crate::support::tunnel::wire::Got::Exposed { .. } => Some(()),
        _ => None,
    });
    client.expect_pong();
}

#[test]
fn a_flood_of_pings_that_is_not_read_costs_no_memory() {
    let tunnel = Plan::new(2).workers(1).start();
    let bystanders = Bystander::start(&tunnel);
    let before = kernel::resident_bytes(tunnel.process());
    let client = tunnel.client(9);
    let mut writer = client.peer.twin();
    let stream = writer.stream();
    stream
        .set_write_timeout(Some(std::time::Duration::from_secs(2)))
        .unwrap();
    let many: Vec<u8> = (0..5000).flat_map(ping).collect();
    // Until the server takes no more of them, or closes: 64 MB want to come.
    for _ in 0..1000 {
        if !writer.try_send(&many) {
            break;
        }
    }
    let grown = kernel::resident_bytes(tunnel.process()).saturating_sub(before);
    assert!(
        grown < 16 << 20,
        "{grown} bytes of answers that nobody reads"
    );
    drop((writer, client));
    bystanders.expect_undisturbed();
    tunnel.stop();
}

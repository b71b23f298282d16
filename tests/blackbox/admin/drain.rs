//! Draining by the admin address, and the spread of its closes.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::server::Setup;
use crate::support::until;

#[test]
fn a_drain_that_is_asked_for_is_one_by_signal() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address)
        .admin()
        .limit("drain_timeout = \"60s\"");
    let mut server = setup.start();
    let admin = server.admin();
    let mut relay = server.open();
    admin.call("POST", "/drain", "", "").expect(202);
    until("the server refuses new clients", || {
        TcpStream::connect(server.address).is_err()
    });
    assert_eq!(admin.get("/status")["phase"], "draining");
    assert_eq!(admin.metric("towpath_draining", ""), 1.0);
    // Asked once more it goes on: only a signal stops at once.
    admin.call("POST", "/drain", "", "").expect(202);
    relay.send(b"still served").expect(b"still served");
    relay.finish().expect_end();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
}

#[test]
fn a_signal_behind_it_stops_at_once() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address)
        .admin()
        .limit("drain_timeout = \"10m\"");
    let mut server = setup.start();
    let mut relay = server.open();
    server.admin().call("POST", "/drain", "", "").expect(202);
    until("the server refuses new clients", || {
        TcpStream::connect(server.address).is_err()
    });
    server.signal("TERM");
    assert!(server.ended().is_some());
    relay.rest();
}

#[test]
fn closes_are_spread_and_the_server_ends_with_the_last() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address)
        .top("workers = 2")
        .limit("drain_timeout = \"60s\"\ndrain_spread = \"4s\"");
    let mut server = setup.start();
    let relays: Vec<_> = (0..100).map(|_| server.open()).collect();
    let start = Instant::now();
    let waits = relays.into_iter().map(|mut relay| {
        std::thread::spawn(move || {
            relay.expect_end();
            start.elapsed()
        })
    });
    // All wait before the first close: one that comes to look later would see it later.
    let waits: Vec<_> = waits.collect();
    server.signal("TERM");
    let mut ends: Vec<Duration> = waits.into_iter().map(|wait| wait.join().unwrap()).collect();
    ends.sort();
    // A slow machine makes these times longer, never shorter.
    assert!(ends[50] > Duration::from_millis(1000), "{ends:?}");
    assert!(ends[99] - ends[0] > Duration::from_millis(2000), "{ends:?}");
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    let log = server.log();
    assert_eq!(log.matches(" server stopping\n").count(), 100, "{log}");
}

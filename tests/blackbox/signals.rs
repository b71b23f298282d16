//! Signals: a drain finishes what is open, a second signal does not.

use std::net::TcpStream;
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::server::{Server, Setup};
use crate::support::until;

fn expect_no_new_clients(server: &Server) {
    until("the server refuses new clients", || {
        TcpStream::connect(server.address).is_err()
    });
}

#[test]
fn an_idle_server_ends_at_once_on_either_signal() {
    for signal in ["TERM", "INT"] {
        let mut server = Setup::new().start();
        server.store(b"id", b"s", b"v");
        server.signal(signal);
        assert_eq!(server.ended(), Some(0), "{}", server.log());
    }
}

#[test]
fn a_drain_takes_no_new_clients_and_finishes_what_is_open() {
    let backend = Backend::echo();
    for signal in ["TERM", "INT"] {
        let setup = Setup::to(backend.address).limit("drain_timeout = \"60s\"");
        let mut server = setup.start();
        let mut relays: Vec<_> = (0..10).map(|_| server.open()).collect();
        server.signal(signal);
        expect_no_new_clients(&server);
        for peer in &mut relays {
            peer.send(b"still served").expect(b"still served");
        }
        assert!(server.is_running());
        for mut peer in relays {
            peer.finish().expect_end();
        }
        assert_eq!(server.ended(), Some(0), "{}", server.log());
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let backend = Backend::echo();
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let setup = Setup::to(backend.address).limit("drain_timeout = \"10m\"");
        let mut server = setup.start();
        let mut relay = server.open();
        server.signal(first);
        expect_no_new_clients(&server);
        relay.send(b"still served").expect(b"still served");
        server.signal(second);
        assert!(
            server.ended().is_some(),
            "it ends by itself, not by the signal"
        );
        relay.rest();
    }
}

#[test]
fn a_drain_ends_at_its_timeout() {
    let backend = Backend::silent();
    let setup = Setup::to(backend.address).limit("drain_timeout = \"500ms\"");
    let mut server = setup.start();
    let mut relay = server.open();
    server.signal("TERM");
    assert!(server.ended().is_some(), "{}", server.log());
    relay.rest();
}

#[test]
fn updates_under_way_are_answered_before_the_drain_ends() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let narrow = Dialect::Document;
    let mut server = setup.start();
    let mut peer = server.connect();
    let updates = (0..50_u8).flat_map(|key| narrow.update(&[key], b"s", &[key]));
    peer.send(updates.collect::<Vec<u8>>()).settle();
    server.signal("TERM");
    let mut answered = 0;
    // What is not answered was not promised; what is answered must be there.
    let (bytes, _) = peer.finish().rest();
    let reply = narrow.header() + narrow.command(b"update", b"").len() + 4;
    answered += bytes.len() / reply;
    assert_eq!(bytes.len() % reply, 0, "a cut reply");
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    let again = setup.start();
    for key in 0..answered {
        let key = u8::try_from(key).unwrap();
        assert_eq!(again.stored(&[key], b"s"), Some(vec![key]));
    }
    assert!(answered > 0, "the frames that had arrived were served");
}

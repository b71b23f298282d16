//! Signals, and the ways in which a start fails.

use std::net::{TcpListener, TcpStream};
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

#[test]
fn the_log_names_every_listener() {
    let server = Setup::new().start();
    let line = format!("agent listening on {}", server.address);
    until("the log names the listener", || {
        server.log().contains(&line)
    });
}

#[test]
fn an_address_in_use_is_a_temporary_failure() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (code, said) = Setup::new().listen(address).fail();
    assert_eq!(code, 75, "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_second_server_on_the_same_address_does_not_share_it() {
    let first = Setup::new().start();
    let (code, said) = Setup::new().listen(first.address).fail();
    assert_eq!(code, 75, "{said}");
    assert!(said.contains(&first.address.to_string()), "{said}");
    first.expect_alive();
}

#[test]
fn a_second_server_on_the_same_data_is_a_temporary_failure() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let first = setup.start();
    first.store(b"id", b"s", b"v");
    let (code, said) = setup.fail();
    assert_eq!(code, 75, "{said}");
    assert!(said.contains(first.data().to_str().unwrap()), "{said}");
    first.expect_alive();
    first.stop();
    let second = setup.start();
    assert_eq!(second.stored(b"id", b"s").as_deref(), Some(&b"v"[..]));
    second.stop();
}

#[test]
fn a_restart_binds_the_same_address_at_once() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address);
    let first = setup.start();
    let address = first.address;
    let mut relay = first.open();
    relay.send(b"ping").expect(b"ping");
    // The killed server's connection lingers in the kernel.
    first.kill();
    let second = setup.listen(address).start();
    second.expect_alive();
    second.stop();
}

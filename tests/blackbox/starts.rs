//! Starts: what a server binds and says, and the ways in which a start fails.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::node::plan::free_ports;
use crate::support::peer::Peer;
use crate::support::server::Setup;
use crate::support::until;

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
    // The system gives nobody else this port in between.
    let address = SocketAddr::from(([127, 0, 0, 1], *free_ports(1).start()));
    let setup = Setup::to(backend.address).listen(address);
    let first = setup.start();
    let mut relay = first.open();
    relay.send(b"ping").expect(b"ping");
    // The killed server's connection lingers in the kernel.
    first.kill();
    let second = setup.start();
    second.expect_alive();
    second.stop();
}

#[test]
fn several_listeners_are_served_by_one_store() {
    let server = Setup::new()
        .flag("--agent=127.0.0.1:0")
        .flag("--agent=[::]:0")
        .start();
    let mut other: Option<SocketAddr> = None;
    until("the log names the second listener", || {
        let log = server.log();
        let line = log.split("agent listening on [::]:").nth(1);
        let port = line
            .and_then(|rest| rest.lines().next())
            .map(|port| port.parse().unwrap());
        other = port.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        other.is_some()
    });
    let narrow = Dialect::Document;
    let mut peer = Peer::connect(other.unwrap());
    peer.ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_done(b"update");
    assert_eq!(server.stored(b"id", b"s").as_deref(), Some(&b"v"[..]));
    // An IPv4 client of an IPv6 listener is told its address in its own form.
    let reply = peer.ask(narrow, &narrow.sniff());
    assert!(!reply.payload.contains(&b':'), "{reply:?}");
}

#[test]
fn any_number_of_workers_serves() {
    let backend = Backend::echo();
    for line in ["workers = 1", "workers = 2\npin = true", "workers = 7"] {
        let server = Setup::to(backend.address).top(line).start();
        for _ in 0..20 {
            server
                .open()
                .send(b"ping")
                .expect(b"ping")
                .finish()
                .expect_end();
            server.expect_alive();
        }
        server.expect_open(0);
        server.stop();
    }
}

#[test]
fn the_address_file_is_complete_whenever_it_is_there() {
    for _ in 0..10 {
        // The start reads it as soon as it appears and fails on half a file's address.
        Setup::new().start().expect_alive();
    }
}

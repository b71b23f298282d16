//! A server that may open few descriptors, and a crowd at each role's listener in turn: it costs no
//! processor time, the admin address answers, and when the crowd has left others are served.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::roles::{ROLES, address, all, connect};
use crate::support::server::Server;
use crate::support::until;
use crate::support::window::expect_calm;

/// Waits until a fresh connection to the role gets a session.
fn expect_taken(server: &Server, role: &str) {
    let mut peer: Option<Peer> = None;
    until("somebody is taken in", || {
        let fresh = peer.get_or_insert_with(|| connect(server, role));
        let listed = server.admin().sessions(&format!("peer={}", fresh.local()));
        if listed.is_empty() {
            // It may have been turned away.
            let mut byte = [0];
            fresh.stream().set_nonblocking(true).unwrap();
            let waits = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            let ended = !fresh
                .stream()
                .peek(&mut byte)
                .is_err_and(|error| waits(&error));
            fresh.stream().set_nonblocking(false).unwrap();
            if ended {
                peer = None;
            }
        }
        !listed.is_empty()
    });
}

#[test]
fn a_crowd_at_any_listener_costs_nothing_and_is_forgotten_when_it_has_left() {
    kernel::raise_own_descriptor_limit();
    let backend = Backend::echo();
    let server = all(backend.address, "")
        .top("workers = 2")
        .admin()
        .wrapper(&["prlimit", "--nofile=64:64", "--"])
        .start();
    for role in ROLES {
        let at = address(&server, role);
        let crowd: Vec<_> = (0..200).map(|_| Peer::connect(at)).collect();
        until("the listeners rest", || {
            let resting = server.admin().metric("towpath_core_listeners_resting", "");
            resting > 0.0
        });
        // Five percent of a core.
        expect_calm(server.process(), 10);
        let status = server.admin().get("/status");
        assert_eq!(status["phase"], "serving");
        assert!(
            status["overload"]["descriptors"].as_u64() > Some(0),
            "{status}"
        );
        drop(crowd);
        let left = Instant::now();
        expect_taken(&server, role);
        eprintln!("{role}: served {:?} after the crowd left", left.elapsed());
        // Rests are of half a second at most; who waits for a timeout of the crowd waits for longer.
        assert!(left.elapsed() < Duration::from_secs(15), "{role}");
    }
    server.expect_served_again();
    server.stop();
}

#[test]
fn steps_of_the_ladder_are_told_and_taken_back() {
    let backend = Backend::echo();
    let server = all(backend.address, "")
        .top("workers = 1")
        .admin()
        .wrapper(&["prlimit", "--nofile=64:64", "--"])
        .start();
    let level = || server.admin().metric("towpath_overload_level", "");
    assert_eq!(level(), 0.0);
    let mut relays = Vec::new();
    until("the server is pressed", || {
        let mut relay = connect(&server, "access");
        // It is complete before the next one comes: many at once lead past this step.
        relay.send(b"ping").expect(b"ping");
        relays.push(relay);
        level() == 1.0
    });
    let status = server.admin().get("/status");
    assert_eq!(status["overload"]["level"], "pressed", "{status}");
    // Open sessions go on.
    relays[0].send(b"ping").expect(b"ping");
    until("the log tells of it", || {
        server
            .log()
            .contains("overload level is pressed: descriptors=")
    });
    drop(relays);
    until("there is enough again", || level() == 0.0);
    until("the log tells of it", || {
        server.log().contains("overload level is normal: ")
    });
    server.expect_served_again();
    server.stop();
}

//! The control connection: wishes and their answers, several services, withdrawal, signs of life, the
//! server's end.

use std::net::TcpStream;
use std::time::Duration;

use crate::support::tunnel::Pair;
use crate::support::tunnel::client::Service;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{DIRECT, Expose, Got, MUX, TCP, UDP, refusal, withdraw};
use crate::support::until;

fn is_open(service: &Service) -> bool {
    TcpStream::connect(service.public).is_ok()
}

#[test]
fn a_service_gets_a_port_of_the_range() {
    let tunnel = Plan::new(4).text("lease", "90m").start();
    let (client, service) = tunnel.exposed(1);
    assert_eq!(service.lease_seconds, 90 * 60);
    assert_eq!(service.public.ip().to_string(), "127.0.0.1");
    assert!(
        service.epoch > 0,
        "0 is no epoch: it says that there was none"
    );
    client.leave();
    tunnel.stop();
}

#[test]
fn the_told_address_is_the_public_one() {
    let tunnel = Plan::new(1).text("public_ip", "192.0.2.7").start();
    let mut client = tunnel.client(1);
    let service = client.expose(Expose::named("web"));
    assert_eq!(service.public.ip().to_string(), "192.0.2.7");
    assert!(tunnel.ports.contains(&service.public.port()));
}

#[test]
fn several_services_live_on_one_control_connection() {
    for workers in [1, 4] {
        let tunnel = Plan::new(8).workers(workers).start();
        let mut client = tunnel.client(1);
        let services: Vec<Service> = (0..8)
            .map(|number| client.expose(Expose::named(&format!("service-{number}.a_B"))))
            .collect();
        for (at, service) in services.iter().enumerate() {
            let same =
                |other: &Service| other.number == service.number || other.public == service.public;
            assert!(!services[..at].iter().any(same), "{service:?}");
        }
        // One visitor of each, served in another order.
        let mut pairs: Vec<Pair> = services
            .iter()
            .map(|service| Pair::open(&mut client, service))
            .collect();
        for (at, pair) in pairs.iter_mut().enumerate().rev() {
            pair.expect_passing(&vec![at.to_le_bytes()[0]; 100 + at]);
        }
        client.expect_quiet();
        drop(pairs);
        client.leave();
        tunnel.stop();
    }
}

#[test]
fn a_bad_wish_is_refused_with_its_reason_and_harms_nothing() {
    let tunnel = Plan::new(3).key("max_services", "2").start();
    let mut visited = tunnel.visited(1);
    let long = "x".repeat(65);
    for name in ["", " ", "a b", "web/", "ä", "a\nb", "\0", "..\u{7f}", &long] {
        let refused = visited.client.try_expose(Expose::named(name));
        assert_eq!(refused, Err(refusal::BAD_NAME), "{name:?}");
    }
    for options in [4, 1 << 31, u32::MAX] {
        let wish = Expose::named("odd").options(options);
        assert_eq!(
            visited.client.try_expose(wish),
            Err(refusal::UNSUPPORTED),
            "{options:#x}"
        );
    }
    let again = visited.client.try_expose(Expose::named("web"));
    assert_eq!(again, Err(refusal::ALREADY_EXPOSED));
    let longest = Expose::named(&long[1..]);
    visited.client.expose(longest);
    let third = visited.client.try_expose(Expose::named("third"));
    assert_eq!(third, Err(refusal::TOO_MANY_SERVICES));
    visited.expect_passing(b"undisturbed");
    visited.client.expect_quiet();
}

#[test]
fn every_transport_and_mode_gets_a_port() {
    let tunnel = Tunnel::new(4);
    let mut client = tunnel.client(1);
    for transport in [TCP, UDP] {
        for mode in [DIRECT, MUX] {
            let wish = Expose {
                transport,
                mode,
                ..Expose::named(&format!("t{transport}m{mode}"))
            };
            client.expose(wish);
        }
    }
    client.expect_quiet();
    client.leave();
    tunnel.stop();
}

#[test]
fn a_withdrawn_service_has_no_listener_and_what_is_open_goes_on() {
    for workers in [1, 4] {
        let tunnel = Plan::new(2).workers(workers).start();
        let mut visited = tunnel.visited(1);
        let other = visited.client.expose(Expose::named("other"));
        let service = visited.service;
        visited.client.send(withdraw(service.number));
        until("the listener is gone", || !is_open(&service));
        visited.expect_passing(b"what is open goes on");
        assert!(is_open(&other));
        // The port is remembered.
        let again = visited.client.expose(Expose::named("web"));
        assert_eq!(again.public, service.public);
        let mut fresh = Pair::open(&mut visited.client, &again);
        fresh.expect_passing(b"once more").expect_finished();
        visited.expect_passing(b"and the older one");
    }
}

#[test]
fn services_end_with_their_control_connection() {
    for (workers, resets) in [(1, false), (1, true), (4, false), (4, true)] {
        let tunnel = Plan::new(2).workers(workers).start();
        let mut bystander = tunnel.visited(2);
        let visited = tunnel.visited(1);
        let service = visited.service;
        match resets {
            true => visited.client.reset(),
            false => visited.client.leave(),
        }
        until("the listener is gone", || !is_open(&service));
        bystander.expect_passing(b"undisturbed");
        drop(visited.pair);
        // The port stays on loan to the one who had it.
        let (client, again) = tunnel.exposed(1);
        assert_eq!(again.public, service.public);
        client.leave();
        bystander.leave();
        tunnel.stop();
    }
}

#[test]
fn pings_are_answered_with_their_own_number() {
    let tunnel = Tunnel::new(1);
    let mut client = tunnel.client(1);
    for _ in 0..100 {
        client.expect_quiet();
    }
    // Many at once.
    let many: Vec<u8> = (0..1000)
        .flat_map(crate::support::tunnel::wire::ping)
        .collect();
    client.send(many);
    for number in 0..1000 {
        client.find("a pong", |got| (*got == Got::Pong(number)).then_some(()));
    }
    client.expect_quiet();
}

#[test]
fn a_client_that_never_answers_is_dead_after_a_while() {
    let tunnel = Tunnel::new(1);
    let client = tunnel.client(1);
    // Three pings, 15 s apart; what it is closed with does not matter.
    let stream = client.peer.stream();
    stream
        .set_read_timeout(Some(Duration::from_secs(90)))
        .unwrap();
    client.end();
    tunnel.stop();
}

#[test]
fn a_server_that_stops_says_so() {
    for workers in [1, 2] {
        let mut tunnel = Plan::new(1).workers(workers).start();
        let mut client = tunnel.client(1);
        let service = client.expose(Expose::named("web"));
        tunnel.server.signal("TERM");
        client.find("Drain", |got| match got {
            Got::Drain(_) => Some(()),
            _ => None,
        });
        until("the listener is gone", || !is_open(&service));
        client.leave();
        assert_eq!(tunnel.server.ended(), Some(0), "{}", tunnel.server.log());
    }
}

#[test]
fn a_visitor_that_is_open_may_finish_while_the_server_stops() {
    let mut tunnel = Tunnel::new(1);
    let mut visited = tunnel.visited(1);
    visited.expect_passing(b"before");
    tunnel.server.signal("TERM");
    visited.client.find("Drain", |got| match got {
        Got::Drain(_) => Some(()),
        _ => None,
    });
    visited.expect_passing(b"meanwhile");
    visited.leave();
    assert_eq!(tunnel.server.ended(), Some(0), "{}", tunnel.server.log());
}

//! Which port a service gets: the wanted one, the remembered one, one that is free, or none.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::folder::Folder;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{ANY_PORT_WILL_DO, Expose, refusal};

#[test]
fn a_wanted_port_is_given() {
    let tunnel = Tunnel::new(5);
    let mut client = tunnel.client(1);
    for port in tunnel.ports.clone().rev() {
        let wish = Expose::named(&format!("p{port}")).port(port);
        assert_eq!(client.expose(wish).public.port(), port);
    }
}

#[test]
fn a_port_outside_of_the_range_is_refused() {
    let tunnel = Tunnel::new(3);
    let mut client = tunnel.client(1);
    let (first, last) = (*tunnel.ports.start(), *tunnel.ports.end());
    for port in [1, 22, first - 1, last + 1, u16::MAX] {
        let wish = Expose::named("web").port(port);
        let refused = client.try_expose(wish);
        assert_eq!(refused, Err(refusal::PORT_NOT_ALLOWED), "{port}");
    }
    let wish = Expose::named("web").port(last + 1);
    let other = client.expose(wish.options(ANY_PORT_WILL_DO));
    assert!(tunnel.ports.contains(&other.public.port()), "{other:?}");
}

#[test]
fn a_port_that_is_taken_is_refused() {
    let tunnel = Tunnel::new(4);
    let (client, service) = tunnel.exposed(1);
    let mut other = tunnel.client(2);
    let port = service.public.port();
    let refused = other.try_expose(Expose::named("web").port(port));
    assert_eq!(refused, Err(refusal::PORT_TAKEN));
    // By a process that knows nothing of the server, too.
    let foreign = tunnel.ports.clone().find_map(|port| {
        let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
        Some((port, listener))
    });
    let (foreign_port, _listener) = foreign.unwrap();
    let refused = other.try_expose(Expose::named("web").port(foreign_port));
    assert_eq!(refused, Err(refusal::PORT_TAKEN));
    for taken in [port, foreign_port] {
        let wish = Expose::named(&format!("any{taken}")).port(taken);
        let got = other.expose(wish.options(ANY_PORT_WILL_DO));
        assert!(
            ![port, foreign_port].contains(&got.public.port()),
            "{got:?}"
        );
    }
    client.leave();
    // One that is remembered for somebody is taken.
    let refused = other.try_expose(Expose::named("late").port(port));
    assert_eq!(refused, Err(refusal::PORT_TAKEN));
}

#[test]
fn a_range_that_is_full_is_told_at_once() {
    let tunnel = Tunnel::new(3);
    let mut clients: Vec<_> = (1..=3).map(|number| tunnel.exposed(number)).collect();
    let mut late = tunnel.client(9);
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let refused = late.try_expose(Expose::named("web"));
        times.push(start.elapsed());
        assert_eq!(refused, Err(refusal::NO_PORTS));
    }
    times.sort_unstable();
    eprintln!("refused: median {:?}, worst {:?}", times[10], times[19]);
    assert!(times[10] < Duration::from_millis(200), "{times:?}");
    for (client, _) in &mut clients {
        client.expect_quiet();
    }
    // Those who have one still get it.
    let (_again, service) = tunnel.exposed(2);
    assert_eq!(service.public, clients[1].1.public);
}

#[test]
fn a_port_of_another_process_is_skipped() {
    let plan = Plan::new(3);
    let (first, last) = (*plan.ports().start(), *plan.ports().end());
    for foreign in first..=last {
        let plan = plan.clone();
        let Ok(_listener) = TcpListener::bind(("127.0.0.1", foreign)) else {
            panic!("{foreign} is taken");
        };
        let tunnel = plan.start();
        let given: Vec<u16> = (1..=2)
            .map(|number| tunnel.exposed(number).1.public.port())
            .collect();
        assert!(
            !given.contains(&foreign) && given[0] != given[1],
            "{given:?}"
        );
        let refused = tunnel.client(3).try_expose(Expose::named("web"));
        assert_eq!(refused, Err(refusal::NO_PORTS));
    }
}

#[test]
fn the_same_client_and_name_get_the_same_port() {
    for workers in [1, 4] {
        let tunnel = Plan::new(4).workers(workers).start();
        let (client, web) = tunnel.exposed(1);
        client.leave();
        // Whoever comes meanwhile gets another.
        let (other, others) = tunnel.exposed(2);
        assert_ne!(others.public, web.public);
        for round in 0..5 {
            let mut client = tunnel.client(1);
            let ssh = client.expose(Expose::named("ssh"));
            assert_ne!(ssh.public, web.public);
            // The name decides, not the order.
            let again = client.expose(Expose::named("web"));
            assert_eq!(again.public, web.public, "round {round}");
            assert!(again.epoch > web.epoch, "{again:?} after {web:?}");
            match round % 2 {
                0 => client.leave(),
                _ => client.reset(),
            }
        }
        other.leave();
    }
}

#[test]
fn ports_are_remembered_by_a_server_that_is_started_again() {
    for kills in [false, true] {
        let folder = Arc::new(Folder::new());
        let plan = Plan::new(6).folder(&folder);
        let mut known = Vec::new();
        let mut epoch = 0;
        for round in 0..3 {
            let tunnel = plan.start();
            let mut given = Vec::new();
            let mut clients = Vec::new();
            // In another order each time.
            for number in 0..3 {
                let number = (number + round) % 3;
                let (client, service) = tunnel.exposed(number);
                given.push((number, service.public));
                clients.push(client);
                if number == 0 {
                    assert!(service.epoch > epoch, "an epoch came twice");
                    epoch = service.epoch;
                }
            }
            given.sort_unstable();
            if round > 0 {
                assert_eq!(given, known, "round {round}");
            }
            known = given;
            match kills {
                true => tunnel.server.kill(),
                false => {
                    clients.into_iter().for_each(super::leave);
                    tunnel.stop();
                }
            }
        }
    }
}

#[test]
fn a_lease_that_has_run_out_is_anybodys() {
    let tunnel = Plan::new(1).text("lease", "1s").start();
    let (client, service) = tunnel.exposed(1);
    client.leave();
    let mut other = tunnel.client(2);
    crate::support::until("the port is free again", || {
        other.try_expose(Expose::named("web")).is_ok()
    });
    let refused = tunnel.client(1).try_expose(Expose::named("web"));
    assert_eq!(refused, Err(refusal::NO_PORTS));
    assert_eq!(*tunnel.ports.start(), service.public.port());
}

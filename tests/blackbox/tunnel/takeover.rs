//! The newest client of an identity and a name has the port at once, and an older one never comes
//! back under its epoch.

use std::time::{Duration, Instant};

use crate::support::tunnel::client::{Client, Service};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Expose, refusal};
use crate::support::tunnel::{Pair, Visited};

fn expect_serving(client: &mut Client, service: &Service, payload: &[u8]) {
    Pair::open(client, service)
        .expect_passing(payload)
        .expect_finished();
}

fn takeovers(workers: usize) {
    let tunnel = Plan::new(2).workers(workers).start();
    let mut times = Vec::new();
    for round in 0..20 {
        let mut old = tunnel.visited(1);
        let start = Instant::now();
        let (mut new, service) = tunnel.exposed(1);
        assert_eq!(service.public, old.service.public);
        assert!(service.epoch > old.service.epoch);
        expect_serving(&mut new, &service, b"to the newest");
        times.push(start.elapsed());
        assert_eq!(old.client.superseded(&old.service), old.service.epoch);
        // It does not come back under its old epoch.
        let epoch = old.service.epoch;
        let refused = tunnel
            .client(1)
            .try_expose(Expose::named("web").epoch(epoch));
        assert_eq!(refused, Err(refusal::SUPERSEDED));
        expect_serving(&mut new, &service, b"still to the newest");
        match round % 3 {
            0 => old.client.leave(),
            1 => old.client.reset(),
            _ => drop(old.client),
        }
        drop(old.pair);
        expect_serving(&mut new, &service, b"when the older one is gone, too");
        new.expect_quiet();
        new.leave();
    }
    times.sort_unstable();
    eprintln!(
        "{workers} workers: median {:?}, worst {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_secs(1), "{times:?}");
    tunnel.stop();
}

#[test]
fn the_newest_has_the_port_on_one_worker() {
    takeovers(1);
}

#[test]
fn the_newest_has_the_port_on_two_workers() {
    takeovers(2);
}

#[test]
fn the_newest_has_the_port_on_four_workers() {
    takeovers(4);
}

#[test]
fn a_client_that_does_not_read_is_superseded_as_well() {
    // What a frozen process looks like: its connection is there, and nothing is taken from it.
    let tunnel = Plan::new(1).workers(2).start();
    let (mut frozen, old) = tunnel.exposed(1);
    let _visitors: Vec<_> = (0..50)
        .map(|_| crate::support::peer::Peer::connect(old.public))
        .collect();
    let (mut new, service) = tunnel.exposed(1);
    assert_eq!(service.public, old.public);
    expect_serving(&mut new, &service, b"to the newest");
    assert_eq!(frozen.superseded(&old), old.epoch);
}

#[test]
fn a_row_of_takeovers_leaves_the_last_one_served() {
    for workers in [1, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut clients: Vec<_> = (0..30).map(|_| tunnel.exposed(1)).collect();
        let (mut last, service) = clients.pop().unwrap();
        let epochs: Vec<u64> = clients.iter().map(|(_, service)| service.epoch).collect();
        assert!(epochs.is_sorted_by(|one, two| one < two), "{epochs:?}");
        for (mut client, old) in clients {
            assert_eq!(client.superseded(&old), old.epoch);
            assert_eq!(old.public, service.public);
            client.reset();
        }
        expect_serving(&mut last, &service, b"the last");
        last.expect_quiet();
    }
}

#[test]
fn a_client_that_comes_back_under_its_epoch_goes_on() {
    for workers in [1, 2] {
        let tunnel = Plan::new(2).workers(workers).start();
        let (client, mut service) = tunnel.exposed(1);
        client.reset();
        for _ in 0..10 {
            let mut client = tunnel.client(1);
            let again = client.expose(Expose::named("web").epoch(service.epoch));
            assert_eq!(again.public, service.public);
            service = again;
            expect_serving(&mut client, &service, b"back");
            client.reset();
        }
    }
}

#[test]
fn a_client_that_reconnects_while_its_old_connection_is_thought_alive_gets_its_port() {
    let tunnel = Plan::new(1).workers(2).start();
    let (mut old, service) = tunnel.exposed(1);
    let mut client = tunnel.client(1);
    let again = client.expose(Expose::named("web").epoch(service.epoch));
    assert_eq!(again.public, service.public);
    expect_serving(&mut client, &again, b"back");
    assert_eq!(old.superseded(&service), service.epoch);
}

#[test]
fn two_names_of_one_identity_live_side_by_side() {
    for workers in [1, 4] {
        let tunnel = Plan::new(2).workers(workers).start();
        let mut web = tunnel.client(1);
        let web_service = web.expose(Expose::named("web"));
        let mut ssh = tunnel.client(1);
        let ssh_service = ssh.expose(Expose::named("ssh"));
        assert_ne!(web_service.public, ssh_service.public);
        for _ in 0..5 {
            expect_serving(&mut web, &web_service, b"web");
            expect_serving(&mut ssh, &ssh_service, b"ssh");
        }
        web.expect_quiet();
        // Only the name that was taken over is lost.
        let mut newer = tunnel.client(1);
        let taken = newer.expose(Expose::named("ssh"));
        assert_eq!(taken.public, ssh_service.public);
        ssh.superseded(&ssh_service);
        expect_serving(&mut web, &web_service, b"web still");
        expect_serving(&mut newer, &taken, b"the newer ssh");
        web.expect_quiet();
    }
}

#[test]
fn one_of_two_services_of_a_connection_is_taken_over() {
    let tunnel = Plan::new(2).workers(2).start();
    let Visited {
        client: mut old,
        service: web,
        mut pair,
    } = tunnel.visited(1);
    let ssh = old.expose(Expose::named("ssh"));
    let mut new = tunnel.client(1);
    let taken = new.expose(Expose::named("ssh"));
    assert_eq!(
        (taken.public, old.superseded(&ssh)),
        (ssh.public, ssh.epoch)
    );
    pair.expect_passing(b"undisturbed");
    expect_serving(&mut old, &web, b"the other name");
    expect_serving(&mut new, &taken, b"the name that was taken");
    old.expect_quiet();
}

#[test]
fn another_identity_takes_nothing_over() {
    let tunnel = Tunnel::new(2);
    let mut first = tunnel.visited(1);
    let mut second = tunnel.visited(2);
    assert_ne!(first.service.public, second.service.public);
    let wish = Expose::named("web").port(first.service.public.port());
    let refused = tunnel.client(3).try_expose(wish);
    assert_eq!(refused, Err(refusal::PORT_TAKEN));
    first
        .expect_passing(b"undisturbed")
        .expect_serving(b"first");
    second
        .expect_passing(b"undisturbed")
        .expect_serving(b"second");
    first.client.expect_quiet();
}

#[test]
fn a_superseded_epoch_stays_void_over_a_restart() {
    let folder = std::sync::Arc::new(crate::support::folder::Folder::new());
    let plan = Plan::new(2).folder(&folder);
    let tunnel = plan.start();
    let (_old, old) = tunnel.exposed(1);
    let (_new, new) = tunnel.exposed(1);
    assert!(new.epoch > old.epoch);
    tunnel.server.kill();
    let tunnel = plan.start();
    let mut client = tunnel.client(1);
    // Whoever was the newest comes back, whoever was not does not.
    let again = client.expose(Expose::named("web").epoch(new.epoch));
    assert_eq!(again.public, new.public);
    let refused = tunnel
        .client(1)
        .try_expose(Expose::named("web").epoch(old.epoch));
    assert_eq!(refused, Err(refusal::SUPERSEDED));
    expect_serving(&mut client, &again, b"undisturbed");
}

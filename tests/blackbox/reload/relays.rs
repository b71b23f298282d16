//! Relays live through reloads; those of what is removed drain, and the others do not notice.

use crate::support::backend::Backend;
use crate::support::frame::Dialect;
use crate::support::peer::Peer;
use crate::support::route::Route;
use crate::support::server::{Server, Setup};
use crate::support::{kernel, until};

use super::{reload, reloaded};

fn echo(relays: &mut [Peer], words: &str) {
    for relay in relays.iter_mut() {
        relay.send(words);
    }
    for relay in relays {
        relay.expect(words);
    }
}

#[test]
fn a_thousand_relays_live_through_five_reloads_in_one_process() {
    kernel::raise_own_descriptor_limit();
    let backend = Backend::echo();
    let setup = Setup::to(backend.address).admin();
    let mut server = setup.start();
    let mut relays: Vec<Peer> = (0..1000).map(|_| server.open()).collect();
    echo(&mut relays, "before");
    let (mut rounds, mut grown) = (0, Vec::new());
    loop {
        let before = kernel::resident_bytes(server.process());
        for round in rounds..rounds + 5 {
            reload_beside(&mut relays, &server, &setup, &backend, round);
        }
        rounds += 5;
        let after = kernel::resident_bytes(server.process());
        if after <= before + before / 20 {
            break;
        }
        // What is needed once may have come late; what leaks grows each time.
        grown.push((before, after));
        assert!(grown.len() < 3, "{grown:?} bytes before and behind");
    }
    assert!(server.is_running());
    let status = server.admin().get("/status");
    assert_eq!(status["pid"].as_u64(), Some(u64::from(server.process())));
    assert_eq!(status["config"]["reloads"].as_u64(), Some(rounds));
    assert_eq!(server.admin().metric("towpath_sessions", "agent"), 1000.0);
    assert!(!server.log().contains("panicked"));
    for mut relay in relays {
        relay.finish().expect_end();
    }
    server.stop();
}

/// One reload that brings something, while the relays go on.
fn reload_beside(
    relays: &mut [Peer],
    server: &Server,
    setup: &Setup,
    backend: &Backend,
    round: u64,
) {
    let route = Route::new(&format!("extra{round}")).host("default", backend.address);
    let access = format!(
        "[[chain.access]]\nname = \"door{round}\"\nlisten = \"127.0.0.1:0\"\nvia = []\nto = \"{}\"\n",
        backend.address
    );
    let setup = setup
        .clone()
        .limit(&format!("idle_timeout = \"{}m\"", 20 + round))
        .route(route)
        .tables(&access);
    server.rewrite(&setup);
    let changes = reloaded(server).join("\n");
    let want = [
        format!("route added: extra{round} default"),
        format!("listener added: access door{round}"),
        format!("-> {}m", 20 + round),
    ];
    for part in want {
        assert!(changes.contains(&part), "{part}: {changes}");
    }
    // What came with this round is served, and so are all who were there before.
    let at = server.access_now_at(&format!("door{round}")).unwrap();
    let mut visitor = Peer::connect(at);
    visitor.send("in").expect("in").finish().expect_end();
    echo(relays, &format!("round {round}"));
}

/// Two services that lead to one backend.
fn two(backend: &Backend, drain: &str) -> (Setup, Setup) {
    let one = Setup::to(backend.address)
        .admin()
        .limit(&format!("drain_timeout = \"{drain}\""));
    let other = Route::new("other").host("default", backend.address);
    (one.clone().route(other), one)
}

fn other(server: &Server) -> Peer {
    let mut relay = server.relay(Dialect::Stock, "other", "x", "");
    relay.send("there").expect("there");
    relay
}

fn expect_unknown(server: &Server, service: &str) {
    let mut peer = server.connect();
    peer.send(Dialect::Stock.traffic(service.as_bytes(), b"x", b""));
    peer.expect_closed();
}

#[test]
fn the_relays_of_a_removed_route_may_come_to_their_end() {
    let backend = Backend::echo();
    let (both, one) = two(&backend, "10m");
    let server = both.start();
    let (mut stays, mut leaves) = (server.open(), other(&server));
    let waiting = server.connect();
    waiting.settle();
    server.rewrite(&one);
    let trial = reload(&server, &["--dry-run"]).expect(0).text();
    let line = "route removed: other default (1 connection drains)\n";
    assert!(trial.contains(line), "{trial}");
    other(&server).finish().expect_end();
    let done = reload(&server, &[]).expect(0).text();
    assert!(done.contains(line), "{done}");
    expect_unknown(&server, "other");
    // One that was there already asks by the new configuration, too.
    let mut waiting = waiting;
    waiting.send(Dialect::Stock.traffic(b"other", b"x", b""));
    waiting.expect_closed();
    leaves.send("still").expect("still").finish().expect_end();
    stays.send("still").expect("still").finish().expect_end();
    server.stop();
}

#[test]
fn the_relays_of_a_removed_route_are_ended_when_their_time_is_over() {
    let backend = Backend::echo();
    let (both, one) = two(&backend, "300ms");
    let server = both.start();
    let (mut stays, mut leaves) = (server.open(), other(&server));
    server.rewrite(&one);
    reloaded(&server);
    leaves.expect_end();
    stays.send("still").expect("still");
    until("the end is told in the log", || {
        let log = server.log();
        log.lines().any(|line| {
            line.contains("service=other") && line.contains("removed from the configuration")
        })
    });
    let rows = server.admin().sessions("role=agent");
    assert_eq!(rows.len(), 1, "{rows:?}");
    stays.finish().expect_end();
    server.stop();
}

#[test]
fn a_route_that_leads_elsewhere_does_so_for_new_connections() {
    let (first, second) = (Backend::banner("first"), Backend::banner("second"));
    let token = |word: &str, at| Route::new("svc").token(word).host("default", at);
    let setup = Setup::new().admin();
    let server = setup.clone().route(token("old", first.address)).start();
    server
        .relay(Dialect::Stock, "svc", "x", "old")
        .expect("first");
    server.rewrite(&setup.clone().route(token("new", second.address)));
    reloaded(&server);
    let mut refused = server.connect();
    refused.send(Dialect::Stock.traffic(b"svc", b"x", b"old"));
    refused.expect_closed();
    server
        .relay(Dialect::Stock, "svc", "x", "new")
        .expect("second");
    server.rewrite(&setup.route(token("newer", second.address)));
    let at = second.address;
    let other =
        format!("route changed: svc default: {at} with a token -> {at} with a token, another one");
    assert_eq!(reloaded(&server), [other]);
    server
        .relay(Dialect::Stock, "svc", "x", "newer")
        .expect("second");
    let log = server.log();
    assert!(!log.contains("newer") && !log.contains("\"old"), "{log}");
    server.stop();
}

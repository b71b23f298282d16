//! What goes wrong changes nothing: mistakes in the file, addresses that are taken, and trials.

use std::net::TcpListener;

use crate::support::backend::Backend;
use crate::support::node::plan::free_ports;
use crate::support::route::Route;
use crate::support::server::Setup;
use crate::support::until;

use super::{reload, reloaded};

#[test]
fn a_broken_file_is_told_with_its_places_and_the_old_one_serves() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address).admin();
    let server = setup.start();
    let mut relay = server.open();
    let broken = setup
        .clone()
        .limit("idle_timeout = 5\nhandshake_time = \"5s\"");
    server.rewrite(&broken);
    for words in [&[][..], &["--dry-run"], &["--json"]] {
        let failed = reload(&server, words).expect(78);
        if words == ["--json"] {
            let told: serde_json::Value = serde_json::from_str(&failed.text()).unwrap();
            assert_eq!(told["mistakes"].as_array().map(Vec::len), Some(2), "{told}");
        }
        for part in [
            "towpath.toml:3:16: error: ",
            "towpath.toml:4:1: error: ",
            "the nearest known one is `handshake_timeout`",
        ] {
            assert!(failed.error.contains(part), "{part}: {}", failed.error);
        }
    }
    server.rewrite_as("[agent\n");
    let failed = reload(&server, &[]).expect(78);
    assert!(
        failed.error.contains("towpath.toml:1:7: error: "),
        "{}",
        failed.error
    );
    relay.send("still").expect("still").finish().expect_end();
    server
        .open()
        .send("new")
        .expect("new")
        .finish()
        .expect_end();
    let admin = server.admin();
    assert_eq!(admin.metric("towpath_reloads_total", "outcome=\"ok\""), 0.0);
    assert_eq!(admin.metric("towpath_reloads_total", "failed"), 3.0);
    let begun = admin.metric("towpath_start_time_seconds", "");
    assert!((admin.metric("towpath_config_time_seconds", "") - begun).abs() < 0.01);
    server.rewrite(&setup);
    assert_eq!(reloaded(&server), [""; 0]);
    assert_eq!(admin.metric("towpath_reloads_total", "outcome=\"ok\""), 1.0);
    assert!(admin.metric("towpath_config_time_seconds", "") > begun);
    server.stop();
}

#[test]
fn an_address_that_is_taken_leaves_the_whole_configuration_as_it_was() {
    let backend = Backend::echo();
    // When it is free again, the system gives it to nobody else.
    let taken = TcpListener::bind(("127.0.0.1", *free_ports(1).start())).unwrap();
    let setup = Setup::to(backend.address).admin();
    let server = setup.start();
    let other = Route::new("other").host("default", backend.address);
    let tables = format!(
        "[gateway]\nclients = [\"{}\"]\n",
        taken.local_addr().unwrap()
    );
    let both = setup.route(other).tables(&tables);
    server.rewrite(&both);
    let failed = reload(&server, &[]).expect(1);
    assert!(
        failed.error.contains("gateway-clients cannot listen on"),
        "{}",
        failed.error
    );
    let routes = server.admin().get("/routes");
    assert_eq!(routes["routes"].as_array().unwrap().len(), 1);
    drop(taken);
    let changes = reloaded(&server).join("\n");
    assert!(
        changes.contains("listener added: gateway-clients"),
        "{changes}"
    );
    until("the log tells of it", || {
        server.log().contains("stays in force")
    });
    server.stop();
}

#[test]
fn a_trial_changes_nothing_and_what_needs_a_restart_is_named() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address).admin().top("workers = 2");
    let server = setup.start();
    let mut relay = server.open();
    let other = Setup::new()
        .top("workers = 3\nspin = \"20us\"")
        .limit("idle_timeout = \"7m\"")
        .tables("[node]\nlisten = [\"127.0.0.1:0\"]\n");
    server.rewrite(&other);
    let want = [
        "route removed: svc default (1 connection drains)",
        "limits.idle_timeout: 10m -> 7m",
        "workers: 2 -> 3 needs a restart",
        "spin: 0s -> 20us needs a restart",
        "node: its ports are not lent by this process; to turn it on needs a restart",
        "would be in force: 2; would need a restart: 3; connections that would drain: 1",
    ];
    for _ in 0..2 {
        let trial = reload(&server, &["--dry-run"]).expect(0).text();
        for part in want {
            assert!(trial.contains(part), "{part}: {trial}");
        }
    }
    assert_eq!(server.now_at("node"), None);
    let mut new = server.open();
    new.send("new").expect("new").finish().expect_end();
    assert!(!server.log().contains("route removed"));
    let done = reload(&server, &["--json"]).expect(0).text();
    let done: serde_json::Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done["needs_restart"].as_array().unwrap().len(), 3);
    assert_eq!(done["connections_affected"], 1);
    // What was not done is told again, what was done is not.
    let again = reloaded(&server);
    assert_eq!(again.len(), 3, "{again:?}");
    relay.send("still").expect("still").finish().expect_end();
    server.stop();
}

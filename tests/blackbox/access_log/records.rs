//! What stands in the records, and that there is one for each session.

use std::path::Path;

use super::{Logged, with};
use crate::support::backend::{Backend, Refusing};
use crate::support::frame::Dialect;
use crate::support::peer::Peer;
use crate::support::route::Route;
use crate::support::server::Setup;
use crate::support::tunnel::Visited;
use crate::support::tunnel::plan::Tunnel;
use crate::support::tunnel::program::Program;
use crate::support::until;

#[test]
fn a_record_tells_of_the_session_in_text() {
    let backend = Backend::banner("welcome|");
    let logged = Logged::start(Setup::to(backend.address), "text");
    let mut relay = logged.server.open();
    relay.expect("welcome|").send(b"ping").expect(b"ping");
    let peer = relay.local();
    relay.finish().expect_end();
    logged.expect_recorded(1);
    let text = std::fs::read_to_string(&logged.path).unwrap();
    let words: Vec<_> = text.trim_end().split(' ').collect();
    let word = |key: &str| {
        let mut values = words.iter().filter_map(|word| word.split_once('='));
        let found = values.find(|(known, _)| *known == key);
        found.unwrap_or_else(|| panic!("no {key} in {text}")).1
    };
    assert_eq!(word("time").len(), "2026-11-21T02:05:58.190Z".len());
    assert!(word("id").starts_with('w') && word("id").contains('#'));
    assert_eq!((word("role"), word("listener")), ("agent", "agent"));
    assert_eq!(word("peer"), peer.to_string());
    assert_eq!(word("upstream"), backend.address.to_string());
    assert_eq!(word("up"), "4");
    let greeting = Dialect::Stock.greeting().len();
    assert_eq!(word("down"), (greeting + "welcome|ping".len()).to_string());
    assert!(word("seconds").parse::<f64>().unwrap() < 30.0);
    assert!(word("connect_ms").parse::<f64>().unwrap() < 30_000.0);
    assert_eq!((word("reason"), word("close")), ("finished", "finished"));
    assert_eq!((word("service"), word("field")), ("svc", "default"));
    assert_eq!(word("to"), backend.address.to_string());
    logged.server.stop();
}

#[test]
fn every_session_has_one_record_however_it_ends() {
    let backend = Backend::echo();
    let refusing = Refusing::new();
    let tables = format!(
        "[[chain.access]]\nname = \"db\"\nlisten = \"127.0.0.1:0\"\nvia = []\nto = \"{}\"\n\
         [node]\nlisten = [\"127.0.0.1:0\"]\n[tunnel]\nlisten = [\"127.0.0.1:0\"]\n\
         [gateway]\nclients = [\"127.0.0.1:0\"]\nservers = [\"127.0.0.1:0\"]\n",
        backend.address
    );
    let setup = Setup::to(backend.address)
        .route(Route::new("gone").host("default", refusing.address))
        .top("workers = 2")
        .tables(&tables);
    let logged = Logged::start(setup, "json");
    let server = &logged.server;
    for _ in 0..5 {
        server.open().send(b"x").expect(b"x").finish().expect_end();
        server
            .access("db")
            .send(b"y")
            .expect(b"y")
            .finish()
            .expect_end();
        server.expect_alive();
    }
    let lost = Dialect::Stock.traffic(b"gone", b"x", b"");
    server.connect().send(&lost).expect_closed();
    let unknown = Dialect::Stock.traffic(b"nobody", b"x", b"");
    server.connect().send(&unknown).expect_closed();
    server.connect().send([0xff; 64]).expect_closed();
    for role in ["node", "tunnel", "gateway-clients", "gateway-servers"] {
        let at = server.addresses[role][0].as_str().unwrap();
        let mut peer = Peer::connect(at.parse().unwrap());
        peer.send([0xff; 600]).try_finish();
        peer.rest();
    }
    // A query and an update are two connections of expect_alive.
    logged.expect_recorded(5 + 5 + 10 + 3 + 4);
    let records = logged.records();
    assert_eq!(records.len(), 27, "{records:#?}");
    let mut ids: Vec<_> = records.iter().map(|record| record["id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!(ids.len(), 27, "an id is there twice");
    for record in &records {
        assert!(
            record["peer"].is_string() && record["seconds"].is_number(),
            "{record}"
        );
        assert!(record["up"].is_u64() && record["down"].is_u64(), "{record}");
    }
    let access = with(&records, "role", "access");
    assert_eq!(
        (access.len(), &access[0]["listener"]),
        (5, &"access db".into())
    );
    assert_eq!(access[0]["upstream"], backend.address.to_string());
    assert!(access[0]["connect_ms"].is_number());
    let unreachable = with(&records, "reason", "unreachable");
    assert_eq!(unreachable[0]["service"], "gone");
    assert!(unreachable[0]["connect_ms"].is_null());
    let denied = with(&records, "reason", "denied")[0];
    assert_eq!(denied["close"], "downstream: denied: service unknown");
    assert_eq!(
        (&denied["service"], &denied["field"]),
        (&"nobody".into(), &"x".into())
    );
    for role in ["node", "tunnel", "gateway-clients", "gateway-servers"] {
        assert_eq!(with(&records, "role", role).len(), 1, "{role}");
    }
    logged.server.stop();
}

#[test]
fn what_leaves_at_the_end_of_a_session_is_counted() {
    let backend = Backend::echo();
    let logged = Logged::start(Setup::to(backend.address), "json");
    let dialect = Dialect::Stock;
    let mut answered = Vec::new();
    for request in [
        dialect.update(b"a", b"b", &[7; 100_000]),
        dialect.query(b"a", b"b"),
    ] {
        // A stock client is closed behind its answer, which is still queued then.
        let (answer, _) = logged.server.connect().send(&request).rest();
        answered.push(answer.len() as u64);
    }
    assert!(answered[1] > 100_000, "{answered:?}");
    logged.expect_recorded(2);
    let down: Vec<_> = logged
        .records()
        .iter()
        .map(|record| record["down"].clone())
        .collect();
    assert_eq!(down, answered);
    logged.server.stop();
}

#[test]
fn a_visitor_of_a_tunnel_has_one_record_with_both_addresses() {
    let folder = crate::support::folder::Folder::new();
    let path = folder.path().join("access.log");
    let tunnel: Tunnel = crate::support::tunnel::plan::Plan::new(4)
        .workers(2)
        .flag("--admin=127.0.0.1:0")
        .flag(&format!("--access-log={}", path.display()))
        .flag("--log-format=json")
        .start();
    let visited: Visited = tunnel.visited(1);
    let visitor = visited.pair.visitor.local();
    visited.leave();
    let admin = tunnel.server.admin();
    until("the sessions are recorded", || {
        admin.metric("towpath_access_records_total", "") == 2.0
    });
    let records = super::json_records(&path);
    let [record] = with(&records, "peer", &visitor.to_string())[..] else {
        panic!("{records:#?}");
    };
    assert_eq!(record["service"], "web", "{record}");
    assert_eq!(record["visitor"], visitor.to_string(), "{record}");
    let upstream = record["upstream"].as_str().unwrap();
    assert!(upstream.starts_with("127.0.0.1:"), "{record}");
    assert_eq!(
        (&record["role"], &record["reason"]),
        (&"tunnel".into(), &"finished".into())
    );
    let control = with(&records, "control", "true");
    assert!(
        control.is_empty(),
        "a word that stands alone is the value true"
    );
    assert!(records.iter().any(|record| record["control"] == true));
    tunnel.stop();
}

#[test]
fn a_visitor_in_frames_is_listed_and_recorded_with_both_addresses() {
    let folder = crate::support::folder::Folder::new();
    let path = folder.path().join("access.log");
    for mode in ["--mux", "--direct"] {
        for records in [false, true] {
            let mut plan = crate::support::tunnel::plan::Plan::new(1)
                .flag("--admin=127.0.0.1:0")
                .flag("--log-format=json");
            if records {
                plan = plan.flag(&format!("--access-log={}{mode}", path.display()));
            }
            let (tunnel, backend) = (plan.start(), Backend::echo());
            let admin = tunnel.server.admin();
            let identity = folder.path().join("expose.id");
            let words = [mode, &format!("web={}", backend.address)];
            let program = Program::start(tunnel.address, &identity, &words);
            let mut visitor = Peer::connect(program.public());
            visitor.send(b"hello").expect(b"hello");
            let peer = visitor.local().to_string();
            let rows = admin.sessions(&format!("peer={peer}"));
            let [row] = &rows[..] else { panic!("{rows:?}") };
            assert_eq!(row["peer"], peer, "{row}");
            visitor.finish().expect_end();
            program.stop();
            if records {
                // The visitor, the control connection, and what serves the frames.
                let count = if mode == "--mux" { 3.0 } else { 2.0 };
                until("all are recorded", || {
                    admin.metric("towpath_access_records_total", "") == count
                });
                let path = format!("{}{mode}", path.display());
                let records = super::json_records(Path::new(&path));
                let [record] = with(&records, "peer", &peer)[..] else {
                    panic!("{records:#?}");
                };
                let upstream = record["upstream"].as_str();
                let is_client = |text: &str| text.starts_with("127.0.0.1:");
                assert!(upstream.is_some_and(is_client), "{record}");
            }
        }
    }
}

#[test]
fn a_kick_shows_in_the_record_of_exactly_that_session() {
    let backend = Backend::echo();
    let logged = Logged::start(Setup::to(backend.address), "json");
    let admin = logged.server.admin();
    let mut relays: Vec<_> = (0..3).map(|_| logged.server.open()).collect();
    let mut victim = relays.remove(1);
    victim.send(b"before").expect(b"before");
    until("the session is listed", || {
        !admin
            .sessions(&format!("peer={}", victim.local()))
            .is_empty()
    });
    let rows = admin.sessions(&format!("peer={}", victim.local()));
    let id = rows[0]["id"].as_str().unwrap();
    admin.kick(id).expect(200);
    victim.expect_end();
    for relay in &mut relays {
        relay
            .send(b"goes on")
            .expect(b"goes on")
            .finish()
            .expect_end();
    }
    logged.expect_recorded(3);
    let records = logged.records();
    let [kicked] = with(&records, "reason", "kicked")[..] else {
        panic!("{records:#?}");
    };
    assert_eq!(
        (kicked["id"].as_str(), &kicked["up"]),
        (Some(id), &6.into())
    );
    assert_eq!(kicked["close"], "kicked");
    assert_eq!(with(&records, "reason", "finished").len(), 2);
    logged.server.stop();
}

#[test]
fn no_name_makes_a_second_record_or_breaks_one() {
    let backend = Backend::echo();
    let name = "we ird\nrole=evil id=w9#9.9 \u{1b}[2J\"\\=";
    let text = format!("{name}\r\n{{\"role\":\"evil\"}}\u{85}\u{2028}");
    for format in ["text", "json"] {
        let route = Route::new(name).host(&text, backend.address);
        let logged = Logged::start(Setup::new().route(route), format);
        let dialect = Dialect::Stock;
        let request = dialect.traffic(name.as_bytes(), text.as_bytes(), b"");
        let mut relay = logged.server.connect();
        relay.send(&request).expect(dialect.greeting());
        relay.finish().expect_end();
        // What is no UTF-8 and nobody's name is not repeated, and breaks nothing.
        let request = dialect.traffic(b"\xff\xfe\n", b"\"\x1b", b"");
        logged.server.connect().send(&request).expect_closed();
        logged.expect_recorded(2);
        let written = std::fs::read_to_string(&logged.path).unwrap();
        assert_eq!(written.lines().count(), 2, "{written:?}");
        assert!(
            !written.replace('\n', "").contains(char::is_control),
            "{written:?}"
        );
        if format == "json" {
            let records = logged.records();
            let record = with(&records, "reason", "finished")[0];
            assert_eq!(
                (&record["service"], &record["field"]),
                (&name.into(), &text.as_str().into())
            );
            assert_eq!(with(&records, "role", "agent").len(), 2);
        }
        let log = logged.server.log();
        assert!(
            log.lines().all(|line| !line.starts_with("role=")),
            "{log:?}"
        );
        assert!(!log.replace('\n', "").contains(char::is_control), "{log:?}");
        logged.server.stop();
    }
}

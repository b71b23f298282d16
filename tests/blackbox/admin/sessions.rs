//! Sessions listed, filtered, in pages, and ended one at a time.

use std::collections::HashSet;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::server::{Server, Setup};
use crate::support::window::standing_still;
use crate::support::{kernel, until};

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until the agent role has so many sessions.
fn expect_sessions(server: &Server, count: usize) {
    until("the sessions are there", || {
        server.admin().sessions("role=agent&limit=1000").len() == count
    });
}

#[test]
fn sessions_are_listed_with_the_bytes_of_relays_that_go_on() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).admin().start();
    let admin = server.admin();
    let mut relays: Vec<_> = (0..5).map(|_| server.open()).collect();
    expect_sessions(&server, 5);
    relays[2].send(vec![b'x'; 1000]).take(1000);
    let peer = relays[2].local();
    let rows = admin.sessions(&format!("peer={peer}"));
    let [row] = &rows[..] else {
        panic!("{rows:?}");
    };
    let wanted = [
        ("role", "agent"),
        ("listener", "agent"),
        ("peer", &peer.to_string()),
    ];
    for (name, value) in wanted {
        assert_eq!(row[name], value, "{row}");
    }
    assert_eq!(
        (&row["connections"], &row["own"]),
        (&2.into(), &false.into())
    );
    let about = row["about"].as_str().unwrap();
    assert!(
        about.contains("service=svc") && about.contains("field=default"),
        "{about}"
    );
    assert!(
        row["bytes_up"].as_u64() >= Some(1000) && row["bytes_down"].as_u64() >= Some(1000),
        "{row}"
    );
    assert_eq!(admin.sessions("peer=127.0.0.1&role=agent").len(), 5);
    for none in [
        "peer=127.0.0.2",
        "role=node",
        "listener=agent%20x",
        "peer=127.0.0.1:1",
    ] {
        assert!(admin.sessions(none).is_empty(), "{none}");
    }
    drop(relays);
    server.stop();
}

#[test]
fn pages_lead_to_every_session_once() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .admin()
        .top("workers = 2")
        .start();
    let admin = server.admin();
    let relays: Vec<_> = (0..23).map(|_| server.open()).collect();
    expect_sessions(&server, 23);
    for limit in [1, 5, 23, 1000] {
        let mut seen = HashSet::new();
        let mut after = String::new();
        loop {
            let page = admin.get(&format!("/sessions?role=agent&limit={limit}{after}"));
            let rows = page["sessions"].as_array().unwrap();
            assert!(rows.len() <= limit);
            assert!(
                ids(rows).into_iter().all(|id| seen.insert(id)),
                "told twice"
            );
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 23, "in pages of {limit}");
    }
    drop(relays);
    server.stop();
}

#[test]
fn a_kick_ends_exactly_one_session() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .admin()
        .top("workers = 2")
        .start();
    let admin = server.admin();
    let mut relays: Vec<_> = (0..6).map(|_| server.open()).collect();
    expect_sessions(&server, 6);
    let mut victim = relays.remove(3);
    victim.send(b"before").expect(b"before");
    // The echo has come back, so that nothing of it is under way.
    let rows = admin.sessions(&format!("peer={}", victim.local()));
    let id = ids(&rows).remove(0);
    assert_eq!(admin.kick(&id).expect(200).json()["kicked"], id.as_str());
    victim.expect_end();
    for relay in &mut relays {
        relay.send(b"goes on").expect(b"goes on");
    }
    // Its name is nobody's from now on, whoever has its place.
    let mut next: Vec<_> = (0..4).map(|_| server.open()).collect();
    admin.kick(&id).expect(404);
    for relay in &mut next {
        relay.send(b"goes on").expect(b"goes on");
    }
    let deleted = format!("DELETE /sessions/{id} 200");
    until("the log tells of it", || {
        let log = server.log();
        log.contains(" kicked\n") && log.contains(&deleted)
    });
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains(&format!("agent {id} ")))
        .unwrap();
    assert!(line.contains(" up=") && line.ends_with(" kicked"), "{line}");
    assert_eq!(log.matches(" kicked\n").count(), 1, "{log}");
    assert_eq!(
        admin.metric("towpath_sessions_ended_total", "reason=\"kicked\""),
        1.0
    );
    drop((relays, next));
    server.stop();
}

#[test]
fn a_relay_cut_while_bytes_are_under_way_does_not_end_as_a_whole_one() {
    let backend = Backend::serve(|mut peer, _| {
        // More than the client ever reads before the cut.
        while peer.try_send(&[7; 64 * 1024]) {}
    });
    let server = Setup::to(backend.address).admin().start();
    let admin = server.admin();
    let mut relay = server.open();
    relay.take(1000);
    // Nothing moves any more, and what the client's window has no room for waits in the server's socket.
    until("the relay is full", || {
        standing_still("the bytes of the relay", || {
            let rows = admin.sessions("role=agent");
            rows[0]["bytes_down"].as_u64().unwrap()
        });
        kernel::unacknowledged(server.address, relay.local()) > 0
    });
    let id = ids(&admin.sessions("role=agent")).remove(0);
    admin.kick(&id).expect(200);
    relay.expect_reset();
    server.stop();
}

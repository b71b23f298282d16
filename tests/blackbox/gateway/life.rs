//! Pings, silence, and what counts as a sign of life.

use std::time::{Duration, Instant};

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, PAIRS, Plan, data};
use crate::support::window::paced;

const ID: u32 = 101;

/// A gateway where one side may be silent for this long.
fn hasty(dialect: Dialect, key: &'static str, time: &str) -> Gateway {
    Plan::new(dialect).text(key, time).start()
}

/// A client, and a server elsewhere, that have just said something, where such a one may be silent
/// for this long. The time is from before they said it, or a pause of the test would count as the
/// gateway's haste.
fn on_both_sides(dialect: Dialect, time: &'static str, test: fn(&mut Endpoint, Instant)) {
    let side = |key| {
        std::thread::spawn(move || {
            let gateway = hasty(dialect, key, time);
            let start = Instant::now();
            let mut endpoint = match key {
                "client_idle_timeout" => gateway.known_client(dialect),
                _ => gateway.server(ID),
            };
            test(&mut endpoint, start);
        })
    };
    for thread in ["client_idle_timeout", "server_idle_timeout"].map(side) {
        thread.join().unwrap();
    }
}

/// Every pair of dialects at the same time, as all they do is wait.
fn with_every_pair(test: fn(Dialect, Dialect)) {
    let one = |(of_client, of_server)| std::thread::spawn(move || test(of_client, of_server));
    for thread in PAIRS.map(one) {
        thread.join().unwrap();
    }
}

#[test]
fn a_silent_endpoint_of_the_document_is_asked_and_then_closed() {
    on_both_sides(Dialect::Document, "4s", |endpoint, start| {
        endpoint.expect(Got::Ping);
        assert!(start.elapsed() >= Duration::from_secs(1), "asked at once");
        endpoint.expect_closed();
        assert!(start.elapsed() >= Duration::from_secs(2), "closed at once");
    });
}

#[test]
fn an_endpoint_of_the_document_that_answers_stays() {
    on_both_sides(Dialect::Document, "4s", |endpoint, start| {
        // More than twice as long as it may be silent.
        for _ in 0..5 {
            endpoint.expect(Got::Ping).ping();
        }
        assert!(start.elapsed() >= Duration::from_secs(4), "pings too soon");
        endpoint.expect_quiet();
    });
}

#[test]
fn a_ping_of_the_document_is_not_answered() {
    on_both_sides(Dialect::Document, "5m", |endpoint, _| {
        endpoint.ping().ping().expect_quiet();
    });
}

#[test]
fn a_silent_endpoint_of_fastway_is_closed_without_a_byte() {
    on_both_sides(Dialect::Fastway, "3s", |endpoint, start| {
        endpoint.expect_closed();
        assert!(
            start.elapsed() >= Duration::from_millis(1500),
            "closed at once"
        );
    });
}

#[test]
fn an_endpoint_of_fastway_that_pings_stays() {
    on_both_sides(Dialect::Fastway, "3s", |endpoint, _| {
        let mut rounds = 0..24;
        paced(Duration::from_millis(250), || {
            endpoint.ping().expect(Got::Ping);
            rounds.next().is_some()
        });
        endpoint.expect_quiet();
    });
}

#[test]
fn pings_of_fastway_are_answered_in_order() {
    let gateway = Gateway::new(Dialect::Fastway);
    let dialect = Dialect::Fastway;
    for mut endpoint in [gateway.known_client(dialect), gateway.server(ID)] {
        let dial = |id| dialect.dial(0, id);
        let ping = dialect.ping();
        let bytes = [&ping[..], &dial(900), &ping, &ping, &dial(901), &ping];
        endpoint.send(bytes.concat());
        endpoint.expect(Got::Ping).expect(Got::Refuse(900));
        endpoint.expect(Got::Ping).expect(Got::Ping);
        endpoint.expect(Got::Refuse(901)).expect(Got::Ping);
    }
}

#[test]
fn any_frame_is_a_sign_of_life() {
    with_every_pair(|of_client, of_server| {
        let gateway = hasty(of_server, "client_idle_timeout", "3s");
        let mut pair = gateway.pair(of_client, ID);
        let mut rounds = 0..30;
        // It answers no ping, but it speaks.
        paced(Duration::from_millis(200), || {
            pair.client.data(pair.conn, b"tick");
            pair.server.expect(Got::Data(pair.conn, b"tick".into()));
            rounds.next().is_some()
        });
        pair.server.data(pair.conn, b"still there?");
        // Where this test has paused for long, it was pinged.
        let mut got = pair.client.got();
        while got == Got::Ping {
            assert_eq!(of_client, Dialect::Document);
            got = pair.client.got();
        }
        assert_eq!(got, Got::Data(pair.conn, b"still there?".into()));
    });
}

#[test]
fn what_an_endpoint_gets_is_no_sign_of_its_life() {
    with_every_pair(|of_client, of_server| {
        let gateway = hasty(of_server, "client_idle_timeout", "3s");
        let mut pair = gateway.pair(of_client, ID);
        let mut writer = pair.server.writer();
        let mut ticks = 0..600;
        let tick = data(pair.conn, b"tick");
        let ticking = std::thread::spawn(move || {
            paced(Duration::from_millis(50), || {
                ticks.next().is_some() && writer.try_send(&tick)
            });
        });
        loop {
            match pair.client.maybe() {
                Some(Got::Data(..)) => {}
                Some(Got::Ping) => assert_eq!(of_client, Dialect::Document),
                Some(other) => panic!("{other:?}"),
                None => break,
            }
        }
        pair.server.expect(Got::Close(pair.conn));
        pair.server.peer().try_finish();
        ticking.join().unwrap();
    });
}

#[test]
fn a_frame_in_progress_is_a_sign_of_life() {
    with_every_pair(|of_client, of_server| {
        let gateway = hasty(of_server, "client_idle_timeout", "3s");
        let mut pair = gateway.pair(of_client, ID);
        let frame = data(pair.conn, &[0x78; 992]);
        let mut parts = frame.chunks(100);
        // Four seconds and a half, of nine that it may take.
        paced(Duration::from_millis(450), || {
            parts
                .next()
                .is_some_and(|part| pair.client.peer().try_send(part))
        });
        pair.server
            .expect(Got::Data(pair.conn, vec![0x78; 992]))
            .expect_quiet();
    });
}

#[test]
fn a_frame_that_never_ends_is_no_sign_of_life() {
    for dialect in DIALECTS {
        let gateway = hasty(dialect, "client_idle_timeout", "2s");
        let start = Instant::now();
        let mut pair = gateway.pair(dialect, ID);
        pair.client.send(&data(pair.conn, &[1; 4000])[..8]);
        // A byte every 100 ms would take more than six minutes.
        paced(Duration::from_millis(100), || {
            pair.client.peer().try_send(&[1]) && start.elapsed() < Duration::from_secs(20)
        });
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it goes on for ever"
        );
        assert!(start.elapsed() >= Duration::from_secs(2), "closed at once");
        pair.server.expect(Got::Close(pair.conn)).expect_quiet();
    }
}

#[test]
fn a_frame_of_a_server_that_never_ends_is_no_sign_of_life() {
    for dialect in DIALECTS {
        let gateway = hasty(dialect, "server_idle_timeout", "2s");
        let mut pair = gateway.pair(dialect, ID);
        pair.server.send(&data(pair.conn, &[1; 4000])[..100]);
        pair.client.expect(Got::Close(pair.conn)).expect_quiet();
        pair.client.expect_refused(ID);
    }
}

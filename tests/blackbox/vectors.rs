//! Recorded conversations, replayed against the real program. Masks, timestamps and the address
//! that `sniff` reports vary and are not compared. Where the specification decides better than
//! the recorded program, [`EXCEPTIONS`] says what changes and why.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::support::DEADLINE;
use crate::support::backend::{Backend, Refusing};
use crate::support::frame::{AGENT, Dialect, Reply, masked};
use crate::support::peer::Peer;
use crate::support::route::Route;
use crate::support::server::{Server, Setup};
use crate::support::vector::{Scenario, Script, Step, recorded};

type Change = fn(&mut Scenario);

/// Scenario, why it is not replayed as recorded, and what is expected instead.
const EXCEPTIONS: &[(&str, &str, Change)] = &[
    (
        "stock/tp_client_half_close",
        "half-close is kept: the late answer arrives",
        keep_half_close,
    ),
    (
        "early/tp_client_half_close",
        "half-close is kept: the late answer arrives",
        keep_half_close,
    ),
    (
        "stock/update_without_op",
        "an update without op stores",
        store_without_op,
    ),
    (
        "early/update_without_op",
        "an update without op stores",
        store_without_op,
    ),
    (
        "stock/query_without_wait",
        "a query without wait is answered",
        answer_without_wait,
    ),
    (
        "early/query_without_wait",
        "a query without wait is answered",
        answer_without_wait,
    ),
    (
        "stock/pipelined_two_requests",
        "every frame is served",
        serve_both,
    ),
    (
        "stock/doc_layout_u32_frame",
        "narrow frames and leading operations are served",
        serve_narrow,
    ),
    (
        "stock/sample_client_traffic_proxy",
        "recorded with a stub, so the backend is made up",
        add_backend,
    ),
    (
        "document/update_then_query",
        "stays open until the client closes",
        stay_open,
    ),
    (
        "document/query_missing",
        "stays open until the client closes",
        stay_open,
    ),
];

#[test]
fn every_recorded_conversation_goes_as_recorded_or_better() {
    let mut scenarios = recorded();
    assert!(scenarios.len() >= 57, "{} recorded files", scenarios.len());
    for (name, _, change) in EXCEPTIONS {
        let scenario = scenarios.iter_mut().find(|one| one.name == *name);
        change(scenario.expect("an exception names a recorded file"));
    }
    for scenario in scenarios {
        eprintln!("replaying {}", scenario.name);
        replay(scenario);
    }
}

fn keep_half_close(scenario: &mut Scenario) {
    let client = &mut scenario.clients[0];
    let end = client.len() - 1;
    client.insert(end, Step::Get(b"[24885]after-eof\n".to_vec()));
}

fn store_without_op(scenario: &mut Scenario) {
    scenario.clients[0][1] = Step::Get(done(Dialect::Stock));
    scenario.clients[0].insert(2, Step::SeeEnd);
    scenario.clients[1][1] = Step::Get(record(b"x"));
}

fn answer_without_wait(scenario: &mut Scenario) {
    scenario.clients[0].insert(1, Step::Get(record(b"seeded")));
}

fn serve_both(scenario: &mut Scenario) {
    for client in &mut scenario.clients {
        client.insert(2, client[1].clone());
    }
}

fn serve_narrow(scenario: &mut Scenario) {
    scenario.clients[0].truncate(1);
    let answer = [
        Step::Get(done(Dialect::Document)),
        Step::Finish,
        Step::SeeEnd,
    ];
    scenario.clients[0].extend(answer);
    for client in &mut scenario.clients[1..] {
        client.truncate(1);
        client.extend([
            Step::Send(b"ping".to_vec()),
            Step::Get(b"[24885]ping".to_vec()),
            Step::Finish,
            Step::SeeEnd,
        ]);
        scenario.backends.push(vec![
            Step::Get(b"ping".to_vec()),
            Step::Send(b"[24885]ping".to_vec()),
            Step::SeeEnd,
            Step::Close,
        ]);
    }
}

/// The mirror of what the client said and got behind the greeting.
fn add_backend(scenario: &mut Scenario) {
    let mirror = scenario.clients[0][2..].iter().map(|step| match step {
        Step::Send(bytes) => Step::Get(bytes.clone()),
        Step::Get(bytes) => Step::Send(bytes.clone()),
        other => panic!("{other:?}"),
    });
    scenario.backends = vec![mirror.collect()];
}

fn stay_open(scenario: &mut Scenario) {
    for client in &mut scenario.clients {
        let end = client
            .iter()
            .position(|step| *step == Step::SeeEnd)
            .unwrap();
        client.insert(end, Step::Finish);
    }
}

fn done(dialect: Dialect) -> Vec<u8> {
    answer(dialect, b"update", b"")
}

fn record(data: &[u8]) -> Vec<u8> {
    let stamped = [vec![0; 8], Dialect::Stock.binary(data)].concat();
    answer(Dialect::Stock, b"query", &stamped)
}

fn answer(dialect: Dialect, command: &[u8], inner: &[u8]) -> Vec<u8> {
    let fields = [
        dialect.binary(command),
        0_i32.to_le_bytes().to_vec(),
        dialect.binary(b""),
        dialect.binary(inner),
    ];
    dialect.frame(AGENT, &fields.concat())
}

fn replay(scenario: Scenario) {
    let expected = scenario.backends.len();
    let speaks_for_default = |script: &Script| {
        script
            .iter()
            .any(|step| matches!(step, Step::Send(bytes) if bytes.starts_with(b"[24886]")))
    };
    let (default, github): (Vec<_>, Vec<_>) = scenario
        .backends
        .iter()
        .cloned()
        .partition(speaks_for_default);
    let default = match scenario.name.as_str() {
        // This client asks for a field that only the default serves.
        "stock/sample_client_traffic_proxy" => github.clone(),
        _ => default,
    };
    let (github, github_results) = scripted(github);
    let (default, default_results) = scripted(default);
    let refusing = Refusing::new();
    let server = start(&scenario, &github, &default, &refusing);
    play_clients(&server, &scenario);
    let results = if default.accepted() > 0 {
        default_results
    } else {
        github_results
    };
    for _ in 0..expected {
        let went_well = results
            .recv_timeout(DEADLINE)
            .expect("the backend was reached");
        assert!(
            went_well,
            "{}: the backend saw something else",
            scenario.name
        );
    }
    assert_eq!(
        github.accepted() + default.accepted(),
        expected,
        "{}",
        scenario.name
    );
    server.stop();
}

fn start(scenario: &Scenario, github: &Backend, default: &Backend, refusing: &Refusing) -> Server {
    // The recorded program gives a frame 30 s from accept; the same rule with less time.
    let patience = if scenario.name == "stock/idle_timeouts" {
        "3s"
    } else {
        "60s"
    };
    let test_http = Route::new("test_http").token("test_http_token");
    let server = Setup::new()
        .limit(&format!("handshake_timeout = {patience:?}"))
        .route(
            test_http
                .host("github", github.address)
                .host("default", default.address),
        )
        .route(Route::new("open_svc").host("a", github.address))
        .route(
            Route::new("nodefault")
                .token("nd_token")
                .host("a", github.address),
        )
        .route(Route::new("offline").host("x", refusing.address))
        .route(Route::new("baddns").named("x", "no-such-host.invalid", 80))
        .route(Route::new("byname").named("x", "localhost", github.address.port()))
        .start();
    server.store(b"dev1", b"status", b"seeded");
    server
}

/// A backend whose n-th connection follows the n-th script, and whether each one did.
fn scripted(scripts: Vec<Script>) -> (Backend, Receiver<bool>) {
    let scripts = Mutex::new(VecDeque::from(scripts));
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        let script = scripts.lock().unwrap().pop_front();
        let went = catch_unwind(AssertUnwindSafe(|| play(&mut peer, &script.unwrap())));
        let _ = sender.send(went.is_ok());
    });
    (backend, results)
}

/// One after the other, as recorded; together where one waits for what the next one does.
fn play_clients(server: &Server, scenario: &Scenario) {
    let address = server.address;
    let scripts = Arc::new(scenario.clients.clone());
    let one = move |number: usize| {
        let scripts = Arc::clone(&scripts);
        thread::spawn(move || play(&mut Peer::connect(address), &scripts[number]))
    };
    let is_together = scenario.name == "stock/query_wait";
    let mut running = Vec::new();
    for number in 0..scenario.clients.len() {
        running.push(one(number));
        if !is_together {
            let went = running.pop().unwrap().join();
            assert!(went.is_ok(), "{}, connection {number}", scenario.name);
        }
    }
    for client in running {
        assert!(client.join().is_ok(), "{}", scenario.name);
    }
}

fn play(peer: &mut Peer, script: &Script) {
    for step in script {
        match step {
            // The server may have closed already, where that is what the script shows.
            Step::Send(bytes) => {
                peer.try_send(bytes);
            }
            Step::Get(bytes) if bytes.starts_with(b"hf") => get_reply(peer, bytes),
            Step::Get(bytes) => {
                peer.expect(bytes);
            }
            Step::Finish => peer.try_finish(),
            Step::Close => return peer.try_finish(),
            Step::SeeEnd => {
                peer.expect_closed();
            }
        }
    }
}

fn get_reply(peer: &mut Peer, recorded: &[u8]) {
    let dialect = dialect_of(recorded);
    let header = dialect.header();
    let mask = recorded[5..9].try_into().unwrap();
    let recorded = Reply::read(dialect, &masked(&recorded[header..], mask));
    let got = peer.reply(dialect);
    match got.command.as_slice() {
        b"query" if got.code == 0 => {
            let (timestamp, data) = got.record(dialect);
            assert!(timestamp > 1_700_000_000, "{timestamp} is no time of today");
            assert_eq!(data, recorded.record(dialect).1);
            assert_eq!((recorded.code, &recorded.message), (0, &got.message));
        }
        b"sniff" => {
            let text = String::from_utf8(got.payload[dialect.width()..].to_vec()).unwrap();
            assert!(text.parse::<IpAddr>().is_ok(), "{text} is no address");
            assert_eq!((got.code, recorded.code), (0, 0));
        }
        _ => assert_eq!(got, recorded),
    }
}

/// A reply is short, so the upper half of a wide length is 0; a narrow frame has masked payload
/// there, which the recorded masks never make 0.
fn dialect_of(frame: &[u8]) -> Dialect {
    if frame[13..17] == [0; 4] {
        Dialect::Stock
    } else {
        Dialect::Document
    }
}

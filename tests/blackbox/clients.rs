//! The commands and the library that speak to a server.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use towpath::agent::{self, Client, Options};

use crate::support::backend::{Backend, Refusing};
use crate::support::bulk::Numbers;
use crate::support::command::{Finished, Log, TOWPATH, towpath, wait};
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::peer::{End, Peer};
use crate::support::route::Route;
use crate::support::server::{Server, Setup};
use crate::support::until;

fn run(server: &Server, arguments: &[&str], input: &[u8]) -> Finished {
    let address = server.address.to_string();
    let arguments = [arguments, &["--server", &address]].concat();
    towpath(&arguments, &[], input)
}

/// The timestamp and the data of a record, asked for without the product's code.
fn record(server: &Server, id: &[u8], section: &[u8]) -> (i64, Vec<u8>) {
    let narrow = Dialect::Document;
    let mut peer = server.connect();
    peer.ask(narrow, &narrow.query(id, section)).record(narrow)
}

#[test]
fn a_value_goes_in_by_stdin_and_comes_out_by_stdout() {
    let server = Setup::new().start();
    let value = Numbers::new(8).bytes(100_000);
    let update = run(&server, &["agent", "update", "dev1", "status"], &value).expect(0);
    assert_eq!(update.text(), "");
    assert_eq!(server.stored(b"dev1", b"status").as_ref(), Some(&value));
    let query = run(&server, &["agent", "query", "dev1", "status"], b"").expect(0);
    assert!(query.output == value, "other bytes on stdout");
    let (timestamp, _) = record(&server, b"dev1", b"status");
    assert!(
        query.error.contains(&timestamp.to_string()),
        "{}",
        query.error
    );
}

#[test]
fn a_value_goes_in_by_file_and_the_server_by_environment() {
    let server = Setup::new().start();
    let folder = Folder::new();
    let file = folder.write("value", b"from a file");
    let address = server.address.to_string();
    let environment = [("TOWPATH_SERVER", address.as_str())];
    let arguments = ["agent", "update", "dev1", "status", file.to_str().unwrap()];
    towpath(&arguments, &environment, b"").expect(0);
    let arguments = ["agent", "query", "dev1", "status"];
    let query = towpath(&arguments, &environment, b"").expect(0);
    assert_eq!(query.text(), "from a file");
}

#[test]
fn a_query_may_wait_for_its_value() {
    let server = Setup::new().start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let arguments = ["agent", "query", "late", "s", "--wait", "20s"];
            run(&server, &arguments, b"").expect(0)
        });
        server.store(b"late", b"s", b"at last");
        assert_eq!(waiting.join().unwrap().text(), "at last");
    });
}

#[test]
fn a_missing_key_is_a_failure_that_says_so() {
    let server = Setup::new().start();
    let query = run(&server, &["agent", "query", "dev1", "status"], b"").expect(1);
    assert_eq!(query.text(), "");
    for word in ["dev1", "status"] {
        assert!(query.error.contains(word), "{}", query.error);
    }
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_names_it() {
    let refusing = Refusing::new();
    let address = refusing.address.to_string();
    let arguments = ["agent", "query", "dev1", "status", "--server", &address];
    let query = towpath(&arguments, &[], b"");
    assert!(matches!(query.code, Some(1 | 75)), "{query:?}");
    assert!(query.error.contains(&address), "{}", query.error);
}

#[test]
fn a_guarded_store_takes_the_token_from_a_file_or_the_environment() {
    let server = Setup::new().agent("token = \"store-secret\"").start();
    let folder = Folder::new();
    let file = folder.write("token", b"store-secret\n");
    let update = ["agent", "update", "dev1", "status"];
    let refused = run(&server, &update, b"v").expect(1);
    assert!(!refused.error.contains("store-secret"), "{}", refused.error);
    let by_file = [&update[..], &["--token-file", file.to_str().unwrap()]].concat();
    run(&server, &by_file, b"by file").expect(0);
    assert_eq!(
        server.stored(b"dev1", b"status").as_deref(),
        Some(&b"by file"[..])
    );
    let address = server.address.to_string();
    let environment = [
        ("TOWPATH_SERVER", address.as_str()),
        ("TOWPATH_TOKEN", "store-secret"),
    ];
    towpath(&update, &environment, b"by environment").expect(0);
    assert_eq!(
        server.stored(b"dev1", b"status").as_deref(),
        Some(&b"by environment"[..])
    );
}

/// A running `towpath route` with a local port.
struct Forwarder {
    child: Child,
    log: Log,
}

impl Forwarder {
    fn start(server: &Server, arguments: &[&str]) -> Self {
        let mut child = Command::new(TOWPATH)
            .arg("route")
            .args(arguments)
            .args([
                "--server",
                &server.address.to_string(),
                "--listen",
                "127.0.0.1:0",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Where it listens, as it says.
    fn address(&self) -> SocketAddr {
        let mut found = None;
        until("the command says where it listens", || {
            let text = self.log.text();
            let words = text.split(|letter: char| letter.is_whitespace() || ",;=".contains(letter));
            let mut rest = words.skip_while(|word| !word.contains("listen"));
            found = rest.find_map(|word| word.trim_end_matches('.').parse().ok());
            found.is_some()
        });
        found.unwrap()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn route_with_a_local_port_relays_every_connection() {
    let backend = Backend::echo();
    let server = Setup::new()
        .route(Route::new("demo").host("web", backend.address))
        .start();
    let forwarder = Forwarder::start(&server, &["web", "--service", "demo"]);
    let address = forwarder.address();
    let block = Numbers::new(9).bytes(300_000);
    let mut peers: Vec<_> = (0..20).map(|_| Peer::connect(address)).collect();
    for peer in &mut peers {
        peer.send(b"ping").expect(b"ping");
    }
    for mut peer in peers {
        let mut twin = peer.twin();
        let bytes = block.clone();
        let sending = std::thread::spawn(move || {
            twin.send(bytes).finish();
        });
        let (came, end) = peer.rest();
        assert!(
            came == block && end == End::Fin,
            "{} bytes, {end:?}",
            came.len()
        );
        sending.join().unwrap();
    }
}

#[test]
fn route_with_a_local_port_keeps_half_closes() {
    let backend = Backend::serve(|mut peer, _| {
        let (question, _) = peer.rest();
        peer.send(question.len().to_string());
    });
    let server = Setup::new()
        .route(Route::new("demo").host("web", backend.address))
        .start();
    let forwarder = Forwarder::start(&server, &["web", "--service", "demo"]);
    let mut peer = Peer::connect(forwarder.address());
    peer.send(vec![b'q'; 100_000]).finish();
    assert_eq!(peer.rest(), (b"100000".to_vec(), End::Fin));
}

#[test]
fn route_on_stdin_and_stdout_answers_after_the_input_has_ended() {
    let backend = Backend::serve(|mut peer, _| {
        let (question, _) = peer.rest();
        peer.send(&question).send(b" was the question");
    });
    let route = Route::new("demo")
        .token("secret")
        .host("web", backend.address);
    let server = Setup::new().route(route).start();
    let folder = Folder::new();
    let token = folder.write("token", b"secret\n");
    let arguments = [
        "route",
        "web",
        "--service",
        "demo",
        "--token-file",
        token.to_str().unwrap(),
    ];
    let question = Numbers::new(10).bytes(100_000);
    let finished = run(&server, &arguments, &question).expect(0);
    assert!(finished.output == [&question[..], b" was the question"].concat());
}

#[test]
fn route_that_is_refused_fails_and_says_so() {
    let backend = Backend::echo();
    let route = Route::new("demo")
        .token("secret")
        .host("web", backend.address);
    let server = Setup::new().route(route).start();
    let finished = run(&server, &["route", "web", "--service", "demo"], b"input").expect(1);
    assert_eq!(finished.text(), "");
    assert!(!finished.error.is_empty());
}

#[test]
fn route_ends_when_the_backend_ends() {
    let backend = Backend::serve(|mut peer, _| {
        peer.send(b"bye");
    });
    let server = Setup::new()
        .route(Route::new("demo").host("web", backend.address))
        .start();
    let mut child = Command::new(TOWPATH)
        .args([
            "route",
            "web",
            "--service",
            "demo",
            "--server",
            &server.address.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Its stdin stays open: the other side's end is enough.
    let _input = child.stdin.take().unwrap();
    let mut output = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut output)
        .unwrap();
    assert_eq!(output, b"bye");
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn the_library_stores_waits_and_routes() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    let address = server.address;
    let mut client = Client::connect(address, Options::default()).unwrap();
    assert!(client.query(b"id", b"s").unwrap().is_none());
    client.update(b"id", b"s", b"value").unwrap();
    assert_eq!(client.query(b"id", b"s").unwrap().unwrap().data, b"value");
    let waiting = std::thread::spawn(move || {
        let mut client = Client::connect(address, Options::default()).unwrap();
        client
            .query_wait(b"late", b"s", Duration::from_secs(20))
            .unwrap()
    });
    client.update(b"late", b"s", b"here").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().data, b"here");
    client.remove(b"id", b"s").unwrap();
    assert_eq!(server.stored(b"id", b"s"), None);
    let mut route = agent::route(address, b"svc", b"x", b"", &Options::default()).unwrap();
    route.write_all(b"through the library").unwrap();
    let mut echoed = [0; 19];
    route.read_exact(&mut echoed).unwrap();
    assert_eq!(&echoed, b"through the library");
    assert!(agent::route(address, b"nobody", b"x", b"", &Options::default()).is_err());
}

#[test]
fn the_library_and_a_raw_client_see_the_same_records() {
    let server = Setup::new().start();
    let mut client = Client::connect(server.address, Options::default()).unwrap();
    client.update(b"by library", b"s", b"1").unwrap();
    let (timestamp, data) = record(&server, b"by library", b"s");
    assert_eq!(data, b"1");
    let record = client.query(b"by library", b"s").unwrap().unwrap();
    assert_eq!((record.timestamp, record.data), (timestamp, b"1".to_vec()));
}

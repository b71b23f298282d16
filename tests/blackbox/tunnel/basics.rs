//! What everybody needs of it: bytes both ways in each mode, ports that stay, and clear ends.

use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::command::{Log, TOWPATH, wait};
use crate::support::folder::Folder;
use crate::support::node::plan::free_ports;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::tunnel::expect_turned_away;
use crate::support::{DEADLINE, bulk, kernel, until};

/// A server whose tunnel listens at `at`, with ports of its own: another test's server would take
/// those of one that is down for a while.
fn setup(at: &str, folder: &Arc<Folder>) -> Setup {
    let ports = free_ports(8);
    let table = format!(
        "[tunnel]\nlisten = [\"{at}\"]\nports = \"{}-{}\"\ntoken = \"a token of these tests\"\n",
        ports.start(),
        ports.end()
    );
    Setup::new()
        .top("workers = 2")
        .tables(&table)
        .folder(folder)
}

fn tunnel(server: &Server) -> SocketAddr {
    server.addresses["tunnel"][0]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

/// A running `towpath expose`; killed when dropped.
struct Expose {
    child: Child,
    out: Log,
    error: Log,
}

impl Expose {
    fn start(server: SocketAddr, folder: &Folder, words: &[&str]) -> Self {
        Self::with_token(server, folder, words, "a token of these tests")
    }

    fn with_token(server: SocketAddr, folder: &Folder, words: &[&str], token: &str) -> Self {
        let mut child = Command::new(TOWPATH)
            .args([
                "expose",
                "--json",
                "--server",
                &server.to_string(),
                "--identity",
            ])
            .arg(folder.path().join("expose.id"))
            .args(words)
            .env("TOWPATH_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let error = Log::follow(child.stderr.take().unwrap());
        Self { child, out, error }
    }

    /// The address of the first service, once all have theirs.
    fn public(&self) -> SocketAddr {
        until("a public address", || self.out.text().contains('\n'));
        let text = self.out.text();
        let line: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        line["public"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until it has said something on stderr so many times.
    fn said(&self, what: &str, times: usize) {
        until(what, || self.error.text().matches(what).count() >= times);
    }

    fn ended(&mut self) -> Option<i32> {
        wait(&mut self.child).code()
    }
}

impl Drop for Expose {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- expose's stderr\n{}---", self.error.text());
        }
    }
}

fn echoes(public: SocketAddr) {
    let mut peer = Peer::connect(public);
    peer.send("hello").expect("hello").finish().expect_end();
}

/// Sends much both ways at once, ends one way before the other, and compares the hashes.
fn half_closes(public: SocketAddr, total: usize) {
    let mut peer = Peer::connect(public);
    let mut twin = peer.twin();
    let sent = std::thread::spawn(move || bulk::send(&mut twin, 7, total));
    let (count, hash) = bulk::receive(&mut peer);
    assert_eq!((count, hash), (total, sent.join().unwrap()));
}

#[test]
fn visitors_reach_a_service_directly_and_by_shared_connections() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let backend = Backend::echo();
    let local = backend.address.to_string();
    let usual = Expose::start(tunnel(&server), &folder, &[&format!("usual={local}")]);
    let direct = Expose::start(
        tunnel(&server),
        &folder,
        &[&format!("direct={local}"), "--direct"],
    );
    let mux = Expose::start(
        tunnel(&server),
        &folder,
        &[&format!("mux={local}"), "--mux"],
    );
    for public in [usual.public(), direct.public(), mux.public()] {
        (0..20).for_each(|_| echoes(public));
        half_closes(public, 64 << 20);
    }
}

#[test]
fn a_service_that_speaks_first_and_ends_first_is_heard_to_its_end() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let backend = Backend::serve(|mut peer, _| {
        peer.send("who are you?\n").finish();
        let (rest, _) = peer.rest();
        assert_eq!(rest, b"a visitor\n");
    });
    let local = backend.address.to_string();
    for words in [
        &[local.as_str()][..],
        &[&local, "--direct", "--name", "direct"],
        &[&local, "--mux", "--name", "mux"],
    ] {
        let expose = Expose::start(tunnel(&server), &folder, words);
        let mut peer = Peer::connect(expose.public());
        peer.expect("who are you?\n").expect_end();
        peer.send("a visitor\n").finish();
    }
}

#[test]
fn ports_stay_over_restarts_of_both_sides() {
    let folder = Arc::new(Folder::new());
    let main = free_ports(1);
    let setup = setup(&format!("127.0.0.1:{}", main.start()), &folder);
    let server = setup.start();
    let (at, backend) = (tunnel(&server), Backend::echo());
    let local = backend.address.to_string();
    let words = [format!("a={local}"), format!("b={local}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let first = Expose::start(at, &folder, &words);
    let public = first.public();
    let both = first.out.text();
    drop(first);
    let second = Expose::start(at, &folder, &words);
    assert_eq!(second.public(), public);
    assert_eq!(second.out.text(), both);
    server.kill();
    let server = setup.start();
    second.said("has the public address", 4);
    echoes(public);
    assert_eq!(second.out.text(), both, "nothing has changed");
    drop(second);
    drop(server);
}

#[test]
fn the_newest_client_has_the_port_at_once_and_a_frozen_one_ends() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let banner = |line| Backend::banner(line);
    let (old, new) = (banner("old\n"), banner("new\n"));
    let word = |backend: &Backend| format!("web={}", backend.address);
    let mut first = Expose::start(tunnel(&server), &folder, &[&word(&old)]);
    let public = first.public();
    Peer::connect(public).expect("old\n");
    kernel::signal(first.child.id(), "STOP");
    let second = Expose::start(tunnel(&server), &folder, &[&word(&new)]);
    assert_eq!(second.public(), public);
    Peer::connect(public).expect("new\n");
    kernel::signal(first.child.id(), "CONT");
    assert_eq!(first.ended(), Some(1));
    until("it is told", || first.error.text().contains("superseded"));
    Peer::connect(public).expect("new\n");
}

#[test]
fn a_wrong_token_is_told_in_one_line() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let words = ["127.0.0.1:1"];
    let mut expose = Expose::with_token(tunnel(&server), &folder, &words, "another one");
    assert_eq!(expose.ended(), Some(77));
    // Its last words may still be on their way here.
    until("it is told", || {
        expose.error.text().contains("the token is wrong")
    });
    assert_eq!(expose.out.text(), "");
}

#[test]
fn a_visitor_of_a_service_that_is_not_there_sees_an_end() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    for words in [
        &["127.0.0.1:1"][..],
        &["127.0.0.1:1", "--direct", "--name", "direct"],
        &["127.0.0.1:1", "--mux", "--name", "mux"],
    ] {
        let expose = Expose::start(tunnel(&server), &folder, words);
        // The first may be the only one without a connection of the pool.
        for _ in 0..3 {
            expect_turned_away(expose.public());
        }
        expose.said("cannot be reached", 1);
    }
}

#[test]
fn the_service_learns_the_visitors_address() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let backend = Backend::echo();
    let local = backend.address.to_string();
    for mode in ["usual", "direct", "mux"] {
        let mut words = vec![&*local, "--proxy-protocol", "v1", "--name", mode];
        words.extend((mode == "direct").then_some("--direct"));
        words.extend((mode == "mux").then_some("--mux"));
        let expose = Expose::start(tunnel(&server), &folder, &words);
        let public = expose.public();
        // One by a data connection of its own, then by one of the pool.
        for _ in 0..3 {
            let mut peer = Peer::connect(public);
            let (own, port, to) = (peer.local(), peer.local().port(), public.port());
            let (from, at) = (own.ip(), public.ip());
            peer.send("x")
                .expect(format!("PROXY TCP4 {from} {at} {port} {to}\r\nx"));
        }
    }
}

#[test]
fn a_slow_visitor_holds_up_nobody_on_shared_connections() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let backend = Backend::echo();
    let words = [&*backend.address.to_string(), "--mux"];
    let expose = Expose::start(tunnel(&server), &folder, &words);
    let public = expose.public();
    let mut slow = Peer::connect(public);
    // It stands still for as long as all the others take.
    let patience = Some(20 * DEADLINE);
    slow.stream().set_write_timeout(patience).unwrap();
    let mut twin = slow.twin();
    let total = 32 << 20;
    let sent = std::thread::spawn(move || bulk::send(&mut twin, 3, total));
    // Whatever is on its way to it, others pass.
    for _ in 0..20 {
        echoes(public);
        half_closes(public, 1 << 20);
    }
    let (count, hash) = bulk::receive(&mut slow);
    assert_eq!((count, hash), (total, sent.join().unwrap()));
}

#[test]
fn datagrams_pass_in_both_modes_up_to_the_longest() {
    let folder = Arc::new(Folder::new());
    let server = setup("127.0.0.1:0", &folder).start();
    let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = inside.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut room = vec![0; 65_536];
        while let Ok((count, from)) = inside.recv_from(&mut room) {
            inside.send_to(&room[..count], from).unwrap();
        }
    });
    for mode in ["direct", "mux"] {
        let mut words = vec![&*local, "--udp", "--name", mode];
        words.extend((mode == "mux").then_some("--mux"));
        let expose = Expose::start(tunnel(&server), &folder, &words);
        let public = expose.public();
        let visitors: Vec<_> = (0..3)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(public).unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                socket
            })
            .collect();
        let mut room = vec![0; 65_536];
        for length in [1, 0, 1200, 20_000, 65_507] {
            for (number, visitor) in visitors.iter().enumerate() {
                let bytes = vec![number as u8; length];
                visitor.send(&bytes).unwrap();
                let count = visitor.recv(&mut room).unwrap();
                assert_eq!(room[..count], bytes, "{mode} {length}");
            }
        }
    }
}

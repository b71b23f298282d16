//! Plain access listeners: a port whose every connection goes straight to one destination.

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::backend::{Backend, BlackHole, Refusing, echo};
use crate::support::bulk;
use crate::support::command::towpath;
use crate::support::folder::Folder;
use crate::support::peer::{End, Peer};
use crate::support::server::{Server, Setup};
use crate::support::{DEADLINE, until};

/// A listener on a free port.
fn access(name: &str, to: &[SocketAddr]) -> String {
    let to: Vec<String> = to.iter().map(|at| format!("\"{at}\"")).collect();
    let to = to.join(", ");
    format!(
        "[[chain.access]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nvia = []\nto = [{to}]\n"
    )
}

/// A server with nothing but such a listener.
fn serve(to: &[SocketAddr]) -> Server {
    alone().tables(&access("db", to)).start()
}

fn alone() -> Setup {
    Setup::new().flag("--agent").flag("off")
}

fn expect_log(server: &Server, words: &[&str]) {
    until("the log tells of it", || {
        let log = server.log();
        log.lines()
            .any(|line| words.iter().all(|word| line.contains(word)))
    });
}

#[test]
fn a_connection_goes_straight_to_the_destination() {
    let backend = Backend::banner("welcome|");
    let server = serve(&[backend.address]);
    let mut peer = server.access("db");
    peer.expect("welcome|")
        .send(b"ping")
        .expect(b"ping")
        .finish()
        .expect_end();
    let (from, to) = (
        format!("from={} ", peer.local()),
        format!("to={} ", backend.address),
    );
    expect_log(
        &server,
        &[
            "INFO",
            "access db ",
            &from,
            &to,
            "up=4 down=12 ",
            "finished",
        ],
    );
    server.stop();
}

#[test]
fn without_the_agent_role_no_data_directory_is_made() {
    let backend = Backend::echo();
    let server = serve(&[backend.address]);
    server.access("db").send(b"x").expect(b"x");
    assert!(!server.data().exists());
    server.stop();
}

#[test]
fn the_address_file_has_every_listener_by_its_name() {
    let [one, two] = [Backend::banner("one"), Backend::banner("two")];
    let more = "[[chain.access]]\nname = \"web\"\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n";
    let setup = Setup::new().tables(&access("db", &[one.address]));
    let server = setup
        .tables(&format!("{more}to = \"{}\"\n", two.address))
        .start();
    assert_eq!(server.addresses["agent"].as_array().unwrap().len(), 1);
    assert_eq!(server.addresses["access"].as_object().unwrap().len(), 2);
    server.access("db").expect("one");
    for address in server.addresses["access"]["web"].as_array().unwrap() {
        Peer::connect(address.as_str().unwrap().parse().unwrap()).expect("two");
    }
    expect_log(&server, &["access db listening on 127.0.0.1:"]);
    server.expect_alive();
    server.stop();
}

#[test]
fn bytes_and_the_end_sent_at_once_arrive() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        sender.send(bulk::receive(&mut peer)).unwrap();
        peer.send(b"thanks");
    });
    let server = serve(&[backend.address]);
    let mut peer = server.access("db");
    let total = 8 << 20;
    let hash = bulk::send(&mut peer, 1, total);
    assert!(results.recv_timeout(DEADLINE).unwrap() == (total, hash));
    peer.expect(b"thanks").expect_end();
    server.stop();
}

#[test]
fn a_destination_that_refuses_ends_the_connection_by_fin() {
    let refusing = Refusing::new();
    let server = serve(&[refusing.address]);
    for _ in 0..20 {
        let mut peer = server.access("db");
        peer.expect_end();
        // At most four such lines are written in a second.
        drop(peer);
    }
    let to = format!("to={} ", refusing.address);
    expect_log(
        &server,
        &[
            "WARN",
            "access db ",
            &to,
            "upstream: unreachable: connection refused",
        ],
    );
    let listener = refusing.open();
    let _backend = Backend::serve_on(listener, |peer, _| echo(peer));
    server.access("db").send(b"at last").expect(b"at last");
    server.expect_open(0);
    server.stop();
}

/// The client's bytes fill every buffer on the way while the dial hangs; closing on them would be a
/// reset.
#[test]
fn a_destination_that_hangs_ends_even_a_busy_connection_by_fin() {
    let hole = BlackHole::new();
    let setup = alone().limit("connect_timeout = \"300ms\"");
    let server = setup.tables(&access("db", &[hole.address])).start();
    let mut peer = server.access("db");
    let mut writer = peer.twin();
    writer
        .stream()
        .set_write_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let writing = thread::spawn(move || while writer.try_send(&[b'x'; 64 * 1024]) {});
    peer.expect_end();
    writing.join().unwrap();
    peer.try_finish();
    expect_log(
        &server,
        &["access db ", "upstream: unreachable: connect timed out"],
    );
    server.expect_open(0);
    server.stop();
}

#[test]
fn destinations_take_turns_and_a_dead_one_is_passed_over() {
    let [one, two] = [Backend::banner("1"), Backend::banner("2")];
    let dead = Refusing::new();
    let setup = alone().flag("--workers").flag("1");
    let server = setup
        .tables(&access("db", &[one.address, dead.address, two.address]))
        .start();
    let mut served = String::new();
    for _ in 0..20 {
        let banner = server.access("db").take(1)[0];
        served.push(char::from(banner));
    }
    assert!(served.starts_with("12"), "{served}");
    assert!(one.accepted() > 4 && two.accepted() > 4, "{served}");
}

#[test]
fn a_client_that_resets_while_the_dial_hangs_leaves_nothing() {
    let hole = BlackHole::new();
    let setup = alone().limit("connect_timeout = \"60s\"");
    let server = setup.tables(&access("db", &[hole.address])).start();
    for _ in 0..20 {
        server.access("db").reset();
    }
    server.expect_open(0);
    server.stop();
}

#[test]
fn a_reset_is_passed_on_both_ways() {
    let (sender, results) = channel();
    let backend = Backend::serve(move |mut peer, number| {
        // Before this has come, a reset would be that of a connect under way.
        peer.expect(b"y").send(b"x");
        match number {
            0 => peer.reset(),
            _ => sender.send(peer.rest().1).unwrap(),
        }
    });
    let server = serve(&[backend.address]);
    let mut peer = server.access("db");
    peer.send(b"y").expect_reset();
    let mut peer = server.access("db");
    peer.send(b"y").expect(b"x");
    peer.reset();
    assert_eq!(results.recv_timeout(DEADLINE).unwrap(), End::Reset);
    server.stop();
}

#[test]
fn check_says_where_a_listener_leads_and_what_is_wrong_with_it() {
    let folder = Folder::new();
    let check = |text: &str| {
        let file = folder.write("towpath.toml", text);
        towpath(&["check", "--config", file.to_str().unwrap()], &[], b"")
    };
    let out = check(&access("db", &["[::1]:5432".parse().unwrap()]))
        .expect(0)
        .text();
    let want = "agent: off\nchain: off\naccess db: listens on 127.0.0.1:0\n  tcp -> [::1]:5432\n";
    assert!(out.contains(want), "{out}");
    assert!(out.contains("store: none"), "{out}");
    let text = "[[chain.access]]\nname = 'db'\nlisten = ':0'\nto = 'db'\n";
    let said = check(text).expect(78).error;
    assert!(
        said.contains("towpath.toml:4:6: error: `to`: \"db\" is not a destination"),
        "{said}"
    );
}

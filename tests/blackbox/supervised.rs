//! Under a service manager: it is told what happens, passes sockets, and keeps them over a crash.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::support::frame::Dialect;
use crate::support::node::plan::free_ports;
use crate::support::notify::{Message, Notify};
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::until;

/// A server of two workers that has a service manager.
fn supervised(notify: &Notify) -> Setup {
    Setup::new()
        .top("workers = 2")
        .environment("NOTIFY_SOCKET", &notify.path())
}

/// The messages that give a socket to keep, up to the one that says that all is ready.
fn stored(notify: &Notify) -> Vec<(String, Message)> {
    let ready = notify.expect("READY");
    assert_eq!(ready.value("READY"), Some("1"));
    assert!(ready.value("STATUS").unwrap().starts_with("2 workers, "));
    let mut all = Vec::new();
    while notify.has_heard("FDSTORE") {
        let message = notify.expect("FDSTORE");
        assert_eq!(message.value("FDPOLL"), Some("0"));
        assert_eq!(message.descriptors.len(), 1);
        all.push((message.value("FDNAME").unwrap().to_owned(), message));
    }
    all
}

fn names(stored: &[(String, Message)]) -> Vec<&str> {
    stored.iter().map(|(name, _)| name.as_str()).collect()
}

/// Two clients for each core's queue, most likely: which core's it is, the system decides.
fn clients(at: SocketAddr) -> Vec<Peer> {
    let wide = Dialect::Stock;
    let mut peers: Vec<_> = (0..16).map(|_| Peer::connect(at)).collect();
    for peer in &mut peers {
        peer.send(wide.query(b"id", b"s"));
    }
    peers
}

fn expect_served(peers: Vec<Peer>) {
    for mut peer in peers {
        peer.reply(Dialect::Stock).expect_missing(Dialect::Stock);
    }
}

fn expect_orderly_end(mut server: Server, notify: &Notify, kept: &[&str]) {
    server.signal("TERM");
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    assert_eq!(notify.expect("STOPPING").value("STATUS"), Some("draining"));
    for name in kept {
        let removed = notify.expect("FDSTOREREMOVE");
        assert_eq!(removed.value("FDNAME"), Some(*name));
    }
}

#[test]
fn after_a_crash_the_clients_that_came_meanwhile_are_served() {
    let notify = Notify::new();
    let server = supervised(&notify).start();
    let at = server.address;
    let stored_once = stored(&notify);
    assert_eq!(names(&stored_once), ["agent-0", "agent-1"]);
    server.kill();

    let waiting = clients(at);
    let sockets = stored_once
        .into_iter()
        .map(|(_, mut message)| Arc::new(message.descriptors.remove(0)));
    let sockets: Vec<_> = sockets.collect();
    let sockets: [_; 2] = sockets.try_into().unwrap();
    let setup = supervised(&notify).listen(at);
    let server = setup.passed("agent-0:agent-1", sockets).start();
    assert_eq!(server.address, at);
    expect_served(waiting);
    server.expect_alive();
    let stored_again = stored(&notify);
    assert_eq!(names(&stored_again), ["agent-0", "agent-1"]);
    drop(stored_again);
    expect_orderly_end(server, &notify, &["agent-0", "agent-1"]);
}

#[test]
fn an_orderly_end_leaves_nobody_waiting() {
    let notify = Notify::new();
    let server = supervised(&notify).start();
    let at = server.address;
    drop(stored(&notify));
    expect_orderly_end(server, &notify, &["agent-0", "agent-1"]);
    assert!(TcpStream::connect(at).is_err());
}

#[test]
fn the_watchdog_is_fed_while_nothing_happens() {
    let notify = Notify::new();
    let setup = supervised(&notify).environment("WATCHDOG_USEC", "100000");
    let server = setup.start();
    notify.expect("READY");
    for _ in 0..5 {
        assert_eq!(notify.expect("WATCHDOG").value("WATCHDOG"), Some("1"));
    }
    expect_orderly_end(server, &notify, &[]);
}

#[test]
fn a_store_without_room_is_given_what_it_takes() {
    let notify = Notify::new();
    let server = supervised(&notify).environment("FDSTORE", "1").start();
    assert_eq!(names(&stored(&notify)), ["agent-0"]);
    expect_orderly_end(server, &notify, &["agent-0"]);
}

#[test]
fn a_service_manager_that_does_not_listen_stops_nothing() {
    let setup = Setup::new().environment("NOTIFY_SOCKET", "/nowhere/notify");
    let server = setup.environment("WATCHDOG_USEC", "10000").start();
    server.expect_alive();
    until("it is said once", || {
        server
            .log()
            .contains("the service manager cannot be told: ")
    });
    server.stop();
}

#[test]
fn a_passed_socket_serves_all_workers_and_a_strange_one_is_closed() {
    let (own, strange) = (opened(), opened());
    let [at, elsewhere] = [&own, &strange].map(|one| one.local_addr().unwrap());
    let notify = Notify::new();
    let passed = [own, strange].map(|one| Arc::new(one.into()));
    let setup = supervised(&notify).listen(at);
    let server = setup.passed("towpath.socket:agent", passed).start();
    assert_eq!(server.address, at);
    expect_served(clients(at));
    let told = format!(
        "passed descriptor 4 named agent is of no configured listener: it is at {elsewhere}; it is closed"
    );
    until("the log tells of it", || server.log().contains(&told));
    assert_eq!(
        notify.expect("FDSTOREREMOVE").value("FDNAME"),
        Some("agent")
    );
    assert!(stored(&notify).is_empty(), "its socket unit keeps it");
    expect_orderly_end(server, &notify, &[]);
}

#[test]
fn systemd_starts_it_with_the_first_client() {
    let at = SocketAddr::from(([127, 0, 0, 1], *free_ports(1).start()));
    let address = at.to_string();
    let setup = Setup::new().top("workers = 2").listen(at);
    let setup = setup.wrapper(&["systemd-socket-activate", "-l", &address]);
    let first = std::thread::spawn(move || {
        let mut stream = None;
        until("systemd listens", || {
            stream = TcpStream::connect(at).ok();
            stream.is_some()
        });
        stream
    });
    let server = setup.start();
    assert_eq!(server.address, at);
    assert!(first.join().unwrap().is_some());
    expect_served(clients(at));
    until("the log tells of the socket", || {
        server.log().contains("agent takes 1 passed sockets")
    });
    server.stop();
}

fn opened() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn what_a_reload_opens_is_stored_and_what_it_closes_is_not_any_more() {
    let notify = Notify::new();
    let table = |clients: &str| format!("[gateway]\nclients = [{clients}]\n");
    let setup = supervised(&notify).flag("--agent=127.0.0.1:0");
    let server = setup.clone().start();
    drop(stored(&notify));
    // Two addresses of one name.
    let two = table("\"127.0.0.1:0\", \"127.0.0.1:0\"");
    server.rewrite(&setup.clone().tables(&two));
    server.signal("HUP");
    for name in ["0", "0", "1", "1"] {
        let message = notify.expect("FDSTORE");
        let name = format!("gateway-clients-{name}");
        assert_eq!(message.value("FDNAME"), Some(&*name));
    }
    until("the reload is over", || {
        server.log().contains("reload: in force")
    });
    let stays = server.now_at_all("gateway-clients")[0];
    server.rewrite(&setup.tables(&table("\"127.0.0.1:0\"")));
    server.signal("HUP");
    for name in ["gateway-clients-0", "gateway-clients-1"] {
        let removed = notify.expect("FDSTOREREMOVE");
        assert_eq!(removed.value("FDNAME"), Some(name));
        let mut again = notify.expect("FDSTORE");
        assert_eq!(again.value("FDNAME"), Some(name));
        let socket = TcpListener::from(again.descriptors.remove(0));
        assert_eq!(socket.local_addr().unwrap(), stays);
    }
    let kept = [
        "agent-0",
        "agent-1",
        "gateway-clients-0",
        "gateway-clients-1",
    ];
    expect_orderly_end(server, &notify, &kept);
}

//! Listeners that come and go: for connections and for datagrams, of one role and of another.

use std::net::{SocketAddr, TcpStream, UdpSocket};

use crate::support::backend::Backend;
use crate::support::frame::Dialect;
use crate::support::node::plan::free_ports;
use crate::support::peer::Peer;
use crate::support::server::Setup;
use crate::support::{DEADLINE, until};

use super::reloaded;

fn access(name: &str, listen: &str, protocol: &str, to: SocketAddr) -> String {
    format!(
        "[[chain.access]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\nvia = []\nto = \"{to}\"\n"
    )
}

/// One that the system gives to nobody who asks for any.
fn own_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], *free_ports(1).start()))
}

fn expect_closed(at: SocketAddr) {
    until("nobody listens there", || TcpStream::connect(at).is_err());
}

#[test]
fn an_agent_address_moves_and_who_came_by_the_old_one_drains() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address).admin();
    let server = setup.start();
    let (mut relay, old) = (server.open(), server.address);
    let idle = server.connect();
    idle.settle();
    // A second address beside the first: nobody notices.
    let both = setup.clone().agent("").listen(old);
    server.rewrite(&both);
    let changes = reloaded(&server);
    assert_eq!(
        changes.len(),
        2,
        "one named by its port is another: {changes:?}"
    );
    let now = server.now_at("agent").unwrap();
    assert_eq!(now, old, "at the same address without a pause");
    relay.send("still").expect("still");
    let mut new = Peer::connect(now);
    new.send(Dialect::Stock.traffic(b"svc", b"x", b""));
    new.expect(Dialect::Stock.greeting())
        .send("new")
        .expect("new");
    // Away from there: an idle connection ends, the relays come to their end.
    server.rewrite(&setup);
    reloaded(&server);
    let now = server.now_at("agent").unwrap();
    assert_ne!(now, old);
    expect_closed(old);
    new.send("still").expect("still").finish().expect_end();
    relay.send("still").expect("still").finish().expect_end();
    let mut idle = idle;
    idle.expect_closed();
    let mut peer = Peer::connect(now);
    peer.send(Dialect::Stock.sniff());
    peer.reply(Dialect::Stock);
    let status = server.admin().get("/status").to_string();
    assert!(status.contains(&now.to_string()) && !status.contains(&old.to_string()));
    drop(peer);
    server.stop();
}

#[test]
fn access_listeners_come_change_and_go() {
    let (first, second) = (Backend::banner("first"), Backend::banner("second"));
    let echo = Backend::echo();
    let setup = Setup::new().admin();
    let server = setup
        .clone()
        .tables(&access("a", "127.0.0.1:0", "tcp", echo.address))
        .start();
    let at = server.access_now_at("a").unwrap();
    let mut relay = Peer::connect(at);
    relay.send("there").expect("there");
    // Another destination: for new connections.
    let changed = access("a", "127.0.0.1:0", "tcp", first.address);
    let more = access("b", "127.0.0.1:0", "tcp", second.address);
    server.rewrite(&setup.clone().tables(&(more + &changed)));
    reloaded(&server);
    assert_eq!(server.access_now_at("a"), Some(at));
    Peer::connect(at).expect("first");
    Peer::connect(server.access_now_at("b").unwrap()).expect("second");
    relay.send("still").expect("still");
    // Another name at the same address.
    let named = access("c", &at.to_string(), "tcp", second.address);
    server.rewrite(&setup.clone().tables(&named));
    let changes = reloaded(&server).join("\n");
    assert!(changes.contains("listener removed: access b"), "{changes}");
    assert_eq!(server.access_now_at("c"), Some(at));
    Peer::connect(at).expect("second");
    relay.send("still").expect("still").finish().expect_end();
    // The role goes, and comes again, at a port that the system gives nobody else in between.
    let at = own_port();
    let named = access("c", &at.to_string(), "tcp", second.address);
    server.rewrite(&setup.clone().tables(&named));
    reloaded(&server);
    Peer::connect(at).expect("second");
    server.rewrite(&setup);
    reloaded(&server);
    expect_closed(at);
    server.rewrite(&setup.tables(&named));
    reloaded(&server);
    Peer::connect(at).expect("second");
    server.stop();
}

#[test]
fn a_flow_of_datagrams_lives_through_a_reload_and_ends_with_its_listener() {
    let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for socket in [&backend, &client] {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    let to = backend.local_addr().unwrap();
    let udp = access("u", &own_port().to_string(), "udp", to);
    let tcp = access("t", "127.0.0.1:0", "tcp", to);
    let setup = Setup::new().admin();
    let server = setup.clone().tables(&udp).start();
    let at = server.access_now_at("u").unwrap();
    let pass = |words: &[u8]| {
        let mut room = [0; 64];
        client.send_to(words, at).unwrap();
        let (count, from) = backend.recv_from(&mut room).unwrap();
        assert_eq!(&room[..count], words);
        backend.send_to(b"back", from).unwrap();
        let (count, _) = client.recv_from(&mut room).unwrap();
        assert_eq!(&room[..count], b"back");
        from
    };
    let flow = pass(b"one");
    server.rewrite(&setup.clone().tables(&(tcp.clone() + &udp)));
    reloaded(&server);
    assert_eq!(pass(b"two"), flow, "the same flow");
    server.rewrite(&setup.clone().tables(&tcp));
    reloaded(&server);
    until("the port is free", || UdpSocket::bind(at).is_ok());
    server.rewrite(&setup.tables(&(tcp + &udp)));
    reloaded(&server);
    pass(b"three");
    server.stop();
}

#[test]
fn many_reloads_leave_no_descriptor_behind() {
    let backend = Backend::banner("there");
    let setup = Setup::new().admin();
    let one = setup
        .clone()
        .tables(&access("a", "127.0.0.1:0", "tcp", backend.address));
    let two = setup.tables(&access("b", "127.0.0.1:0", "tcp", backend.address));
    let server = one.start();
    for _ in 0..20 {
        for (setup, name) in [(&two, "b"), (&one, "a")] {
            server.rewrite(setup);
            reloaded(&server);
            Peer::connect(server.access_now_at(name).unwrap()).expect("there");
        }
    }
    server.expect_open(0);
    server.stop();
}

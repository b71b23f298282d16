//! Both sides prove the token, nothing is allocated before, and who says nothing is closed.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::support::bulk::Numbers;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::tunnel::bystander::Bystander;
use crate::support::tunnel::client::{Client, greet, identity, knock, prove, random};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Expose, TOKEN, answer, status};

#[test]
fn both_sides_prove_that_they_know_the_token() {
    let tunnel = Tunnel::new(1);
    // The server's proof is compared there.
    let mut client = tunnel.client(1);
    client.expect_quiet();
    let mut other = tunnel.client(2);
    assert_ne!(client.session, other.session);
    other.expect_quiet();
    client.leave();
    other.leave();
    tunnel.stop();
}

#[test]
fn challenges_are_never_the_same() {
    let tunnel = Tunnel::new(1);
    let mut seen = std::collections::HashSet::new();
    for _ in 0..100 {
        assert!(seen.insert(knock(tunnel.address, b'C').1));
    }
}

#[test]
fn no_token_is_one_that_both_know() {
    let tunnel = Plan::new(1).text("token", "").start();
    let mut client = Client::try_connect(tunnel.address, identity(1), "").unwrap();
    client.expose(Expose::named("web"));
    client.leave();
    tunnel.stop();
}

/// A wrong proof is told, and gets nothing to try tokens on.
fn expect_wrong(mut peer: Peer, sent: &[u8]) {
    peer.try_send(sent);
    let reply = peer.take(33);
    assert_eq!(reply[0], status::WRONG_TOKEN);
    assert_eq!(reply[1..], [0; 32], "a proof for somebody who has none");
    peer.expect_closed();
}

#[test]
fn a_wrong_token_gets_a_status_and_allocates_nothing() {
    let tunnel = Tunnel::new(1);
    for token in [
        "",
        "another",
        &TOKEN[1..],
        &format!("{TOKEN} "),
        &"x".repeat(1000),
    ] {
        let (peer, challenge) = knock(tunnel.address, b'C');
        let wrong = answer(token, b'C', &challenge, &random(), &identity(1), &[]);
        // A wish behind the proof is nobody's.
        expect_wrong(peer, &[wrong, Expose::named("web").frame()].concat());
    }
    tunnel.server.expect_open(0);
    // The one port is still there.
    let (client, _) = tunnel.exposed(2);
    client.leave();
    tunnel.stop();
}

#[test]
fn a_proof_is_good_for_its_own_challenge_kind_client_and_place_only() {
    let tunnel = Tunnel::new(1);
    let (client, nonce) = (identity(1), random());
    let (_held, old) = knock(tunnel.address, b'C');
    let place = [7; 18];
    for case in 0..6 {
        let kind = if case == 4 { b'S' } else { b'C' };
        let (peer, challenge) = knock(tunnel.address, kind);
        let right = answer(TOKEN, b'C', &challenge, &nonce, &client, &[]);
        let sent = match case {
            // Of an older connection.
            0 => answer(TOKEN, b'C', &old, &nonce, &client, &[]),
            // Of another kind of connection.
            1 => answer(TOKEN, b'S', &challenge, &nonce, &client, &[]),
            // Of another client, and another nonce.
            2 => [&[9; 16][..], &right[16..]].concat(),
            3 => [&right[..16], &[9; 32], &right[48..]].concat(),
            // Of another place.
            4 => {
                let other = answer(TOKEN, b'S', &challenge, &nonce, &client, &place);
                [&other[..80], &[8; 18]].concat()
            }
            // One bit.
            _ => {
                let mut sent = right;
                sent[79] ^= 1;
                sent
            }
        };
        expect_wrong(peer, &sent);
    }
    tunnel.expect_alive();
}

#[test]
fn a_handshake_may_come_in_any_segments() {
    let tunnel = Plan::new(1).workers(1).start();
    for at in 1..5 {
        let mut peer = tunnel.connect();
        peer.send(&b"TWP1C"[..at]).settle();
        peer.send(&b"TWP1C"[at..]);
        let challenge = peer.take(32).try_into().unwrap();
        let got = prove((peer, challenge), TOKEN, b'C', &identity(1), &[]);
        assert!(got.is_ok());
    }
    for at in (1..80).step_by(3) {
        let (mut peer, challenge) = knock(tunnel.address, b'C');
        let sent = answer(TOKEN, b'C', &challenge, &random(), &identity(1), &[]);
        peer.send(&sent[..at]).settle();
        peer.send(&sent[at..]);
        assert_eq!(peer.take(33)[0], status::OK);
    }
    tunnel.server.expect_open(0);
    // With what comes behind it in one piece.
    let (mut peer, challenge) = knock(tunnel.address, b'C');
    let sent = answer(TOKEN, b'C', &challenge, &random(), &identity(1), &[]);
    peer.send([sent, Expose::named("web").frame()].concat());
    assert_eq!(peer.take(33)[0], status::OK);
    // Welcome, and the head of Exposed.
    assert_eq!(peer.take(5 + 16)[0], 12);
    assert_eq!(peer.take(5)[0], 2);
}

#[test]
fn another_version_is_told_so() {
    let tunnel = Tunnel::new(1);
    for version in [b"TWP2C", b"TWP9D", b"TWP5x"] {
        let mut peer = tunnel.connect();
        peer.send(version);
        peer.take(32);
        assert_eq!(peer.take(33)[0], status::BAD_VERSION);
        peer.expect_closed();
    }
    tunnel.expect_alive();
}

#[test]
fn what_is_no_client_is_closed() {
    let tunnel = Tunnel::new(3);
    let bystanders = Bystander::start(&tunnel);
    let mut numbers = Numbers::new(5);
    let mut cases = vec![
        b"GET / HTTP/1.1\r\nHost: tunnel\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        b"TWP0C".to_vec(),
        b"twp1C".to_vec(),
        b"T\0".to_vec(),
        vec![0; 100],
        vec![0xff; 100],
    ];
    // Kinds that there are not.
    let known = *b"CDSR";
    let kinds = (0..=255).filter(|kind| !known.contains(kind));
    cases.extend(kinds.map(|kind| vec![b'T', b'W', b'P', b'1', kind]));
    cases.extend((0..50).map(|_| [b"X", &numbers.bytes(65_536)[..]].concat()));
    for bytes in &cases {
        let mut peer = tunnel.connect();
        peer.try_send(bytes);
        peer.expect_closed();
    }
    bystanders.expect_undisturbed();
    tunnel.expect_alive();
    tunnel.stop();
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    kernel::raise_own_descriptor_limit();
    let tunnel = Plan::new(3).limit("handshake_timeout = \"3s\"").start();
    let bystanders = Bystander::start(&tunnel);
    let mut silent: Vec<Peer> = (0..200).map(|_| tunnel.connect()).collect();
    // Those that stop half-way, or send a byte now and then, are no better.
    for begun in ["T", "TWP1", "TWP1D", "TWP1D and a part of a ticket"] {
        let mut peer = tunnel.connect();
        peer.send(begun);
        silent.push(peer);
    }
    for kind in *b"CSR" {
        let (mut peer, _) = knock(tunnel.address, kind);
        peer.send([1; 79]);
        silent.push(peer);
    }
    for peer in &mut silent {
        peer.expect_closed();
    }
    drop(silent);
    bystanders.expect_undisturbed();
    tunnel.expect_alive();
    tunnel.stop();
}

#[test]
fn a_client_that_dribbles_its_proof_is_closed_in_time() {
    let tunnel = Plan::new(1).limit("handshake_timeout = \"3s\"").start();
    let (peer, _) = knock(tunnel.address, b'C');
    let mut writer = peer.twin();
    let mut reader = peer;
    let dribbling = std::thread::spawn(move || {
        let pace = std::time::Duration::from_millis(300);
        crate::support::window::paced(pace, || writer.try_send(&[1]));
    });
    reader.expect_closed();
    dribbling.join().unwrap();
    tunnel.expect_alive();
}

/// A connection that comes from another address of this host.
fn connect_from(source: &str, server: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    Peer::new(TcpStream::from(socket))
}

#[test]
fn wrong_proofs_of_one_address_hold_up_nobody_else() {
    let tunnel = Tunnel::new(3);
    let bystanders = Bystander::start(&tunnel);
    for _ in 0..40 {
        let mut peer = connect_from("127.0.0.9", tunnel.address);
        peer.send(b"TWP1C");
        let mut challenge = [0; 32];
        // After many of them it may be refused before it is asked.
        if !matches!(peer.some(&mut challenge), Ok(32)) {
            continue;
        }
        let wrong = answer("guess", b'C', &challenge, &random(), &identity(1), &[]);
        peer.try_send(&wrong);
        let (reply, _) = peer.rest();
        assert_ne!(reply.first(), Some(&status::OK));
        assert!(reply.iter().skip(1).all(|byte| *byte == 0), "a proof");
    }
    // Others are served at once.
    let greeted = greet(connect_from("127.0.0.10", tunnel.address), b'C');
    assert!(prove(greeted, TOKEN, b'C', &identity(3), &[]).is_ok());
    bystanders.expect_undisturbed();
    tunnel.expect_alive();
    // Each of them is worth a line, not more.
    let log = tunnel.server.log();
    assert!(log.lines().count() < 200, "{log}");
    tunnel.stop();
}

#[test]
fn too_many_unproved_connections_close_the_oldest() {
    let plan = Plan::new(1).workers(1).key("max_unproved", "8");
    let tunnel = plan.limit("handshake_timeout = \"60s\"").start();
    let mut silent: Vec<Peer> = (0..40)
        .map(|_| {
            let (peer, _) = knock(tunnel.address, b'C');
            peer
        })
        .collect();
    let newest = silent.split_off(33);
    for peer in &mut silent[..32] {
        peer.expect_closed();
    }
    drop((silent, newest));
    tunnel.expect_alive();
    tunnel.stop();
}

#[test]
fn a_client_is_one_of_so_many() {
    let plan = Plan::new(8).workers(1).key("max_clients", "3");
    let tunnel = plan.start();
    let mut clients: Vec<Client> = (0..3).map(|number| tunnel.client(number)).collect();
    for _ in 0..5 {
        let refused = Client::try_connect(tunnel.address, identity(9), TOKEN);
        assert_eq!(refused.err(), Some(status::OVERLOADED));
    }
    clients.pop().unwrap().leave();
    crate::support::until("there is room for another client", || {
        Client::try_connect(tunnel.address, identity(9), TOKEN).is_ok()
    });
    clients.iter_mut().for_each(|client| {
        client.expect_quiet();
    });
}

//! What speaks another protocol, what is slow, what leaves in the middle: all in crowds, and nobody
//! else is disturbed.

use std::net::UdpSocket;
use std::time::Duration;

use crate::support::backend::{Backend, BlackHole};
use crate::support::bulk::Numbers;
use crate::support::bystander::Rounds;
use crate::support::chain::client::Chained;
use crate::support::chain::datagram::{Flow, Said};
use crate::support::chain::destination::Datagrams;
use crate::support::chain::plan::{Row, access_address, dynamic, serve};
use crate::support::peer::Peer;
use crate::support::until;
use crate::support::window::paced;

/// A chain that echoes while `act` goes on.
fn beside_a_bystander(row: Row, backend: &Backend, act: impl FnOnce(&Row)) {
    let mut chained = row.headers(backend.address).dial();
    chained.expect_ok();
    let round = |chained: &mut Chained, byte| {
        chained.peer.send([byte; 64]).expect([byte; 64]);
    };
    let rounds = Rounds::start(chained, round, |mut chained| {
        chained.peer.finish().expect_end();
    });
    act(&row);
    for proxy in &row.proxies {
        proxy.server.expect_open(2);
    }
    rounds.expect_undisturbed();
    row.stop();
}

fn strangers() -> Vec<Vec<u8>> {
    let mut all = vec![
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        b"CONNECT localhost:80 HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            &[7; 501],
        ]
        .concat(),
        b"\x05\x01\x00".to_vec(),
        vec![0; 4096],
        vec![0xff; 4096],
        b"h".to_vec(),
        Vec::new(),
    ];
    let mut numbers = Numbers::new(50);
    all.extend((0..50).map(|_| numbers.bytes(64 * 1024)));
    all
}

#[test]
fn the_wrong_protocol_gets_nothing_and_harms_nobody() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    beside_a_bystander(row, &backend, |row| {
        let address = row.hops()[0].address;
        let mut peers = Vec::new();
        for bytes in strangers() {
            for ends in [false, true] {
                let mut peer = Peer::connect(address);
                peer.try_send(&bytes);
                if ends {
                    peer.try_finish();
                }
                peers.push(peer);
            }
        }
        for mut peer in peers {
            peer.expect_closed();
        }
    });
    assert_eq!(backend.accepted(), 1);
}

#[test]
fn the_wrong_protocol_by_datagrams_gets_nothing_and_harms_nobody() {
    let backend = Backend::echo();
    let row = Row::with(2, &[backend.address], |plan| {
        plan.text("udp_idle_timeout", "2s")
    });
    beside_a_bystander(row, &backend, |row| {
        let address = row.hops()[0].address;
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut numbers = Numbers::new(51);
        let echo = Datagrams::echo();
        let mut flow = Flow::to(&row.hops(), echo.address);
        for round in 0..5_000 {
            let size = [0, 1, 26, 58, 59, 1200][round % 6];
            socket.send_to(&numbers.bytes(size), address).unwrap();
            // Something that is answered comes now and then, before the noise has filled the hop's
            // socket, and last: nothing was answered before.
            if round % 50 == 49 {
                flow.send(b"?");
                assert!(matches!(flow.receive(), Said::Failed(2, _)));
            }
        }
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv_from(&mut [0; 100]).is_err());
    });
}

#[test]
fn who_says_nothing_is_closed() {
    let backend = Backend::echo();
    let row = Row::with(2, &[backend.address], |plan| {
        plan.text("header_timeout", "3s")
    });
    beside_a_bystander(row, &backend, |row| {
        let address = row.hops()[0].address;
        let mut peers: Vec<Peer> = (0..300).map(|_| Peer::connect(address)).collect();
        for peer in &mut peers {
            peer.expect_closed();
        }
    });
}

#[test]
fn who_trickles_its_header_is_closed() {
    let backend = Backend::echo();
    let row = Row::with(1, &[backend.address], |plan| {
        plan.text("header_timeout", "3s")
    });
    beside_a_bystander(row, &backend, |row| {
        // Long enough to last for a minute.
        let noise = Numbers::new(1).bytes(1200);
        let mut peers: Vec<Peer> = (0..50)
            .map(|_| Peer::connect(row.hops()[0].address))
            .collect();
        let mut at = 0;
        paced(Duration::from_millis(50), || {
            peers.retain_mut(|peer| peer.try_send(&noise[at..=at]));
            at += 1;
            assert!(at < noise.len(), "{} are still open", peers.len());
            !peers.is_empty()
        });
    });
}

#[test]
fn who_trickles_to_an_access_listener_is_closed() {
    let row = Row::new(1, &["127.0.0.1:1"]);
    let tables = format!(
        "[chain]\nheader_timeout = \"1s\"\n{}{}",
        dynamic("socks5", &row.hops()),
        dynamic("http", &row.hops())
    );
    let setup = crate::support::server::Setup::new().limit("handshake_timeout = \"1s\"");
    let server = setup.tables(&tables).start();
    for (name, words) in [("socks5", &b"\x05\xff\x00"[..]), ("http", b"CONNECT a")] {
        let mut silent = Peer::connect(access_address(&server, name));
        let mut slow = Peer::connect(access_address(&server, name));
        slow.send(words);
        silent.rest();
        let mut sent = 0;
        paced(Duration::from_millis(50), || {
            sent += 1;
            assert!(sent < 1200, "{name} is still open");
            slow.try_send(b"a")
        });
    }
    server.stop();
    row.stop();
}

#[test]
fn a_thousand_that_leave_anywhere_leave_nothing_behind() {
    let backend = Backend::echo();
    let hole = BlackHole::new();
    let row = Row::with(2, &[backend.address, hole.address], |plan| {
        plan.text("dial_timeout", "2s")
    });
    let seed = 4712;
    eprintln!("seed {seed}");
    let mut numbers = Numbers::new(seed);
    beside_a_bystander(row, &backend, |row| {
        for _ in 0..1_000 {
            let to = [backend.address, hole.address][numbers.below(2)];
            let headers = row.headers(to);
            let bytes = [&headers.bytes()[..], &[1; 3000]].concat();
            let mut chained = headers.connect();
            chained
                .peer
                .try_send(&bytes[..numbers.below(bytes.len() + 1)]);
            if numbers.below(3) == 0 {
                chained.peer.settle();
            }
            match numbers.below(3) {
                0 => chained.peer.reset(),
                1 => drop(chained),
                _ => {
                    chained.peer.try_finish();
                    drop(chained);
                }
            }
        }
    });
}

#[test]
fn a_thousand_that_leave_an_access_listener_leave_nothing_behind() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let server = serve(&dynamic("socks5", &row.hops()));
    let address = access_address(&server, "socks5");
    let there = crate::support::chain::socks::at(backend.address);
    let request = crate::support::chain::socks::request(1, &there);
    let bytes = [&[5, 1, 0][..], &request, &[2; 2000]].concat();
    let mut numbers = Numbers::new(4713);
    for _ in 0..1_000 {
        let mut peer = Peer::connect(address);
        peer.try_send(&bytes[..numbers.below(bytes.len() + 1)]);
        if numbers.below(2) == 0 {
            peer.reset();
        }
    }
    server.expect_open(0);
    server.stop();
    row.stop();
}

#[test]
fn descriptors_that_run_out_come_back() {
    let backend = Backend::echo();
    let row = Row::with(1, &[backend.address], |plan| {
        plan.setup(|setup| {
            setup
                .top("workers = 1")
                .wrapper(&["prlimit", "--nofile=64"])
        })
    });
    let address = row.hops()[0].address;
    let peers: Vec<Peer> = (0..200).map(|_| Peer::connect(address)).collect();
    crate::support::window::expect_calm(row.proxies[0].server.process(), 20);
    drop(peers);
    // Some may still be turned away until all of the crowd have been seen to go.
    let mut served = 0;
    until("clients are served again", || {
        let headers = row.headers(backend.address);
        let mut chained = headers.connect();
        chained.peer.try_send(&headers.bytes());
        served = if chained.is_ok() { served + 1 } else { 0 };
        served == 16
    });
    row.headers(backend.address).dial().expect_echo(b"alive");
    row.stop();
}

#[test]
fn a_hop_drains_and_lets_open_chains_end() {
    let backend = Backend::echo();
    let mut row = Row::with(1, &[backend.address], |plan| {
        plan.setup(|setup| setup.limit("drain_timeout = \"60s\""))
    });
    let mut chained = row.headers(backend.address).dial();
    chained.expect_ok().send(b"ping").expect(b"ping");
    let server = &mut row.proxies[0].server;
    server.signal("TERM");
    let address = chained.peer.stream().peer_addr().unwrap();
    until("new clients are refused", || {
        std::net::TcpStream::connect(address).is_err()
    });
    chained.expect_echo(b"still here");
    assert_eq!(server.ended(), Some(0), "{}", server.log());
}

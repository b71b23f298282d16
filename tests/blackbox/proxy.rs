//! PROXY headers: believed from whom the configuration names and from nobody else, and sent to hosts
//! that want them.

use std::net::SocketAddr;

use crate::support::backend::{Backend, echo};
use crate::support::frame::Dialect;
use crate::support::peer::Peer;
use crate::support::roles::{ROLES, all, connect, connect_from};
use crate::support::route::Route;
use crate::support::server::{Server, Setup};
use crate::support::tunnel::proxy_header::{Header, read_v1, read_v2};
use crate::support::until;

const WIDE: Dialect = Dialect::Stock;

const LINE: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";

/// The same, in binary, with an extension.
const BINARY: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb\x04\0\x01\0";

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn believing(backend: &Backend) -> Server {
    all(backend.address, "accept_proxy = ['127.0.0.1']")
        .admin()
        .start()
}

fn rejected(server: &Server) -> f64 {
    let label = "reason=\"proxy_header\"";
    server.admin().metric("towpath_refused_total", label)
}

fn expect_line(server: &Server, wanted: &str) {
    until("the log tells of the session", || {
        server.log().lines().any(|line| line.contains(wanted))
    });
}

#[test]
fn every_role_takes_the_source_from_the_header_of_a_proxy_that_it_believes() {
    let backend = Backend::echo();
    let server = believing(&backend);
    for (number, role) in ROLES.iter().enumerate() {
        let source = format!("192.0.2.{number}:4711");
        let line = format!("PROXY TCP4 192.0.2.{number} 198.51.100.1 4711 443\r\n");
        let mut peer = connect(&server, role);
        peer.send(&line[..9]).settle();
        peer.send(&line[9..]).settle();
        until("the session is listed", || {
            let rows = server.admin().sessions(&format!("peer={source}"));
            rows.len() == 1 && rows[0]["peer"] == *source
        });
        drop(peer);
        expect_line(&server, &format!(" from={source} "));
    }
    assert_eq!(rejected(&server), 0.0);
    server.stop();
}

#[test]
fn what_stands_behind_the_header_is_the_client_s() {
    let backend = Backend::echo();
    let server = believing(&backend);
    for header in [LINE, BINARY] {
        let mut peer = server.connect();
        peer.send([header, &WIDE.sniff()].concat());
        let reply = peer.reply(WIDE);
        let sniffed = String::from_utf8_lossy(&reply.payload).into_owned();
        assert!(sniffed.contains("192.0.2.7"), "{sniffed:?}");
        let mut relay = connect(&server, "access");
        relay.send([header, LINE].concat()).expect(LINE);
        relay.finish().expect_end();
    }
    server.stop();
}

#[test]
fn one_who_speaks_for_himself_keeps_his_address() {
    let backend = Backend::echo();
    let server = believing(&backend);
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut peer = connect(&server, "access");
        peer.send([header, b"ping"].concat()).expect(b"ping");
        let source = peer.local();
        peer.finish().expect_end();
        expect_line(&server, &format!(" from={source} "));
    }
    server.stop();
}

#[test]
fn a_header_from_anybody_else_changes_nothing() {
    let backend = Backend::echo();
    let server = all(backend.address, "accept_proxy = ['127.0.0.2']").start();
    for header in [LINE, BINARY] {
        // A stream to the backend has it as payload; others close what is no frame of theirs.
        let mut relay = connect(&server, "access");
        relay.send(header).expect(header);
        let source = relay.local();
        relay.finish().expect_end();
        expect_line(&server, &format!(" from={source} "));
        for role in ["agent", "gateway-servers", "tunnel", "node"] {
            let mut peer = connect(&server, role);
            peer.try_send(header);
            peer.try_finish();
            peer.rest();
        }
        let mut peer = connect_from("127.0.0.2", &server, "access");
        peer.send([header, b"ping"].concat()).expect(b"ping");
    }
    let from = |line: &&str| line.contains("from=192.0.2.7");
    until("the two that were believed are told of", || {
        server.log().lines().filter(from).count() == 2
    });
    let log = server.log();
    assert!(log.lines().filter(from).all(|line| line.contains("access")));
    server.stop();
}

/// Headers that are none, of the catalogue's kinds.
fn bad() -> Vec<Vec<u8>> {
    let binary = |tail: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", tail].concat();
    let long = [b"PROXY ", &[b'x'; 101][..]].concat();
    let texts = [
        "PROXY TCP5 192.0.2.7 198.51.100.1 4711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 04711 443\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\n",
        "hello",
    ];
    let mut all: Vec<_> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    all.extend([
        long,
        binary(b"\x22\x11\0\x0c"),
        binary(b"\x21\x41\0\x0c"),
        binary(b"\x21\x11\0\0"),
        binary(b"\x21\x11\xff\xff"),
        binary(b"\x21\x11\0\x0f\xc0\0\x02\x07\xc6\x33\x64\x01\x12\x67\x01\xbb\x04\0\x09"),
    ]);
    all
}

#[test]
fn what_is_no_header_is_refused_in_whatever_pieces_it_comes() {
    let backend = Backend::echo();
    let server = believing(&backend);
    let mut count = 0.0;
    for bytes in bad() {
        let middle = bytes.len() / 2;
        let pieces: [Vec<&[u8]>; 3] = [
            vec![&bytes],
            vec![&bytes[..middle], &bytes[middle..]],
            bytes.chunks(1).collect(),
        ];
        for pieces in pieces {
            let mut peer = server.connect();
            for piece in pieces {
                if !peer.try_send(piece) {
                    break;
                }
                peer.settle();
            }
            peer.expect_closed();
            count += 1.0;
            let shown = bytes.escape_ascii();
            assert_eq!(rejected(&server), count, "{shown}");
        }
        let mut peer = connect(&server, "access");
        peer.send([BINARY, b"ping"].concat()).expect(b"ping");
    }
    // Four lines a second, of whichever came first.
    expect_line(&server, " refused: PROXY ");
    server.stop();
}

#[test]
fn a_silent_proxy_is_closed_at_the_handshake_timeout() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .agent("accept_proxy = ['127.0.0.0/8']")
        .limit("handshake_timeout = \"2s\"")
        .start();
    let mut peer = server.connect();
    peer.send(b"PROXY TCP4 ");
    peer.expect_closed();
    expect_line(&server, "refused: its PROXY header took too long");
    // A look at the port is nobody's fault.
    server.connect().finish().expect_end();
    server.stop();
}

/// A backend that reads a header and says who came and where to, then echoes.
fn asking(read: Read) -> Backend {
    Backend::serve(move |mut peer, _| {
        let header = read(&mut peer);
        let told = format!("{} {}\n", header.source, header.destination);
        peer.try_send(told.as_bytes());
        echo(peer);
    })
}

fn expect_told(peer: &mut Peer, source: SocketAddr, destination: SocketAddr) {
    peer.expect(format!("{source} {destination}\n"));
}

type Read = fn(&mut Peer) -> Header;

const READERS: [(&str, Read); 2] = [("v1", read_v1), ("v2", read_v2)];

#[test]
fn the_hosts_of_a_route_are_told_who_the_client_is() {
    for (version, read) in READERS {
        for way in ["auto", "splice"] {
            let backend = asking(read);
            let route = Route::new("svc").host("default", backend.address);
            let server = Setup::new()
                .top(&format!("relay = \"{way}\""))
                .route(route.send_proxy(version))
                .start();
            let mut peer = server.open();
            let source = peer.local();
            expect_told(&mut peer, source, server.address);
            // Payload, much of it, comes behind the header.
            let bulk: Vec<u8> = (0..4_000_000_u32).map(|at| (at / 7) as u8).collect();
            let (mut writer, all) = (peer.twin(), bulk.clone());
            let writing = std::thread::spawn(move || {
                writer.send(&all).finish();
            });
            assert!(peer.take(bulk.len()) == bulk);
            writing.join().unwrap();
            peer.expect_end();
            server.stop();
        }
    }
}

#[test]
fn who_is_told_of_is_whom_a_believed_header_names() {
    let backend = asking(read_v2);
    let route = Route::new("svc").host("default", backend.address);
    let server = Setup::new()
        .route(route.send_proxy("v2"))
        .agent("accept_proxy = ['127.0.0.1']")
        .start();
    let mut peer = server.connect();
    peer.send([LINE, &WIDE.traffic(b"svc", b"x", b"")].concat());
    peer.expect(WIDE.greeting());
    let [source, destination] = ["192.0.2.7:4711", "198.51.100.1:443"];
    expect_told(
        &mut peer,
        source.parse().unwrap(),
        destination.parse().unwrap(),
    );
    drop(peer);
    server.stop();
}

#[test]
fn the_destination_of_an_access_listener_is_told_through_whatever_chain() {
    const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    for (version, read) in READERS {
        let backend = asking(read);
        let to = backend.address;
        let hop = Setup::new().tables(&format!(
            "[chain]\nlisten = ['127.0.0.1:0']\npayload_key = '{KEY}'\nallow = ['{to}']\n"
        ));
        let hop = hop.start();
        let via = hop.addresses["chain"][0].as_str().unwrap();
        let ways = [
            "via = []".to_owned(),
            format!("via = [{{ address = '{via}' }}]"),
            format!("via = [{{ address = '{via}' }}]\nearly_data = true"),
            format!("via = [{{ address = '{via}' }}]\npayload_key = '{KEY}'"),
        ];
        for way in ways {
            let server = Setup::new().tables(&format!(
                "[[chain.access]]\nname = 'db'\nlisten = '127.0.0.1:0'\nto = '{to}'\n\
                 send_proxy = '{version}'\n{way}\n"
            ));
            let server = server.start();
            let mut peer = server.access("db");
            let (source, here) = (peer.local(), peer.stream().peer_addr().unwrap());
            peer.send(b"early words");
            expect_told(&mut peer, source, here);
            peer.expect(b"early words");
            peer.send(b"more").expect(b"more").finish().expect_end();
            server.stop();
        }
        hop.stop();
    }
}

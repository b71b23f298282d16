//! How connections come in: who is let in and who is not, headers of proxies in all pieces, and the
//! ladder on which new work is given up.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use towpath::config::Terms;
use towpath::net::{ConnKey, Level, Usage};
use towpath::session::{Cause, Close, Cx, Event, Seat, Session};
use towpath::stats::{Metric, Refusal};
use towpath::wire::proxy::{Ends, Version, encode};

use super::house::{HANDSHAKE, House, Shape};
use super::seeds;

/// What a session has been told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    peer: Option<SocketAddr>,
    ends: Option<Ends>,
    bytes: Vec<u8>,
    ended: bool,
}

type All = Rc<RefCell<Vec<Told>>>;

/// Notes what it is told; `paused` reads nothing until a timer fires.
struct Listener {
    all: All,
    at: usize,
    paused: bool,
    conn: Option<ConnKey>,
}

impl Session for Listener {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        let mut all = self.all.borrow_mut();
        let told = &mut all[self.at];
        match event {
            Event::Accepted { conn, peer, .. } => {
                told.peer = Some(peer);
                told.ends = cx.ends(conn);
                self.conn = Some(conn);
                if self.paused {
                    cx.pause(conn);
                    cx.arm(0, Duration::from_secs(1));
                }
            }
            Event::Timer { .. } => {
                self.paused = false;
                cx.resume(self.conn.unwrap());
            }
            Event::Data { rx, .. } => {
                assert!(!self.paused, "told of bytes while it reads none");
                let count = rx.len();
                rx.take_into(count, &mut told.bytes);
            }
            Event::Eof { .. } => {
                told.ended = true;
                return Err(Close::finished());
            }
            Event::Lost { why, .. } => return Err(Close::downstream(Cause::Io("test", why))),
            Event::Stopping => return Err(Close::own(Cause::Stopping)),
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, _: &mut String) {}
}

struct Ears {
    all: All,
    pauses: bool,
}

impl Seat for Ears {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        let mut all = self.all.borrow_mut();
        all.push(Told::default());
        Box::new(Listener {
            all: Rc::clone(&self.all),
            at: all.len() - 1,
            paused: self.pauses,
            conn: None,
        })
    }
}

fn house(seed: u64, shape: Shape, pauses: bool) -> (House, All) {
    let all = All::default();
    let ears = Ears {
        all: Rc::clone(&all),
        pauses,
    };
    let house = House::new(seed, shape, |_, _| Box::new(ears));
    (house, all)
}

/// The peers of the simulated network are all from here.
const PEERS: &str = "10.1.0.0/16";

fn believing() -> Shape {
    let terms = Terms {
        accept_proxy: vec![PEERS.parse().unwrap()],
        ..Terms::default()
    };
    Shape {
        terms,
        ..Shape::default()
    }
}

fn ends() -> Ends {
    Ends {
        from: "192.0.2.7:4711".parse().unwrap(),
        to: "198.51.100.1:443".parse().unwrap(),
    }
}

fn refused(house: &House, why: Refusal) -> u64 {
    house.counters.refused(why)
}

/// A connection that sends these, the second when the engine has looked at the first.
fn send(house: &mut House, parts: [&[u8]; 2]) -> usize {
    let client = house.world.borrow_mut().connect();
    for part in parts {
        house.world.borrow_mut().send(client, part);
        house.settle();
    }
    client
}

#[test]
fn a_header_split_anywhere_says_who_the_peer_is_and_the_rest_is_payload() {
    let payload = b"PROXY TCP4 is payload here\r\n";
    for version in [Version::V1, Version::V2] {
        for pauses in [false, true] {
            let bytes = [&encode(version, false, Some(ends())), &payload[..]].concat();
            let (mut house, all) = house(3, believing(), pauses);
            for at in 0..=bytes.len() {
                let client = send(&mut house, [&bytes[..at], &bytes[at..]]);
                if pauses {
                    let soon = house.now + Duration::from_secs(2);
                    house.wait(soon);
                }
                house.world.borrow_mut().end(client);
                house.settle();
                let want = Told {
                    peer: Some(ends().from),
                    ends: Some(ends()),
                    bytes: payload.to_vec(),
                    ended: true,
                };
                assert_eq!(all.borrow_mut().pop(), Some(want), "split at {at}");
            }
            house.assert_empty();
        }
    }
}

#[test]
fn a_header_comes_byte_by_byte_in_any_order_of_events() {
    seeds(30, |seed| {
        let (mut house, all) = house(seed, believing(), false);
        let header = encode(Version::V2, false, Some(ends()));
        let client = house.world.borrow_mut().connect();
        for byte in header.iter().chain(b"hello") {
            house.world.borrow_mut().send(client, &[*byte]);
            house.world.borrow_mut().deliver(client, 1);
            for _ in 0..2 {
                house.turn();
            }
        }
        house.world.borrow_mut().end(client);
        house.settle();
        assert_eq!(all.borrow()[0].bytes, b"hello");
        assert_eq!(all.borrow()[0].peer, Some(ends().from));
        house.assert_empty();
    });
}

#[test]
fn one_who_speaks_for_himself_is_who_he_is() {
    for version in [Version::V1, Version::V2] {
        let (mut house, all) = house(5, believing(), false);
        let header = encode(version, false, None);
        let client = send(&mut house, [&header, b"x"]);
        let peer = house.world.borrow().sockets[client].peer;
        let told = &all.borrow()[0];
        let to = "10.0.0.1:7100".parse().unwrap();
        assert_eq!((told.peer, &told.bytes[..]), (Some(peer), &b"x"[..]));
        assert_eq!(told.ends, Some(Ends { from: peer, to }));
    }
}

#[test]
fn nobody_is_believed_who_is_not_named() {
    let shape = Shape {
        terms: Terms {
            accept_proxy: vec!["10.2.0.0/16".parse().unwrap()],
            ..Terms::default()
        },
        ..Shape::default()
    };
    let (mut house, all) = house(6, shape, false);
    let header = encode(Version::V2, false, Some(ends()));
    let client = send(&mut house, [&header[..9], &header[9..]]);
    let peer = house.world.borrow().sockets[client].peer;
    assert_eq!(all.borrow()[0].peer, Some(peer));
    assert_eq!(all.borrow()[0].bytes, header, "it is payload");
}

#[test]
fn one_without_a_header_is_closed_and_no_session_hears_of_it() {
    let cases: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 10.0.0.1 10.0.0.2 01 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0",
        &[b'P'; 5000],
    ];
    for bytes in cases {
        let (mut house, all) = house(7, believing(), false);
        let client = send(&mut house, [bytes, b""]);
        assert!(house.world.borrow().sockets[client].closed);
        assert_eq!(
            (all.borrow().len(), refused(&house, Refusal::Header)),
            (0, 1)
        );
        house.assert_empty();
    }
}

#[test]
fn a_header_that_ends_early_is_a_fault_and_a_look_at_the_port_is_none() {
    let (mut house, all) = house(8, believing(), false);
    for (bytes, faults) in [(&b""[..], 0), (b"PROXY TCP4 10.", 1)] {
        let client = house.world.borrow_mut().connect();
        house.world.borrow_mut().send(client, bytes);
        house.world.borrow_mut().end(client);
        house.settle();
        assert_eq!(refused(&house, Refusal::Header), faults);
    }
    let client = send(&mut house, [b"PROXY ", b""]);
    house.world.borrow_mut().reset(client);
    house.settle();
    assert_eq!(all.borrow().len(), 0);
    house.assert_empty();
}

#[test]
fn a_header_has_the_handshake_timeout_however_slowly_it_comes() {
    let (mut house, all) = house(9, believing(), false);
    let client = house.world.borrow_mut().connect();
    let start = house.now;
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443";
    for (second, byte) in line.iter().enumerate() {
        if house.world.borrow().sockets[client].closed {
            break;
        }
        house.world.borrow_mut().send(client, &[*byte]);
        house.settle();
        house.wait(start + Duration::from_secs(second as u64 + 1));
    }
    assert_eq!(house.now, start + HANDSHAKE);
    assert_eq!(
        (all.borrow().len(), refused(&house, Refusal::Header)),
        (0, 1)
    );
    house.assert_empty();
}

#[test]
fn who_has_said_nothing_yet_does_not_hold_up_the_end() {
    let (mut house, _) = house(10, believing(), false);
    send(&mut house, [b"PROXY ", b""]);
    house.phase.drain();
    house.settle();
    assert!(house.worker.is_done());
    assert_eq!(house.worker.holdings().conns, 0);
}

#[test]
fn the_source_that_a_header_names_is_the_one_that_counts() {
    let mut shape = believing();
    shape.terms.max_connections_per_ip = 1;
    shape.terms.deny_from = vec!["203.0.113.0/24".parse().unwrap()];
    let (mut house, all) = house(11, shape, false);
    let from = |house: &mut House, from: &str| {
        let from = from.parse().unwrap();
        let header = encode(Version::V1, false, Some(Ends { from, ..ends() }));
        send(house, [&header, b"x"])
    };
    let first = from(&mut house, "192.0.2.1:1");
    from(&mut house, "192.0.2.2:1");
    assert_eq!(all.borrow().len(), 2);
    from(&mut house, "192.0.2.1:2");
    assert_eq!(refused(&house, Refusal::ConnectionsPerIp), 1);
    from(&mut house, "203.0.113.9:2");
    assert_eq!(refused(&house, Refusal::Denied), 1);
    assert_eq!(all.borrow().len(), 2);
    house.world.borrow_mut().end(first);
    house.settle();
    from(&mut house, "192.0.2.1:3");
    assert_eq!(all.borrow().len(), 3);
}

#[test]
fn a_barred_network_is_closed_unheard() {
    let shape = Shape {
        terms: Terms {
            deny_from: vec![PEERS.parse().unwrap()],
            accept_proxy: vec![PEERS.parse().unwrap()],
            ..Terms::default()
        },
        ..Shape::default()
    };
    let (mut house, all) = house(12, shape, false);
    let header = encode(Version::V2, false, Some(ends()));
    send(&mut house, [&header, b"x"]);
    assert_eq!(
        (all.borrow().len(), refused(&house, Refusal::Denied)),
        (0, 1)
    );
    assert_eq!(house.counters.get(Metric::Shed), 0);
    house.assert_empty();
}

#[test]
fn a_role_that_is_full_lets_others_wait_and_one_that_is_hasty_is_slowed() {
    let mut shape = Shape::default();
    shape.terms.max_connections = 2;
    let (mut house, all) = house(13, shape, false);
    let clients: Vec<_> = (0..3).map(|_| send(&mut house, [b"x", b""])).collect();
    assert_eq!(all.borrow().len(), 2);
    assert!(!house.world.borrow().sockets[clients[2]].closed, "it waits");
    house.world.borrow_mut().end(clients[0]);
    house.settle();
    assert_eq!(all.borrow().len(), 3);

    let mut shape = Shape::default();
    shape.terms.connection_rate = 2;
    let (mut house, all) = self::house(14, shape, false);
    for _ in 0..3 {
        send(&mut house, [b"x", b""]);
    }
    assert_eq!((all.borrow().len(), refused(&house, Refusal::Rate)), (2, 1));
    assert_eq!(house.counters.get(Metric::Shed), 1);
    let later = house.now + Duration::from_millis(600);
    house.now = later;
    send(&mut house, [b"x", b""]);
    assert_eq!(all.borrow().len(), 3);
}

#[test]
fn a_full_server_takes_nobody_in_until_there_is_room() {
    let shape = Shape {
        room: Usage {
            descriptors: 20,
            memory: 0,
        },
        ..Shape::default()
    };
    let (mut house, all) = house(15, shape, false);
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(send(&mut house, [b"x", b""]));
    }
    assert_eq!(house.load.level(), Level::Full);
    assert_eq!(all.borrow().len(), 19, "95 in 100");
    // Two fewer are not enough, four are.
    for client in &clients[..2] {
        house.world.borrow_mut().end(*client);
    }
    house.settle();
    assert_eq!((house.load.level(), all.borrow().len()), (Level::Full, 19));
    for client in &clients[2..4] {
        house.world.borrow_mut().end(*client);
    }
    let soon = house.now + Duration::from_secs(1);
    house.wait(soon);
    house.settle();
    assert!(all.borrow().len() > 19, "served again");
    for client in clients {
        house.world.borrow_mut().end(client);
    }
    while house.load.level() != Level::Normal || all.borrow().len() < 30 {
        house.pass(Duration::from_millis(500));
        house.settle();
    }
    house.assert_empty();
}

//! Mode mux: all visitors of a service on two connections, one for each direction.

use std::net::SocketAddr;
use std::thread;

use crate::support::bulk::{self, Numbers};
use crate::support::peer::Peer;
use crate::support::tunnel::client::{Client, Service, random};
use crate::support::tunnel::expect_turned_away;
use crate::support::tunnel::frames::{Frames, MAX_RAW, What, frame};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Expose, Uuid, status};

/// A client with a service of mode mux and both of its connections.
pub struct Muxed {
    pub client: Client,
    pub service: Service,
    /// What the client sends.
    pub to: Frames,
    /// What it receives.
    pub from: Frames,
}

impl Muxed {
    pub fn new(tunnel: &Tunnel, number: u8) -> Self {
        let mut client = tunnel.client(number);
        let service = client.expose(Expose::named("web").mux());
        let (to, from) = client.ways(&service);
        Self {
            client,
            service,
            to,
            from,
        }
    }

    /// A fresh visitor, announced.
    pub fn visitor(&mut self) -> (Peer, Uuid) {
        let visitor = Peer::connect(self.service.public);
        let (uuid, address) = self.from.opened(self.service.number);
        assert_eq!(address, visitor.local(), "whom the client is told of");
        (visitor, uuid)
    }

    /// Fewer bytes than a grant is worth go both ways.
    pub fn expect_passing(&mut self, (visitor, uuid): &mut (Peer, Uuid), payload: &[u8]) {
        visitor.send(payload);
        self.from.expect(uuid, payload);
        self.to.send(uuid, payload);
        visitor.expect(payload);
    }
}

#[test]
fn frames_go_both_ways() {
    for workers in [1, 2, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut muxed = Muxed::new(&tunnel, 1);
        let mut visited = muxed.visitor();
        for length in [1, 2, 1000, 20_000] {
            let payload = Numbers::new(length as u64).bytes(length);
            muxed.expect_passing(&mut visited, &payload);
        }
        // There is no visit in this mode.
        muxed.client.expect_quiet();
    }
}

#[test]
fn the_service_may_speak_first() {
    let tunnel = Tunnel::new(1);
    let mut muxed = Muxed::new(&tunnel, 1);
    let (mut visitor, uuid) = muxed.visitor();
    muxed.to.send(&uuid, b"a banner");
    visitor.expect(b"a banner");
}

#[test]
fn visitors_that_came_before_the_connections_are_served() {
    for order in [*b"SR", *b"RS"] {
        let tunnel = Plan::new(1).workers(2).start();
        let mut client = tunnel.client(1);
        let service = client.expose(Expose::named("web").mux());
        let mut early: Vec<Peer> = (0..5).map(|_| Peer::connect(service.public)).collect();
        for (at, visitor) in early.iter_mut().enumerate() {
            visitor.send([at.to_le_bytes()[0]; 10]);
        }
        let [first, second] = order.map(|kind| {
            let way = client.way(kind, &client.session, service.number);
            Frames::new(way.unwrap(), false)
        });
        let (mut to, mut from) = if order[0] == b'S' {
            (first, second)
        } else {
            (second, first)
        };
        let mut seen: Vec<(Uuid, SocketAddr)> = Vec::new();
        let mut answered = 0;
        while answered < early.len() {
            match from.next() {
                (uuid, What::Open { visitor, .. }) => seen.push((uuid, visitor)),
                (uuid, What::Data(bytes)) => {
                    assert!(
                        seen.iter().any(|(known, _)| *known == uuid),
                        "not announced"
                    );
                    to.send(&uuid, &bytes);
                    answered += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        for (at, visitor) in early.iter_mut().enumerate() {
            visitor.expect([at.to_le_bytes()[0]; 10]);
        }
    }
}

#[test]
fn a_visitor_waits_for_them_only_so_long() {
    let tunnel = Plan::new(1).text("visitor_timeout", "500ms").start();
    let mut client = tunnel.client(1);
    let service = client.expose(Expose::named("web").mux());
    expect_turned_away(service.public);
    // One of the two is not enough.
    let way = client.way(b'R', &client.session, service.number);
    let _way = way.unwrap();
    expect_turned_away(service.public);
    client.expect_pong();
}

#[test]
fn what_is_longer_than_a_frame_is_split() {
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let (mut visitor, uuid) = muxed.visitor();
    let payload = Numbers::new(9).bytes(200_000);
    visitor.send(&payload);
    // No frame is longer than it may be: that is checked where they are read.
    muxed.from.expect(&uuid, &payload);
    // The longest that we may send.
    muxed.to.send(&uuid, &payload[..MAX_RAW]);
    visitor.expect(&payload[..MAX_RAW]);
}

#[test]
fn each_direction_ends_by_itself() {
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let mut other = muxed.visitor();
    for visitor_first in [true, false] {
        let (mut visitor, uuid) = muxed.visitor();
        if visitor_first {
            visitor.send(b"the last words").finish();
            muxed.from.expect(&uuid, b"the last words");
            assert_eq!(muxed.from.next_of(&uuid), What::End);
            muxed.to.send(&uuid, b"and an answer").end(&uuid);
            visitor.expect(b"and an answer").expect_end();
        } else {
            muxed.to.send(&uuid, b"the last words").end(&uuid);
            visitor.expect(b"the last words").expect_end();
            visitor.send(b"and an answer").finish();
            muxed.from.expect(&uuid, b"and an answer");
            assert_eq!(muxed.from.next_of(&uuid), What::End);
        }
        muxed.expect_passing(&mut other, b"undisturbed");
    }
}

#[test]
fn a_reset_goes_both_ways() {
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let mut other = muxed.visitor();
    let mut ended = muxed.visitor();
    muxed.expect_passing(&mut ended, b"before");
    let (visitor, uuid) = ended;
    visitor.reset();
    assert_eq!(muxed.from.next_of(&uuid), What::Reset);
    // What was under way to it is for nobody, and no mistake.
    muxed.to.send(&uuid, b"too late").end(&uuid).reset(&uuid);
    muxed.expect_passing(&mut other, b"undisturbed");
    let mut ended = muxed.visitor();
    muxed.expect_passing(&mut ended, b"before");
    let (mut visitor, uuid) = ended;
    muxed.to.reset(&uuid);
    visitor.expect_reset();
    muxed.expect_passing(&mut other, b"still undisturbed");
}

#[test]
fn frames_of_many_visitors_arrive_whole_and_in_order() {
    const VISITORS: usize = 60;
    for workers in [1, 2, 4] {
        let tunnel = Plan::new(1).workers(workers).start();
        let mut muxed = Muxed::new(&tunnel, 1);
        let public = muxed.service.public;
        let visitors: Vec<_> = (0..VISITORS)
            .map(|number| {
                thread::spawn(move || {
                    let mut peer = Peer::connect(public);
                    let block = Numbers::new(number as u64).bytes(50_000);
                    peer.send(&block).finish();
                    peer.expect(&block).expect_end();
                })
            })
            .collect();
        // An echo of all of them at once.
        let mut ended = 0;
        while ended < VISITORS {
            match muxed.from.next() {
                (uuid, What::Data(bytes)) => {
                    muxed.to.send(&uuid, &bytes);
                }
                (uuid, What::End) => {
                    muxed.to.end(&uuid);
                    ended += 1;
                }
                (_, What::Open { .. }) => {}
                (_, What::Reset) => panic!("a visitor was reset"),
            }
        }
        for visitor in visitors {
            visitor.join().unwrap();
        }
        muxed.client.expect_quiet();
    }
}

#[test]
fn a_long_stream_arrives_with_grants_both_ways() {
    const TOTAL: usize = 16 << 20;
    let tunnel = Plan::new(1).workers(2).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let (mut visitor, uuid) = muxed.visitor();
    let mut writer = visitor.twin();
    let sending = thread::spawn(move || bulk::send(&mut writer, 3, TOTAL));
    let receiving = thread::spawn(move || bulk::receive(&mut visitor));
    // An echo that grants what it has read and sends what it was granted.
    let Muxed {
        mut to, mut from, ..
    } = muxed;
    let (give, take) = std::sync::mpsc::channel::<Vec<u8>>();
    let echoing = thread::spawn(move || {
        let mut left = crate::support::tunnel::frames::WINDOW;
        for bytes in take {
            while left < bytes.len() {
                let (granted, more) = to.granted();
                assert_eq!(granted, uuid);
                left += more;
            }
            left -= bytes.len();
            to.send(&uuid, &bytes);
        }
        to.end(&uuid);
        to
    });
    let mut total = 0;
    while total < TOTAL {
        let What::Data(bytes) = from.next_of(&uuid) else {
            panic!("ended after {total}");
        };
        total += bytes.len();
        from.grant(&uuid, bytes.len());
        give.send(bytes).unwrap();
    }
    assert_eq!(from.next_of(&uuid), What::End);
    drop(give);
    let _to = echoing.join().unwrap();
    assert_eq!(receiving.join().unwrap(), (TOTAL, sending.join().unwrap()));
}

#[test]
fn a_place_that_there_is_not_is_told() {
    let tunnel = Tunnel::new(3);
    let mut muxed = Muxed::new(&tunnel, 1);
    let mut visited = muxed.visitor();
    for kind in *b"SR" {
        for (session, service) in [
            (random(), muxed.service.number),
            ([0; 16], muxed.service.number),
            (muxed.client.session, 4711),
        ] {
            let refused = muxed.client.way(kind, &session, service);
            assert_eq!(refused.err(), Some(status::UNKNOWN_PLACE));
        }
    }
    muxed.expect_passing(&mut visited, b"undisturbed");
    // A session ends with its control connection.
    let session = muxed.client.session;
    muxed.client.leave();
    let other = tunnel.client(1);
    crate::support::until("the place is gone", || {
        let refused = other.way(b'S', &session, muxed.service.number);
        refused.err() == Some(status::UNKNOWN_PLACE)
    });
}

#[test]
fn frames_that_may_not_be_end_their_service_and_no_other() {
    let tunnel = Plan::new(3).workers(2).start();
    let mut bystander = Muxed::new(&tunnel, 2);
    let mut undisturbed = bystander.visitor();
    let too_long = |length: u32| frame(&[7; 16], length, &[]);
    let open = frame(&[7; 16], 0xffff_fffe, &[1, 0, 4, 127, 0, 0, 1, 80, 0]);
    let cases = [
        ("a byte too many", too_long(65_537)),
        ("2^31 bytes", too_long(1 << 31)),
        ("2^32 - 3 bytes", too_long(u32::MAX - 2)),
        ("a visitor of the client's own", open),
    ];
    for (name, bytes) in &cases {
        eprintln!("{name}");
        let mut muxed = Muxed::new(&tunnel, 1);
        let (mut visitor, uuid) = muxed.visitor();
        muxed.to.send(&uuid, b"good").peer.try_send(bytes);
        muxed.to.peer.rest();
        let (said, _) = visitor.rest();
        assert!(b"good".starts_with(&said[..]), "{said:?}");
        bystander.expect_passing(&mut undisturbed, b"undisturbed");
    }
    bystander.client.expect_quiet();
    tunnel.expect_alive();
}

#[test]
fn a_stream_of_frames_that_is_cut_anywhere_harms_nobody() {
    let tunnel = Plan::new(2).workers(2).start();
    let mut bystander = Muxed::new(&tunnel, 2);
    let mut undisturbed = bystander.visitor();
    for at in [1, 15, 16, 17, 19, 20, 21, 119] {
        for resets in [false, true] {
            let mut muxed = Muxed::new(&tunnel, 1);
            let (mut visitor, uuid) = muxed.visitor();
            let bytes = frame(&uuid, 100, &[5; 100]);
            muxed.to.peer.send(&bytes[..at]).settle();
            match resets {
                true => muxed.to.peer.reset(),
                false => {
                    muxed.to.peer.finish();
                    muxed.to.peer.rest();
                }
            }
            // The visitors of those connections end with them.
            visitor.rest();
            bystander.expect_passing(&mut undisturbed, b"undisturbed");
        }
    }
}

#[test]
fn frames_may_come_in_any_segments() {
    let tunnel = Plan::new(1).workers(1).start();
    let mut muxed = Muxed::new(&tunnel, 1);
    let (mut visitor, uuid) = muxed.visitor();
    let bytes = [
        frame(&uuid, 5, b"first"),
        frame(&uuid, 1, b"s"),
        frame(&uuid, 30, &[b'l'; 30]),
    ]
    .concat();
    let whole = [&b"firsts"[..], &[b'l'; 30]].concat();
    for at in 1..bytes.len() {
        muxed.to.peer.send(&bytes[..at]).settle();
        muxed.to.peer.send(&bytes[at..]);
        visitor.expect(&whole);
    }
    for byte in &bytes {
        muxed.to.peer.send([*byte]).settle();
    }
    visitor.expect(&whole);
}

#[test]
fn visitors_end_when_their_client_goes() {
    for workers in [1, 4] {
        for way in 0..3 {
            let tunnel = Plan::new(1).workers(workers).start();
            let mut muxed = Muxed::new(&tunnel, 1);
            let mut visited = muxed.visitor();
            muxed.expect_passing(&mut visited, b"before");
            let Muxed {
                client, to, from, ..
            } = muxed;
            let mut kept = None;
            match way {
                0 => client.leave(),
                1 => client.reset(),
                // Its control connection stays.
                _ => kept = Some(client),
            }
            drop((to, from));
            visited.0.rest();
            drop(kept);
        }
    }
}

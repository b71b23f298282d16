//! One hop and a client that speaks its bytes: who is heard, who is kept in silence, and what a
//! payload that was altered comes to.

use std::time::Duration;

use towpath::protocols::chain::config::PUBLIC_KEY;
use towpath::protocols::chain::wire::{
    Address, Code, Flags, Key, Nonce, RESPONSE_FRAME, Request, Response, Sealer, Side, Transport,
    open_response, records, seal_request,
};

use super::street::{destination, hop_house, key_of, payload_key};
use crate::house::House;
use crate::seeds;

/// A hop's house, a client of it, and how many requests were made.
pub struct Visit {
    pub house: House,
    made: u8,
}

impl Visit {
    pub fn new(seed: u64) -> Self {
        let edit = |config: &mut towpath::protocols::chain::Config| {
            config.header_timeout = HEADER;
            config.max_silent = 4;
        };
        Self {
            house: hop_house(seed, 1, edit),
            made: 0,
        }
    }

    pub fn stamp(&self) -> u64 {
        self.house.world.borrow().unix_time.as_millis() as u64
    }

    /// A request's frame, and its nonce.
    pub fn request(&mut self, key: &Key, stamp: u64, flags: Flags) -> (Vec<u8>, Nonce) {
        self.made += 1;
        let nonce = [self.made; 24];
        let request = Request {
            stamp,
            flags,
            address: Address::Socket(destination()),
        };
        let mut frame = Vec::new();
        seal_request(&mut frame, key, Transport::Tcp, &nonce, &request);
        (frame, nonce)
    }

    fn visitor(&mut self, bytes: &[u8]) -> usize {
        let client = self.house.world.borrow_mut().connect();
        self.house.world.borrow_mut().send(client, bytes);
        self.house.settle();
        client
    }

    /// The response that a client has got, to a request of that nonce.
    fn response(&self, client: usize, nonce: &Nonce) -> (Nonce, Response) {
        let world = self.house.world.borrow();
        let frame = &world.sockets[client].received[..RESPONSE_FRAME];
        open_response(&key_of(1), Transport::Tcp, frame, nonce).unwrap()
    }

    fn is_over(&self, client: usize) -> bool {
        self.house.world.borrow().sockets[client].is_over()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.house.now + time;
        while self.house.now < until {
            self.house.settle();
            self.house.pass(until - self.house.now);
        }
        self.house.settle();
    }

    /// After how long a client that sends bytes is closed without one from the hop.
    fn silence(&mut self, bytes: &[u8]) -> Duration {
        let client = self.visitor(bytes);
        let start = self.house.now;
        while !self.is_over(client) {
            assert!(self.house.now - start < Duration::from_secs(30), "for ever");
            self.house
                .world
                .borrow_mut()
                .send(client, b"and more of it");
            self.house.settle();
            self.wait(Duration::from_millis(100));
        }
        assert_eq!(self.house.world.borrow().sockets[client].emitted(), 0);
        self.house.now - start
    }
}

#[test]
fn who_shows_no_key_no_time_or_an_old_header_gets_no_byte_for_five_to_fifteen_seconds() {
    let mut longest = Duration::ZERO;
    seeds(12, |seed| {
        let mut visit = Visit::new(seed);
        let stamp = visit.stamp();
        let (wrong, _) = visit.request(&PUBLIC_KEY, stamp, Flags::default());
        let (stale, _) = visit.request(&key_of(1), stamp - 31_000, Flags::default());
        let (early, _) = visit.request(&key_of(1), stamp + 60_000, Flags::default());
        let mut bent = visit.request(&key_of(1), stamp, Flags::default()).0;
        bent[30] ^= 1;
        let probe = Flags {
            probe: true,
            ..Flags::default()
        };
        let (good, nonce) = visit.request(&key_of(1), stamp, probe);
        let first = visit.visitor(&good);
        assert_eq!(visit.response(first, &nonce).1.code, Code::Ok);
        visit.house.world.borrow_mut().end(first);
        visit.house.settle();
        let kinds = [
            wrong,
            bent,
            stale,
            early,
            good,
            vec![0; 600],
            vec![0xff; 600],
        ];
        let kind = &kinds[seed as usize % kinds.len()];
        let took = visit.silence(kind);
        assert!(took >= Duration::from_secs(5), "{took:?}");
        assert!(took <= Duration::from_millis(15_200), "{took:?}");
        visit.house.assert_empty();
    });
    let mut visit = Visit::new(99);
    for _ in 0..40 {
        longest = longest.max(visit.silence(&[0; 600]));
    }
    assert!(longest > Duration::from_secs(14), "spread over all of it");
}

#[test]
fn no_more_than_so_many_are_kept_in_silence() {
    let mut visit = Visit::new(1);
    let clients: Vec<usize> = (0..6).map(|_| visit.visitor(&[0; 600])).collect();
    let over: Vec<bool> = clients
        .iter()
        .map(|&client| visit.is_over(client))
        .collect();
    assert_eq!(over, [false, false, false, false, true, true]);
    visit.house.world.borrow_mut().reset(clients[0]);
    visit.house.settle();
    let next = visit.visitor(&[0; 600]);
    assert!(!visit.is_over(next), "a place was given back");
    visit.wait(Duration::from_secs(16));
    visit.house.assert_empty();
}

#[test]
fn a_header_that_is_slow_or_cut_short_ends_without_a_byte() {
    for cut in [0, 1, 25, 26, 40] {
        for ends in [false, true] {
            let mut visit = Visit::new(1);
            let stamp = visit.stamp();
            let (frame, _) = visit.request(&key_of(1), stamp, Flags::default());
            let client = visit.visitor(&frame[..cut]);
            if ends {
                visit.house.world.borrow_mut().end(client);
                visit.house.settle();
            } else {
                visit.wait(HEADER - Duration::from_millis(300));
                assert!(!visit.is_over(client));
                visit.wait(Duration::from_millis(600));
            }
            assert!(visit.is_over(client), "{cut}");
            assert_eq!(visit.house.world.borrow().sockets[client].emitted(), 0);
            visit.house.assert_empty();
        }
    }
}

#[test]
fn a_malformed_header_under_the_key_is_answered_by_protocol() {
    let mut visit = Visit::new(1);
    // An address without a host is what no codec takes.
    let nonce = [9; 24];
    let request = Request {
        stamp: visit.stamp(),
        flags: Flags::default(),
        address: Address::Name {
            host: "no host at all".into(),
            port: 80,
        },
    };
    let mut frame = Vec::new();
    seal_request(&mut frame, &key_of(1), Transport::Tcp, &nonce, &request);
    let client = visit.visitor(&frame);
    assert_eq!(visit.response(client, &nonce).1.code, Code::Protocol);
    assert!(visit.is_over(client), "FIN behind the answer");
    let lingers = visit.house.world.borrow().sockets[client].closed;
    assert!(
        !lingers,
        "what the client still sends must not eat the answer"
    );
    visit.wait(Duration::from_secs(3));
    visit.house.assert_empty();
}

/// A sealed connection as the client sees it: the visit, client, destination, and what seals.
fn sealed(seed: u64) -> (Visit, usize, usize, Sealer) {
    let mut visit = Visit::new(seed);
    let stamp = visit.stamp();
    let flags = Flags {
        sealed: true,
        ..Flags::default()
    };
    let (frame, nonce) = visit.request(&key_of(1), stamp, flags);
    let client = visit.visitor(&frame);
    let backend = visit.house.world.borrow().sockets.len() - 1;
    assert!(backend > client);
    visit.house.world.borrow_mut().settle_dial(backend, true);
    visit.house.settle();
    let (answer, response) = visit.response(client, &nonce);
    assert_eq!(response.code, Code::Ok);
    let (sealer, _) = records(&payload_key(), Side::Client, &nonce, &answer);
    (visit, client, backend, sealer)
}

#[test]
fn an_altered_or_cut_payload_delivers_no_wrong_byte_and_ends_by_a_reset() {
    seeds(150, |seed| {
        let (mut visit, client, backend, mut sealer) = sealed(seed);
        let mut sent = Vec::new();
        let mut bytes = Vec::new();
        for _ in 0..1 + seed % 4 {
            let payload = {
                let random = &mut visit.house.world.borrow_mut().random;
                let count = 1 + random.below(20_000);
                random.bytes(count)
            };
            sealer.seal(&mut bytes, &payload);
            sent.extend(payload);
        }
        let is_cut = seed % 3 == 0;
        let at = {
            let random = &mut visit.house.world.borrow_mut().random;
            let at = random.below(bytes.len());
            match is_cut {
                true => bytes.truncate(at),
                false => bytes[at] ^= 1 << random.below(8),
            }
            at
        };
        if !is_cut {
            sealer.close(&mut bytes);
        }
        visit.house.world.borrow_mut().send(client, &bytes);
        for _ in 0..60 {
            let mut world = visit.house.world.borrow_mut();
            let most = 1 + world.random.below(4_000);
            world.deliver(client, most);
            drop(world);
            visit.house.turn();
        }
        visit.house.settle();
        visit.house.world.borrow_mut().end(client);
        visit.house.settle();
        {
            let world = visit.house.world.borrow();
            let got = &world.sockets[backend].received;
            assert!(sent.starts_with(got), "a wrong byte was delivered");
            assert!(got.len() <= at, "bytes behind what was altered");
            assert!(
                world.sockets[backend].aborted,
                "the destination takes it for whole"
            );
            assert!(world.sockets[client].aborted);
        }
        visit.house.assert_empty();
    });
}

#[test]
fn a_sealed_client_that_ends_without_saying_so_is_cut_short_whenever_it_does() {
    for is_early in [false, true] {
        let mut visit = Visit::new(5);
        let stamp = visit.stamp();
        let flags = Flags {
            sealed: true,
            ..Flags::default()
        };
        let (frame, _) = visit.request(&key_of(1), stamp, flags);
        let client = visit.visitor(&frame);
        let backend = client + 1;
        if is_early {
            visit.house.world.borrow_mut().end(client);
            visit.house.settle();
        }
        visit.house.world.borrow_mut().settle_dial(backend, true);
        visit.house.settle();
        visit.house.world.borrow_mut().end(client);
        visit.house.settle();
        assert!(visit.house.world.borrow().sockets[backend].aborted);
        visit.house.assert_empty();
    }
}

#[test]
fn a_probe_gets_back_what_it_sends_for_a_while() {
    let mut visit = Visit::new(1);
    let stamp = visit.stamp();
    let probe = Flags {
        probe: true,
        ..Flags::default()
    };
    let (frame, nonce) = visit.request(&key_of(1), stamp, probe);
    let sent = visit.house.world.borrow_mut().random.bytes(100_000);
    let client = visit.visitor(&[&frame[..], &sent].concat());
    assert_eq!(visit.response(client, &nonce).1.code, Code::Ok);
    let got = visit.house.world.borrow().sockets[client].received[RESPONSE_FRAME..].to_vec();
    assert!(got == sent);
    visit.wait(HEADER + Duration::from_millis(300));
    assert!(visit.is_over(client));
    visit.wait(Duration::from_secs(3));
    visit.house.assert_empty();
}

pub const HEADER: Duration = Duration::from_secs(7);

//! The chain's datagrams against a socket that plays all hops of a chain and the destination behind them.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use towpath::chain::{Code, Datagram, Hop, Key, Options, Reason, Socket};
use towpath::protocols::chain::wire::binding::is_anchor;
use towpath::protocols::chain::wire::{
    Direction, Nonce, Request, Response, Transport, frame_len, open_datagram, open_request,
    seal_datagram, seal_response,
};

const PATIENCE: Duration = Duration::from_secs(20);

const NONCE: Nonce = [9; 24];

fn key(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

/// All hops of a chain; the keys are 1, 2 and so on.
struct Hops {
    udp: UdpSocket,
    count: u8,
    /// What each hop's answers are bound to.
    bound: Vec<Option<Nonce>>,
}

impl Hops {
    fn new(count: u8) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let bound = vec![None; count.into()];
        Self { udp, count, bound }
    }

    fn socket(&self, options: &Options) -> Socket {
        let first = self.udp.local_addr().unwrap().to_string();
        let inner = (2..=self.count).map(|number| Hop::new("inner.example", key(number)));
        let hops: Vec<Hop> = [Hop::new(first, key(1))].into_iter().chain(inner).collect();
        let socket = Socket::connect("dns.internal:53", &hops, options).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.udp.connect(socket_address(&socket)).unwrap();
        socket
    }

    /// Takes a datagram: its requests, and the payload behind them.
    fn receive(&mut self) -> (Vec<(Nonce, Request)>, Vec<u8>) {
        let mut block = vec![0; 65_536];
        let count = self.udp.recv(&mut block).unwrap();
        let mut rest = &block[..count];
        let mut requests = Vec::new();
        for (number, bound) in (1..).zip(&mut self.bound) {
            let (frame, behind) = rest.split_at(frame_len(rest).unwrap().unwrap());
            let opened = open_request(&key(number), Transport::Udp, frame).unwrap();
            if bound.is_none() || is_anchor(&opened.0) {
                *bound = Some(opened.0);
            }
            requests.push(opened);
            rest = behind;
        }
        (requests, rest.to_vec())
    }

    /// What the hops put in front of an answer, the last one with this code.
    fn responses(&self, code: Code, failing: u8) -> Vec<u8> {
        let mut out = Vec::new();
        for (number, bound) in (1..=failing).zip(&self.bound) {
            let code = if number == failing { code } else { Code::Ok };
            let response = Response { code, dial: 1 };
            let (key, request) = (key(number), bound.unwrap());
            seal_response(&mut out, &key, Transport::Udp, &NONCE, &request, &response);
        }
        out
    }

    fn answer(&self, payload: &[u8]) {
        let responses = self.responses(Code::Ok, self.count);
        self.udp.send(&[&responses, payload].concat()).unwrap();
    }
}

/// Where the hops' answers go; the socket is bound to every address.
fn socket_address(socket: &Socket) -> (&'static str, u16) {
    ("127.0.0.1", socket.local_addr().unwrap().port())
}

#[track_caller]
fn payload(socket: &Socket) -> Vec<u8> {
    match socket.receive().unwrap() {
        Some(Datagram::Payload(payload)) => payload,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn lost(socket: &Socket) -> String {
    match socket.receive().unwrap() {
        Some(Datagram::Lost(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn datagrams_go_through_any_number_of_hops() {
    for count in 1..4 {
        let mut hops = Hops::new(count);
        let socket = hops.socket(&Options::default());
        let mut seen = Vec::new();
        for text in [&b"one"[..], b"", &[7; 60_000]] {
            socket.send(text).unwrap();
            let (requests, heard) = hops.receive();
            assert_eq!(heard, text);
            let (last, inner) = requests.split_last().unwrap();
            assert_eq!(last.1.address.to_string(), "dns.internal:53");
            assert!(
                inner
                    .iter()
                    .all(|(_, one)| one.address.to_string() == "inner.example:7300")
            );
            assert!(
                requests
                    .iter()
                    .all(|(_, one)| one.flags == Default::default())
            );
            seen.extend(requests.into_iter().map(|(nonce, _)| nonce));
            hops.answer(text);
            assert_eq!(payload(&socket), text);
        }
        // The flow's first are anchors, and no nonce comes twice.
        assert!(seen.iter().take(count.into()).all(is_anchor));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3 * usize::from(count));
    }
}

#[test]
fn answers_to_old_requests_are_heard_as_long_as_the_rule_has_it() {
    let mut hops = Hops::new(2);
    let socket = hops.socket(&Options::default());
    for round in 0..500_u32 {
        socket.send(&round.to_be_bytes()).unwrap();
        hops.receive();
    }
    // Bound to the last anchor, wherever that was.
    for round in 0..20_u32 {
        hops.answer(&round.to_be_bytes());
        assert_eq!(payload(&socket), round.to_be_bytes());
    }
}

#[test]
fn a_lost_datagram_says_why_and_the_flow_goes_on() {
    let mut hops = Hops::new(3);
    let socket = hops.socket(&Options::default());
    socket.send(b"x").unwrap();
    hops.receive();
    hops.udp.send(&hops.responses(Code::Forbidden, 2)).unwrap();
    assert_eq!(
        lost(&socket),
        "hop 2 (inner.example): next hop's address is forbidden"
    );
    hops.udp.send(&hops.responses(Code::Resolve, 3)).unwrap();
    let want = "hop 3 (inner.example): destination name could not be resolved";
    assert_eq!(lost(&socket), want);
    // What is not the hops' is nobody's.
    hops.udp.send(b"noise").unwrap();
    hops.udp.send(&[0; 200]).unwrap();
    let mut reflected = hops.responses(Code::Ok, 3);
    reflected[40] ^= 1;
    hops.udp.send(&reflected).unwrap();
    hops.answer(b"still here");
    assert_eq!(payload(&socket), b"still here");
    socket
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    hops.udp.send(b"noise").unwrap();
    assert!(socket.receive().unwrap().is_none());
}

#[test]
fn sealed_datagrams_are_for_the_last_hop_and_back() {
    let mut hops = Hops::new(2);
    let payload_key = Some(key(5));
    let options = Options {
        payload_key,
        ..Options::default()
    };
    let socket = hops.socket(&options);
    socket.send(b"secret").unwrap();
    let (requests, heard) = hops.receive();
    let (header, last) = &requests[1];
    assert!(last.flags.sealed && !requests[0].1.flags.sealed);
    assert!(!heard.windows(6).any(|part| part == b"secret"));
    let mut opened = Vec::new();
    open_datagram(&mut opened, &key(5), Direction::Request, header, &heard).unwrap();
    assert_eq!(opened, b"secret");
    for (number, want) in [(5, Some(&b"answer"[..])), (6, None)] {
        let mut sealed = Vec::new();
        let direction = Direction::Response;
        seal_datagram(
            &mut sealed,
            &key(number),
            direction,
            &NONCE,
            &NONCE,
            b"answer",
        );
        hops.answer(&sealed);
        match want {
            Some(want) => assert_eq!(payload(&socket), want),
            None => assert_eq!(
                lost(&socket),
                "hop 2 (inner.example): the payload is not sealed under the payload key, or was altered"
            ),
        }
    }
}

#[test]
fn a_datagram_that_does_not_fit_is_not_sent() {
    let mut hops = Hops::new(2);
    let socket = hops.socket(&Options::default());
    let error = socket.send(&[0; 65_507]).unwrap_err();
    let Reason::TooLong {
        length: 65_507,
        most,
    } = error.reason
    else {
        panic!("{error}");
    };
    assert!(socket.send(&vec![1; most + 1]).is_err());
    socket.send(&vec![1; most]).unwrap();
    assert_eq!(hops.receive().1, vec![1; most]);
}

#[test]
fn without_hops_and_for_many_flows_it_is_a_socket_like_any() {
    let far = UdpSocket::bind("127.0.0.1:0").unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let destination = far.local_addr().unwrap().to_string();
    let one = Socket::connect(&destination, &[], &Options::default()).unwrap();
    let other = one.another().unwrap();
    for socket in [&one, &other] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        thread::scope(|scope| {
            let receiving = scope.spawn(|| payload(socket));
            socket.send(b"ping").unwrap();
            let mut block = [0; 9];
            let (count, from) = far.recv_from(&mut block).unwrap();
            assert_eq!(&block[..count], b"ping");
            far.send_to(b"pong", from).unwrap();
            assert_eq!(receiving.join().unwrap(), b"pong");
        });
    }
    drop(far);
    one.send(b"gone").unwrap();
    let want = format!("destination ({destination}): cannot connect to {destination}: ");
    assert!(lost(&one).starts_with(&want));
}

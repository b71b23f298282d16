//! Services for UDP: one data connection or the two of mode mux, a datagram in each frame, a flow for
//! each visitor.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use crate::support::bulk::Numbers;
use crate::support::tunnel::client::{Client, Service};
use crate::support::tunnel::frames::{Frames, MAX_DATAGRAM, What, frame};
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::wire::{Expose, Uuid};
use crate::support::{DEADLINE, kernel, until};

/// How frames travel.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Direct,
    Mux,
}

const MODES: [Mode; 2] = [Mode::Direct, Mode::Mux];

/// A client with a service for datagrams, and its connections.
struct Flows {
    client: Client,
    service: Service,
    to: Frames,
    from: Frames,
}

/// A visitor and the name of its flow.
struct Flow {
    socket: UdpSocket,
    uuid: Uuid,
}

impl Flows {
    /// In mode direct the first visitor has a connection opened; it comes back as the first flow.
    fn new(tunnel: &Tunnel, number: u8, mode: Mode) -> (Self, Flow) {
        let mut client = tunnel.client(number);
        let wish = Expose::named("dns").udp();
        let (service, socket);
        let (to, from) = match mode {
            Mode::Direct => {
                service = client.expose(wish);
                socket = visitor(service.public);
                socket.send(b"first").unwrap();
                let visit = client.visit();
                assert_eq!(visit.service, service.number);
                assert_eq!(visit.visitor, socket.local_addr().unwrap());
                let from = Frames::new(client.attach(&visit), true);
                (from.twin(), from)
            }
            Mode::Mux => {
                service = client.expose(wish.mux());
                socket = visitor(service.public);
                let ways = client.ways(&service);
                socket.send(b"first").unwrap();
                ways
            }
        };
        let mut flows = Self {
            client,
            service,
            to,
            from,
        };
        let uuid = flows.opened(&socket);
        flows.from.expect(&uuid, b"first");
        (flows, Flow { socket, uuid })
    }

    fn opened(&mut self, socket: &UdpSocket) -> Uuid {
        let (uuid, address) = self.from.opened(self.service.number);
        assert_eq!(address, socket.local_addr().unwrap());
        uuid
    }

    /// A fresh visitor and its first datagram.
    fn visitor(&mut self, first: &[u8]) -> Flow {
        let socket = visitor(self.service.public);
        socket.send(first).unwrap();
        let uuid = self.opened(&socket);
        assert_eq!(self.from.next_of(&uuid), What::Data(first.to_vec()));
        Flow { socket, uuid }
    }

    fn expect_passing(&mut self, flow: &Flow, payload: &[u8]) {
        flow.socket.send(payload).unwrap();
        let got = self.from.next_of(&flow.uuid);
        assert!(got == What::Data(payload.to_vec()), "another datagram");
        self.to.send(&flow.uuid, payload);
        expect_datagram(&flow.socket, payload);
    }
}

fn visitor(public: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(public).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn expect_datagram(socket: &UdpSocket, payload: &[u8]) {
    let mut buffer = vec![0; 1 << 16];
    let length = socket.recv(&mut buffer).unwrap();
    assert!(buffer[..length] == *payload, "{length} other bytes");
}

#[test]
fn datagrams_of_every_length_go_both_ways() {
    for mode in MODES {
        for workers in [1, 2] {
            let tunnel = Plan::new(1).workers(workers).start();
            let (mut flows, flow) = Flows::new(&tunnel, 1, mode);
            let mut numbers = Numbers::new(3);
            for length in [1, 0, 2, 512, 1472, 1473, 9000, 60_000, MAX_DATAGRAM, 0, 1] {
                eprintln!("{mode:?}: {length} bytes");
                let payload = numbers.bytes(length);
                flows.expect_passing(&flow, &payload);
            }
            flows.client.expect_quiet();
        }
    }
}

#[test]
fn the_first_datagram_may_be_empty() {
    for mode in MODES {
        let tunnel = Tunnel::new(1);
        let (mut flows, first) = Flows::new(&tunnel, 1, mode);
        let empty = flows.visitor(b"");
        flows.expect_passing(&empty, b"then some");
        flows.expect_passing(&first, b"");
    }
}

#[test]
fn each_visitor_is_a_flow_of_its_own() {
    for mode in MODES {
        for workers in [1, 4] {
            let tunnel = Plan::new(1).workers(workers).start();
            let (mut flows, first) = Flows::new(&tunnel, 1, mode);
            let mut all = vec![first];
            for number in 0..40_u8 {
                all.push(flows.visitor(&[number]));
            }
            for (at, one) in all.iter().enumerate() {
                assert!(!all[..at].iter().any(|other| other.uuid == one.uuid));
            }
            for round in 0..3_u8 {
                for flow in &all {
                    flows.expect_passing(flow, &[round; 100]);
                }
            }
            flows.client.expect_quiet();
        }
    }
}

#[test]
fn a_service_may_send_what_nobody_asked_for() {
    let tunnel = Tunnel::new(1);
    let (mut flows, flow) = Flows::new(&tunnel, 1, Mode::Direct);
    for number in 0..10_u8 {
        flows.to.send(&flow.uuid, &[number; 10]);
        expect_datagram(&flow.socket, &[number; 10]);
    }
}

#[test]
fn a_flow_that_is_silent_is_forgotten() {
    for mode in MODES {
        // Long enough that a flow does not end before it is served.
        let plan = Plan::new(1).text("udp_idle_timeout", "3s");
        let tunnel = plan.start();
        let (mut flows, flow) = Flows::new(&tunnel, 1, mode);
        assert_eq!(flows.from.next_of(&flow.uuid), What::Reset);
        // What comes for it now is for nobody.
        flows.to.send(&flow.uuid, b"too late");
        // The same visitor is a new flow.
        flow.socket.send(b"again").unwrap();
        let uuid = flows.opened(&flow.socket);
        assert_ne!(uuid, flow.uuid);
        flows.from.expect(&uuid, b"again");
        flows.to.send(&uuid, b"in time");
        expect_datagram(&flow.socket, b"in time");
    }
}

#[test]
fn a_client_ends_a_flow() {
    for mode in MODES {
        let tunnel = Tunnel::new(1);
        let (mut flows, flow) = Flows::new(&tunnel, 1, mode);
        let other = flows.visitor(b"other");
        flows.to.reset(&flow.uuid);
        flows.expect_passing(&other, b"undisturbed");
        flow.socket.send(b"again").unwrap();
        // It may hear of its end on the way.
        let uuid = loop {
            match flows.from.next() {
                (uuid, What::Open { .. }) => break uuid,
                (uuid, What::Reset) => assert_eq!(uuid, flow.uuid),
                (_, other) => panic!("{other:?}"),
            }
        };
        assert_ne!(uuid, flow.uuid);
        flows.from.expect(&uuid, b"again");
    }
}

#[test]
fn one_flow_more_than_there_may_be_ends_the_oldest() {
    for mode in MODES {
        let tunnel = Plan::new(1).workers(1).key("max_visitors", "3").start();
        let (mut flows, first) = Flows::new(&tunnel, 1, mode);
        let second = flows.visitor(b"second");
        let third = flows.visitor(b"third");
        flows.expect_passing(&first, b"the first is not the oldest any more");
        let fourth = visitor(flows.service.public);
        fourth.send(b"fourth").unwrap();
        let (mut ended, mut opened) = (None, None);
        let mut said = Vec::new();
        while ended.is_none() || said.is_empty() {
            match flows.from.next() {
                (uuid, What::Reset) => ended = Some(uuid),
                (uuid, What::Open { visitor, .. }) => {
                    assert_eq!(visitor, fourth.local_addr().unwrap());
                    opened = Some(uuid);
                }
                (uuid, What::Data(bytes)) => {
                    assert_eq!(Some(uuid), opened);
                    said = bytes;
                }
                (_, other) => panic!("{other:?}"),
            }
        }
        assert_eq!(ended, Some(second.uuid), "{mode:?}");
        assert_eq!(said, b"fourth");
        flows.expect_passing(&first, b"undisturbed");
        flows.expect_passing(&third, b"undisturbed");
    }
}

#[test]
fn frames_that_may_not_be_end_their_connection_and_no_other_service() {
    for mode in MODES {
        let tunnel = Plan::new(3).workers(2).start();
        let (mut bystander, undisturbed) = Flows::new(&tunnel, 2, mode);
        for length in [65_508, 65_536, 1 << 31, u32::MAX - 2] {
            let (mut flows, flow) = Flows::new(&tunnel, 1, mode);
            flows.to.peer.try_send(&frame(&flow.uuid, length, &[]));
            flows.to.peer.rest();
            bystander.expect_passing(&undisturbed, b"undisturbed");
        }
        // One that is cut.
        for at in [1, 16, 19, 20, 25] {
            let (mut flows, flow) = Flows::new(&tunnel, 1, mode);
            let bytes = frame(&flow.uuid, 10, &[1; 10]);
            flows.to.peer.send(&bytes[..at]).finish();
            flows.to.peer.rest();
            bystander.expect_passing(&undisturbed, b"undisturbed");
        }
        tunnel.expect_alive();
    }
}

#[test]
fn a_lost_data_connection_is_asked_for_again() {
    let tunnel = Tunnel::new(1);
    let (mut flows, flow) = Flows::new(&tunnel, 1, Mode::Direct);
    for _ in 0..2 {
        flows.to.peer.finish();
        flows.to.peer.rest();
        // What is sent meanwhile may be lost, as datagrams are.
        let mut visit = None;
        until("a visit", || {
            flow.socket.send(b"again").unwrap();
            flows.client.expect_pong();
            visit = flows.client.seen_visit();
            visit.is_some()
        });
        let data = flows.client.attach(&visit.unwrap());
        flows.from = Frames::new(data, true);
        flows.to = flows.from.twin();
        let mut last = None;
        while last.is_none() {
            if let (uuid, What::Data(bytes)) = flows.from.next() {
                assert_eq!(bytes, b"again");
                last = Some(uuid);
            }
        }
        flows.to.send(&last.unwrap(), b"and back");
        expect_datagram(&flow.socket, b"and back");
    }
}

#[test]
fn a_flood_that_nobody_takes_is_dropped() {
    let tunnel = Plan::new(2).workers(1).start();
    let bystanders = crate::support::tunnel::bystander::Bystander::start(&tunnel);
    let (mut flows, flow) = Flows::new(&tunnel, 1, Mode::Direct);
    let before = kernel::resident_bytes(tunnel.process());
    for _ in 0..20_000 {
        // A full queue in the kernel is no failure of ours.
        let sent = flow.socket.send(&[9; 9000]);
        assert!(sent.is_ok() || sent.unwrap_err().kind() == ErrorKind::WouldBlock);
    }
    let grown = kernel::resident_bytes(tunnel.process()).saturating_sub(before);
    eprintln!("{} KiB held of the flood", grown >> 10);
    assert!(grown < 16 << 20, "{grown} bytes");
    bystanders.expect_undisturbed();
    // Whole datagrams have come, and the flow goes on.
    flows.to.send(&flow.uuid, b"enough");
    expect_datagram(&flow.socket, b"enough");
    // The next ones may find no room either, until what was taken has been read.
    let Flow { socket, uuid } = flow;
    let reading = std::thread::spawn(move || {
        loop {
            match flows.from.next_of(&uuid) {
                What::Data(bytes) if bytes == [9; 9000] => {}
                What::Data(bytes) => return bytes,
                other => panic!("{other:?}"),
            }
        }
    });
    until("one of them arrives", || {
        socket.send(b"the last").unwrap();
        reading.is_finished()
    });
    assert_eq!(reading.join().unwrap(), b"the last");
}

#[test]
fn a_stream_visitor_of_a_service_for_datagrams_finds_nobody() {
    let tunnel = Tunnel::new(1);
    let (mut flows, flow) = Flows::new(&tunnel, 1, Mode::Mux);
    assert!(std::net::TcpStream::connect(flows.service.public).is_err());
    flows.expect_passing(&flow, b"undisturbed");
}

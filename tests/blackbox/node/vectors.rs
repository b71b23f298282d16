//! Recorded conversations, replayed against the real program byte for byte, with the ports that it
//! lent. Where a decision of the role does better than the recorded program, [`DEVIATIONS`] says
//! which one and what is expected instead.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::folder::Folder;
use crate::support::node::Node;
use crate::support::node::message::{self, Message, Sender, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::node::recording::{Event, Recording, What, recorded};

/// Recording, the decision (or row of section 10) that changes it, and how.
type Deviation = (&'static str, &'static str, fn(&mut Recording));

const DEVIATIONS: &[Deviation] = &[
    (
        "empty_connection_id",
        "decision 4, row 5: nodes without a connection_id do not share",
        |recording| {
            readdress(recording, 1, 20397, 20398);
            recording.ports[2] = 20398;
        },
    ),
    (
        "lease_expired",
        "decision 2, row 4: the lease runs from the disconnect; its end is in `addresses`",
        |recording| {
            readdress(recording, 2, 20630, 20832);
            readdress(recording, 2, 20742, 20832);
        },
    ),
    (
        "malformed_before_registration",
        "decision 5, row 6: a request is answered whatever became of an older connection",
        |recording| {
            let answer = recording
                .events
                .iter()
                .rev()
                .find_map(|event| match &event.what {
                    What::Get(bytes) => Some(bytes.clone()),
                    _ => None,
                });
            let mut silent = recording.events.iter_mut();
            let silent = silent.find(|event| event.what == What::Quiet).unwrap();
            silent.what = What::Get(answer.unwrap());
        },
    ),
    (
        "node_disconnect",
        "decision 7: peers are closed at once when their node goes",
        |recording| {
            let mut ends = 0;
            for event in &mut recording.events {
                if event.connection == 1 && event.what == What::Quiet {
                    event.what = What::SeeEnd;
                    ends += 1;
                }
            }
            assert_eq!(ends, 1);
            let end = recording.events.iter().position(is_end_of_peer).unwrap();
            let mut number = 0;
            recording.events.retain(|event| {
                number += 1;
                event.connection != 1 || number <= end + 1
            });
        },
    ),
    (
        "port_exhaustion",
        "decision 3: the range is never left; the request is refused by closing",
        |recording| {
            // What follows is another server with another range.
            recording.events.retain(|event| event.connection < 4);
            for event in &mut recording.events {
                if event.connection >= 2 && matches!(event.what, What::Get(_)) {
                    event.what = What::SeeEnd;
                }
            }
        },
    ),
    (
        "restart_forgets",
        "decision 3, row 7: leases are durable",
        |recording| {
            readdress(recording, 1, 20270, 20669);
            readdress(recording, 2, 20698, 20669);
            for connection in [1, 2] {
                let mut events = recording.events.iter();
                let at = events.position(|event| event.connection == connection);
                let what = What::Restart;
                recording
                    .events
                    .insert(at.unwrap(), Event { connection, what });
            }
        },
    ),
    (
        "silent_timeout",
        "decision 2: a matter of time, which is not replayed; see `life`",
        |recording| recording.events.clear(),
    ),
];

fn is_end_of_peer(event: &Event) -> bool {
    event.connection == 1 && event.what == What::SeeEnd
}

/// Puts another address into the recorded answers to one connection.
fn readdress(recording: &mut Recording, connection: usize, from: u16, to: u16) {
    let (from, to) = (from.to_string(), to.to_string());
    let mut changed = 0;
    for event in &mut recording.events {
        let What::Get(bytes) = &mut event.what else {
            continue;
        };
        let at = bytes.windows(5).position(|part| part == from.as_bytes());
        if let (true, Some(at)) = (event.connection == connection, at) {
            bytes[at..at + 5].copy_from_slice(to.as_bytes());
            changed += 1;
        }
    }
    assert_eq!(changed, 1, "answers with {from}");
}

fn changed() -> Vec<Recording> {
    let mut recordings = recorded();
    assert_eq!(recordings.len(), 14, "recorded files");
    for (name, _, change) in DEVIATIONS {
        let recording = recordings.iter_mut().find(|one| one.name == *name);
        change(recording.expect("a deviation names a recorded file"));
    }
    recordings.retain(|recording| !recording.events.is_empty());
    recordings
}

#[test]
fn every_recorded_conversation_goes_as_recorded_or_better() {
    for recording in changed() {
        Replay::start(&recording, 0, false).run(&recording);
    }
}

#[test]
fn every_recorded_conversation_goes_the_same_byte_by_byte() {
    for recording in changed() {
        Replay::start(&recording, 1, true).run(&recording);
    }
}

#[test]
fn every_recorded_conversation_goes_the_same_over_four_workers() {
    for recording in changed() {
        Replay::start(&recording, 4, false).run(&recording);
    }
}

/// A server and the endpoints of one recording.
struct Replay {
    plan: Plan,
    /// None between two servers.
    proxy: Option<Proxy>,
    is_byte_by_byte: bool,
    endpoints: Vec<Option<Endpoint>>,
    /// The address for each recorded port.
    lent: HashMap<u16, SocketAddr>,
}

struct Endpoint {
    connection: Node,
    is_main: bool,
    /// Messages that the server made and that were not recorded.
    extra: u64,
    /// Messages that the server made.
    answers: u64,
    has_ended: bool,
}

impl Replay {
    fn start(recording: &Recording, workers: usize, is_byte_by_byte: bool) -> Self {
        eprintln!("replaying {}", recording.name);
        let width = if recording.name == "port_exhaustion" {
            2
        } else {
            8
        };
        let plan = Plan::new(width).workers(workers);
        let plan = plan.folder(&Arc::new(Folder::new()));
        Self {
            proxy: Some(plan.start()),
            plan,
            is_byte_by_byte,
            endpoints: recording.ports.iter().map(|_| None).collect(),
            lent: HashMap::new(),
        }
    }

    fn run(mut self, recording: &Recording) {
        for event in &recording.events {
            eprintln!("  {}: {}", event.connection, shown(&event.what));
            if event.what == What::Restart {
                self.restart();
                continue;
            }
            self.connect(recording, event.connection);
            match &event.what {
                What::Send(bytes) => self.send(event.connection, bytes),
                What::Get(bytes) => self.get(event.connection, bytes),
                What::Quiet => self.expect_quiet(event.connection),
                What::Finish => {
                    let endpoint = self.endpoint(event.connection);
                    endpoint.connection.peer().try_finish();
                }
                What::SeeEnd => {
                    let endpoint = self.endpoint(event.connection);
                    endpoint.connection.expect_closed();
                    endpoint.has_ended = true;
                }
                What::Restart => {}
            }
        }
        self.finish();
    }

    /// Nothing more comes anywhere, and nothing at all on a visitor's connection.
    fn finish(mut self) {
        for endpoint in self.endpoints.iter_mut().flatten() {
            if !endpoint.has_ended {
                endpoint.connection.peer().try_finish();
                endpoint.connection.expect_closed();
            }
        }
        self.endpoints.clear();
        self.proxy.unwrap().stop();
    }

    fn endpoint(&mut self, connection: usize) -> &mut Endpoint {
        self.endpoints[connection].as_mut().unwrap()
    }

    fn restart(&mut self) {
        self.proxy.take().unwrap().server.kill();
        self.endpoints
            .iter_mut()
            .for_each(|endpoint| *endpoint = None);
        self.proxy = Some(self.plan.start());
    }

    /// Connects at a connection's first event, as recorded.
    fn connect(&mut self, recording: &Recording, connection: usize) {
        if self.endpoints[connection].is_some() {
            return;
        }
        let main = self.proxy.as_ref().unwrap().address;
        let port = recording.ports[connection];
        let is_main = port < 10_000;
        let address = match is_main {
            true => main,
            false => self.lent[&port],
        };
        self.endpoints[connection] = Some(Endpoint {
            connection: Node::connect(address, Sender::default()),
            is_main,
            extra: 0,
            answers: 0,
            has_ended: false,
        });
    }

    fn send(&mut self, connection: usize, bytes: &[u8]) {
        let is_byte_by_byte = self.is_byte_by_byte;
        let endpoint = self.endpoint(connection);
        if endpoint.is_main && endpoint.connection.sender == Sender::default() && is_request(bytes)
        {
            endpoint.connection.sender = Message::of_frame(bytes).sender;
        }
        // The server may have closed already, where that is what the recording shows.
        let peer = endpoint.connection.peer();
        match is_byte_by_byte {
            true => {
                let _ = bytes.iter().all(|byte| peer.try_send(&[*byte]));
            }
            false => drop(peer.try_send(bytes)),
        }
        peer.settle();
    }

    fn get(&mut self, connection: usize, bytes: &[u8]) {
        let main = self.proxy.as_ref().unwrap().address;
        let endpoint = self.endpoints[connection].as_mut().unwrap();
        let got = endpoint.connection.next_frame();
        let got = got.expect("the connection ended instead of a frame");
        let recorded_main = SocketAddr::from(([127, 0, 0, 1], 6008));
        let own = message::server_sender("tcp", recorded_main);
        if !bytes.windows(own.len()).any(|part| part == own) {
            assert_eq!(shown_all(&got), shown_all(bytes));
            return;
        }
        // The server's own message: with its address of now, and the node's.
        endpoint.answers += 1;
        let recorded = Message::of_frame(bytes);
        let nonce = recorded.nonce + endpoint.extra;
        assert_eq!(nonce, endpoint.answers);
        let expected = match recorded.opcode {
            opcode::PROXY_RESPONSE => {
                let public = Message::of_frame(&got).proxy_address().parse().unwrap();
                self.learn(port_of(&recorded), public);
                message::response(main, nonce, public)
            }
            _ => message::keepalive_response(main, nonce),
        };
        assert_eq!(shown_all(&got), shown_all(&expected));
    }

    /// One recorded port is one of now.
    fn learn(&mut self, recorded: u16, public: SocketAddr) {
        let mut others = self.lent.iter().filter(|(port, _)| **port != recorded);
        assert!(others.all(|(_, other)| *other != public), "{public} twice");
        assert_eq!(*self.lent.entry(recorded).or_insert(public), public);
        assert!(self.plan.ports().contains(&public.port()), "{public}");
    }

    /// The answer to a Keepalive is the next that comes to a node. A visitor's quiet, and that of one
    /// that is not registered, is seen at the end.
    fn expect_quiet(&mut self, connection: usize) {
        let main = self.proxy.as_ref().unwrap().address;
        let endpoint = self.endpoint(connection);
        if endpoint.answers == 0 {
            return;
        }
        endpoint.extra += 1;
        endpoint.answers += 1;
        let keepalive = Message::new(opcode::KEEPALIVE, &endpoint.connection.sender);
        let expected = message::keepalive_response(main, endpoint.answers);
        endpoint
            .connection
            .send(keepalive.frame())
            .expect(&expected);
    }
}

fn is_request(bytes: &[u8]) -> bool {
    let end = [0x38, 0x0f, 0x40, 0xda, 0xcc, 0xeb, 0xe9, 0x05];
    bytes.ends_with(&end)
}

fn port_of(answer: &Message) -> u16 {
    let address: SocketAddr = answer.proxy_address().parse().unwrap();
    address.port()
}

/// All of it, unlike what a failure shows of other bytes: the last of them matter here.
fn shown_all(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn shown(what: &What) -> String {
    match what {
        What::Send(sent) => format!("> {}", crate::support::peer::text(sent)),
        What::Get(got) => format!("< {}", crate::support::peer::text(got)),
        other => format!("{other:?}"),
    }
}

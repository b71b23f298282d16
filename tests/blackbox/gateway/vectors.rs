//! Recorded conversations, replayed against the real program byte for byte, with the ids that it
//! chose and the challenges that it drew. Where a decision of the role does better than the
//! recorded program, [`EXCEPTIONS`] says which one and what is expected instead.

use std::collections::HashMap;

use crate::support::gateway::endpoint::Endpoint;
use crate::support::gateway::recording::{Event, Recording, What, recorded};
use crate::support::gateway::{Dialect, Gateway, Got, Plan, answer, command, data, word};
use crate::support::peer::Peer;

/// Recording, the decision that changes it, and how.
type Exception = (&'static str, &'static str, fn(&mut Recording));

const EXCEPTIONS: &[Exception] = &[
    (
        "document/client_disconnects",
        "4: partners of an end that goes get Close; 3: an unknown id costs no connection",
        |recording| {
            insert_behind_end(recording, 1, &[(0, get_close(1)), (0, get_close(2))]);
            answer_late_data(recording, 0, get_close(1));
        },
    ),
    (
        "document/server_disconnects",
        "4: partners of an end that goes get Close; 3: an unknown id costs no connection",
        |recording| {
            insert_behind_end(recording, 0, &[(1, get_close(1)), (1, get_close(2))]);
            answer_late_data(recording, 1, get_close(1));
        },
    ),
    (
        "document/unknown_conn_id",
        "3: an unknown id costs no connection",
        |recording| answer_late_data(recording, 0, get_close(12345)),
    ),
    (
        "document/dial_with_self_chosen_id",
        "11: an id in use is refused, and costs no connection",
        |recording| {
            let refuse = What::Get(command(3, &[5000]));
            answer_late_data(recording, 1, refuse);
        },
    ),
    (
        "document/ping",
        "7: pings come at half the idle timeout, and silence ends at the whole; see `life`",
        |recording| recording.events.clear(),
    ),
    (
        "fastway/foreign_close",
        "3: a foreign Close is ignored",
        |recording| {
            recording
                .events
                .retain(|event| event.what != get_fastway_close(1));
            // The connection is there: it is spoken on behind the answer to the intruder.
            let is_answer = |event: &Event| event.what == What::Get(Dialect::Fastway.ping());
            let at = recording.events.iter().position(is_answer).unwrap() + 1;
            let still = data(1, b"still");
            let more = [(1, What::Send(still.clone())), (0, What::Get(still))];
            let more = more.map(|(connection, what)| Event { connection, what });
            recording.events.splice(at..at, more);
        },
    ),
    (
        "fastway/idle_timeout_slow_large_frame",
        "11: a frame in progress counts as life for three idle timeouts; see `life`",
        |recording| recording.events.clear(),
    ),
    (
        "fastway/idle_timeout",
        "7: a matter of time, which is not replayed; see `life`",
        |recording| recording.events.clear(),
    ),
    (
        "fastway/pipelined_dials",
        "12: the id of a dial is not known before its Accept",
        |recording| put_off_early_data(recording, 2),
    ),
    (
        "fastway/half_close",
        "12: the id of a dial is not known before its Accept",
        |recording| put_off_early_data(recording, 1),
    ),
    (
        "fastway/slow_receiver",
        "6: a slow receiver stops its senders; and the flood is not in the file; see `stalls`",
        |recording| recording.events.clear(),
    ),
    (
        "fastway/gateway_stop",
        "a drain: what stopped the gateway is not in the file",
        |recording| {
            let end = recording
                .events
                .iter()
                .position(|event| event.what == What::SeeEnd);
            let stop = Event {
                connection: 0,
                what: What::Stop,
            };
            recording.events.insert(end.unwrap(), stop);
            // Whether a Close is seen is not said; the ends are.
            recording
                .events
                .retain(|event| event.what != get_fastway_close(1));
        },
    ),
];

fn get_close(conn: u32) -> What {
    What::Get(Dialect::Document.close(conn))
}

fn get_fastway_close(conn: u32) -> What {
    What::Get(Dialect::Fastway.close(conn))
}

/// Puts more behind the end that the gateway gave to a connection.
fn insert_behind_end(recording: &mut Recording, of: usize, more: &[(usize, What)]) {
    let is_end = |event: &Event| event.connection == of && event.what == What::SeeEnd;
    let at = recording.events.iter().position(is_end).unwrap() + 1;
    let more = more.iter().cloned();
    let more = more.map(|(connection, what)| Event { connection, what });
    recording.events.splice(at..at, more);
}

/// The connection's end becomes an answer, and the endpoint leaves by itself.
fn answer_late_data(recording: &mut Recording, of: usize, answer: What) {
    let is_end = |event: &Event| event.connection == of && event.what == What::SeeEnd;
    let at = recording.events.iter().rposition(is_end).unwrap();
    let instead = [answer, What::Finish, What::SeeEnd].map(|what| Event {
        connection: of,
        what,
    });
    recording.events.splice(at..=at, instead);
}

/// What a connection sends on an id comes behind the news of that id.
fn put_off_early_data(recording: &mut Recording, of: usize) {
    let is_early = |event: &Event| match &event.what {
        What::Send(frame) => event.connection == of && word(frame, 4) == 1,
        _ => false,
    };
    let at = recording.events.iter().position(is_early).unwrap();
    let early = recording.events.remove(at);
    let is_accept = |event: &Event| match &event.what {
        What::Get(frame) => {
            event.connection == of && frame.get(8..13) == Some(&[1, 1, 0, 0, 0][..])
        }
        _ => false,
    };
    let accepted = recording.events.iter().position(is_accept).unwrap();
    recording.events.insert(accepted + 1, early);
    let is_delivery = |event: &Event| match &event.what {
        What::Get(frame) => frame.len() > 8 && word(frame, 4) == 1,
        _ => false,
    };
    let delivered = recording.events.iter().position(is_delivery).unwrap();
    if delivered <= accepted {
        let delivery = recording.events.remove(delivered);
        recording.events.insert(accepted + 1, delivery);
    }
}

fn changed() -> Vec<Recording> {
    let mut recordings = recorded();
    assert!(
        recordings.len() >= 36,
        "{} recorded files",
        recordings.len()
    );
    for (name, _, change) in EXCEPTIONS {
        let recording = recordings.iter_mut().find(|one| one.name == *name);
        change(recording.expect("an exception names a recorded file"));
    }
    recordings.retain(|recording| !recording.events.is_empty());
    recordings
}

#[test]
fn every_recorded_conversation_goes_as_recorded_or_better() {
    for recording in changed() {
        eprintln!("replaying {}", recording.name);
        let clients = recording.dialect.name();
        Replay::start(&recording, clients, false).run(&recording);
    }
}

#[test]
fn every_recorded_conversation_goes_the_same_byte_by_byte() {
    for recording in changed() {
        eprintln!("replaying {} byte by byte", recording.name);
        let clients = recording.dialect.name();
        Replay::start(&recording, clients, true).run(&recording);
    }
}

#[test]
fn every_recorded_client_that_tells_its_dialect_is_understood() {
    let mut recordings = changed();
    recordings.retain(|recording| {
        let mut clients = (0..recording.servers.len()).filter(|&one| !recording.servers[one]);
        clients.all(|client| {
            let sent = recording.of(client).find_map(|event| match &event.what {
                What::Send(frame) | What::SendPart(frame) => Some(frame),
                _ => None,
            });
            sent.is_some_and(|frame| tells(frame))
        })
    });
    assert!(recordings.len() >= 20, "{} recordings", recordings.len());
    for recording in recordings {
        eprintln!("replaying {} with its dialect found out", recording.name);
        Replay::start(&recording, "auto", false).run(&recording);
    }
}

/// New and both forms of Dial are nobody else's commands.
fn tells(frame: &[u8]) -> bool {
    frame.len() > 8 && word(frame, 4) == 0 && matches!(frame[8], 0 | 2)
}

/// A gateway and the endpoints of one recording.
struct Replay {
    /// None once it was told to stop.
    gateway: Gateway,
    is_byte_by_byte: bool,
    endpoints: Vec<Player>,
    ids: Ids,
    is_stopping: bool,
}

/// One endpoint, where it has connected.
#[derive(Default)]
struct Player {
    endpoint: Option<Endpoint>,
    challenge: Vec<u8>,
    /// It has ended its direction, so that answers may be lost and Closes may still come.
    is_leaving: bool,
    /// Recorded data and Closes that follow each other on this connection, where they have not
    /// come yet: order is promised within a virtual connection, not among them.
    coming: Vec<Got>,
}

/// The gateway's ids for those that were recorded, as first seen.
#[derive(Default)]
struct Ids {
    conns: HashMap<u32, u32>,
    clients: HashMap<u32, u32>,
}

impl Ids {
    fn learn(map: &mut HashMap<u32, u32>, recorded: u32, got: u32) {
        let is_taken = map.iter().any(|(key, id)| *id == got && *key != recorded);
        assert!(!is_taken, "id {got} for two things");
        assert_eq!(*map.entry(recorded).or_insert(got), got, "id of {recorded}");
    }

    fn of(map: &HashMap<u32, u32>, recorded: u32) -> u32 {
        *map.get(&recorded).unwrap_or(&recorded)
    }
}

impl Replay {
    fn start(recording: &Recording, clients: &str, is_byte_by_byte: bool) -> Self {
        let mut plan = Plan::new(recording.dialect)
            .text("dialect", clients)
            .auth_key(&recording.key)
            .limit("drain_timeout = \"500ms\"");
        // The recorded program's own five and three seconds, with less time.
        let patience = match recording.name.ends_with("auth_timeout") {
            true => "1s",
            false => "60s",
        };
        plan = plan.limit(&format!("handshake_timeout = {patience:?}"));
        for (flag, value) in &recording.flags {
            plan = match flag.as_str() {
                "ClientIdleTimeout" => plan.text("client_idle_timeout", value),
                "ServerIdleTimeout" => plan.text("server_idle_timeout", value),
                "ClientMaxConn" => plan.key("max_conns_per_client", value),
                "ClientAddr" | "ServerAddr" | "ServerAuthKey" => plan,
                other => panic!("{}: {other}", recording.name),
            };
        }
        Self {
            gateway: plan.start(),
            is_byte_by_byte,
            endpoints: recording
                .servers
                .iter()
                .map(|_| Player::default())
                .collect(),
            ids: Ids::default(),
            is_stopping: false,
        }
    }

    fn run(mut self, recording: &Recording) {
        for (number, event) in recording.events.iter().enumerate() {
            eprintln!("  {}: {}", event.connection, shown(&event.what));
            self.connect(recording, event.connection);
            match &event.what {
                What::Send(bytes) | What::SendPart(bytes) => {
                    self.send(recording, event.connection, bytes);
                }
                What::Get(bytes) => {
                    let coming = following(recording, number);
                    self.get(recording, event.connection, bytes, coming);
                }
                What::Finish => {
                    let player = &mut self.endpoints[event.connection];
                    player.is_leaving = true;
                    player.endpoint.as_mut().unwrap().peer().try_finish();
                }
                What::Reset => {
                    let player = &mut self.endpoints[event.connection];
                    player.endpoint.take().unwrap().reset();
                }
                What::SeeEnd => self.see_end(event.connection),
                What::Stop => {
                    self.is_stopping = true;
                    self.gateway.server.signal("TERM");
                }
            }
        }
        drop(self.endpoints);
        if self.is_stopping {
            assert!(self.gateway.server.ended().is_some());
        } else {
            self.gateway.stop();
        }
    }

    /// Connects at a connection's first event, as recorded.
    fn connect(&mut self, recording: &Recording, connection: usize) {
        let player = &mut self.endpoints[connection];
        if player.endpoint.is_some() {
            return;
        }
        let address = match recording.servers[connection] {
            true => self.gateway.servers,
            false => self.gateway.clients,
        };
        player.endpoint = Some(Endpoint::new(Peer::connect(address), recording.dialect));
    }

    fn send(&mut self, recording: &Recording, connection: usize, bytes: &[u8]) {
        let player = &mut self.endpoints[connection];
        let is_server = recording.servers[connection];
        let is_answer = is_server && player.challenge.len() > 8;
        let mut is_registered = false;
        let bytes = match (is_answer, bytes.len()) {
            (true, 20) => {
                let recorded = player.challenge.split_off(8);
                let id = word(bytes, 16);
                is_registered = bytes == answer(&recorded, &recording.key, id);
                let key = if is_registered {
                    &recording.key
                } else {
                    "another key"
                };
                answer(&player.challenge, key, id)
            }
            (true, _) => bytes.to_vec(),
            (false, _) => self.ids.outbound(recording.dialect, is_server, bytes),
        };
        let player = &mut self.endpoints[connection];
        let endpoint = player.endpoint.as_mut().unwrap();
        let peer = endpoint.peer();
        // The gateway may have closed already, where that is what the recording shows.
        if self.is_byte_by_byte && bytes.len() < 1000 {
            let _ = bytes.iter().all(|byte| peer.try_send(&[*byte]));
        } else {
            peer.try_send(&bytes);
        }
        // The recording waited a while for the gateway to see the server.
        if is_registered {
            endpoint.expect_quiet();
        }
    }

    fn get(&mut self, recording: &Recording, connection: usize, bytes: &[u8], coming: Vec<Got>) {
        let player = &mut self.endpoints[connection];
        let endpoint = player.endpoint.as_mut().unwrap();
        let is_server = recording.servers[connection];
        if is_server && player.challenge.is_empty() {
            // Ours, and behind it the recorded one.
            player.challenge = endpoint.peer().take(8);
            player.challenge.extend_from_slice(bytes);
            return;
        }
        let frame = endpoint
            .next_frame()
            .expect("the connection ended instead of a frame");
        let got = recording.dialect.decode(&frame);
        if player.coming.is_empty() {
            player.coming = coming;
        }
        let expected = self.ids.take_same(&mut player.coming, &got);
        let expected = expected.unwrap_or_else(|| recording.dialect.decode(bytes));
        self.ids.compare(is_server, &got, &expected);
    }

    fn see_end(&mut self, connection: usize) {
        let player = &mut self.endpoints[connection];
        let may_close = player.is_leaving || self.is_stopping;
        let endpoint = player.endpoint.as_mut().unwrap();
        while let Some(got) = endpoint.maybe() {
            let is_allowed = may_close && matches!(got, Got::Close(_));
            assert!(is_allowed, "{got:?} instead of the end");
        }
    }
}

/// The data and the Closes that a connection gets in a row, from the event of this number on.
fn following(recording: &Recording, number: usize) -> Vec<Got> {
    let connection = recording.events[number].connection;
    let later = recording.events[number..].iter();
    let mine = later.filter(|event| event.connection == connection);
    let coming = mine.map_while(|event| match &event.what {
        What::Get(frame) if !is_challenge(frame) => {
            let got = recording.dialect.decode(frame);
            matches!(got, Got::Close(_) | Got::Data(..)).then_some(got)
        }
        _ => None,
    });
    coming.collect()
}

/// A frame of this length is an empty message, which says so.
fn is_challenge(unit: &[u8]) -> bool {
    unit.len() == 8 && word(unit, 0) != 4
}

impl Ids {
    /// A recorded frame of an endpoint with the ids of now. What the gateway never gave out goes as
    /// it is.
    fn outbound(&mut self, dialect: Dialect, is_server: bool, frame: &[u8]) -> Vec<u8> {
        if frame.len() < 8 {
            return frame.to_vec();
        }
        let mut frame = frame.to_vec();
        let conn = word(&frame, 4);
        if conn != 0 {
            put_word(&mut frame, 4, Self::of(&self.conns, conn));
            return frame;
        }
        let servers = HashMap::new();
        let remotes = if is_server { &self.clients } else { &servers };
        match (dialect, frame[8], frame.len()) {
            (Dialect::Document, 2, 17) => {
                let conn = word(&frame, 9);
                // An id of the endpoint's own choice stays what it is.
                self.conns.entry(conn).or_insert(conn);
                put_word(&mut frame, 9, Self::of(&self.conns, conn));
                let remote = word(&frame, 13);
                put_word(&mut frame, 13, Self::of(remotes, remote));
            }
            (Dialect::Fastway, 0, 13) => {
                let remote = word(&frame, 9);
                put_word(&mut frame, 9, Self::of(remotes, remote));
            }
            (Dialect::Document, 5, 13) | (Dialect::Fastway, 4, 13) => {
                let conn = word(&frame, 9);
                put_word(&mut frame, 9, Self::of(&self.conns, conn));
            }
            _ => {}
        }
        frame
    }

    /// Takes what comes first on the connection that `got` is about, where anything does.
    fn take_same(&self, coming: &mut Vec<Got>, got: &Got) -> Option<Got> {
        let (Got::Close(conn) | Got::Data(conn, _)) = got else {
            return None;
        };
        let is_same = |one: &Got| match one {
            Got::Close(of) | Got::Data(of, _) => Self::of(&self.conns, *of) == *conn,
            _ => false,
        };
        let at = coming.iter().position(is_same)?;
        Some(coming.remove(at))
    }

    fn compare(&mut self, is_server: bool, got: &Got, expected: &Got) {
        match (got, expected) {
            (Got::Open(id), Got::Open(recorded)) => Self::learn(&mut self.conns, *recorded, *id),
            (
                Got::Accept { conn, remote },
                Got::Accept {
                    conn: recorded,
                    remote: of,
                },
            )
            | (
                Got::Connect { conn, remote },
                Got::Connect {
                    conn: recorded,
                    remote: of,
                },
            ) => {
                Self::learn(&mut self.conns, *recorded, *conn);
                match is_server {
                    true => Self::learn(&mut self.clients, *of, *remote),
                    false => assert_eq!(remote, of),
                }
            }
            (Got::Close(id), Got::Close(recorded)) => {
                assert_eq!(*id, Self::of(&self.conns, *recorded));
            }
            (Got::Refuse(id), Got::Refuse(recorded)) => {
                let recorded = match (self.conns.get(recorded), is_server) {
                    (Some(conn), _) if conn == id => *conn,
                    (_, true) => Self::of(&self.clients, *recorded),
                    (_, false) => *recorded,
                };
                assert_eq!(*id, recorded, "{got:?} instead of {expected:?}");
            }
            (Got::Data(conn, payload), Got::Data(recorded, expected)) => {
                assert_eq!(*conn, Self::of(&self.conns, *recorded));
                assert!(payload == expected, "another payload");
            }
            _ => assert_eq!(got, expected),
        }
    }
}

fn put_word(frame: &mut [u8], at: usize, word: u32) {
    frame[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn shown(what: &What) -> String {
    let bytes = |bytes: &[u8]| format!("{:02x?}", &bytes[..bytes.len().min(24)]);
    match what {
        What::Send(sent) => format!("> {}", bytes(sent)),
        What::SendPart(sent) => format!("> part {}", bytes(sent)),
        What::Get(got) => format!("< {}", bytes(got)),
        other => format!("{other:?}"),
    }
}

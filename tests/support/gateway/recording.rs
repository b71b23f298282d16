//! Recorded conversations with a gateway. The times of the recording are ignored, its order over
//! all connections is kept.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Dialect;

/// One recorded file.
pub struct Recording {
    /// `dialect/name`, without the ending.
    pub name: String,
    pub dialect: Dialect,
    pub key: String,
    /// Flags of the recorded program, without their dash.
    pub flags: Vec<(String, String)>,
    /// For each connection whether it came to the servers' port.
    pub servers: Vec<bool>,
    pub events: Vec<Event>,
}

/// One thing that happened on one of the connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub connection: usize,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The endpoint sends one unit: a handshake's answer or a frame.
    Send(Vec<u8>),
    /// The endpoint sends a part of a frame.
    SendPart(Vec<u8>),
    /// The endpoint gets one unit: a challenge or a frame.
    Get(Vec<u8>),
    /// The endpoint ends its direction.
    Finish,
    /// The endpoint resets the connection.
    Reset,
    /// The endpoint sees the gateway's end.
    SeeEnd,
    /// The gateway is told to stop.
    Stop,
}

/// Every recorded file of the gateway role, in order of their names.
pub fn recorded() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors/gateway");
    let mut recordings = Vec::new();
    for dialect in super::DIALECTS {
        let entries = std::fs::read_dir(root.join(dialect.name())).unwrap();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        recordings.extend(files.iter().map(|file| Recording::read(dialect, file)));
    }
    recordings
}

impl Recording {
    fn read(dialect: Dialect, file: &Path) -> Self {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let connections = list(&json["connections"]);
        let role = |connection: &Value| connection["role"].as_str().unwrap().starts_with("server");
        let flags = list(&json["gateway_args"]).into_iter().map(|flag| {
            let flag = flag.as_str().unwrap().trim_start_matches('-').to_string();
            let (name, value) = flag.split_once('=').unwrap();
            (name.to_string(), value.to_string())
        });
        Self {
            name: format!("{}/{stem}", dialect.name()),
            dialect,
            key: json["auth_key"].as_str().unwrap().into(),
            flags: flags.collect(),
            servers: connections.iter().map(role).collect(),
            events: events(&connections),
        }
    }

    /// The events of one connection.
    pub fn of(&self, connection: usize) -> impl Iterator<Item = &Event> {
        self.events
            .iter()
            .filter(move |event| event.connection == connection)
    }
}

fn events(connections: &[Value]) -> Vec<Event> {
    let mut events = Vec::new();
    for (connection, recorded) in connections.iter().enumerate() {
        // What was left of a frame was written down behind the end that it caused; it is sent behind
        // what had gone before that end.
        let mut last = 0;
        let mut parts = Vec::new();
        for event in recorded["events"].as_array().unwrap() {
            let at = event["seq"].as_u64().unwrap();
            let event = Event {
                connection,
                what: what(event),
            };
            match event.what {
                What::SendPart(_) => parts.push(event),
                What::SeeEnd => events.push(((at, 0), event)),
                _ => {
                    last = at;
                    events.push(((at, 0), event));
                }
            }
        }
        events.extend(parts.into_iter().map(|part| ((last, 1), part)));
    }
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(_, event)| event).collect()
}

fn what(event: &Value) -> What {
    let is_ours = match event["dir"].as_str().unwrap() {
        "to_gateway" => true,
        "from_gateway" => false,
        other => panic!("unknown direction {other}"),
    };
    match (event["eof"].as_str(), is_ours) {
        (Some("fin"), true) => return What::Finish,
        (Some("rst"), true) => return What::Reset,
        (Some(_), false) => return What::SeeEnd,
        (Some(other), true) => panic!("unknown end {other}"),
        (None, _) => {}
    }
    let mut bytes = unhex(event["hex"].as_str().unwrap());
    if let Some(fill) = event["fill"].as_object() {
        let byte = unhex(fill["byte"].as_str().unwrap())[0];
        let count = usize::try_from(fill["count"].as_u64().unwrap()).unwrap();
        bytes.resize(bytes.len() + count, byte);
    }
    match (event["partial"].as_bool(), is_ours) {
        (Some(true), _) => What::SendPart(bytes),
        (_, true) => What::Send(bytes),
        (_, false) => What::Get(bytes),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii(), "{text}");
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

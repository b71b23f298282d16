//! Recorded conversations of nodes, in the order in which they went; the times are ignored.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One thing that happened, seen from outside of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Send(Vec<u8>),
    Get(Vec<u8>),
    /// Nothing came for a while.
    Quiet,
    /// Our direction ends, or the connection.
    Finish,
    /// The server ends the connection.
    SeeEnd,
    /// The server is killed and started again; never recorded.
    Restart,
}

#[derive(Clone, Debug)]
pub struct Event {
    pub connection: usize,
    pub what: What,
}

pub struct Recording {
    pub name: String,
    /// The port of the server's that each connection went to.
    pub ports: Vec<u16>,
    pub events: Vec<Event>,
}

/// Every recorded file of the role over TCP, in order of their names.
pub fn recorded() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors/node");
    let entries = std::fs::read_dir(root).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.retain(|file| file.file_stem().unwrap() != "udp");
    files.iter().map(|file| Recording::read(file)).collect()
}

impl Recording {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let connections = json["connections"].as_array().unwrap();
        let mut events = Vec::new();
        for (number, connection) in connections.iter().enumerate() {
            for event in connection["events"].as_array().unwrap() {
                let time = event["seq"].as_f64().or(event["t_ms"].as_f64());
                // A file without times is one whose times are all that matters in it.
                let time = time.unwrap_or_default();
                let what = what(event);
                // At the same time, what is sent comes before what is got.
                let order = matches!(what, What::Get(_) | What::SeeEnd | What::Quiet);
                let event = Event {
                    connection: number,
                    what,
                };
                events.push((time, order, event));
            }
        }
        events.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        let port = |connection: &Value| {
            let side = connection["proxy_side"].as_str().unwrap();
            side.rsplit(':').next().unwrap().parse().unwrap()
        };
        Self {
            name: file.file_stem().unwrap().to_str().unwrap().into(),
            ports: connections.iter().map(port).collect(),
            events: events.into_iter().map(|(_, _, event)| event).collect(),
        }
    }
}

fn what(event: &Value) -> What {
    let bytes = unhex(event["hex"].as_str().unwrap());
    let note = event["note"].as_str().unwrap_or_default();
    match (event["dir"].as_str().unwrap(), bytes.is_empty()) {
        ("to_proxy", false) => What::Send(bytes),
        ("from_proxy", false) => What::Get(bytes),
        ("to_proxy", true) => {
            assert!(["client closes", "FIN"].contains(&note), "{note}");
            What::Finish
        }
        _ if note.starts_with("nothing") => What::Quiet,
        _ => {
            let ends = ["EOF", "RESET", "FIN", "closed"];
            assert!(ends.iter().any(|end| note.starts_with(end)), "{note}");
            What::SeeEnd
        }
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

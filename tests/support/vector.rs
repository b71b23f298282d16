//! Recorded scenarios: which bytes went where, connection by connection. The times of the
//! recording are ignored, its order is kept.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// One thing that happened on a connection, seen by the peer of the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The peer sends.
    Send(Vec<u8>),
    /// The peer gets these bytes.
    Get(Vec<u8>),
    /// The peer ends its direction.
    Finish,
    /// The peer closes both directions.
    Close,
    /// The peer sees the server's end; nothing comes before it.
    SeeEnd,
}

/// What one connection did, in order.
pub type Script = Vec<Step>;

/// One recorded file.
pub struct Scenario {
    /// `folder/name`, without the ending.
    pub name: String,
    pub clients: Vec<Script>,
    pub backends: Vec<Script>,
}

/// Every recorded file of the agent role, in order of their names.
pub fn recorded() -> Vec<Scenario> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors/agent");
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in std::fs::read_dir(&root).unwrap() {
        let entries = std::fs::read_dir(folder.unwrap().path()).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    files
        .iter()
        .map(|file| Scenario::read(&root, file))
        .collect()
}

impl Scenario {
    fn read(root: &Path, file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let name = file.strip_prefix(root).unwrap().with_extension("");
        let scripts = |role: &str| {
            let connections = json["connections"].as_array().unwrap().iter();
            connections
                .filter(|one| one["role"] == role)
                .map(script)
                .collect()
        };
        Self {
            name: name.to_str().unwrap().into(),
            clients: scripts("client"),
            backends: scripts("backend"),
        }
    }
}

fn script(connection: &Value) -> Script {
    connection["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(step)
        .collect()
}

/// None for what only concerns the machine that recorded.
fn step(event: &Value) -> Option<Step> {
    let is_ours = match event["dir"].as_str().unwrap() {
        "to_server" => true,
        "from_server" => false,
        other => panic!("unknown direction {other}"),
    };
    if let Some(hex) = event["hex"].as_str() {
        let bytes = unhex(hex);
        return Some(if is_ours {
            Step::Send(bytes)
        } else {
            Step::Get(bytes)
        });
    }
    match (event["event"].as_str().unwrap(), is_ours) {
        ("fin", true) => Some(Step::Finish),
        ("closed", true) => Some(Step::Close),
        ("fin" | "rst", false) => Some(Step::SeeEnd),
        (other, true) if other.starts_with("forward_failed") => None,
        (other, _) => panic!("unknown event {other}"),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii(), "{text}");
    let pairs = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

//! Reads the recorded scenarios under `tests/wire/vectors`.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// One recorded connection of a client.
pub struct Recorded {
    /// All bytes to the server, in order.
    pub sent: Vec<u8>,
    /// All bytes from it.
    pub received: Vec<u8>,
    /// False where the recorder kept only the beginning of what was sent.
    pub is_whole: bool,
    /// The recorder's own reading of the reply, where it made one.
    pub response: Option<Value>,
}

/// The files of a folder under `vectors`, by name.
pub fn files(folder: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors");
    let mut names: Vec<String> = fs::read_dir(path.join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(format!("{folder}/{}", name.strip_suffix(".json")?)))
        .collect();
    names.sort();
    names
}

/// The clients' connections of one file, in its order.
pub fn clients(name: &str) -> Vec<Recorded> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors");
    let text = fs::read(path.join(format!("{name}.json"))).unwrap();
    let file: Value = serde_json::from_slice(&text).unwrap();
    let connections = file["connections"].as_array().unwrap();
    connections
        .iter()
        .filter(|connection| connection["role"] == "client")
        .map(|connection| {
            let events = connection["events"].as_array().unwrap();
            let received = bytes(events, "from_server");
            Recorded {
                sent: bytes(events, "to_server"),
                response: response(&file["decoded"], &received),
                received,
                is_whole: !events.iter().any(|event| event["truncated"] == true),
            }
        })
        .collect()
}

/// One line of a recorded conversation, in its order.
#[derive(Debug)]
pub struct Line {
    /// Whose connection it is.
    pub role: String,
    /// To the server; else from it.
    pub is_sent: bool,
    /// None where nothing came, or the connection ended.
    pub bytes: Vec<u8>,
    /// What the recorder says about it.
    pub note: String,
}

/// The lines of one file, connection by connection.
pub fn lines(name: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors");
    let text = fs::read(path.join(format!("{name}.json"))).unwrap();
    let file: Value = serde_json::from_slice(&text).unwrap();
    let mut lines = Vec::new();
    for connection in file["connections"].as_array().unwrap() {
        let Some(events) = connection["events"].as_array() else {
            continue;
        };
        let role = connection["role"].as_str().unwrap();
        lines.extend(events.iter().map(|event| Line {
            role: role.to_owned(),
            is_sent: event["dir"] == "to_proxy",
            bytes: unhex(event["hex"].as_str().unwrap_or_default()),
            note: event["note"].as_str().unwrap_or_default().to_owned(),
        }));
    }
    lines
}

/// The recorder's readings have an order of their own; mask and checksum say which is whose.
fn response(readings: &Value, received: &[u8]) -> Option<Value> {
    let (checksum, mask) = (*received.get(2)?, received.get(5..9)?);
    readings
        .as_array()?
        .iter()
        .map(|reading| &reading["response"])
        .find(|response| {
            let frame = &response["frame"];
            frame["checksum"] == checksum
                && frame["mask"].as_str().map(unhex).as_deref() == Some(mask)
        })
        .cloned()
}

fn bytes(events: &[Value], direction: &str) -> Vec<u8> {
    events
        .iter()
        .filter(|event| event["dir"] == direction)
        .filter_map(|event| event["hex"].as_str())
        .flat_map(unhex)
        .collect()
}

/// The bytes of a hex string.
pub fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

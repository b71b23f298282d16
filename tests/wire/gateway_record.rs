//! Reads the recorded scenarios of the gateway: what each connection carried, unit by unit.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use towpath::protocols::gateway::wire::Dialect;

use crate::vectors::unhex;

/// One recorded file.
pub struct Scenario {
    /// `dialect/name`, without the ending.
    pub name: String,
    pub dialect: Dialect,
    pub key: Vec<u8>,
    pub connections: Vec<Recorded>,
}

/// One TCP connection of it.
pub struct Recorded {
    /// `client` or `server`, and for some a few words more.
    pub role: String,
    pub units: Vec<Unit>,
}

/// A challenge, an answer to it, a frame, or what came of one; or the end of a direction.
pub struct Unit {
    pub from_gateway: bool,
    pub bytes: Vec<u8>,
    /// Bytes that make no whole frame.
    pub is_partial: bool,
    pub is_end: bool,
    /// The recorder's own reading.
    pub reading: String,
}

impl Scenario {
    /// A file by its `dialect/name`.
    pub fn read(name: &str) -> Self {
        let text = fs::read_to_string(root().join(format!("{name}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let connections = file["connections"].as_array().unwrap().iter();
        Self {
            name: name.to_owned(),
            dialect: match name.split('/').next().unwrap() {
                "document" => Dialect::Document,
                "fastway" => Dialect::Fastway,
                other => panic!("no dialect: {other}"),
            },
            key: file["auth_key"].as_str().unwrap_or("").into(),
            connections: connections.map(recorded).collect(),
        }
    }

    /// All files, by name.
    pub fn all() -> Vec<Self> {
        let mut names = Vec::new();
        for dialect in ["document", "fastway"] {
            for entry in fs::read_dir(root().join(dialect)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                names.push(format!("{dialect}/{}", name.strip_suffix(".json").unwrap()));
            }
        }
        names.sort();
        names.iter().map(|name| Self::read(name)).collect()
    }

    /// The only connection of a role.
    pub fn of(&self, role: &str) -> &Recorded {
        let mut found = self.connections.iter().filter(|one| one.role == role);
        let one = found.next().unwrap();
        assert!(found.next().is_none());
        one
    }
}

impl Recorded {
    pub fn is_server(&self) -> bool {
        self.role.starts_with("server")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/vectors/gateway")
}

fn recorded(connection: &Value) -> Recorded {
    Recorded {
        role: connection["role"].as_str().unwrap().to_owned(),
        units: connection["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(unit)
            .collect(),
    }
}

fn unit(event: &Value) -> Unit {
    let mut bytes = unhex(event["hex"].as_str().unwrap());
    if let Some(fill) = event["fill"].as_object() {
        let byte = unhex(fill["byte"].as_str().unwrap())[0];
        let count = usize::try_from(fill["count"].as_u64().unwrap()).unwrap();
        bytes.resize(bytes.len() + count, byte);
    }
    Unit {
        from_gateway: match event["dir"].as_str().unwrap() {
            "from_gateway" => true,
            "to_gateway" => false,
            other => panic!("no direction: {other}"),
        },
        bytes,
        is_partial: event["partial"] == true,
        is_end: event["eof"].is_string(),
        reading: event["decoded"].as_str().unwrap().to_owned(),
    }
}

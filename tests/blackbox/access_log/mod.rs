//! The access log from outside: one record for each session, in both formats, whatever peers are
//! called and wherever it is written.

mod records;
mod targets;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::support::folder::Folder;
use super::support::server::{Server, Setup};
use super::support::until;

/// A server with an access log in a folder, and an admin address.
struct Logged {
    server: Server,
    path: PathBuf,
    _folder: Folder,
}

/// The flags for a log at that path.
fn flags(setup: Setup, path: &Path, format: &str) -> Setup {
    setup
        .flag(&format!("--access-log={}", path.display()))
        .flag(&format!("--log-format={format}"))
}

impl Logged {
    fn start(setup: Setup, format: &str) -> Self {
        let folder = Folder::new();
        let path = folder.path().join("access.log");
        Self {
            server: flags(setup.admin(), &path, format).start(),
            path,
            _folder: folder,
        }
    }

    /// Waits until every session that has ended is recorded, at least so many.
    fn expect_recorded(&self, least: u64) {
        let admin = self.server.admin();
        until("all sessions are recorded", || {
            let name = "towpath_sessions_ended_total";
            let handed = admin.metric(name, "reason=\"handed_on\"");
            let ended = admin.metric(name, "") - handed;
            let written = admin.metric("towpath_access_records_total", "");
            written == ended && written >= least as f64
        });
    }

    fn records(&self) -> Vec<Value> {
        json_records(&self.path)
    }
}

/// The records of a file, each of which must be an object on a line of its own.
fn json_records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last is whole");
    let object = |line: &str| -> Value {
        let value: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value.is_object(), "{line}");
        value
    };
    text.lines().map(object).collect()
}

/// The records in which a key has that value.
fn with<'a>(records: &'a [Value], key: &str, value: &str) -> Vec<&'a Value> {
    let is_meant = |record: &&Value| record[key] == value;
    records.iter().filter(is_meant).collect()
}

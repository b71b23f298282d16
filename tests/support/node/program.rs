//! `towpath node` as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::command::{Finished, Log, TOWPATH, towpath};
use crate::support::{kernel, until};

/// A running `towpath node`; killed when dropped.
pub struct Program {
    child: Child,
    out: Log,
    error: Log,
}

impl Program {
    /// Starts it and waits for its address.
    pub fn start(server: SocketAddr, identity: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(TOWPATH)
            .args(["node", "--server", &server.to_string(), "--identity"])
            .arg(identity)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let error = Log::follow(child.stderr.take().unwrap());
        let program = Self { child, out, error };
        program.lines(1);
        program
    }

    /// The lines of stdout, once there are so many.
    pub fn lines(&self, count: usize) -> Vec<String> {
        until(&format!("{count} lines of a node"), || {
            self.out.text().lines().count() >= count
        });
        self.shown()
    }

    /// The lines of stdout so far.
    pub fn shown(&self) -> Vec<String> {
        self.out.text().lines().map(str::to_owned).collect()
    }

    /// What it has said on stderr.
    pub fn said(&self) -> String {
        self.error.text()
    }

    /// The address that it showed first, in words or in JSON.
    pub fn public(&self) -> SocketAddr {
        let first = self.lines(1).remove(0);
        let text = match serde_json::from_str::<Value>(&first) {
            Ok(object) => object["public"].as_str().unwrap().to_owned(),
            Err(_) => first,
        };
        text.parse().unwrap_or_else(|_| panic!("{text:?}"))
    }

    pub fn signal(&self, name: &str) {
        kernel::signal(self.child.id(), name);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a node's stderr\n{}---", self.error.text());
        }
    }
}

/// Runs `towpath node send` to its end.
pub fn send(to: SocketAddr, identity: &Path, flags: &[&str], input: &[u8]) -> Finished {
    let to = to.to_string();
    let identity = ["--identity", identity.to_str().unwrap()];
    let words = [&["node", "send", &to][..], flags, &identity].concat();
    towpath(&words, &[], input)
}

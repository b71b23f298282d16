//! `towpath expose` as a process.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::wire::TOKEN;
use crate::support::command::{Log, TOWPATH, wait};
use crate::support::peer::Peer;
use crate::support::{DEADLINE, kernel, until};

/// A running `towpath expose`; killed when dropped.
pub struct Program {
    child: Child,
    out: Log,
    /// Until it is read to its end.
    error: Option<Log>,
}

impl Program {
    /// Starts it and waits until it has told where its services are, in JSON.
    pub fn start(server: SocketAddr, identity: &Path, words: &[&str]) -> Self {
        let words = [&["--json"], words].concat();
        let program = Self::spawn(server, identity, &words);
        program.lines(1);
        program
    }

    /// Starts it and waits for nothing.
    pub fn spawn(server: SocketAddr, identity: &Path, words: &[&str]) -> Self {
        Self::spawn_with(server, identity, words, TOKEN)
    }

    pub fn spawn_with(server: SocketAddr, identity: &Path, words: &[&str], token: &str) -> Self {
        let mut child = Command::new(TOWPATH)
            .args(["expose", "--server", &server.to_string(), "--identity"])
            .arg(identity)
            .args(words)
            .env("TOWPATH_TOKEN", token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let error = Log::follow(child.stderr.take().unwrap());
        Self {
            child,
            out,
            error: Some(error),
        }
    }

    /// The lines of stdout, once there are so many.
    pub fn lines(&self, count: usize) -> Vec<String> {
        until(&format!("{count} lines of a tunnel client"), || {
            self.out.text().lines().count() >= count
        });
        self.out.text().lines().map(str::to_owned).collect()
    }

    /// What it has said on stderr.
    pub fn said(&self) -> String {
        self.error.as_ref().map_or_else(String::new, Log::text)
    }

    /// Waits until stderr holds this text.
    pub fn expect_said(&self, part: &str) {
        until(&format!("the client says {part:?}"), || {
            self.said().contains(part)
        });
    }

    fn object(&self) -> Value {
        serde_json::from_str(&self.lines(1)[0]).unwrap()
    }

    /// Where the first service is.
    pub fn public(&self) -> SocketAddr {
        address(&self.object()["public"])
    }

    /// Where the service of this name is.
    pub fn public_of(&self, name: &str) -> SocketAddr {
        let object = self.object();
        let services = object["services"].as_array().unwrap();
        let found = services.iter().find(|service| service["name"] == name);
        address(&found.unwrap_or_else(|| panic!("no {name} in {object}"))["public"])
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        kernel::signal(self.child.id(), name);
    }

    /// Waits for its end: the exit code, none when a signal ended it, and all that it has said.
    pub fn finish(mut self) -> (Option<i32>, String) {
        let code = wait(&mut self.child).code();
        let said = self.error.take().map_or_else(String::new, Log::finish);
        (code, said)
    }

    /// Ends it as it wishes to be ended.
    pub fn stop(self) {
        self.signal("TERM");
        let (code, said) = self.finish();
        assert_eq!(code, Some(0), "{said}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- a tunnel client's stderr\n{}---", self.said());
        }
    }
}

fn address(value: &Value) -> SocketAddr {
    let text = value.as_str().unwrap_or_else(|| panic!("{value}"));
    text.parse().unwrap_or_else(|_| panic!("{text:?}"))
}

/// Whether a fresh visitor is answered by an echo there, and not by anybody else.
pub fn is_echoing(public: SocketAddr) -> bool {
    answer(public, b"is this an echo?").as_deref() == Some(&b"is this an echo?"[..])
}

/// Waits until one is: after a restart visitors may be turned away for a while.
pub fn expect_echoing(public: SocketAddr) {
    until(&format!("an echo at {public}"), || is_echoing(public));
}

/// What a fresh visitor gets that sends these bytes and ends; none where it does not end well.
pub fn answer(public: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let stream = TcpStream::connect_timeout(&public, DEADLINE).ok()?;
    let mut peer = Peer::new(stream);
    peer.try_send(bytes);
    peer.try_finish();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match peer.some(&mut buffer).ok()? {
            0 => return Some(got),
            more => got.extend_from_slice(&buffer[..more]),
        }
    }
}

//! `towpath chain` as a process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{Hop, Key};
use crate::support::command::{Finished, Log, TOWPATH, towpath};
use crate::support::folder::Folder;
use crate::support::until;

/// The files with the hops' keys.
pub struct Keys {
    folder: Folder,
    files: Vec<PathBuf>,
}

impl Keys {
    /// One file per hop, in their order.
    pub fn of(hops: &[Hop]) -> Self {
        let keys: Vec<Key> = hops.iter().map(|hop| hop.key).collect();
        Self::new(&keys)
    }

    pub fn new(keys: &[Key]) -> Self {
        let folder = Folder::new();
        let files = keys.iter().enumerate().map(|(number, key)| {
            let file = folder.write(&format!("hop{number}"), key.text() + "\n");
            owner_only(&file);
            file
        });
        let files = files.collect();
        Self { folder, files }
    }

    /// `--key-file` as often as there are files.
    pub fn flags(&self) -> Vec<String> {
        let flag = |file: &PathBuf| ["--key-file".to_owned(), file.display().to_string()];
        self.files.iter().flat_map(flag).collect()
    }

    /// A further file beside them.
    pub fn file(&self, name: &str, content: &str) -> String {
        let file = self.folder.write(name, content);
        owner_only(&file);
        file.display().to_string()
    }
}

fn owner_only(file: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The addresses of hops as `--via` has them.
pub fn via(hops: &[Hop]) -> String {
    let addresses = hops.iter().map(|hop| hop.address.to_string());
    addresses.collect::<Vec<_>>().join(",")
}

/// The words of `towpath chain` through these hops.
pub fn words(destination: &str, hops: &[Hop], keys: &Keys, more: &[&str]) -> Vec<String> {
    let via = via(hops);
    let mut words: Vec<String> = ["chain", destination, "--via", &via]
        .map(str::to_owned)
        .into();
    words.extend(keys.flags());
    words.extend(more.iter().map(ToString::to_string));
    words
}

/// Runs `towpath chain` to its end with this on its stdin.
pub fn run(destination: &str, hops: &[Hop], more: &[&str], input: &[u8]) -> Finished {
    let keys = Keys::of(hops);
    run_words(&words(destination, hops, &keys, more), input)
}

pub fn run_words(words: &[String], input: &[u8]) -> Finished {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    towpath(&words, &[], input)
}

/// Runs `towpath chain test` to its end.
pub fn test(destination: &str, hops: &[Hop]) -> Finished {
    let keys = Keys::of(hops);
    let mut words = words(destination, hops, &keys, &[]);
    words.insert(1, "test".to_owned());
    run_words(&words, b"")
}

/// A running `towpath chain --listen`; killed when dropped.
pub struct Listening {
    pub address: SocketAddr,
    child: Child,
    out: Log,
    error: Log,
    _keys: Keys,
}

impl Listening {
    pub fn start(destination: &str, hops: &[Hop], more: &[&str]) -> Self {
        let keys = Keys::of(hops);
        let listen = ["--listen", "127.0.0.1:0"];
        let words = words(destination, hops, &keys, &[&listen[..], more].concat());
        let mut child = Command::new(TOWPATH)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let error = Log::follow(child.stderr.take().unwrap());
        let mut address = None;
        until("it says where it listens", || {
            let said = out.text() + &error.text();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended at its start, {status}: {said}");
            }
            address = listening(&said);
            address.is_some()
        });
        Self {
            address: address.unwrap(),
            child,
            out,
            error,
            _keys: keys,
        }
    }

    /// What it has said on stdout and stderr.
    pub fn said(&self) -> String {
        self.out.text() + &self.error.text()
    }
}

fn listening(said: &str) -> Option<SocketAddr> {
    let (_, rest) = said.split_once("listening on ")?;
    // The line must be whole, or a port could be cut.
    let (line, _) = rest.split_once('\n')?;
    line.split_whitespace().next()?.parse().ok()
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- towpath chain said\n{}---", self.said());
        }
    }
}

//! An HTTP client for CONNECT: heads out, heads in, nothing behind them touched.

use std::net::SocketAddr;

use super::seal::base64;
use crate::support::peer::{Peer, text};

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The head of a CONNECT, with further fields as lines.
pub fn connect(authority: &str, lines: &[&str]) -> Vec<u8> {
    request("CONNECT", authority, authority, lines)
}

pub fn request(method: &str, target: &str, host: &str, lines: &[&str]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    for line in lines {
        head += &format!("{line}\r\n");
    }
    (head + "\r\n").into_bytes()
}

/// The field that says who one is.
pub fn credentials(user: &str, password: &str) -> String {
    let both = format!("{user}:{password}");
    format!("Proxy-Authorization: Basic {}", base64(both.as_bytes()))
}

/// Reads an answer's head and not one byte more.
pub fn read_head(peer: &mut Peer) -> Head {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.extend(peer.take(1));
        assert!(bytes.len() < 8192, "no end of {}", text(&bytes));
    }
    let head = String::from_utf8(bytes).unwrap();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap().splitn(3, ' ');
    let version = first.next().unwrap();
    assert!(version.starts_with("HTTP/1."), "{head}");
    let status = first.next().unwrap().parse().unwrap();
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_lowercase(), value.trim().to_owned())
    });
    Head {
        status,
        fields: fields.collect(),
    }
}

/// Sends a head and reads the status of the answer.
pub fn ask(listener: SocketAddr, head: &[u8]) -> (Head, Peer) {
    let mut peer = Peer::connect(listener);
    peer.send(head);
    (read_head(&mut peer), peer)
}

/// A connection through a CONNECT that must succeed.
pub fn tunnel(listener: SocketAddr, authority: &str) -> Peer {
    let (head, peer) = ask(listener, &connect(authority, &[]));
    assert_eq!(head.status, 200, "{head:?}");
    peer
}

/// A page over HTTP for real clients: answers each connection once.
pub fn page(content: &'static str) -> crate::support::backend::Backend {
    crate::support::backend::Backend::serve(move |mut peer, _| {
        let mut head: Vec<u8> = Vec::new();
        let mut buffer = [0; 4096];
        while !head.windows(4).any(|four| four == b"\r\n\r\n") {
            match peer.some(&mut buffer) {
                Ok(more @ 1..) => head.extend(&buffer[..more]),
                _ => return,
            }
        }
        let length = content.len();
        peer.try_send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}"
            )
            .as_bytes(),
        );
    })
}

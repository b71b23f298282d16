//! A client for the admin address: one connection for each request, blocking, with a deadline for each
//! step, and nothing of HTTP but what that address speaks.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::refused;
use crate::cli::exit::{FAILED, Failure};
use crate::config::{Secret, plain};

/// The way to a server's admin address.
#[derive(Debug)]
pub(super) struct Line {
    /// Host and port.
    pub(super) address: String,
    /// What is shown there.
    pub(super) token: Option<Secret>,
}

impl Line {
    /// Asks for a value; anything but success is a failure of `command`.
    pub(super) fn ask(&self, command: &str, method: &str, path: &str) -> Result<Value, Failure> {
        match self.hear(command, method, path)? {
            (200..=299, body) => Ok(body),
            (status, body) => Err(refused(command, status, &body)),
        }
    }

    /// Asks, and tells the status and the value of the answer.
    pub(super) fn hear(
        &self,
        command: &str,
        method: &str,
        path: &str,
    ) -> Result<(u16, Value), Failure> {
        self.exchange(method, path).map_err(|error| {
            let address = plain(&self.address);
            let line = match error.kind() {
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::TimedOut
                | io::ErrorKind::WouldBlock => {
                    format!("no server answers at {address}; is it running, and is [admin] on?")
                }
                _ => format!("{address}: {error}"),
            };
            Failure::new(FAILED, format!("towpath {command}: {line}"))
        })
    }

    fn exchange(&self, method: &str, path: &str) -> io::Result<(u16, Value)> {
        let mut stream = self.connect()?;
        // The address itself is a host that the server takes; a name of it may be none.
        let host = stream.peer_addr()?;
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n"
        )
        .into_bytes();
        if let Some(token) = &self.token {
            request.extend_from_slice(b"Authorization: Bearer ");
            request.extend_from_slice(token.expose());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request)?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        parse(&answer)
            .ok_or_else(|| io::Error::other("it answers, but not as an admin address does"))
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failure = io::Error::other("the name leads to no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, STEP) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(STEP))?;
                    stream.set_write_timeout(Some(STEP))?;
                    return Ok(stream);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// The status and the value of an answer that ended with the connection.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else {
        return None;
    };
    let body = serde_json::from_slice(&answer[length..]).ok()?;
    Some((head.code?, body))
}

/// How long each step of an exchange may take: the server answers within two seconds.
const STEP: Duration = Duration::from_secs(5);

/// The longest answer that is read.
const LONGEST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_all_else_is_none() {
        let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n{\"error\": \"x\"}";
        let (status, body) = parse(answer).unwrap();
        assert_eq!((status, body["error"].as_str()), (404, Some("x")));
        for end in 0..answer.len() {
            assert!(parse(&answer[..end]).is_none(), "{end} bytes");
        }
        assert!(parse(b"SSH-2.0-OpenSSH_9\r\n").is_none());
    }
}

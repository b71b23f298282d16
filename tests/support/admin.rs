//! The admin address from its client's side: HTTP by hand, so that what is sent is what the test says.

use std::net::SocketAddr;

use serde_json::Value;

use super::peer::Peer;
use super::until;

/// The admin address of a server.
pub struct Admin {
    pub address: SocketAddr,
    token: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Understands an answer that ended with its connection.
    pub fn of(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{text:?}"));
        Self {
            status: status(head),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

fn status(head: &str) -> u16 {
    let word = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{head:?}"))
}

impl Admin {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            token: None,
        }
    }

    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// Sends these bytes and reads the answer to its end.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut peer = self.connect();
        // It may be refused before all of it was sent.
        peer.try_send(bytes);
        Answer::of(&peer.rest().0)
    }

    /// A request with these further header lines.
    pub fn call(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let address = self.address;
        let token = self.token.as_ref();
        let token = token.map_or(String::new(), |t| format!("Authorization: Bearer {t}\r\n"));
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{token}{headers}\r\n{body}"
        );
        self.raw(request.as_bytes())
    }

    /// What `GET` gives, which must work.
    pub fn get(&self, path: &str) -> Value {
        self.call("GET", path, "", "").expect(200).json()
    }

    /// The sessions of one page, with the names of the rows' fields.
    pub fn sessions(&self, query: &str) -> Vec<Value> {
        let mut page = Value::Null;
        // A core of a busy machine may not have answered in time, and is asked again.
        until("all cores tell of their sessions", || {
            page = self.get(&format!("/sessions?{query}"));
            page["partial"] == false
        });
        page["sessions"].as_array().unwrap().clone()
    }

    pub fn kick(&self, id: &str) -> Answer {
        let path = format!("/sessions/{}", id.replace('#', "%23"));
        self.call("DELETE", &path, "", "")
    }

    /// The sum of a metric's series whose labels hold `label`.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let answer = self.call("GET", "/metrics", "", "").expect(200);
        let series = answer.body.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{'])) && line.contains(label)
        });
        let values = series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
        values.sum()
    }
}

//! Answers, and the refusals among them.

use serde_json::{Value, json};

/// What is answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// What the body is.
    kind: &'static str,
    body: Vec<u8>,
    /// Further header lines, each with its line end.
    extra: String,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// Why, for a person.
    pub reason: String,
    /// A further header line.
    pub header: Option<String>,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: u16, reason: impl Into<String>) -> Self {
        Self {
            status,
            reason: reason.into(),
            header: None,
        }
    }

    /// The request itself is wrong.
    pub fn bad(reason: impl Into<String>) -> Self {
        Self::new(400, reason)
    }

    /// The same with a header line.
    pub fn header(mut self, line: impl Into<String>) -> Self {
        self.header = Some(line.into());
        self
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let body = json!({ "error": refusal.reason });
        let mut response = Self::json(&body);
        response.status = refusal.status;
        response.extra = refusal.header.map_or(String::new(), |line| line + "\r\n");
        response
    }
}

impl Response {
    /// Done, with a value.
    pub fn json(value: &Value) -> Self {
        Self {
            status: 200,
            kind: "application/json",
            body: format!("{value}\n").into_bytes(),
            extra: String::new(),
        }
    }

    /// Done, with a text of this kind.
    pub fn text(kind: &'static str, text: &str) -> Self {
        Self {
            status: 200,
            kind,
            body: text.as_bytes().to_vec(),
            extra: String::new(),
        }
    }

    /// The same with a header line.
    pub fn header(mut self, line: &str) -> Self {
        self.extra.push_str(line);
        self.extra.push_str("\r\n");
        self
    }

    /// The same with another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The bytes; without a body for `HEAD`.
    pub fn encode(&self, keep: bool, head_only: bool, out: &mut Vec<u8>) {
        let (status, word) = (self.status, word(self.status));
        let connection = if keep { "" } else { "Connection: close\r\n" };
        let head = format!(
            "HTTP/1.1 {status} {word}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n{}{connection}\r\n",
            self.kind,
            self.body.len(),
            self.extra,
        );
        out.extend_from_slice(head.as_bytes());
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

fn word(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Error",
    }
}

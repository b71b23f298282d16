//! A ProxyRequest under way on a fresh connection, until its answer is there.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::way::closed;
use super::wire::{HEAD, body_length, public_address};
use crate::line::Line;
use crate::meter::corrupt;

/// One request.
pub struct Ask {
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    since: Instant,
}

impl Ask {
    /// One that is yet to be sent, on a connection that is about to be opened.
    pub fn new(request: Vec<u8>) -> Self {
        Self {
            request,
            sent: 0,
            answer: Vec::new(),
            since: Instant::now(),
        }
    }

    /// When it began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Does what can be done now; the public address, once it has come.
    pub fn advance(&mut self, line: &mut Line) -> io::Result<Option<SocketAddr>> {
        while let Some(rest) = self
            .request
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match line.write(rest)? {
                None => return Ok(None),
                Some(count) => self.sent += count,
            }
        }
        let mut piece = [0; 512];
        loop {
            match line.read(&mut piece)? {
                None => return Ok(None),
                Some(0) => return Err(closed("a node's connection instead of answering")),
                Some(count) => {
                    let bytes = piece.get(..count).unwrap_or_default();
                    if let Some(public) = self.take(bytes)? {
                        return Ok(Some(public));
                    }
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<Option<SocketAddr>> {
        self.answer.extend_from_slice(bytes);
        let Some((head, body)) = self.answer.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = body_length(head).map_err(corrupt)?;
        if length > MOST_ANSWER || body.len() > length {
            return Err(corrupt("more than a ProxyResponse was the answer"));
        }
        if body.len() < length {
            return Ok(None);
        }
        public_address(body).map(Some).map_err(corrupt)
    }
}

/// A ProxyResponse has about 72 bytes.
const MOST_ANSWER: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of nothing but opcode and public address.
    fn answer() -> Vec<u8> {
        let body = [&[0x0a, 13, 0x12, 11][..], b"127.0.0.1:9", &[0x38, 9]].concat();
        let head = [0x5d, 0x3a, 0xe6, 0x5a, 0, 1, 0, 0, 0, body.len() as u8];
        [&head[..], &body].concat()
    }

    #[test]
    fn an_answer_cut_anywhere_is_one() {
        let answer = answer();
        for piece in 1..=answer.len() {
            let mut ask = Ask::new(Vec::new());
            let told: Vec<_> = answer.chunks(piece).map(|b| ask.take(b).unwrap()).collect();
            let (last, before) = told.split_last().unwrap();
            assert_eq!(*last, Some("127.0.0.1:9".parse().unwrap()));
            assert!(before.iter().all(Option::is_none), "pieces of {piece}");
        }
    }
    #[test]
    fn another_answer_and_more_than_one_are_told() {
        let good = answer();
        assert!(Ask::new(Vec::new()).take(&good).is_ok());
        let mut keepalive = good.clone();
        keepalive[good.len() - 1] = 3;
        let long = [&good[..6], &[0, 1, 0, 0]].concat();
        for wrong in [keepalive, good.repeat(2), long] {
            assert!(Ask::new(Vec::new()).take(&wrong).is_err());
        }
    }
}

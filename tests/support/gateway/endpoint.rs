//! One endpoint of the gateway: a connection that is read frame by frame.

use std::io::ErrorKind;

use crate::support::peer::{End, Peer, text};

use super::{Dialect, Got, data, word};

/// A client or a server that has passed its handshake.
pub struct Endpoint {
    peer: Peer,
    pub dialect: Dialect,
    /// What has come and was not taken; the part before `taken` was.
    inbox: Vec<u8>,
    taken: usize,
    chunk: Vec<u8>,
}

impl Endpoint {
    pub fn new(peer: Peer, dialect: Dialect) -> Self {
        Self {
            peer,
            dialect,
            inbox: Vec::new(),
            taken: 0,
            chunk: vec![0; CHUNK],
        }
    }

    /// The connection, for what is not a frame.
    pub fn peer(&mut self) -> &mut Peer {
        &mut self.peer
    }

    /// A second handle for writing while this one reads.
    pub fn writer(&self) -> Peer {
        self.peer.twin()
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.peer.send(bytes);
        self
    }

    pub fn data(&mut self, conn: u32, payload: &[u8]) -> &mut Self {
        self.send(data(conn, payload))
    }

    pub fn close(&mut self, conn: u32) -> &mut Self {
        self.send(self.dialect.close(conn))
    }

    pub fn ping(&mut self) -> &mut Self {
        self.send(self.dialect.ping())
    }

    /// True when a whole frame has come already.
    pub fn has_frame(&self) -> bool {
        let inbox = &self.inbox[self.taken..];
        inbox.len() >= 4 && inbox.len() - 4 >= word(inbox, 0) as usize
    }

    /// The next frame's bytes, length and all; none at the end. A reset may cut a frame, an end of
    /// stream must not.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        while !self.has_frame() {
            match self.fill() {
                None => {}
                Some(End::Reset) => return None,
                Some(End::Fin) => {
                    let rest = &self.inbox[self.taken..];
                    assert!(rest.is_empty(), "ended inside a frame: {}", text(rest));
                    return None;
                }
            }
        }
        let inbox = &self.inbox[self.taken..];
        let frame = inbox[..4 + word(inbox, 0) as usize].to_vec();
        assert!(frame.len() >= 9 || word(&frame, 4) != 0, "{frame:02x?}");
        self.taken += frame.len();
        Some(frame)
    }

    /// Reads once; tells how the connection ended where it did.
    fn fill(&mut self) -> Option<End> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        match self.peer.some(&mut self.chunk) {
            Ok(0) => Some(End::Fin),
            Ok(more) => {
                self.inbox.extend_from_slice(&self.chunk[..more]);
                None
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Some(End::Reset),
            Err(error) => panic!("{error} after {}", text(&self.inbox)),
        }
    }

    /// The next frame; none at the end.
    pub fn maybe(&mut self) -> Option<Got> {
        let frame = self.next_frame()?;
        Some(self.dialect.decode(&frame))
    }

    /// The next frame.
    pub fn got(&mut self) -> Got {
        self.maybe()
            .expect("the connection ended instead of a frame")
    }

    pub fn expect(&mut self, expected: Got) -> &mut Self {
        assert_eq!(self.got(), expected);
        self
    }

    /// The next `conns` frames are one Close for each of them, in any order.
    pub fn expect_closes(&mut self, conns: &[u32]) {
        let mut expected = conns.to_vec();
        let mut got: Vec<u32> = conns.iter().map(|_| self.closed()).collect();
        expected.sort_unstable();
        got.sort_unstable();
        assert_eq!(got, expected);
    }

    /// The next frame is a Close; which connection's.
    pub fn closed(&mut self) -> u32 {
        match self.got() {
            Got::Close(conn) => conn,
            other => panic!("{other:?} instead of a Close"),
        }
    }

    /// Asks for an id; the document's dialect only.
    pub fn open(&mut self) -> u32 {
        self.send(self.dialect.new_id());
        match self.got() {
            Got::Open(conn) => conn,
            other => panic!("{other:?} instead of an Open"),
        }
    }

    /// Sends what the gateway answers at once, and fails when anything else comes first.
    pub fn expect_quiet(&mut self) -> &mut Self {
        match self.dialect {
            Dialect::Document => {
                self.open();
            }
            Dialect::Fastway => {
                self.ping().expect(Got::Ping);
            }
        }
        self
    }

    /// Sends what the gateway answers at once; the Closes that come before that answer.
    pub fn closes_before_quiet(&mut self) -> Vec<u32> {
        self.send(match self.dialect {
            Dialect::Document => self.dialect.new_id(),
            Dialect::Fastway => self.dialect.ping(),
        });
        let mut closes = Vec::new();
        loop {
            match (self.dialect, self.got()) {
                (_, Got::Close(conn)) => closes.push(conn),
                (Dialect::Document, Got::Open(_)) | (Dialect::Fastway, Got::Ping) => return closes,
                (_, other) => panic!("{other:?} instead of a Close"),
            }
        }
    }

    /// Dials; none when that is refused.
    pub fn try_dial(&mut self, remote: u32) -> Option<u32> {
        let (asked, refused) = match self.dialect {
            Dialect::Document => {
                let conn = self.open();
                (conn, conn)
            }
            Dialect::Fastway => (0, remote),
        };
        self.send(self.dialect.dial(asked, remote));
        match self.got() {
            Got::Accept { conn, remote: of } => {
                assert_eq!(of, remote, "whom it is joined to");
                assert!(asked == 0 || asked == conn, "{conn} instead of {asked}");
                assert_ne!(conn, 0);
                Some(conn)
            }
            Got::Refuse(id) => {
                assert_eq!(id, refused, "what is refused");
                None
            }
            other => panic!("{other:?} as the answer to a dial"),
        }
    }

    pub fn dial(&mut self, remote: u32) -> u32 {
        self.try_dial(remote).expect("the dial is accepted")
    }

    pub fn expect_refused(&mut self, remote: u32) -> &mut Self {
        assert_eq!(self.try_dial(remote), None, "the dial of {remote}");
        self
    }

    /// The next frame tells that somebody has dialled this endpoint: the connection and who it was.
    pub fn joined(&mut self) -> (u32, u32) {
        match (self.dialect, self.got()) {
            (Dialect::Document, Got::Accept { conn, remote })
            | (Dialect::Fastway, Got::Connect { conn, remote }) => (conn, remote),
            (_, other) => panic!("{other:?} instead of news of a dial"),
        }
    }

    /// The gateway closes this connection and sends nothing more.
    pub fn expect_closed(&mut self) {
        if let Some(more) = self.maybe() {
            panic!("{more:?} instead of the end");
        }
    }

    /// Leaves with FIN and waits until the gateway has seen it.
    pub fn leave(mut self) {
        self.peer.try_finish();
        while self.next_frame().is_some() {}
    }

    /// Leaves with RST.
    pub fn reset(self) {
        self.peer.reset();
    }
}

const CHUNK: usize = 64 * 1024;

//! A connection that carries frames of many visitors: `S`, `R`, or the data connection of a service
//! for UDP.

use std::net::SocketAddr;

use super::wire::{Cursor, Uuid};
use crate::support::peer::Peer;

/// The most raw bytes of a stream in one frame.
pub const MAX_RAW: usize = 65_536;

/// The longest datagram.
pub const MAX_DATAGRAM: usize = 65_507;

/// What may be under way in each direction of each visitor.
pub const WINDOW: usize = 262_144;

const RESET: u32 = 0xffff_ffff;
const OPEN: u32 = 0xffff_fffe;

/// What a frame says of its visitor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    Open { service: u16, visitor: SocketAddr },
    Data(Vec<u8>),
    End,
    Reset,
}

/// One connection, read frame by frame.
pub struct Frames {
    pub peer: Peer,
    /// Whether a length of 0 is an empty datagram.
    udp: bool,
}

/// A frame with any length field.
pub fn frame(uuid: &Uuid, length: u32, raw: &[u8]) -> Vec<u8> {
    [&uuid[..], &length.to_le_bytes(), raw].concat()
}

impl Frames {
    pub fn new(peer: Peer, udp: bool) -> Self {
        Self { peer, udp }
    }

    /// A second handle for writing while this one reads.
    pub fn twin(&self) -> Self {
        Self::new(self.peer.twin(), self.udp)
    }

    /// The next frame; its length is one that it may have.
    pub fn next(&mut self) -> (Uuid, What) {
        let head = self.peer.take(20);
        let mut cursor = Cursor(&head);
        let uuid = cursor.array();
        let what = match cursor.u32() {
            OPEN => {
                let mut bytes = self.peer.take(3);
                let rest = if bytes[2] == 4 { 6 } else { 18 };
                bytes.extend(self.peer.take(rest));
                let mut cursor = Cursor(&bytes);
                What::Open {
                    service: cursor.u16(),
                    visitor: cursor.address(),
                }
            }
            RESET => What::Reset,
            0 if !self.udp => What::End,
            length => {
                let most = if self.udp { MAX_DATAGRAM } else { MAX_RAW };
                assert!(length as usize <= most, "a frame of {length} bytes");
                What::Data(self.peer.take(length as usize))
            }
        };
        (uuid, what)
    }

    /// The next frame is of this visitor.
    pub fn next_of(&mut self, uuid: &Uuid) -> What {
        let (got, what) = self.next();
        assert!(got == *uuid, "{what:?} of another visitor");
        what
    }

    /// The next frame announces a visitor of this service.
    pub fn opened(&mut self, of: u16) -> (Uuid, SocketAddr) {
        match self.next() {
            (uuid, What::Open { service, visitor }) => {
                assert_eq!(service, of);
                (uuid, visitor)
            }
            (_, other) => panic!("{other:?} instead of a visitor"),
        }
    }

    /// Reads so many bytes of one visitor, in any frames.
    pub fn take(&mut self, uuid: &Uuid, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            match self.next_of(uuid) {
                What::Data(more) => bytes.extend(more),
                other => panic!("{other:?} after {} of {count} bytes", bytes.len()),
            }
        }
        assert_eq!(bytes.len(), count, "more bytes than there should be");
        bytes
    }

    /// The next frames carry exactly these bytes.
    pub fn expect(&mut self, uuid: &Uuid, bytes: &[u8]) -> &mut Self {
        let got = self.take(uuid, bytes.len());
        assert!(got == bytes, "other bytes than were sent");
        self
    }

    /// Sends bytes of a stream in frames as long as may be, or one datagram.
    pub fn send(&mut self, uuid: &Uuid, bytes: &[u8]) -> &mut Self {
        if self.udp {
            self.peer.send(framed(uuid, bytes));
            return self;
        }
        for raw in bytes.chunks(MAX_RAW) {
            self.peer.send(framed(uuid, raw));
        }
        self
    }

    /// Sends to a server that may have closed already; false when the bytes did not go.
    pub fn try_send(&mut self, uuid: &Uuid, bytes: &[u8]) -> bool {
        let mut pieces = bytes.chunks(MAX_RAW);
        pieces.all(|raw| self.peer.try_send(&framed(uuid, raw)))
    }

    pub fn end(&mut self, uuid: &Uuid) -> &mut Self {
        self.peer.send(frame(uuid, 0, &[]));
        self
    }

    pub fn reset(&mut self, uuid: &Uuid) -> &mut Self {
        self.peer.send(frame(uuid, RESET, &[]));
        self
    }

    /// Gives credit back for what came on this connection.
    pub fn grant(&mut self, uuid: &Uuid, bytes: usize) -> &mut Self {
        let bytes = u32::try_from(bytes).unwrap();
        self.peer.send(frame(uuid, bytes, &[]));
        self
    }

    /// The next grant of the server, on a connection that only we send frames on.
    pub fn granted(&mut self) -> (Uuid, usize) {
        let grant = self.peer.take(20);
        let mut cursor = Cursor(&grant);
        (cursor.array(), cursor.u32() as usize)
    }
}

fn framed(uuid: &Uuid, raw: &[u8]) -> Vec<u8> {
    frame(uuid, u32::try_from(raw.len()).unwrap(), raw)
}

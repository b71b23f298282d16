//! Frames as they arrive: whole, verbatim, with a view of the message within.

use std::io::{self, Read};

use prost::Message as _;

use super::super::wire::{HEAD, Head, Message};
use crate::wire::WireError;

/// What a peer sent, byte for byte. The server vouches for its head and for nothing else: the sender's
/// name in it is what the peer claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    head: Head,
    bytes: Vec<u8>,
}

impl Frame {
    /// A frame of these bytes, head and body.
    pub(super) fn new(head: Head, bytes: Vec<u8>) -> Self {
        Self { head, bytes }
    }

    /// The head; it says whether the body is compressed, which this library does not undo.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Head and body.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What is behind the head.
    pub fn body(&self) -> &[u8] {
        self.bytes.get(HEAD..).unwrap_or_default()
    }

    /// The message in the body; none where the body is compressed or is no message.
    pub fn message(&self) -> Option<Message> {
        match self.head.is_compressed() {
            true => None,
            false => Message::decode(self.body()).ok(),
        }
    }
}

/// Bytes of a stream that are not a whole frame yet. It grows with what has come, never on the word of
/// a length.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// What is before this was taken. It moves on with every frame and the rest is moved to the front
    /// only to read more: a block of small frames would otherwise be moved once for each of them.
    start: usize,
}

impl Inbox {
    /// The next whole frame, `Ok(None)` until there is one.
    pub(super) fn next(
        &mut self,
        network: u32,
        max_frame: u32,
    ) -> Result<Option<Frame>, WireError> {
        let waiting = self.bytes.get(self.start..).unwrap_or_default();
        let Some(head) = Head::decode(waiting, network, max_frame)? else {
            return Ok(None);
        };
        let Some(frame) = waiting.get(..head.frame_len()) else {
            return Ok(None);
        };
        let frame = Frame::new(head, frame.to_vec());
        self.start += head.frame_len();
        Ok(Some(frame))
    }

    /// Reads once; 0 at the end of the stream.
    pub(super) fn fill(&mut self, source: &mut dyn Read) -> io::Result<usize> {
        self.bytes.drain(..self.start);
        self.start = 0;
        // The room of one large frame is not kept for the small ones behind it.
        if self.bytes.is_empty() {
            self.bytes.shrink_to(BLOCK);
        }
        let filled = self.bytes.len();
        self.bytes.resize(filled + BLOCK, 0);
        let count = source.read(self.bytes.get_mut(filled..).unwrap_or_default());
        self.bytes.truncate(filled + *count.as_ref().unwrap_or(&0));
        count
    }
}

/// Bytes of one read.
const BLOCK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::node::wire::{MAX_FRAME, NETWORK_ID, append_frame, opcode};

    fn frames() -> Vec<u8> {
        let mut out = Vec::new();
        for length in [0, 1, 100_000] {
            let message = Message {
                message: vec![7; length],
                opcode: opcode::BYTES,
                ..Message::default()
            };
            append_frame(&mut out, NETWORK_ID, &message);
        }
        out
    }

    #[test]
    fn frames_come_whole_however_the_stream_is_cut() {
        let stream = frames();
        for step in [1, 7, 4096, stream.len()] {
            let mut inbox = Inbox::default();
            let mut found = Vec::new();
            for mut part in stream.chunks(step) {
                while !part.is_empty() {
                    inbox.fill(&mut part).unwrap();
                    while let Some(frame) = inbox.next(NETWORK_ID, MAX_FRAME).unwrap() {
                        found.push(frame);
                    }
                }
            }
            let lengths = found.iter().map(|frame| frame.message().unwrap());
            let lengths: Vec<_> = lengths.map(|message| message.message.len()).collect();
            assert_eq!(lengths, [0, 1, 100_000]);
            let bytes: Vec<u8> = found.iter().flat_map(|f| f.bytes().to_vec()).collect();
            assert!(bytes == stream);
        }
    }

    #[test]
    fn a_strange_body_is_a_frame_without_a_message() {
        let head = |compression| Head {
            network: NETWORK_ID,
            compression,
            length: 2,
        };
        let frame = |compression, body: [u8; 2]| {
            let head = head(compression);
            Frame::new(head, [&head.encode()[..], &body].concat())
        };
        assert!(frame(0x0102, [0x38, 1]).message().is_none());
        assert!(frame(2, [0xff, 0xfe]).message().is_none());
        assert_eq!(frame(2, [0x38, 1]).message().unwrap().opcode, 1);
        assert_eq!(frame(2, [0x38, 1]).body(), [0x38, 1]);
    }
}

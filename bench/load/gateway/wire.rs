//! The few frames of the gateway protocol that the load program speaks, in both dialects.
//!
//! A second, independent codec: what it sends and takes does not depend on the server's own code
//! being right. All integers are little-endian.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length of everything behind it |
//! | 4 | 4 | connection, 0 for a command |
//! | 8 | - | the message, or a command's kind (1 byte) and its arguments (4 bytes each) |

use md5::{Digest, Md5};

/// Which command numbers an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// That of the client libraries in use: a dial is one round trip.
    Fastway,
    /// That of the document: a connection's id is asked for first.
    Document,
}

/// What the gateway says to an endpoint, whatever the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// An id to dial with; document dialect only.
    Open(u32),
    /// The connection of this id is usable.
    Accept(u32),
    /// Somebody has dialled us. The document dialect says Accept to both ends.
    Connect,
    /// A dial failed.
    Refuse,
    /// The connection of this id is no more.
    Close(u32),
    /// A sign of life, or its echo.
    Ping,
}

impl Dialect {
    /// The first frame of every dial.
    pub fn begin_dial(self, server: u32, out: &mut Vec<u8>) {
        match self {
            Self::Fastway => put(out, 0, &[server]),
            Self::Document => put(out, 0, &[]),
        }
    }

    /// The second one, once the gateway has given an id.
    pub fn dial_with(conn: u32, server: u32, out: &mut Vec<u8>) {
        put(out, 2, &[conn, server]);
    }

    /// What a client says first and the gateway answers, so that both know that the way works.
    pub fn greet(self, out: &mut Vec<u8>) {
        match self {
            Self::Fastway => self.ping(out),
            Self::Document => put(out, 0, &[]),
        }
    }

    /// The frame that closes a connection.
    pub fn close(self, conn: u32, out: &mut Vec<u8>) {
        match self {
            Self::Fastway => put(out, 4, &[conn]),
            Self::Document => put(out, 5, &[conn]),
        }
    }

    /// The sign of life.
    pub fn ping(self, out: &mut Vec<u8>) {
        match self {
            Self::Fastway => put(out, 5, &[]),
            Self::Document => put(out, 6, &[]),
        }
    }

    fn command(self, body: &[u8]) -> Result<Command, &'static str> {
        let Some((kind, args)) = body.split_first() else {
            return Err("a command without a kind");
        };
        let conn = args.first_chunk().copied().map(u32::from_le_bytes);
        let command = match (self, kind, conn) {
            (Self::Fastway, 1, Some(conn)) => Command::Accept(conn),
            (Self::Fastway, 2, Some(_)) => Command::Connect,
            (Self::Fastway, 3, Some(_)) => Command::Refuse,
            (Self::Fastway, 4, Some(conn)) => Command::Close(conn),
            (Self::Fastway, 5, _) => Command::Ping,
            (Self::Document, 1, Some(conn)) => Command::Open(conn),
            (Self::Document, 3, Some(_)) => Command::Refuse,
            (Self::Document, 4, Some(conn)) => Command::Accept(conn),
            (Self::Document, 5, Some(conn)) => Command::Close(conn),
            (Self::Document, 6, _) => Command::Ping,
            _ => return Err("a command that no gateway sends"),
        };
        Ok(command)
    }
}

/// The eight bytes before a message.
pub fn head(conn: u32, size: usize) -> [u8; HEAD] {
    let length = u32::try_from(size + 4).unwrap_or(u32::MAX).to_le_bytes();
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length);
    head[4..].copy_from_slice(&conn.to_le_bytes());
    head
}

/// A server's answer to the gateway's challenge: proof and id.
pub fn answer(challenge: [u8; CHALLENGE], key: &str, id: u32) -> Vec<u8> {
    let proof = Md5::new().chain_update(challenge).chain_update(key);
    let mut answer = proof.finalize().to_vec();
    answer.extend_from_slice(&id.to_le_bytes());
    answer
}

fn put(out: &mut Vec<u8>, kind: u8, args: &[u32]) {
    out.extend_from_slice(&head(0, 1 + 4 * args.len()));
    out.push(kind);
    for arg in args {
        out.extend_from_slice(&arg.to_le_bytes());
    }
}

/// What lies next in a stream of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `len` bytes of a message from its byte `at` on. They are the last ones of what was
    /// consumed; the frame's head lies before them where `at` is 0.
    Part {
        /// Whose message it is.
        conn: u32,
        /// Bytes of it that went before.
        at: usize,
        /// Bytes of it here.
        len: usize,
        /// The message is whole now.
        ends: bool,
    },
    /// A whole command.
    Command(Command),
}

/// Takes a stream of frames apart. It keeps no bytes: a head or a command that is not whole is not
/// consumed, a message is, as far as it has arrived.
pub struct Scan {
    dialect: Dialect,
    conn: u32,
    at: usize,
    left: usize,
}

impl Scan {
    /// At the start of a stream.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            conn: 0,
            at: 0,
            left: 0,
        }
    }

    /// The next unit and how many bytes it consumes; `None` while more are needed.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<(usize, Unit)>, &'static str> {
        if self.left > 0 {
            let len = self.left.min(bytes.len());
            return Ok((len > 0).then(|| (len, self.part(len))));
        }
        let Some((length, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let Some((conn, rest)) = rest.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        let Some(size) = length.checked_sub(4).filter(|_| length <= MOST_LENGTH) else {
            return Err("a frame of impossible length");
        };
        match u32::from_le_bytes(*conn) {
            0 if size > MOST_COMMAND => Err("a command longer than any"),
            0 => match rest.get(..size) {
                None => Ok(None),
                Some(body) => {
                    let command = self.dialect.command(body)?;
                    Ok(Some((HEAD + size, Unit::Command(command))))
                }
            },
            conn => {
                (self.conn, self.at, self.left) = (conn, 0, size);
                let len = size.min(rest.len());
                Ok(Some((HEAD + len, self.part(len))))
            }
        }
    }

    fn part(&mut self, len: usize) -> Unit {
        let at = self.at;
        self.at += len;
        self.left -= len;
        Unit::Part {
            conn: self.conn,
            at,
            len,
            ends: self.left == 0,
        }
    }
}

/// Bytes before a message.
pub const HEAD: usize = 8;
/// Bytes of the gateway's challenge.
pub const CHALLENGE: usize = 8;
/// The most that [`Scan::next`] leaves: a command that lacks its last byte.
pub const MOST_LEFT: usize = HEAD + MOST_COMMAND - 1;
/// Kind and two arguments.
const MOST_COMMAND: usize = 9;
/// The gateway's own limit.
const MOST_LENGTH: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        digits
            .chunks(2)
            .map(|pair| (pair[0] * 16 + pair[1]) as u8)
            .collect()
    }

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    /// A whole message's connection and size, or zeros and a command.
    type Found = (u32, usize, Option<Command>);

    /// Feeds the stream in pieces as a socket would and gives back what came of it.
    fn scanned(dialect: Dialect, stream: &[u8], piece: usize) -> Result<Vec<Found>, &'static str> {
        let mut scan = Scan::new(dialect);
        let (mut kept, mut found, mut size) = (Vec::new(), Vec::new(), 0);
        for bytes in stream.chunks(piece) {
            kept.extend_from_slice(bytes);
            while let Some((used, unit)) = scan.next(&kept)? {
                kept.drain(..used);
                match unit {
                    Unit::Command(command) => found.push((0, 0, Some(command))),
                    Unit::Part {
                        conn,
                        at,
                        len,
                        ends,
                    } => {
                        assert_eq!(at, size);
                        size += len;
                        if ends {
                            found.push((conn, std::mem::take(&mut size), None));
                        }
                    }
                }
            }
            assert!(kept.len() <= MOST_LEFT);
        }
        Ok(found)
    }

    #[test]
    fn the_fastway_frames_are_those_on_record() {
        let fastway = Dialect::Fastway;
        let dial = written(|out| fastway.begin_dial(1, out));
        assert_eq!(dial, hex("09000000 00000000 00 01000000"));
        let close = written(|out| fastway.close(0x0102, out));
        assert_eq!(close, hex("09000000 00000000 04 02010000"));
        assert_eq!(
            written(|out| fastway.greet(out)),
            hex("05000000 00000000 05")
        );
    }

    #[test]
    fn the_document_frames_are_those_on_record() {
        let document = Dialect::Document;
        let new = written(|out| document.begin_dial(1, out));
        assert_eq!(new, hex("05000000 00000000 00"));
        let dial = written(|out| Dialect::dial_with(7, 1, out));
        assert_eq!(dial, hex("0d000000 00000000 02 07000000 01000000"));
        let close = written(|out| document.close(7, out));
        assert_eq!(close, hex("09000000 00000000 05 07000000"));
        assert_eq!(
            written(|out| document.ping(out)),
            hex("05000000 00000000 06")
        );
    }

    #[test]
    fn the_proof_is_the_recorded_one() {
        let challenge = [0xe7, 0x6a, 0x04, 0x0a, 0x5f, 0xb6, 0xb6, 0x75];
        let recorded = hex("6d532d1bb17301d40becbef0668cd7f9 01000000");
        assert_eq!(answer(challenge, "test key", 1), recorded);
    }

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_units() {
        let mut stream = hex("0d000000 00000000 01 03000000 01000000");
        stream.extend_from_slice(&head(3, 5));
        stream.extend_from_slice(b"hello");
        stream.extend_from_slice(&head(4, 0));
        stream.extend_from_slice(&hex("09000000 00000000 04 03000000"));
        let expected = [
            (0, 0, Some(Command::Accept(3))),
            (3, 5, None),
            (4, 0, None),
            (0, 0, Some(Command::Close(3))),
        ];
        for piece in 1..=stream.len() {
            let units = scanned(Dialect::Fastway, &stream, piece).unwrap();
            assert_eq!(units, expected, "pieces of {piece}");
        }
    }

    #[test]
    fn a_number_means_what_its_dialect_says() {
        let four = hex("0d000000 00000000 04 03000000 01000000");
        let one = |dialect| scanned(dialect, &four, 99).unwrap();
        assert_eq!(one(Dialect::Fastway), [(0, 0, Some(Command::Close(3)))]);
        assert_eq!(one(Dialect::Document), [(0, 0, Some(Command::Accept(3)))]);
    }

    #[test]
    fn what_no_gateway_sends_is_refused() {
        for bytes in [
            "03000000 00000000",
            "01000800 01000000",
            "04000000 00000000",
            "05000000 00000000 00",
            "08000000 00000000 01 010000",
            "0e000000 00000000 01 03000000 01000000 00",
        ] {
            assert!(
                scanned(Dialect::Fastway, &hex(bytes), 99).is_err(),
                "{bytes}"
            );
        }
    }
}

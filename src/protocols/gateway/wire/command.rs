//! What a command says, read and written.

use super::Dialect;
use super::head::{HEAD, LENGTH};
use crate::wire::{Reader, WireError};

/// What an endpoint and the gateway tell each other, in the words of both dialects together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The endpoint asks for the id of a new connection. Only in the document's dialect.
    New,
    /// The gateway gives one out. Only in the document's dialect.
    Open {
        /// The new connection.
        conn: u32,
    },
    /// The endpoint asks to be joined with another.
    Dial {
        /// The connection that Open gave out; 0 in the fastway dialect, where Accept tells it.
        conn: u32,
        /// Whom to join it with.
        remote: u32,
    },
    /// The gateway cannot join them.
    Refuse {
        /// The connection, in the document's dialect; 0 in the other.
        conn: u32,
        /// Who was dialled, in the fastway dialect; 0 in the other.
        remote: u32,
    },
    /// The gateway has joined them; this goes to the one who dialled.
    Accept {
        /// The connection.
        conn: u32,
        /// Who was dialled.
        remote: u32,
    },
    /// The gateway has joined them; this goes to the one who was dialled. On the wire of the
    /// document's dialect it is an Accept, and is read as one: the receiver knows what it dialled.
    Connect {
        /// The connection.
        conn: u32,
        /// Who dialled.
        remote: u32,
    },
    /// The connection has ended. It may be told of one that the receiver does not know.
    Close {
        /// The connection.
        conn: u32,
    },
    /// A sign of life, or the answer to one.
    Ping,
}

impl Command {
    /// Whether an endpoint may tell it to the gateway.
    pub const fn is_from_endpoint(self, dialect: Dialect) -> bool {
        match self {
            Self::New => matches!(dialect, Dialect::Document),
            Self::Dial { .. } | Self::Close { .. } | Self::Ping => true,
            Self::Open { .. } | Self::Refuse { .. } => false,
            Self::Accept { .. } | Self::Connect { .. } => false,
        }
    }
}

impl Dialect {
    /// Reads a command from its payload, whose bytes behind the last argument are ignored.
    ///
    /// Who may send it is not asked here; that is [`Command::is_from_endpoint`].
    pub fn decode(self, payload: &[u8]) -> Result<Command, WireError> {
        let mut reader = Reader::new(payload);
        let kind = reader.u8("command")?;
        let mut conn = || reader.u32_le("connection id");
        match (self, kind) {
            (Self::Document, 0) => Ok(Command::New),
            (Self::Document, 1) => Ok(Command::Open { conn: conn()? }),
            (Self::Document, 2) => pair(&mut reader, |conn, remote| Command::Dial { conn, remote }),
            (Self::Document, 3) => Ok(Command::Refuse {
                conn: conn()?,
                remote: 0,
            }),
            (Self::Document, 4) | (Self::Fastway, 1) => {
                pair(&mut reader, |conn, remote| Command::Accept { conn, remote })
            }
            (Self::Document, 5) | (Self::Fastway, 4) => Ok(Command::Close { conn: conn()? }),
            (Self::Document, 6) | (Self::Fastway, 5) => Ok(Command::Ping),
            (Self::Fastway, 0) => Ok(Command::Dial {
                conn: 0,
                remote: reader.u32_le("remote id")?,
            }),
            (Self::Fastway, 2) => pair(&mut reader, |conn, remote| Command::Connect {
                conn,
                remote,
            }),
            (Self::Fastway, 3) => Ok(Command::Refuse {
                conn: 0,
                remote: reader.u32_le("remote id")?,
            }),
            (_, kind) => Err(WireError::BadValue {
                field: "command",
                value: u64::from(kind),
            }),
        }
    }

    /// Appends the command's whole frame; nothing for a command that the dialect does not have.
    pub fn encode(self, command: Command, out: &mut Vec<u8>) {
        out.extend_from_slice(self.frame(command).as_ref());
    }

    /// The command's whole frame, without an allocation. It is empty for [`Command::New`] and
    /// [`Command::Open`] in the fastway dialect, which does not have them.
    pub fn frame(self, command: Command) -> Frame {
        match self {
            Self::Document => document(command),
            Self::Fastway => fastway(command),
        }
    }
}

fn document(command: Command) -> Frame {
    match command {
        Command::New => Frame::bare(0),
        Command::Open { conn } => Frame::with(1, conn),
        Command::Dial { conn, remote } => Frame::with_both(2, conn, remote),
        Command::Refuse { conn, .. } => Frame::with(3, conn),
        Command::Accept { conn, remote } | Command::Connect { conn, remote } => {
            Frame::with_both(4, conn, remote)
        }
        Command::Close { conn } => Frame::with(5, conn),
        Command::Ping => Frame::bare(6),
    }
}

fn fastway(command: Command) -> Frame {
    match command {
        Command::New | Command::Open { .. } => Frame::EMPTY,
        Command::Dial { remote, .. } => Frame::with(0, remote),
        Command::Accept { conn, remote } => Frame::with_both(1, conn, remote),
        Command::Connect { conn, remote } => Frame::with_both(2, conn, remote),
        Command::Refuse { remote, .. } => Frame::with(3, remote),
        Command::Close { conn } => Frame::with(4, conn),
        Command::Ping => Frame::bare(5),
    }
}

/// A command with both arguments.
fn pair(
    reader: &mut Reader<'_>,
    make: impl FnOnce(u32, u32) -> Command,
) -> Result<Command, WireError> {
    let conn = reader.u32_le("connection id")?;
    let remote = reader.u32_le("remote id")?;
    Ok(make(conn, remote))
}

/// The bytes of one command with its head, on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; Frame::MOST],
    len: usize,
}

impl Frame {
    /// Bytes of the longest, which has two arguments.
    pub const MOST: usize = Self::BARE + 2 * ARGUMENT;

    const BARE: usize = HEAD + 1;

    const EMPTY: Self = Self {
        bytes: [0; Self::MOST],
        len: 0,
    };

    fn bare(kind: u8) -> Self {
        Self::cut(Self::BARE, kind, 0, 0)
    }

    fn with(kind: u8, argument: u32) -> Self {
        Self::cut(Self::BARE + ARGUMENT, kind, argument, 0)
    }

    fn with_both(kind: u8, conn: u32, remote: u32) -> Self {
        Self::cut(Self::MOST, kind, conn, remote)
    }

    /// The longest frame, of which `len` bytes count.
    fn cut(len: usize, kind: u8, first: u32, second: u32) -> Self {
        // At most 13, so that no cast can cut it.
        let [l0, l1, l2, l3] = ((len - LENGTH) as u32).to_le_bytes();
        let [a0, a1, a2, a3] = first.to_le_bytes();
        let [b0, b1, b2, b3] = second.to_le_bytes();
        Self {
            bytes: [
                l0, l1, l2, l3, 0, 0, 0, 0, kind, a0, a1, a2, a3, b0, b1, b2, b3,
            ],
            len,
        }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// Bytes of one argument.
const ARGUMENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::{CONN_ID, Head, MAX_PACKET};
    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Document, Dialect::Fastway];
    const CONN: u32 = 0x0403_0201;
    const REMOTE: u32 = 0x0807_0605;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every command of a dialect with its bytes behind the length and the zero id.
    fn golden(dialect: Dialect) -> Vec<(Command, &'static str)> {
        let (conn, remote) = (CONN, REMOTE);
        match dialect {
            Dialect::Document => vec![
                (Command::New, "00"),
                (Command::Open { conn }, "0101020304"),
                (Command::Dial { conn, remote }, "020102030405060708"),
                (Command::Refuse { conn, remote: 0 }, "0301020304"),
                (Command::Accept { conn, remote }, "040102030405060708"),
                (Command::Close { conn }, "0501020304"),
                (Command::Ping, "06"),
            ],
            Dialect::Fastway => vec![
                (Command::Dial { conn: 0, remote }, "0005060708"),
                (Command::Accept { conn, remote }, "010102030405060708"),
                (Command::Connect { conn, remote }, "020102030405060708"),
                (Command::Refuse { conn: 0, remote }, "0305060708"),
                (Command::Close { conn }, "0401020304"),
                (Command::Ping, "05"),
            ],
        }
    }

    #[test]
    fn every_command_has_its_bytes() {
        for dialect in BOTH {
            for (command, payload) in golden(dialect) {
                let frame = dialect.frame(command);
                let length = payload.len() / 2 + CONN_ID;
                let want = format!("{length:02x}00000000000000{payload}");
                assert_eq!(hex(frame.as_ref()), want, "{dialect:?} {command:?}");
                let (head, payload) = frame.as_ref().split_first_chunk().unwrap();
                let head = Head::decode(head, MAX_PACKET).unwrap();
                assert_eq!(head.frame_len(), frame.as_ref().len());
                assert!(head.is_command());
                assert_eq!(dialect.decode(payload), Ok(command));
                let mut out = vec![0xaa];
                dialect.encode(command, &mut out);
                assert_eq!(&out[1..], frame.as_ref());
            }
        }
    }

    #[test]
    fn bytes_behind_the_arguments_are_ignored_and_missing_ones_are_not() {
        for dialect in BOTH {
            for (command, _) in golden(dialect) {
                let frame = dialect.frame(command);
                let payload = &frame.as_ref()[HEAD..];
                let longer = [payload, b"more"].concat();
                assert_eq!(dialect.decode(&longer), Ok(command));
                for end in 0..payload.len() {
                    let short = dialect.decode(&payload[..end]);
                    assert!(
                        matches!(short, Err(WireError::Truncated { .. })),
                        "{short:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        for (dialect, first) in [(Dialect::Document, 7), (Dialect::Fastway, 6)] {
            for kind in first..=u8::MAX {
                let error = dialect.decode(&[kind; 9]).unwrap_err();
                let want = format!("command has the unknown value {kind}");
                assert_eq!(error.to_string(), want);
            }
        }
    }

    #[test]
    fn the_document_tells_both_ends_by_an_accept() {
        let (conn, remote) = (CONN, REMOTE);
        let connect = Dialect::Document.frame(Command::Connect { conn, remote });
        let accept = Dialect::Document.frame(Command::Accept { conn, remote });
        assert_eq!(connect, accept);
    }

    #[test]
    fn a_command_that_the_dialect_lacks_has_no_bytes() {
        for command in [Command::New, Command::Open { conn: 1 }] {
            assert!(Dialect::Fastway.frame(command).as_ref().is_empty());
            assert!(!command.is_from_endpoint(Dialect::Fastway));
        }
    }

    #[test]
    fn only_an_endpoints_own_commands_are_taken_from_it() {
        for dialect in BOTH {
            let taken: Vec<String> = golden(dialect)
                .into_iter()
                .filter(|(command, _)| command.is_from_endpoint(dialect))
                .map(|(_, hex)| hex[..2].to_owned())
                .collect();
            let want: &[&str] = match dialect {
                Dialect::Document => &["00", "02", "05", "06"],
                Dialect::Fastway => &["00", "04", "05"],
            };
            assert_eq!(taken, want);
        }
    }
}

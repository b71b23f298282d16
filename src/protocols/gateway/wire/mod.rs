//! The gateway role's frames as bytes, in both dialects.
//!
//! It is not the role's behaviour: it sees no socket, no clock and no table of connections, and
//! decides nothing but what the bytes say. The session, the client and tests call it; a program with
//! a runtime of its own can too.
//!
//! All numbers are little-endian. A frame is the same in both dialects and in both directions:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | length: of everything behind this field, so at least 4 |
//! | 4 | 4 | connection id; 0 says that the payload is a command |
//! | 8 | length - 4 | payload, a command or one message; a message may be empty |
//!
//! A command is a type of one byte and its arguments, each of four bytes. The two dialects number
//! them differently:
//!
//! | command | document | fastway | arguments | from, to |
//! |---|---|---|---|---|
//! | New | 0 | | | endpoint to gateway |
//! | Open | 1 | | connection | gateway to endpoint |
//! | Dial | 2 | | connection, remote | endpoint to gateway |
//! | Dial | | 0 | remote | endpoint to gateway |
//! | Accept | 4 | 1 | connection, remote | gateway to the dialler |
//! | Connect | 4 | 2 | connection, remote | gateway to the dialled |
//! | Refuse | 3 | | connection | gateway to the dialler |
//! | Refuse | | 3 | remote | gateway to the dialler |
//! | Close | 5 | 4 | connection | any |
//! | Ping | 6 | 5 | | document: gateway to endpoint, and its answer; fastway: the other way round |
//!
//! A remote id is a server's for a client, and a client's for a server. Bytes behind the last
//! argument are ignored; none are ever written.
//!
//! A server proves that it knows the key before its first frame; these two are not framed:
//!
//! | from, to | bytes | field |
//! |---|---|---|
//! | gateway to server | 8 | challenge, random |
//! | server to gateway | 16 | MD5 of the challenge and the key |
//! | | 4 | the server's id |

mod command;
mod handshake;
mod head;

pub use command::{Command, Frame};
pub use handshake::{ANSWER, CHALLENGE, answer, proof, verify};
pub use head::{CONN_ID, HEAD, Head, MAX_PACKET, length};

/// How the commands are numbered, and the customs that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The published document: an id is asked for before it is dialled with, both ends are told by
    /// an Accept, the gateway pings.
    Document,
    /// The programs in use: one round trip to dial, the dialled end is told by a Connect, the
    /// endpoint pings.
    Fastway,
}

impl Dialect {
    /// The dialect of a client, from its first command: the frame's `length`, and of its payload at
    /// least the first byte. `None` for what no endpoint of either dialect begins with.
    ///
    /// Each command has an exact length in each dialect, and those never collide. Where bytes follow
    /// the arguments, the longest command that fits is assumed, since programs in use send a Dial
    /// with a few more bytes, and nobody is known to send a New with four:
    ///
    /// | type | length | dialect | command |
    /// |---|---|---|---|
    /// | 0 | 5 to 8 | document | New |
    /// | 0 | 9 and more | fastway | Dial |
    /// | 2 | 13 and more | document | Dial |
    /// | 4 | 9 and more | fastway | Close |
    /// | 5 | 5 to 8 | fastway | Ping |
    /// | 5 | 9 and more | document | Close |
    /// | 6 | 5 and more | document | Ping |
    pub fn detect(length: u32, payload: &[u8]) -> Option<Self> {
        let kind = *payload.first()?;
        match (kind, length) {
            (0, 5..=8) | (2, 13..) | (5, 9..) | (6, 5..) => Some(Self::Document),
            (0, 9..) | (4, 9..) | (5, 5..=8) => Some(Self::Fastway),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One command as both dialects write it, and the length of its frame's length field.
    fn first(dialect: Dialect, command: Command) -> (u32, Vec<u8>) {
        let frame = dialect.frame(command);
        let (head, payload) = frame.as_ref().split_first_chunk().unwrap();
        let head = Head::decode(head, MAX_PACKET).unwrap();
        (head.length, payload.to_vec())
    }

    #[test]
    fn a_clients_first_command_tells_its_dialect() {
        let remote = 7;
        for (dialect, command) in [
            (Dialect::Document, Command::New),
            (Dialect::Document, Command::Dial { conn: 1, remote }),
            (Dialect::Document, Command::Close { conn: 1 }),
            (Dialect::Document, Command::Ping),
            (Dialect::Fastway, Command::Dial { conn: 0, remote }),
            (Dialect::Fastway, Command::Close { conn: 1 }),
            (Dialect::Fastway, Command::Ping),
        ] {
            assert!(command.is_from_endpoint(dialect));
            let (length, payload) = first(dialect, command);
            let found = Dialect::detect(length, &payload);
            assert_eq!(found, Some(dialect), "{command:?}");
            // The type alone is enough of the payload.
            assert_eq!(Dialect::detect(length, &payload[..1]), Some(dialect));
            // As recorded: up to three bytes more change nothing.
            let longer = length + 3;
            assert_eq!(Dialect::detect(longer, &payload), Some(dialect));
        }
    }

    #[test]
    fn what_no_endpoint_begins_with_tells_nothing() {
        assert_eq!(Dialect::detect(4, &[]), None);
        for kind in [1, 3, 7, 255] {
            assert_eq!(Dialect::detect(13, &[kind]), None);
        }
        for (kind, short) in [(2, 12), (4, 8), (0, 4), (5, 4), (6, 4)] {
            assert_eq!(Dialect::detect(short, &[kind]), None, "{kind} {short}");
        }
    }

    #[test]
    fn a_detected_dialect_can_read_the_command() {
        for kind in 0..=u8::MAX {
            for length in 5..20_u32 {
                let mut payload = vec![kind];
                payload.resize(length as usize - CONN_ID, 0xee);
                let Some(dialect) = Dialect::detect(length, &payload) else {
                    continue;
                };
                let command = dialect.decode(&payload).unwrap();
                assert!(command.is_from_endpoint(dialect), "{command:?}");
            }
        }
    }
}

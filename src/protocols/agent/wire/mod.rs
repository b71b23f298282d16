//! The agent role's frames as bytes, in both dialects.
//!
//! It is not the role's behaviour: it sees no connection, no clock and no store, and decides nothing
//! but what the bytes say. The session, the client and tests call it.
//!
//! All numbers are little-endian. `length` is 4 bytes in the [`Dialect::Document`] and 8 bytes in the
//! [`Dialect::Stock`]; a `Binary` is a length and as many bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | magic, `68 66` |
//! | 2 | 1 | checksum: XOR of all payload bytes before masking |
//! | 3 | 1 | version: 1 is sent, 0 and 1 are taken |
//! | 4 | 1 | op: 0 agent, 1 traffic |
//! | 5 | 4 | mask, any value |
//! | 9 | 4 or 8 | length of the payload |
//! | 13 or 17 | | payload, byte i XOR mask byte i mod 4 |
//!
//! | payload | fields |
//! |---|---|
//! | agent request | Binary cmd, i32 version (ignored), Binary payload |
//! | · `update` | Binary id, Binary section, Binary data, u32 op (0 set, 1 remove, absent = 0) |
//! | · `query` | Binary id, Binary section, i32 wait in seconds (absent = 0) |
//! | · `sniff` | nothing |
//! | · `auth` | Binary token |
//! | agent reply | Binary cmd, i32 code (0 ok, 1 failed), Binary msg, Binary payload |
//! | · to `query` | i64 Unix seconds, Binary data; on failure too, both zero |
//! | · to `sniff` | Binary host |
//! | traffic request | i32 operation = 0 (document and early peers only), Binary service, Binary field, Binary token |
//!
//! Bytes behind the last known field are ignored; that is how peers extend the protocol.

mod fields;
mod frame;
mod reply;
mod request;

pub use frame::{Frame, decode, needed};
pub use reply::{Answer, Reply, decode_reply, encode_reply, fits};
pub use request::{AgentRequest, Request, encode_request};

/// How wide lengths are, and the customs that go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The published document: 32-bit lengths, a leading operation in traffic requests.
    Document,
    /// The programs in use: 64-bit lengths, "ok" once the route stands.
    Stock,
}

impl Dialect {
    /// Bytes of a frame before its payload.
    pub const fn header_len(self) -> usize {
        HEADER_START + self.length_len()
    }

    /// Bytes of one length.
    const fn length_len(self) -> usize {
        match self {
            Self::Document => 4,
            Self::Stock => 8,
        }
    }
}

/// What a payload may be at most by the protocol, itself allowed.
pub const MAX_PAYLOAD: usize = 512 * 1024;

/// What the server sends before it relays, when the request had no leading operation.
pub const OK: &[u8; 2] = b"ok";

/// The message of a query's reply when the key has no record.
pub const NOT_EXISTED: &[u8] = b"not existed";

/// An `op` of [`AgentRequest::Update`]: store the data.
pub const SET: u32 = 0;

/// An `op` of [`AgentRequest::Update`]: drop the record; any other value but [`SET`] has no effect.
pub const REMOVE: u32 = 1;

const MAGIC: [u8; 2] = [0x68, 0x66];
const VERSION: u8 = 1;
const OP_AGENT: u8 = 0;
const OP_TRAFFIC: u8 = 1;

/// Bytes of a header before its length.
const HEADER_START: usize = 9;

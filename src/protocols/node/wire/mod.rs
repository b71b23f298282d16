//! The node role's frames and messages as bytes, over TCP and UDP.
//!
//! It is not the role's behaviour: it sees no connection, no clock and no lease, and decides nothing
//! but what the bytes say. The session, the client and tests call it.
//!
//! A TCP frame, in both directions, on main connections and on leased ports; numbers are big-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | network id, [`NETWORK_ID`] unless configured |
//! | 4 | 2 | compression: the high byte 1 says that the body is compressed, the low byte is the algorithm |
//! | 6 | 4 | length of the body, at least 1 |
//! | 10 | | body: a [`Message`], compressed if the head says so |
//!
//! A datagram is the whole packet:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | length of the message, big-endian |
//! | 2 | | a [`Message`], never compressed |
//!
//! Messages are protobuf (proto3). Fields are written in the order of their numbers and left out
//! at their default, so an empty inner message is no field 1 at all. Fields of other numbers are
//! skipped, and text need not be UTF-8: it is bytes here.
//!
//! | message | fields |
//! |---|---|
//! | [`Message`] | 1 bytes message, 2 [`Id`] sender, 3 bytes signature, 4 u64 request_nonce, 5 u64 message_nonce, 6 bool reply_flag, 7 u32 opcode, 8 u32 net_id, 9 text message_id, 10 bool need_ack |
//! | [`Id`] | 1 bytes net_key, 2 text address, 3 bytes id, 4 bytes connection_id, 5 text address2 |
//! | [`ProxyRequest`], [`ProxyResponse`] | 1 text origin_address, 2 text proxy_address |
//! | [`Bytes`] | 1 bytes data |
//! | [`LookupNodeRequest`] | 1 [`Id`] target |
//! | [`LookupNodeResponse`] | repeated 1 [`Id`] peers |
//! | [`Metric`] | 1 i64 send_timestamp, 2 bytes raw_data |
//! | [`Empty`] | none: Ping, Pong, Keepalive, KeepaliveResponse, Disconnect |
//!
//! [`opcode`] says which of them lies in field 1.
//!
//! The structs are for those who make messages or look into them. The server judges a peer's message
//! by [`control_message`], which borrows and allocates nothing; `tests/wire` holds the two against
//! each other.

mod answer;
mod control;
mod fields;
mod frame;
mod message;
mod signature;

pub use answer::{MAX_ORIGIN, Speaker};
pub use control::{Demand, Identity, control_message};
pub use frame::{DATAGRAM_HEAD, HEAD, Head, append_datagram, append_frame, decode_datagram};
pub use message::{
    Bytes, Empty, Id, LookupNodeRequest, LookupNodeResponse, Message, Metric, ProxyRequest,
    ProxyResponse,
};
pub use signature::{Untrusted, hash, signed_digest, verify};

/// What a [`Message`] carries in its field 1, as it is written in its field 7. Applications count
/// from [`opcode::APPLICATION`].
pub mod opcode {
    /// [`super::Bytes`]: data for the node.
    pub const BYTES: u32 = 1;
    /// A node is alive.
    pub const KEEPALIVE: u32 = 2;
    /// The answer to [`KEEPALIVE`].
    pub const KEEPALIVE_RESPONSE: u32 = 3;
    /// [`super::ProxyResponse`]: the public address.
    pub const PROXY_RESPONSE: u32 = 9;
    /// One node greets another.
    pub const PING: u32 = 10;
    /// The answer to [`PING`].
    pub const PONG: u32 = 11;
    /// [`super::LookupNodeRequest`], between nodes.
    pub const LOOKUP_NODE_REQUEST: u32 = 12;
    /// [`super::LookupNodeResponse`], between nodes.
    pub const LOOKUP_NODE_RESPONSE: u32 = 13;
    /// A node leaves. Over TCP the end of the connection says so.
    pub const DISCONNECT: u32 = 14;
    /// [`super::ProxyRequest`]: a node asks for its public address.
    pub const PROXY_REQUEST: u32 = 15;
    /// [`super::Metric`], a question.
    pub const METRIC_REQUEST: u32 = 16;
    /// [`super::Metric`], its answer.
    pub const METRIC_RESPONSE: u32 = 17;
    /// An acknowledgement between nodes.
    pub const ASYNC_ACK_RESPONSE: u32 = 18;
    /// The first opcode of applications.
    pub const APPLICATION: u32 = 1000;
}

/// How messages travel. It shows in an address's scheme and in the server's `net_key`, and a node has
/// one lease for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Frames on a stream.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    /// What stands before an address of a `sender`.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp://",
            Self::Udp => "udp://",
        }
    }

    /// The server's `net_key`, which is no key: nodes want one that stays the same.
    pub const fn net_key(self) -> &'static [u8] {
        match self {
            Self::Tcp => b"PORTER_TCP_NETKEY",
            Self::Udp => b"PORTER_UDP_NETKEY",
        }
    }
}

/// The network that programs in use are configured for.
pub const NETWORK_ID: u32 = 1_564_141_146;

/// The longest body that is taken unless configured otherwise. The protocol has no limit.
pub const MAX_FRAME: u32 = 16 << 20;

//! The messages as structs, by `prost`'s derive.
//!
//! Text is bytes here: a node with an address that is no UTF-8 is served like any other, and a `String`
//! field would refuse its whole message.

/// The envelope of everything.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// The inner message, by [`Message::opcode`].
    #[prost(bytes = "vec", tag = "1")]
    pub message: Vec<u8>,
    /// Who made it.
    #[prost(message, optional, tag = "2")]
    pub sender: Option<Id>,
    /// Ed25519, by [`super::signed_digest`]; mostly empty.
    #[prost(bytes = "vec", tag = "3")]
    pub signature: Vec<u8>,
    /// Pairs requests and replies between nodes.
    #[prost(uint64, tag = "4")]
    pub request_nonce: u64,
    /// Counts what one writer makes on one connection, from 1.
    #[prost(uint64, tag = "5")]
    pub message_nonce: u64,
    /// Whether it is a reply, between nodes.
    #[prost(bool, tag = "6")]
    pub reply_flag: bool,
    /// One of [`super::opcode`]; never 0.
    #[prost(uint32, tag = "7")]
    pub opcode: u32,
    /// The network, as in the head.
    #[prost(uint32, tag = "8")]
    pub net_id: u32,
    /// Only nodes' libraries write it.
    #[prost(bytes = "vec", tag = "9")]
    pub message_id: Vec<u8>,
    /// Only nodes' libraries write it.
    #[prost(bool, tag = "10")]
    pub need_ack: bool,
}

/// Who a message comes from.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Id {
    /// A node's Ed25519 public key. It must be there, but may be empty.
    #[prost(bytes = "vec", optional, tag = "1")]
    pub net_key: Option<Vec<u8>>,
    /// Where it can be reached: `tcp://IP:PORT`.
    #[prost(bytes = "vec", tag = "2")]
    pub address: Vec<u8>,
    /// BLAKE2b-256 of the key.
    #[prost(bytes = "vec", tag = "3")]
    pub id: Vec<u8>,
    /// What a lease hangs on; BLAKE2b-256 of the key and the node's own address.
    #[prost(bytes = "vec", tag = "4")]
    pub connection_id: Vec<u8>,
    /// Only nodes' libraries write it.
    #[prost(bytes = "vec", tag = "5")]
    pub address2: Vec<u8>,
}

/// A node asks for its public address. What is in it is not looked at but for the echo in the answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProxyRequest {
    /// Nodes in use leave it empty.
    #[prost(bytes = "vec", tag = "1")]
    pub origin_address: Vec<u8>,
    /// Nodes in use leave it empty.
    #[prost(bytes = "vec", tag = "2")]
    pub proxy_address: Vec<u8>,
}

/// The public address of a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProxyResponse {
    /// The request's.
    #[prost(bytes = "vec", tag = "1")]
    pub origin_address: Vec<u8>,
    /// `IP:PORT`, without a scheme.
    #[prost(bytes = "vec", tag = "2")]
    pub proxy_address: Vec<u8>,
}

/// Data for a node.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Bytes {
    /// The data.
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// Ping, Pong, Keepalive, KeepaliveResponse and Disconnect.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Empty {}

/// One node asks another for nodes near a target.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LookupNodeRequest {
    /// Near whom.
    #[prost(message, optional, tag = "1")]
    pub target: Option<Id>,
}

/// The nodes that were asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LookupNodeResponse {
    /// The nodes.
    #[prost(message, repeated, tag = "1")]
    pub peers: Vec<Id>,
}

/// MetricRequest and MetricResponse, which share their fields.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Metric {
    /// When it was sent.
    #[prost(int64, tag = "1")]
    pub send_timestamp: i64,
    /// Anything.
    #[prost(bytes = "vec", tag = "2")]
    pub raw_data: Vec<u8>,
}

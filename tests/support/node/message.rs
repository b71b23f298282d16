//! Frames and messages of the node protocol, written by hand from its tables.

use std::net::SocketAddr;

use blake2::{Blake2b256, Digest};
use ring::signature::{Ed25519KeyPair, KeyPair};

/// The network that every server and node is in, unless told otherwise.
pub const NETWORK: u32 = 1_564_141_146;

/// Bytes of a frame's header.
pub const HEAD: usize = 10;

/// Message numbers.
pub mod opcode {
    pub const BYTES: u32 = 1;
    pub const KEEPALIVE: u32 = 2;
    pub const KEEPALIVE_RESPONSE: u32 = 3;
    pub const PROXY_RESPONSE: u32 = 9;
    pub const PING: u32 = 10;
    pub const PONG: u32 = 11;
    pub const DISCONNECT: u32 = 14;
    pub const PROXY_REQUEST: u32 = 15;
    pub const METRIC_REQUEST: u32 = 16;
}

/// A frame with nothing special about it.
pub fn frame(body: &[u8]) -> Vec<u8> {
    frame_with(NETWORK, 2, body)
}

pub fn frame_with(network: u32, compression: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&head(network, compression, length)[..], body].concat()
}

/// A frame's header.
pub fn head(network: u32, compression: u16, length: u32) -> Vec<u8> {
    [
        &network.to_be_bytes()[..],
        &compression.to_be_bytes(),
        &length.to_be_bytes(),
    ]
    .concat()
}

/// How long the frame is that begins these bytes.
pub fn length(bytes: &[u8]) -> usize {
    HEAD + u32::from_be_bytes(bytes[6..HEAD].try_into().unwrap()) as usize
}

pub fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// A field of bytes.
pub fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
    [
        varint(u64::from(number) << 3 | 2),
        varint(bytes.len() as u64),
        bytes.to_vec(),
    ]
    .concat()
}

/// A field with a number.
pub fn number(field: u32, value: u64) -> Vec<u8> {
    [varint(u64::from(field) << 3), varint(value)].concat()
}

/// The same, left out where it is the default.
fn set_number(field: u32, value: u64) -> Vec<u8> {
    match value {
        0 => Vec::new(),
        _ => number(field, value),
    }
}

fn set_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    match bytes {
        [] => Vec::new(),
        _ => field(number, bytes),
    }
}

/// BLAKE2b-256.
pub fn hash(parts: &[&[u8]]) -> Vec<u8> {
    let mut state = Blake2b256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().to_vec()
}

/// Who a message says it is from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sender {
    pub net_key: Vec<u8>,
    pub address: Vec<u8>,
    pub id: Vec<u8>,
    pub connection_id: Vec<u8>,
}

impl Sender {
    /// A node as carrier makes them: all of it follows from its key and its address.
    pub fn number(number: u32) -> Self {
        Self::of_key(&key(number), &format!("tcp://10.0.0.1:{number}"))
    }

    pub fn of_key(key: &Ed25519KeyPair, address: &str) -> Self {
        let net_key = key.public_key().as_ref();
        Self {
            net_key: net_key.to_vec(),
            address: address.as_bytes().to_vec(),
            id: hash(&[net_key]),
            connection_id: hash(&[net_key, address.as_bytes()]),
        }
    }

    /// The same node without a `connection_id`.
    pub fn without_connection_id(mut self) -> Self {
        self.connection_id.clear();
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        [
            set_field(1, &self.net_key),
            set_field(2, &self.address),
            set_field(3, &self.id),
            set_field(4, &self.connection_id),
        ]
        .concat()
    }
}

/// A key that always belongs to this number.
pub fn key(number: u32) -> Ed25519KeyPair {
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Message {
    pub message: Vec<u8>,
    pub sender: Sender,
    pub signature: Vec<u8>,
    pub nonce: u64,
    pub opcode: u32,
    pub network: u32,
}

impl Message {
    pub fn new(opcode: u32, sender: &Sender) -> Self {
        Self {
            sender: sender.clone(),
            opcode,
            network: NETWORK,
            ..Self::default()
        }
    }

    pub fn nonce(mut self, nonce: u64) -> Self {
        self.nonce = nonce;
        self
    }

    pub fn message(mut self, message: &[u8]) -> Self {
        self.message = message.to_vec();
        self
    }

    /// Signs what a signature covers: the address and the id, each behind its length, and the
    /// message.
    pub fn signed(mut self, key: &Ed25519KeyPair) -> Self {
        let length = |part: &[u8]| u32::try_from(part.len()).unwrap().to_le_bytes();
        let (address, id) = (&self.sender.address, &self.sender.id);
        let parts: [&[u8]; 5] = [&length(address), address, &length(id), id, &self.message];
        self.signature = key.sign(&hash(&parts)).as_ref().to_vec();
        self
    }

    pub fn encode(&self) -> Vec<u8> {
        [
            set_field(1, &self.message),
            field(2, &self.sender.encode()),
            set_field(3, &self.signature),
            set_number(5, self.nonce),
            set_number(7, self.opcode.into()),
            set_number(8, self.network.into()),
        ]
        .concat()
    }

    pub fn frame(&self) -> Vec<u8> {
        frame(&self.encode())
    }

    /// Reads a frame's body; fails where it is no message.
    pub fn of_frame(frame: &[u8]) -> Self {
        let mut message = Self::default();
        for (number, value) in fields(&frame[HEAD..]) {
            match (number, value) {
                (1, Value::Bytes(bytes)) => message.message = bytes,
                (2, Value::Bytes(bytes)) => message.sender = sender(&bytes),
                (3, Value::Bytes(bytes)) => message.signature = bytes,
                (5, Value::Number(number)) => message.nonce = number,
                (7, Value::Number(number)) => message.opcode = u32::try_from(number).unwrap(),
                (8, Value::Number(number)) => message.network = u32::try_from(number).unwrap(),
                (4 | 6, Value::Number(_)) => {}
                other => panic!("{other:?} in a message"),
            }
        }
        message
    }

    /// The address in a ProxyResponse.
    pub fn proxy_address(&self) -> String {
        let mut fields = fields(&self.message).into_iter();
        match (fields.next(), fields.next()) {
            (Some((2, Value::Bytes(bytes))), None) => String::from_utf8(bytes).unwrap(),
            other => panic!("{other:?} in an answer"),
        }
    }
}

fn sender(bytes: &[u8]) -> Sender {
    let mut sender = Sender::default();
    for (number, value) in fields(bytes) {
        match (number, value) {
            (1, Value::Bytes(bytes)) => sender.net_key = bytes,
            (2, Value::Bytes(bytes)) => sender.address = bytes,
            (3, Value::Bytes(bytes)) => sender.id = bytes,
            (4, Value::Bytes(bytes)) => sender.connection_id = bytes,
            other => panic!("{other:?} in a sender"),
        }
    }
    sender
}

#[derive(Debug)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message that was well made.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes);
        let value = take_varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(value),
            2 => {
                let (field, rest) = bytes.split_at(usize::try_from(value).unwrap());
                bytes = rest;
                Value::Bytes(field.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().expect("a number that ends");
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number of more than ten bytes");
}

/// What the server says of itself.
pub fn server_sender(scheme: &str, server: SocketAddr) -> Vec<u8> {
    let key = format!("PORTER_{}_NETKEY", scheme.to_uppercase());
    let address = format!("{scheme}://{server}");
    [field(1, key.as_bytes()), field(2, address.as_bytes())].concat()
}

/// What the server answers to a request that gets `public`.
pub fn response(server: SocketAddr, nonce: u64, public: SocketAddr) -> Vec<u8> {
    let inner = field(2, public.to_string().as_bytes());
    of_server(server, field(1, &inner), nonce, opcode::PROXY_RESPONSE)
}

/// What the server answers to a Keepalive.
pub fn keepalive_response(server: SocketAddr, nonce: u64) -> Vec<u8> {
    of_server(server, Vec::new(), nonce, opcode::KEEPALIVE_RESPONSE)
}

fn of_server(server: SocketAddr, inner: Vec<u8>, nonce: u64, opcode: u32) -> Vec<u8> {
    let body = [
        inner,
        field(2, &server_sender("tcp", server)),
        set_number(5, nonce),
        number(7, opcode.into()),
        number(8, NETWORK.into()),
    ];
    frame_with(NETWORK, 1, &body.concat())
}

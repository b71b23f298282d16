//! What the server must know of a message on a main connection, or in a datagram to the main port.
//!
//! It is the judgement and the identity, not what is then done.

use std::fmt;

use super::fields::{Field, Fields};
use super::{Transport, signature};
use crate::wire::WireError;

/// A message that passed, borrowed from its bytes. It costs one walk over the keys and no copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand<'a> {
    /// What is asked, one of [`super::opcode`]; never 0.
    pub opcode: u32,
    /// The inner message. Whether it can be parsed is nobody's concern here.
    pub message: &'a [u8],
    /// The sender's public key; may be empty.
    pub net_key: &'a [u8],
    /// The sender's own idea of its address; never empty.
    pub address: &'a [u8],
    /// The key's hash, as the sender has it; may be empty.
    pub id: &'a [u8],
    /// What the sender's lease hangs on; may be empty.
    pub connection_id: &'a [u8],
    /// Empty where there is none; see [`super::verify`].
    pub signature: &'a [u8],
    /// Counts the sender's messages; nobody checks it.
    pub nonce: u64,
}

/// Judges a message as the server in use does: the opcode is not 0, a sender is there with a
/// `net_key`, be it empty, and an address that is not empty, and the network is the server's own.
///
/// `network` is none for datagrams, where it is not checked. Any bytes give a value or an error, in
/// time that grows with their count and within a fixed stack. Where a field comes twice the last
/// one counts, and two senders are merged field by field, as protobuf has it.
pub fn control_message(body: &[u8], network: Option<u32>) -> Result<Demand<'_>, WireError> {
    let mut demand = Demand::default();
    let mut sender = Sender::default();
    let mut net_id = 0;
    let mut fields = Fields::new(body);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => demand.message = field.bytes("message")?,
            2 => sender.merge(field)?,
            3 => demand.signature = field.bytes("signature")?,
            4 => drop(field.varint("request_nonce")?),
            5 => demand.nonce = field.varint("message_nonce")?,
            6 => drop(field.varint("reply_flag")?),
            // A varint that is too large for its field keeps its low bits, as protobuf has it.
            7 => demand.opcode = field.varint("opcode")? as u32,
            8 => net_id = field.varint("netID")? as u32,
            9 => drop(field.bytes("MessageID")?),
            10 => drop(field.varint("need_ack")?),
            _ => {}
        }
    }
    if demand.opcode == 0 {
        return Err(WireError::Missing { field: "opcode" });
    }
    sender.check(&mut demand)?;
    match network {
        Some(network) if network != net_id => Err(WireError::BadValue {
            field: "netID",
            value: net_id.into(),
        }),
        _ => Ok(demand),
    }
}

#[derive(Default)]
struct Sender<'a> {
    is_present: bool,
    net_key: Option<&'a [u8]>,
    address: &'a [u8],
    id: &'a [u8],
    connection_id: &'a [u8],
}

impl<'a> Sender<'a> {
    fn merge(&mut self, field: Field<'a>) -> Result<(), WireError> {
        let mut fields = Fields::new(field.bytes("sender")?);
        self.is_present = true;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.net_key = Some(field.bytes("net_key")?),
                2 => self.address = field.bytes("address")?,
                3 => self.id = field.bytes("id")?,
                4 => self.connection_id = field.bytes("connection_id")?,
                5 => drop(field.bytes("address2")?),
                _ => {}
            }
        }
        Ok(())
    }

    fn check(self, demand: &mut Demand<'a>) -> Result<(), WireError> {
        if !self.is_present {
            return Err(WireError::Missing { field: "sender" });
        }
        let missing = WireError::Missing { field: "net_key" };
        demand.net_key = self.net_key.ok_or(missing)?;
        if self.address.is_empty() {
            return Err(WireError::Missing { field: "address" });
        }
        demand.address = self.address;
        demand.id = self.id;
        demand.connection_id = self.connection_id;
        Ok(())
    }
}

/// What a lease hangs on: the sender's `connection_id` or, where it has none, its `net_key` and
/// address, so that two such nodes never share a port. Leases over TCP and over UDP are two.
///
/// It is a BLAKE2b-256 of these, so it has one length whatever a peer sends, and it may be logged and
/// stored: whoever knows a `connection_id` can take its lease over, who knows the hash cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The identity of a message's sender.
    pub fn of(demand: &Demand<'_>, transport: Transport) -> Self {
        let scheme = transport.scheme().as_bytes();
        if !demand.connection_id.is_empty() {
            return Self(signature::hash(&[scheme, b"c", demand.connection_id]));
        }
        // The length keeps a key's end and an address's start apart.
        let length = (demand.net_key.len() as u64).to_le_bytes();
        let parts = [scheme, b"k", &length, demand.net_key, demand.address];
        Self(signature::hash(&parts))
    }

    /// The identity of a sender whose signature was checked: it is bound to the key, since anybody
    /// can sign a message with somebody else's `connection_id` in it.
    pub fn of_key(demand: &Demand<'_>, transport: Transport) -> Self {
        let length = (demand.net_key.len() as u64).to_le_bytes();
        let scheme = transport.scheme().as_bytes();
        let plain = Self::of(demand, transport);
        Self(signature::hash(&[
            scheme,
            b"s",
            &length,
            demand.net_key,
            &plain.0,
        ]))
    }

    /// The key that a lease is stored under.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The first eight bytes in hex: enough to follow one node in a log.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .take(8)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::protocols::node::wire::{Id, Message, NETWORK_ID, opcode};

    fn good() -> Message {
        Message {
            message: b"inner".to_vec(),
            sender: Some(Id {
                net_key: Some(b"key".to_vec()),
                address: b"tcp://10.0.0.1:1".to_vec(),
                id: b"id".to_vec(),
                connection_id: b"connection".to_vec(),
                address2: b"x".to_vec(),
            }),
            signature: b"signature".to_vec(),
            request_nonce: 4,
            message_nonce: 5,
            reply_flag: true,
            opcode: opcode::PROXY_REQUEST,
            net_id: NETWORK_ID,
            message_id: b"9".to_vec(),
            need_ack: true,
        }
    }

    fn judge(change: impl FnOnce(&mut Message, &mut Id)) -> Result<u32, WireError> {
        let mut message = good();
        let mut sender = message.sender.take().unwrap();
        change(&mut message, &mut sender);
        message.sender = Some(sender);
        let body = message.encode_to_vec();
        control_message(&body, Some(NETWORK_ID)).map(|demand| demand.opcode)
    }

    fn missing(field: &'static str) -> Result<u32, WireError> {
        Err(WireError::Missing { field })
    }

    #[test]
    fn a_good_message_shows_all_that_is_asked_of_it() {
        let body = good().encode_to_vec();
        let want = Demand {
            opcode: opcode::PROXY_REQUEST,
            message: b"inner",
            net_key: b"key",
            address: b"tcp://10.0.0.1:1",
            id: b"id",
            connection_id: b"connection",
            signature: b"signature",
            nonce: 5,
        };
        assert_eq!(control_message(&body, Some(NETWORK_ID)), Ok(want));
        assert_eq!(control_message(&body, None), Ok(want));
    }

    #[test]
    fn what_is_demanded_must_be_there() {
        assert_eq!(judge(|message, _| message.opcode = 0), missing("opcode"));
        assert_eq!(judge(|_, sender| sender.net_key = None), missing("net_key"));
        assert_eq!(
            judge(|_, sender| sender.address.clear()),
            missing("address")
        );
        let foreign = Err(WireError::BadValue {
            field: "netID",
            value: 1,
        });
        assert_eq!(judge(|message, _| message.net_id = 1), foreign);
        assert!(judge(|message, _| message.net_id = 0).is_err());
        let mut message = good();
        message.sender = None;
        let body = message.encode_to_vec();
        let judged = control_message(&body, None).map(|demand| demand.opcode);
        assert_eq!(judged, missing("sender"));
    }

    #[test]
    fn what_is_not_demanded_may_be_missing_or_strange() {
        let fine = Ok(opcode::PROXY_REQUEST);
        assert_eq!(judge(|_, sender| sender.net_key = Some(vec![])), fine);
        assert_eq!(judge(|_, sender| sender.id.clear()), fine);
        assert_eq!(judge(|_, sender| sender.connection_id.clear()), fine);
        assert_eq!(judge(|_, sender| sender.address = vec![0xff, 0xfe]), fine);
        assert_eq!(judge(|message, _| message.signature.clear()), fine);
        assert_eq!(judge(|message, _| message.message = vec![0xff; 9]), fine);
    }

    #[test]
    fn two_senders_are_merged_and_the_last_of_a_field_counts() {
        let mut body = good().encode_to_vec();
        // A second sender with nothing but an address, and a second opcode.
        body.extend([0x12, 0x03, 0x12, 0x01, b'b', 0x38, 0x02]);
        let demand = control_message(&body, Some(NETWORK_ID)).unwrap();
        assert_eq!(demand.address, b"b");
        assert_eq!(demand.net_key, b"key");
        assert_eq!(demand.opcode, opcode::KEEPALIVE);
    }

    #[test]
    fn a_field_of_the_wrong_type_ends_it() {
        for number in 1..=10_u8 {
            let mut body = good().encode_to_vec();
            body.extend([number << 3 | 5, 0, 0, 0, 0]);
            let judged = control_message(&body, Some(NETWORK_ID));
            assert!(judged.is_err(), "{number}");
        }
        let mut body = good().encode_to_vec();
        body.extend([11 << 3 | 5, 0, 0, 0, 0]);
        assert!(control_message(&body, Some(NETWORK_ID)).is_ok());
    }

    #[test]
    fn identities_are_the_connections_or_the_keys_with_the_address() {
        let of = |connection_id: &'static [u8], net_key: &'static [u8], address: &'static [u8]| {
            let demand = Demand {
                connection_id,
                net_key,
                address,
                ..Demand::default()
            };
            Identity::of(&demand, Transport::Tcp)
        };
        assert_eq!(of(b"c", b"k", b"a"), of(b"c", b"other", b"other"));
        assert_ne!(of(b"c", b"k", b"a"), of(b"d", b"k", b"a"));
        assert_ne!(of(b"", b"k", b"a"), of(b"", b"k", b"b"));
        assert_ne!(of(b"", b"ka", b"b"), of(b"", b"k", b"ab"));
        assert_ne!(of(b"c", b"", b"a"), of(b"", b"c", b"a"));
        let demand = Demand {
            connection_id: b"c",
            ..Demand::default()
        };
        let [tcp, udp] = [Transport::Tcp, Transport::Udp].map(|way| Identity::of(&demand, way));
        assert_ne!(tcp, udp);
        assert_eq!(tcp.to_string().len(), 16);
    }
}

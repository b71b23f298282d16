//! What the server itself says, byte for byte as the server in use writes it.

use std::net::SocketAddr;

use prost::Message as _;

use super::{
    Demand, Id, Message, ProxyRequest, ProxyResponse, Transport, append_datagram, append_frame,
    opcode,
};

/// The server's voice: who it says it is, in every message that it makes. A node that reads another
/// address than the one it dialled dials that one anew, so this must be the address that nodes use.
#[derive(Clone, Debug)]
pub struct Speaker {
    transport: Transport,
    network: u32,
    sender: Id,
}

impl Speaker {
    /// A speaker for the main address `public`, as nodes know it.
    pub fn new(transport: Transport, network: u32, public: SocketAddr) -> Self {
        Self {
            transport,
            network,
            sender: Id {
                net_key: Some(transport.net_key().to_vec()),
                address: format!("{}{public}", transport.scheme()).into_bytes(),
                ..Id::default()
            },
        }
    }

    /// Appends the answer to a ProxyRequest: the node's public address. The request's
    /// `origin_address` comes back if it has one of at most [`MAX_ORIGIN`] bytes.
    ///
    /// `nonce` counts the server's own messages on this connection from 1; in datagrams there is none.
    pub fn response(&self, out: &mut Vec<u8>, nonce: u64, request: &Demand<'_>, lease: SocketAddr) {
        let response = ProxyResponse {
            origin_address: origin(request.message),
            proxy_address: lease.to_string().into_bytes(),
        };
        self.say(out, nonce, opcode::PROXY_RESPONSE, response.encode_to_vec());
    }

    /// Appends the answer to a Keepalive.
    pub fn keepalive_response(&self, out: &mut Vec<u8>, nonce: u64) {
        self.say(out, nonce, opcode::KEEPALIVE_RESPONSE, Vec::new());
    }

    fn say(&self, out: &mut Vec<u8>, nonce: u64, opcode: u32, message: Vec<u8>) {
        let mut message = Message {
            message,
            sender: Some(self.sender.clone()),
            message_nonce: nonce,
            opcode,
            net_id: self.network,
            ..Message::default()
        };
        match self.transport {
            Transport::Tcp => append_frame(out, self.network, &message),
            Transport::Udp => {
                message.message_nonce = 0;
                // It fits: two addresses and a bounded origin are far from 64 KiB.
                let _ = append_datagram(out, &message);
            }
        }
    }
}

/// What comes back of a request's inner message, which may be anything.
fn origin(request: &[u8]) -> Vec<u8> {
    if request.len() > 2 * MAX_ORIGIN {
        return Vec::new();
    }
    let mut origin = ProxyRequest::decode(request)
        .map(|request| request.origin_address)
        .unwrap_or_default();
    if origin.len() > MAX_ORIGIN {
        origin.clear();
    }
    origin
}

/// The longest `origin_address` that comes back.
pub const MAX_ORIGIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::node::wire::{DATAGRAM_HEAD, HEAD, NETWORK_ID};

    fn response(transport: Transport, request: &[u8]) -> Vec<u8> {
        let speaker = Speaker::new(transport, NETWORK_ID, "127.0.0.1:6008".parse().unwrap());
        let demand = Demand {
            message: request,
            ..Demand::default()
        };
        let mut out = Vec::new();
        speaker.response(&mut out, 1, &demand, "127.0.0.1:20920".parse().unwrap());
        out
    }

    fn origin_of(frame: &[u8]) -> Vec<u8> {
        let message = Message::decode(&frame[HEAD..]).unwrap();
        let response = ProxyResponse::decode(&message.message[..]).unwrap();
        assert_eq!(response.proxy_address, b"127.0.0.1:20920");
        response.origin_address
    }

    #[test]
    fn a_requests_origin_comes_back_and_garbage_does_not_matter() {
        let asking = |count| {
            let request = ProxyRequest {
                origin_address: vec![b'x'; count],
                ..ProxyRequest::default()
            };
            origin_of(&response(Transport::Tcp, &request.encode_to_vec()))
        };
        assert_eq!(asking(0), b"");
        assert_eq!(asking(1), b"x");
        assert_eq!(asking(MAX_ORIGIN).len(), MAX_ORIGIN);
        assert_eq!(asking(MAX_ORIGIN + 1), b"");
        assert_eq!(asking(1 << 20), b"");
        assert_eq!(origin_of(&response(Transport::Tcp, &[0xff; 20])), b"");
    }

    #[test]
    fn a_datagram_has_no_nonce() {
        let packet = response(Transport::Udp, b"");
        let message = Message::decode(&packet[DATAGRAM_HEAD..]).unwrap();
        assert_eq!(message.message_nonce, 0);
        let sender = message.sender.unwrap();
        assert_eq!(sender.address, b"udp://127.0.0.1:6008");
        assert_eq!(sender.net_key.unwrap(), b"PORTER_UDP_NETKEY");
    }

    #[test]
    fn an_address_of_ipv6_has_brackets() {
        let speaker = Speaker::new(Transport::Tcp, 1, "[::1]:7200".parse().unwrap());
        assert_eq!(speaker.sender.address, b"tcp://[::1]:7200");
    }
}

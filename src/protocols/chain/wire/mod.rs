//! The chain role's bytes: sealed headers over TCP and UDP, and the sealed payload of the last hop.
//!
//! It is not the role's behaviour: it sees no socket and no clock, makes no random numbers and keeps
//! no log. Times and nonces are its callers': the sessions, the client and tests.
//!
//! # Frames
//!
//! Every header, in both directions and over both transports, is one frame; numbers are big-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 24 | nonce: random, and never the same twice |
//! | 24 | 2 | length of what follows, the tag included: at most [`MAX_LENGTH`] |
//! | 26 | | body, encrypted by XChaCha20 under the key of the hop |
//! | end - 16 | 16 | tag, by Poly1305 |
//!
//! What the tag covers besides the body, one behind the other:
//!
//! | bytes | field |
//! |---|---|
//! | 15 | `towpath chain 1` |
//! | 1 | direction: 0 request, 1 response |
//! | 1 | transport: 0 TCP, 1 UDP |
//! | 2 | length, as in the frame |
//! | 24 | in responses only: the nonce of the request that is answered |
//!
//! So a frame holds in one direction, over one transport, at one hop, and a response for one request.
//!
//! | body | fields |
//! |---|---|
//! | [`Request`] | stamp u64 (Unix milliseconds), flags u8, [`Address`] |
//! | [`Response`] | [`Code`] u8, dial u32 (milliseconds) |
//!
//! | flag | meaning |
//! |---|---|
//! | 1 | probe: the last hop dials nobody, answers ok and sends back what it gets |
//! | 2 | early data follows the headers |
//! | 4 | the payload is sealed under the last hop's payload key; on the last header only |
//!
//! | address | bytes |
//! |---|---|
//! | IPv4 | 1, 4 bytes, port u16 |
//! | IPv6 | 2, 16 bytes, port u16 |
//! | name | 3, length u8, the host, port u16 |
//!
//! Other flags, codes and kinds of address, a port of 0, a host of other characters than letters,
//! digits, `-`, `.` and `_`, and bytes behind the last field are malformed.
//!
//! Over TCP the client writes the requests of all hops in their order; each hop takes the first frame
//! off the stream and answers it once. Over UDP a datagram is the requests of all hops and the payload;
//! each hop takes the first frame off. The answer is the responses of all hops, the first hop's first, and
//! the payload; a response other than ok is the last of its datagram.
//!
//! # The payload's seal
//!
//! With a payload key the client and the last hop hide the payload from the hops between them. Over TCP
//! it is a run of records:
//!
//! | bytes | field |
//! |---|---|
//! | 2 | length of what follows, the tag included: at most [`MAX_RECORD`] and the tag |
//! | | payload, encrypted by ChaCha20 |
//! | 16 | tag, by Poly1305, which covers the two bytes of the length as well |
//!
//! Each direction has a key of its own: HMAC-SHA256 under the payload key of `towpath chain 1 payload`,
//! a byte for the direction (0 from the client, 1 to it), the nonce of the last hop's request and the
//! nonce of its response. The nonces of the records are four zero bytes and a u64 that counts the
//! direction's records from 0. A record without payload closes its direction: a stream that ends without
//! it was cut short, and nothing follows it. A direction's key needs the response's nonce, so that there
//! is no sealed early data.
//!
//! A datagram's payload is sealed by itself, under the payload key as it is:
//!
//! | bytes | field |
//! |---|---|
//! | 24 | nonce, random |
//! | | payload, encrypted by XChaCha20 |
//! | 16 | tag, by Poly1305 |
//!
//! Its tag covers `towpath chain 1 payload`, the byte for the direction and, from the client, the nonce of
//! the last hop's request, to the client, the nonce of the last hop's response in the same datagram.
//!
//! # Access
//!
//! What the clients of access listeners speak is told in [`socks5`] and [`http`].
//!
//! # Answers to datagrams
//!
//! A datagram does not say which request it answers; [`binding`] has the rule that both sides keep.

mod address;
mod asked;
pub mod binding;
mod header;
pub mod http;
mod key;
mod record;
mod sealed;
pub mod socks5;

pub use address::{Address, AddressError, MAX_HOST};
pub use asked::Login;
pub use header::{Code, Flags, Request, Response};
pub use key::{KEY, Key, KeyError};
pub use record::{
    DATAGRAM_OVERHEAD, MAX_RECORD, Opened, Opener, RECORD_HEAD, Sealer, Side, Spoilt,
    open_datagram, record_len, records, seal_datagram,
};
pub use sealed::{
    HEAD, MAX_LENGTH, TAG, Unsealed, frame_len, open_request, open_response, seal_request,
    seal_response,
};

/// What a frame is sealed with besides the key; public, and never the same twice under one key.
pub type Nonce = [u8; NONCE];

/// Bytes of a [`Nonce`].
pub const NONCE: usize = 24;

/// Bytes of a response's frame, each of which a datagram has in front of its payload.
pub const RESPONSE_FRAME: usize = HEAD + header::RESPONSE + TAG;

/// Bytes of the longest request's frame, that of a name of [`MAX_HOST`].
pub const MAX_REQUEST_FRAME: usize = HEAD + header::MAX_REQUEST + TAG;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// On a stream, in front of the payload.
    Tcp,
    /// In front of the payload of each datagram.
    Udp,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client.
    Request,
    /// To the client.
    Response,
}

impl Transport {
    const fn byte(self) -> u8 {
        match self {
            Self::Tcp => 0,
            Self::Udp => 1,
        }
    }
}

impl Direction {
    const fn byte(self) -> u8 {
        match self {
            Self::Request => 0,
            Self::Response => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    /// The text of the published examples.
    pub(super) const PLAINTEXT: &[u8] =
        b"Ladies and Gentlemen of the class of '99: If I could offer \
        you only one tip for the future, sunscreen would be it.";

    pub(super) fn unhex(digits: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(digit).collect()
    }
}

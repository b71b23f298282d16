//! The PROXY protocol's header: tells whom a connection is from and where it was to go, before its
//! first byte. Version 1 is a line of text, version 2 is binary and knows datagrams, too.
//!
//! The crate `proxy-header` knows the format. What stands here is the frame around it, so that a
//! header may come in any pieces, and what the specification forbids and the crate lets pass: lines
//! over 107 bytes, leading zeros and signs of ports, other separators, families of a `LOCAL` header,
//! extensions that reach beyond the end.

use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

use super::WireError;

/// Who speaks to whom, as a header says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who came.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
}

/// A header that has come whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has.
    pub len: usize,
    /// What it says; nothing when the sender speaks for itself, or of an address that is none of IP.
    pub ends: Option<Ends>,
}

/// The form of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text; for streams only.
    V1,
    /// The binary one; for UDP before a flow's first datagram.
    V2,
}

impl Version {
    /// The version of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "v1" => Some(Self::V1),
            "v2" => Some(Self::V2),
            _ => None,
        }
    }

    /// Its name, as flags and files have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Reads the header at the beginning of a stream, of whichever version; `Ok(None)` means not yet.
/// What cannot become a header any more is an error at its first wrong byte.
pub fn decode(bytes: &[u8]) -> Result<Option<Header>, WireError> {
    if is_beginning(bytes, SIGNATURE) {
        return decode_binary(bytes);
    }
    if is_beginning(bytes, GREETING) {
        return decode_line(bytes);
    }
    Err(WireError::Missing {
        field: "PROXY header",
    })
}

/// True when the one is how the other begins.
fn is_beginning(bytes: &[u8], want: &[u8]) -> bool {
    let both = bytes.len().min(want.len());
    bytes[..both] == want[..both]
}

fn decode_line(bytes: &[u8]) -> Result<Option<Header>, WireError> {
    let seen = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < LONGEST_LINE {
            true => Ok(None),
            false => Err(WireError::TooLong {
                field: "PROXY line",
                length: bytes.len() as u64,
                most: LONGEST_LINE as u64,
            }),
        };
    };
    let line = &bytes[..=end];
    let wrong = |field| WireError::Missing { field };
    let text = line
        .strip_suffix(b"\r\n")
        .ok_or(wrong("CRLF of the PROXY line"))?;
    let mut words = text.split(|byte| *byte == b' ').skip(1);
    let family = words.next().unwrap_or_default();
    let len = line.len();
    if family == b"UNKNOWN" {
        // What else it says is not for us.
        return Ok(Some(Header { len, ends: None }));
    }
    let words: Vec<&[u8]> = words.take(5).collect();
    let [_, _, ports @ ..] = &words[..] else {
        return Err(wrong("PROXY address"));
    };
    if ports.len() != 2 || !ports.iter().all(|port| is_plain_number(port)) {
        return Err(wrong("PROXY port"));
    }
    match ProxyHeader::parse(line, ParseConfig::default()) {
        Ok((header, used)) if used == len => {
            let ends = header.proxied_address().map(ends);
            Ok(Some(Header { len, ends }))
        }
        _ => Err(wrong("PROXY address")),
    }
}

/// A decimal number without a sign or zeros in front.
fn is_plain_number(digits: &[u8]) -> bool {
    let zeros = digits.len() > 1 && digits.starts_with(b"0");
    !digits.is_empty() && !zeros && digits.iter().all(u8::is_ascii_digit)
}

fn decode_binary(bytes: &[u8]) -> Result<Option<Header>, WireError> {
    let bad = |field, value: u8| WireError::BadValue {
        field,
        value: value.into(),
    };
    let Some(&command) = bytes.get(COMMAND) else {
        return Ok(None);
    };
    if command != LOCAL && command != PROXY {
        return Err(bad("PROXY command", command));
    }
    let Some(&[_, family, high, low]) = bytes.get(COMMAND..HEAD) else {
        return Ok(None);
    };
    let is_known = matches!(family >> 4, 0..=3) && matches!(family & 0xf, 0..=2);
    if command == PROXY && !is_known {
        return Err(bad("PROXY family", family));
    }
    let follows = usize::from(u16::from_be_bytes([high, low]));
    if follows > LONGEST_BODY {
        return Err(WireError::TooLong {
            field: "PROXY header",
            length: follows as u64,
            most: LONGEST_BODY as u64,
        });
    }
    let len = HEAD + follows;
    let Some(whole) = bytes.get(..len) else {
        return Ok(None);
    };
    // A sender that speaks for itself, such as for a health check, or of another family.
    let nameless = !matches!(family, TCP4 | TCP6);
    if command == LOCAL || nameless {
        return Ok(Some(Header { len, ends: None }));
    }
    let config = ParseConfig {
        include_tlvs: false,
        ..ParseConfig::default()
    };
    let cut = |_| WireError::Truncated {
        field: "PROXY address",
        need: if family == TCP4 { 12 } else { 36 },
        have: follows,
    };
    let (header, _) = ProxyHeader::parse(whole, config).map_err(cut)?;
    let addresses = if family == TCP4 { 12 } else { 36 };
    check_extensions(&whole[HEAD + addresses..])?;
    let ends = header.proxied_address().map(ends);
    Ok(Some(Header { len, ends }))
}

/// Extensions are a kind, a length and as many bytes each; what they say is not for us.
fn check_extensions(mut bytes: &[u8]) -> Result<(), WireError> {
    while !bytes.is_empty() {
        let need = match bytes {
            [_, high, low, ..] => 3 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => 3,
        };
        bytes = bytes.get(need..).ok_or(WireError::Truncated {
            field: "PROXY extension",
            need,
            have: bytes.len(),
        })?;
    }
    Ok(())
}

fn ends(said: &ProxiedAddress) -> Ends {
    Ends {
        from: said.source,
        to: said.destination,
    }
}

/// The header that says this; with nothing to say, that the sender speaks for itself.
pub fn encode(version: Version, is_datagram: bool, ends: Option<Ends>) -> Vec<u8> {
    let protocol = match is_datagram {
        true => Protocol::Datagram,
        false => Protocol::Stream,
    };
    let header = match ends.map(|ends| same_family(ends.from, ends.to)) {
        Some((source, destination)) => ProxyHeader::with_address(ProxiedAddress {
            protocol,
            source,
            destination,
        }),
        None => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::with_capacity(LONGEST_LINE);
    let written = match version {
        Version::V1 => header.encode_v1(&mut bytes),
        Version::V2 => header.encode_v2(&mut bytes),
    };
    // It fails for families that differ and for datagrams in a line, and neither comes here.
    debug_assert!(written.is_ok(), "{written:?}");
    bytes
}

/// A header has one family: where the two differ, the IPv4 address is written as an IPv6 one.
fn same_family(a: SocketAddr, b: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
    let mapped = |at: SocketAddr| match at.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    let (a, b) = (plain(a), plain(b));
    match a.is_ipv4() == b.is_ipv4() {
        true => (a, b),
        false => (mapped(a), mapped(b)),
    }
}

/// The most bytes that a header may have.
pub const LONGEST: usize = HEAD + LONGEST_BODY;

const GREETING: &[u8] = b"PROXY ";

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;

/// What may follow the head of version 2: addresses, and extensions, of which one for TLS with its
/// certificate's name is the longest that is in use.
const LONGEST_BODY: usize = 4096;

/// Where the command of version 2 stands, behind the signature.
const COMMAND: usize = SIGNATURE.len();

/// The length of version 2 up to the addresses.
const HEAD: usize = COMMAND + 4;

/// Version 2, on one's own behalf.
const LOCAL: u8 = 0x20;

/// Version 2, on behalf of somebody.
const PROXY: u8 = 0x21;

const TCP4: u8 = 0x11;

const TCP6: u8 = 0x21;

#[cfg(test)]
mod tests;

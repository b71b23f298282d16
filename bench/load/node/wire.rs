//! The few frames of the node protocol that the load program speaks.
//!
//! A second, independent codec: what it sends and takes does not depend on the server's own code
//! being right. The head's integers are big-endian, the body is a protobuf `Message`.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | network id |
//! | 4 | 2 | compression: one that is not applied |
//! | 6 | 4 | length of the body |
//! | 10 | 4 | of a letter: tag and length of the field `message` |
//! | 14 | 4 | of a letter: the way that it goes |
//! | 18 | 4 | of a letter: its number in that way's volley |
//! | 22 | - | of a letter: pattern, then sender, opcode and network id |

use std::net::SocketAddr;

use crate::pattern::Pattern;

/// What a node says that it is.
pub struct Identity {
    /// A public key, if anybody looked.
    pub net_key: [u8; 32],
    /// Where it can be reached before it is told another address.
    pub address: String,
    /// The key's digest, if anybody looked.
    pub id: [u8; 32],
    /// What its lease hangs on.
    pub connection_id: [u8; 32],
}

impl Identity {
    /// One that nobody had before: `run` differs from run to run, `number` within one.
    pub fn new(run: u64, number: u64) -> Self {
        let mut connection_id = [0xc0; 32];
        connection_id[..8].copy_from_slice(&run.to_le_bytes());
        connection_id[8..16].copy_from_slice(&number.to_le_bytes());
        Self {
            net_key: connection_id.map(|byte| !byte),
            address: ORIGIN.into(),
            id: connection_id,
            connection_id,
        }
    }

    /// Its ProxyRequest, head and all.
    pub fn request(&self) -> Vec<u8> {
        let mut sender = Vec::new();
        put_bytes(&mut sender, 1, &self.net_key);
        put_bytes(&mut sender, 2, self.address.as_bytes());
        put_bytes(&mut sender, 3, &self.id);
        put_bytes(&mut sender, 4, &self.connection_id);
        let mut body = Vec::new();
        put_bytes(&mut body, 2, &sender);
        put_number(&mut body, 5, 1);
        put_number(&mut body, 7, PROXY_REQUEST);
        put_number(&mut body, 8, u64::from(NETWORK));
        framed(&body)
    }
}

/// Which letter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The index of the way that it goes.
    pub way: u32,
    /// Its number in the way's volley.
    pub number: u32,
}

/// A whole frame of application data whose body has `size` bytes; `None` where that is too short
/// for mark and sender.
pub fn letter(mark: Mark, sender: &str, size: usize, pattern: &Pattern) -> Option<Vec<u8>> {
    let mut tail = Vec::new();
    let mut id = Vec::new();
    put_bytes(&mut id, 1, &[]);
    put_bytes(&mut id, 2, sender.as_bytes());
    put_bytes(&mut tail, 2, &id);
    put_number(&mut tail, 7, APPLICATION);
    put_number(&mut tail, 8, u64::from(NETWORK));
    let text = size.checked_sub(BEFORE_TEXT + tail.len())?;
    let filler = text.checked_sub(MARK)?;
    let mut body = Vec::with_capacity(size);
    body.push(1 << 3 | BYTES as u8);
    // Always three bytes long, so that the mark lies at the same place whatever the size.
    let text = text as u32;
    body.extend([
        text as u8 | 0x80,
        (text >> 7) as u8 | 0x80,
        (text >> 14) as u8,
    ]);
    body.extend(mark.way.to_le_bytes());
    body.extend(mark.number.to_le_bytes());
    body.extend_from_slice(pattern.at(u64::from(mark.number), filler));
    body.extend_from_slice(&tail);
    Some(framed(&body))
}

/// The length of the body, and the mark, of a letter that begins so.
pub fn mark(lead: &[u8; LEAD]) -> Result<(usize, Mark), &'static str> {
    let size = body_length(lead.first_chunk().unwrap_or(&[0; HEAD]))?;
    let number = |at| {
        let bytes = lead.get(at..).and_then(<[u8]>::first_chunk);
        bytes.copied().map_or(0, u32::from_le_bytes)
    };
    let mark = Mark {
        way: number(LEAD - MARK),
        number: number(LEAD - MARK / 2),
    };
    Ok((size, mark))
}

/// What the head says of the body.
pub fn body_length(head: &[u8; HEAD]) -> Result<usize, &'static str> {
    let [n0, n1, n2, n3, _, _, l0, l1, l2, l3] = *head;
    if u32::from_be_bytes([n0, n1, n2, n3]) != NETWORK {
        return Err("a frame of another network");
    }
    Ok(u32::from_be_bytes([l0, l1, l2, l3]) as usize)
}

/// The public address in the body of a ProxyResponse.
pub fn public_address(body: &[u8]) -> Result<SocketAddr, &'static str> {
    let mut inner: &[u8] = &[];
    let mut opcode = 0;
    each_field(body, |tag, value| match (tag, value) {
        (1, Value::Bytes(bytes)) => inner = bytes,
        (7, Value::Number(number)) => opcode = number,
        _ => {}
    })?;
    if opcode != PROXY_RESPONSE {
        return Err("an answer that is no ProxyResponse");
    }
    let mut address: &[u8] = &[];
    each_field(inner, |tag, value| {
        if let (2, Value::Bytes(bytes)) = (tag, value) {
            address = bytes;
        }
    })?;
    let text = std::str::from_utf8(address).unwrap_or_default();
    text.parse().map_err(|_| "a public address that is none")
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Tells of every field; the two kinds that these messages have.
fn each_field<'a>(
    mut rest: &'a [u8],
    mut tell: impl FnMut(u64, Value<'a>),
) -> Result<(), &'static str> {
    while !rest.is_empty() {
        let key = take_number(&mut rest)?;
        let number = take_number(&mut rest)?;
        match key & 7 {
            0 => tell(key >> 3, Value::Number(number)),
            BYTES => {
                let length = usize::try_from(number).unwrap_or(usize::MAX);
                let (bytes, behind) = rest.split_at_checked(length).ok_or(CUT)?;
                tell(key >> 3, Value::Bytes(bytes));
                rest = behind;
            }
            _ => return Err("a field of a kind that no message has"),
        }
    }
    Ok(())
}

fn take_number(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = rest.split_first().ok_or(CUT)?;
        *rest = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(number);
        }
    }
    Err("a number without an end")
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + body.len());
    frame.extend(NETWORK.to_be_bytes());
    frame.extend(NOT_COMPRESSED.to_be_bytes());
    frame.extend((body.len() as u32).to_be_bytes());
    frame.extend_from_slice(body);
    frame
}

fn put_bytes(out: &mut Vec<u8>, tag: u64, bytes: &[u8]) {
    put_varint(out, tag << 3 | BYTES);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, tag: u64, number: u64) {
    put_varint(out, tag << 3);
    put_varint(out, number);
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes before a body.
pub const HEAD: usize = 10;
/// How much of a letter tells which one it is.
pub const LEAD: usize = HEAD + BEFORE_TEXT + MARK;
/// The shortest body that has room for a mark and a sender with an IPv4 address.
pub const LEAST_SIZE: usize = 64;
/// Where peers that have no public address of their own say that they are.
pub const ORIGIN: &str = "tcp://127.0.0.1:7009";
/// The tag and the length of the field `message`.
const BEFORE_TEXT: usize = 4;
/// Way and number.
const MARK: usize = 8;
/// The network that the server serves unless told otherwise.
const NETWORK: u32 = 1_564_141_146;
/// gzip was chosen and not applied, as the nodes in use write it.
const NOT_COMPRESSED: u16 = 2;
/// The kind of field that has a length.
const BYTES: u64 = 2;
const PROXY_RESPONSE: u64 = 9;
const PROXY_REQUEST: u64 = 15;
/// The first opcode that is an application's own.
const APPLICATION: u64 = 1000;
const CUT: &str = "a message that is cut short";

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
        let pairs = digits.chunks(2);
        pairs.map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    fn key(text: &str) -> [u8; 32] {
        hex(text).try_into().unwrap()
    }

    #[test]
    fn the_request_is_the_recorded_one() {
        let node = Identity {
            net_key: key("4cb5abf6ad79fbf5abbccafcc269d85cd2651ed4b885b5869f241aedf0a5ba29"),
            address: "tcp://127.0.0.1:7001".into(),
            id: key("7f26c5a0c2219f58abcbc2ebd2da349acb10773ffbc37b6af91fa8df2486c9ea"),
            connection_id: key("d34fc8789bdd6c42e0c795cd16aa96b7a4c9627daccc1b07e8f7a264aa40dfa9"),
        };
        let recorded = "5d3ae65a 0002 00000088 127c0a204cb5abf6ad79fbf5abbccafcc269d85cd2651ed4\
            b885b5869f241aedf0a5ba2912147463703a2f2f3132372e302e302e313a373030311a207f26c5a0c221\
            9f58abcbc2ebd2da349acb10773ffbc37b6af91fa8df2486c9ea2220d34fc8789bdd6c42e0c795cd16aa\
            96b7a4c9627daccc1b07e8f7a264aa40dfa92801380f40daccebe905";
        assert_eq!(node.request(), hex(recorded));
    }

    #[test]
    fn the_recorded_response_tells_the_address() {
        let recorded = hex(
            "5d3ae65a 0001 00000048 0a11120f3132372e302e302e313a323039323012290a11504f525445525f\
             5443505f4e45544b455912147463703a2f2f3132372e302e302e313a363030382801380940daccebe905",
        );
        let (head, body) = recorded.split_first_chunk().unwrap();
        assert_eq!(body_length(head), Ok(body.len()));
        let address = public_address(body).unwrap();
        assert_eq!(address, "127.0.0.1:20920".parse().unwrap());
        // What stands behind the opcode is not looked at.
        for cut in 1..body.len() - 6 {
            assert!(public_address(&body[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn a_letter_is_as_long_as_it_should_be_and_a_whole_message() {
        let pattern = Pattern::new();
        let sent = Mark { way: 7, number: 9 };
        for size in [LEAST_SIZE, 127, 128, 131, 1024, 16_384, 65_536] {
            let letter = letter(sent, "tcp://127.0.0.1:59999", size, &pattern).unwrap();
            assert_eq!(letter.len(), HEAD + size);
            assert_eq!(mark(letter.first_chunk().unwrap()), Ok((size, sent)));
            let mut fields = Vec::new();
            let note = |tag, value: Value<'_>| {
                fields.push((tag, matches!(value, Value::Number(APPLICATION))));
            };
            each_field(&letter[HEAD..], note).unwrap();
            let expected = [(1, false), (2, false), (7, true), (8, false)];
            assert_eq!(fields, expected);
        }
        assert_eq!(letter(sent, ORIGIN, 40, &pattern), None);
    }

    #[test]
    fn another_network_is_refused() {
        let mut head = *framed(b"x").first_chunk().unwrap();
        assert_eq!(body_length(&head), Ok(1));
        head[3] ^= 1;
        assert!(body_length(&head).is_err());
    }
}

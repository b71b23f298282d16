//! The few frames of the agent protocol that the load program speaks, in the stock dialect.
//!
//! A second, independent encoder: what it sends does not depend on the server's own code being
//! right. Replies are taken only as far as the counts need.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | `68 66` |
//! | 2 | 1 | XOR of the payload before masking |
//! | 3 | 1 | version 1 |
//! | 4 | 1 | 0 agent, 1 traffic proxy |
//! | 5 | 4 | mask |
//! | 9 | 8 | payload length, little-endian |

/// The frame that asks for a route: answered with the two bytes [`OK`].
pub fn traffic(service: &str, field: &str, token: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    for part in [service, field, token] {
        put(&mut payload, part.as_bytes());
    }
    frame(1, &payload, MASK)
}

/// The frame that sets `id`/`section` to `data`.
pub fn update(id: &str, section: &str, data: &[u8]) -> Vec<u8> {
    let mut inner = Vec::with_capacity(data.len() + 64);
    put(&mut inner, id.as_bytes());
    put(&mut inner, section.as_bytes());
    put(&mut inner, data);
    inner.extend_from_slice(&0_u32.to_le_bytes());
    request(b"update", &inner, MASK)
}

/// The frame that asks for `id`/`section` without waiting.
pub fn query(id: &str, section: &str) -> Vec<u8> {
    let mut inner = Vec::with_capacity(64);
    put(&mut inner, id.as_bytes());
    put(&mut inner, section.as_bytes());
    inner.extend_from_slice(&0_i32.to_le_bytes());
    request(b"query", &inner, MASK)
}

/// What a whole reply says.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    /// 0 is success.
    pub code: i32,
    /// The data of a query's reply; empty for other replies.
    pub data: Vec<u8>,
}

/// Reads a reply from what has arrived so far: `Ok(None)` while bytes are missing.
pub fn reply(input: &[u8]) -> Result<Option<Reply>, &'static str> {
    let Some((header, rest)) = input.split_at_checked(HEADER) else {
        return Ok(None);
    };
    let mut head = Fields(header);
    if head.take(2) != Some(&MAGIC) {
        return Err("the reply does not begin as a frame does");
    }
    let sum = head.take(1).and_then(|byte| byte.first().copied());
    let mask = head.take(6).and_then(|bytes| bytes.get(2..));
    let (Some(sum), Some(mask), Some(length)) = (sum, mask, head.length()) else {
        return Ok(None);
    };
    if length > MOST_PAYLOAD {
        return Err("the reply is longer than a frame may be");
    }
    let Some(masked) = rest.get(..length) else {
        return Ok(None);
    };
    let payload: Vec<u8> = masked
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect();
    if payload.iter().fold(0, |sum, byte| sum ^ byte) != sum {
        return Err("the reply's checksum is wrong");
    }
    body(&payload).map(Some).ok_or("the reply is malformed")
}

fn body(payload: &[u8]) -> Option<Reply> {
    let mut fields = Fields(payload);
    let command = fields.binary()?;
    let code = i32::from_le_bytes(fields.take(4)?.try_into().ok()?);
    fields.binary()?;
    let mut inner = Fields(fields.binary()?);
    let data = if command == b"query" {
        inner.take(8)?;
        inner.binary()?.to_vec()
    } else {
        Vec::new()
    };
    Some(Reply { code, data })
}

fn request(command: &[u8], inner: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(inner.len() + 32);
    put(&mut payload, command);
    payload.extend_from_slice(&0_i32.to_le_bytes());
    put(&mut payload, inner);
    frame(0, &payload, mask)
}

fn frame(operation: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let sum = payload.iter().fold(0, |sum, byte| sum ^ byte);
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&[sum, 1, operation]);
    frame.extend_from_slice(&mask);
    frame.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let masked = payload.iter().zip(mask.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// A Binary: 64-bit length, then the bytes.
fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn length(&mut self) -> Option<usize> {
        let bytes = self.take(8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    }

    fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        self.take(length)
    }
}

/// What the traffic proxy says when the backend is connected.
pub const OK: &[u8; 2] = b"ok";

const MAGIC: [u8; 2] = [0x68, 0x66];
const HEADER: usize = 17;
const MOST_PAYLOAD: usize = 524_288;
/// Any mask is legal. A fixed one keeps runs alike.
const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Recorded from the program in use.
    const UPDATE: &str = "68660b0100112233444500000000000000172233441122334464525725654733441122\
        18441122334411223744112233441122572167133544112233441122403070564637142233441122334479475f28\
        7e22334411";
    const REPLY: &str = "6866170100b43621002200000000000000b2362100b4362100c1464561c0532100b43621\
        00b4362100b4362100b4362100b436";

    #[test]
    fn an_update_is_the_recorded_one() {
        assert_eq!(update("dev1", "status", b"hello"), bytes(UPDATE));
    }

    #[test]
    fn a_reply_is_read_once_it_is_whole() {
        let recorded = bytes(REPLY);
        for end in 0..recorded.len() {
            assert_eq!(reply(&recorded[..end]), Ok(None), "{end} bytes");
        }
        let empty = Reply {
            code: 0,
            data: Vec::new(),
        };
        assert_eq!(reply(&recorded), Ok(Some(empty)));
    }

    #[test]
    fn a_query_reply_carries_its_data() {
        let mut inner = 7_i64.to_le_bytes().to_vec();
        put(&mut inner, b"hello");
        let mut payload = Vec::new();
        put(&mut payload, b"query");
        payload.extend_from_slice(&1_i32.to_le_bytes());
        put(&mut payload, b"msg");
        put(&mut payload, &inner);
        let got = reply(&frame(0, &payload, [9; 4])).unwrap().unwrap();
        assert_eq!((got.code, got.data.as_slice()), (1, &b"hello"[..]));
    }

    #[test]
    fn a_damaged_reply_is_refused() {
        for at in [0, 2, 20] {
            let mut damaged = bytes(REPLY);
            damaged[at] ^= 1;
            assert!(reply(&damaged).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_route_request_has_three_fields() {
        let frame = traffic("bench", "default", "");
        assert_eq!(frame[4], 1);
        assert_eq!(frame.len(), HEADER + 8 + 5 + 8 + 7 + 8);
    }
}

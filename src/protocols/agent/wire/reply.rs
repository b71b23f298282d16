//! What the server answers to agent requests, written for the session and read for the client.
//!
//! Traffic requests have no framed reply; see [`OK`](super::OK).

use super::fields::FieldReader;
use super::request::{AUTH, QUERY, SNIFF, UPDATE};
use super::{Dialect, NOT_EXISTED, OP_AGENT, frame};
use crate::wire::WireError;

/// An answer, as the session knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The update is on disk.
    Updated,
    /// The record that was asked for.
    Found {
        /// Unix seconds of the last update.
        timestamp: i64,
        /// What was stored.
        data: &'a [u8],
    },
    /// No record has this key.
    Missing,
    /// The asker's address as text.
    Sniffed {
        /// An IP address.
        host: &'a [u8],
    },
    /// The token is right.
    Authorised,
    /// The request was understood and not done.
    Failed {
        /// The request's cmd.
        command: &'a [u8],
        /// Why, for a person.
        message: &'a [u8],
    },
}

impl<'a> Reply<'a> {
    /// The answer to a command that was not done, with the reason.
    pub fn failed(command: &'a [u8], message: &'a [u8]) -> Self {
        Self::Failed { command, message }
    }

    fn command(&self) -> &'a [u8] {
        match *self {
            Self::Updated => UPDATE,
            Self::Found { .. } | Self::Missing => QUERY,
            Self::Sniffed { .. } => SNIFF,
            Self::Authorised => AUTH,
            Self::Failed { command, .. } => command,
        }
    }

    /// Empty exactly when the code is 0.
    fn message(&self) -> &'a [u8] {
        match *self {
            Self::Missing => NOT_EXISTED,
            Self::Failed { message, .. } => message,
            _ => &[],
        }
    }

    fn code(&self) -> i32 {
        match self {
            Self::Missing | Self::Failed { .. } => CODE_FAILED,
            _ => CODE_OK,
        }
    }
}

/// Appends a reply, in the dialect of its request.
pub fn encode_reply(out: &mut Vec<u8>, dialect: Dialect, mask: [u8; 4], reply: &Reply<'_>) {
    frame::encode(out, dialect, mask, OP_AGENT, |outer| {
        outer.binary(reply.command());
        outer.i32(reply.code());
        outer.binary(reply.message());
        outer.nested(|inner| match *reply {
            Reply::Found { timestamp, data } => {
                inner.i64(timestamp);
                inner.binary(data);
            }
            // A failed query carries an empty record: peers read it before they look at the code.
            _ if reply.command() == QUERY => {
                inner.i64(0);
                inner.binary(&[]);
            }
            Reply::Sniffed { host } => inner.binary(host),
            _ => {}
        });
    });
}

/// Whether the reply to a query for `data_len` bytes stays within `max_payload`.
///
/// Ask it before an update is stored, in the update's dialect, and refuse the update if not: in the
/// stock dialect every update that came fits, in the document's one a largest payload whose id and
/// section are under three bytes together does not. Data that came in the document's dialect can be
/// too long for a stock reply by a few bytes, so a query asks again in its own dialect.
pub fn fits(dialect: Dialect, data_len: usize, max_payload: usize) -> bool {
    let lengths = 4 * dialect.length_len();
    let overhead = lengths + QUERY.len() + size_of::<i32>() + size_of::<i64>();
    data_len.saturating_add(overhead) <= max_payload
}

/// A reply as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    dialect: Dialect,
    /// How many bytes of the stream it took.
    pub consumed: usize,
    /// The request's cmd, repeated.
    pub command: &'a [u8],
    /// 0 for done; anything else is a failure.
    pub code: i32,
    /// Why it failed.
    pub message: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The payload as the answer to a query: Unix seconds and data.
    pub fn record(&self) -> Result<(i64, &'a [u8]), WireError> {
        let mut fields = FieldReader::new(self.payload, self.dialect);
        Ok((fields.i64("timestamp")?, fields.binary("data")?))
    }

    /// The payload as the answer to a sniff.
    pub fn host(&self) -> Result<&'a [u8], WireError> {
        FieldReader::new(self.payload, self.dialect).binary("host")
    }
}

/// Reads the reply at the front of `input`; the dialect is that of the request. `Ok(None)` and
/// `scratch` as in [`decode`](super::decode).
pub fn decode_reply<'s>(
    input: &[u8],
    dialect: Dialect,
    max_payload: usize,
    scratch: &'s mut Vec<u8>,
) -> Result<Option<Answer<'s>>, WireError> {
    let Some((op, consumed)) = frame::decode_plain(input, dialect, max_payload, scratch)? else {
        return Ok(None);
    };
    if op != OP_AGENT {
        return Err(WireError::BadValue {
            field: "op",
            value: u64::from(op),
        });
    }
    let mut fields = FieldReader::new(scratch, dialect);
    Ok(Some(Answer {
        dialect,
        consumed,
        command: fields.binary("cmd")?,
        code: fields.i32("code")?,
        message: fields.binary("msg")?,
        payload: fields.binary("payload")?,
    }))
}

const CODE_OK: i32 = 0;
const CODE_FAILED: i32 = 1;

#[cfg(test)]
mod tests {
    use super::super::MAX_PAYLOAD;
    use super::*;

    /// The worked example's reply to the update, as it was recorded.
    const UPDATED: &[u8] = b"\x68\x66\x17\x01\x00\xb4\x36\x21\x00\x22\0\0\0\0\0\0\0\
        \xb2\x36\x21\x00\xb4\x36\x21\x00\xc1\x46\x45\x61\xc0\x53\x21\x00\xb4\x36\x21\x00\
        \xb4\x36\x21\x00\xb4\x36\x21\x00\xb4\x36\x21\x00\xb4\x36";

    fn encoded(dialect: Dialect, reply: &Reply<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_reply(&mut out, dialect, [0xb4, 0x36, 0x21, 0x00], reply);
        out
    }

    #[test]
    fn the_worked_example_reads_and_writes() {
        assert_eq!(encoded(Dialect::Stock, &Reply::Updated), UPDATED);
        let mut scratch = Vec::new();
        let answer = decode_reply(UPDATED, Dialect::Stock, MAX_PAYLOAD, &mut scratch);
        let answer = answer.unwrap().unwrap();
        assert_eq!(
            (answer.command, answer.code, answer.message),
            (UPDATE, 0, &b""[..])
        );
        assert_eq!(answer.consumed, UPDATED.len());
        // An update's reply holds no record, and one is not made up.
        assert!(answer.record().is_err());
    }

    #[test]
    fn every_reply_comes_back_in_both_dialects() {
        let failed = |command| Reply::Failed {
            command,
            message: b"the disk is full",
        };
        let replies = [
            (Reply::Updated, UPDATE, 0, &b""[..]),
            (Reply::Authorised, AUTH, 0, b""),
            (Reply::Missing, QUERY, 1, b"not existed"),
            (failed(UPDATE), UPDATE, 1, b"the disk is full"),
            (failed(QUERY), QUERY, 1, b"the disk is full"),
            (Reply::Sniffed { host: b"::1" }, SNIFF, 0, b""),
        ];
        for dialect in [Dialect::Document, Dialect::Stock] {
            for (reply, command, code, message) in &replies {
                let bytes = encoded(dialect, reply);
                let mut scratch = Vec::new();
                for end in 0..bytes.len() {
                    let early = decode_reply(&bytes[..end], dialect, MAX_PAYLOAD, &mut scratch);
                    assert_eq!(early, Ok(None));
                }
                let answer = decode_reply(&bytes, dialect, MAX_PAYLOAD, &mut scratch);
                let answer = answer.unwrap().unwrap();
                assert_eq!(answer.command, *command);
                assert_eq!((answer.code, answer.message), (*code, *message));
                if *command == QUERY {
                    assert_eq!(answer.record(), Ok((0, &b""[..])));
                }
                if *command == SNIFF {
                    assert_eq!(answer.host(), Ok(&b"::1"[..]));
                }
            }
        }
    }

    #[test]
    fn fits_is_what_the_encoder_makes_of_it() {
        for dialect in [Dialect::Document, Dialect::Stock] {
            for length in [0, 1, 1000] {
                let data = vec![1; length];
                let timestamp = 1;
                let bytes = encoded(
                    dialect,
                    &Reply::Found {
                        timestamp,
                        data: &data,
                    },
                );
                let payload = bytes.len() - dialect.header_len();
                assert!(fits(dialect, length, payload));
                assert!(!fits(dialect, length + 1, payload));
            }
            assert!(!fits(dialect, usize::MAX, MAX_PAYLOAD));
        }
    }

    #[test]
    fn only_the_documents_largest_update_of_a_short_key_cannot_be_answered() {
        // The fields around id, section and data in the smallest update of each dialect.
        let stock = MAX_PAYLOAD - 54;
        assert!(fits(Dialect::Stock, stock, MAX_PAYLOAD));
        let document = |key_len: usize| MAX_PAYLOAD - 30 - key_len;
        assert!(!fits(Dialect::Document, document(2), MAX_PAYLOAD));
        assert!(fits(Dialect::Document, document(3), MAX_PAYLOAD));
    }

    #[test]
    fn a_reply_of_another_op_or_a_hostile_length_is_refused() {
        let mut bytes = UPDATED.to_vec();
        bytes[4] = 1;
        let mut scratch = Vec::new();
        let read = decode_reply(&bytes, Dialect::Stock, MAX_PAYLOAD, &mut scratch);
        assert!(matches!(read, Err(WireError::BadValue { field: "op", .. })));
        for length in [524_289, u64::MAX, 1 << 32] {
            let mut header = UPDATED[..17].to_vec();
            header[9..].copy_from_slice(&u64::to_le_bytes(length));
            let read = decode_reply(&header, Dialect::Stock, MAX_PAYLOAD, &mut scratch);
            assert!(matches!(read, Err(WireError::TooLong { .. })));
        }
    }
}

//! What a request's payload says, read and written.
//!
//! It is not the frame around it, and it judges neither tokens nor keys: that is the session's.

use super::fields::FieldReader;
use super::{Dialect, OP_AGENT, OP_TRAFFIC, frame};
use crate::wire::WireError;

/// What a peer asks. The bytes are borrowed from the unmasked payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// For the store; answered by a frame.
    Agent(AgentRequest<'a>),
    /// For the traffic proxy; never answered by a frame, the connection becomes the route's.
    Traffic {
        /// Which service's routes to look in.
        service: &'a [u8],
        /// Which host of the service.
        field: &'a [u8],
        /// The service's secret, or what the peer takes for it.
        token: &'a [u8],
        /// True when the operation came first, as the document has it. Such a peer expects relayed
        /// bytes only: no "ok" may precede them.
        leading_operation: bool,
    },
}

/// What a peer asks of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentRequest<'a> {
    /// Store or drop a record.
    Update {
        /// First-level key.
        id: &'a [u8],
        /// Second-level key.
        section: &'a [u8],
        /// What to store.
        data: &'a [u8],
        /// [`SET`](super::SET), [`REMOVE`](super::REMOVE), or another number that has no effect.
        op: u32,
    },
    /// Read a record.
    Query {
        /// First-level key.
        id: &'a [u8],
        /// Second-level key.
        section: &'a [u8],
        /// How many seconds to wait for a missing record; none when zero or negative.
        wait: i32,
    },
    /// Ask for the asker's own address.
    Sniff,
    /// Show the token that updates may need.
    Auth {
        /// The secret, or what the peer takes for it.
        token: &'a [u8],
    },
    /// A cmd that nobody knows: the session closes.
    Unknown {
        /// Its name.
        command: &'a [u8],
    },
}

impl<'a> Request<'a> {
    /// Reads a payload; bytes behind the last field are ignored.
    pub(super) fn read(op: u8, dialect: Dialect, payload: &'a [u8]) -> Result<Self, WireError> {
        match op {
            OP_AGENT => read_agent(dialect, payload, Tail::Ignored).map(Self::Agent),
            OP_TRAFFIC => read_traffic(dialect, payload),
            other => Err(WireError::BadValue {
                field: "op",
                value: u64::from(other),
            }),
        }
    }

    /// Whether the fields take the payload to its last byte.
    pub(super) fn is_exact(op: u8, dialect: Dialect, payload: &[u8]) -> bool {
        match op {
            OP_AGENT => read_agent(dialect, payload, Tail::Refused).is_ok(),
            OP_TRAFFIC => read_exact_traffic(dialect, payload).is_some(),
            _ => false,
        }
    }
}

/// What to do about bytes behind the last field.
#[derive(Clone, Copy)]
enum Tail {
    Ignored,
    Refused,
}

impl Tail {
    fn check(self, fields: FieldReader<'_>) -> Result<(), WireError> {
        match self {
            Self::Ignored => Ok(()),
            Self::Refused => fields.finish(),
        }
    }
}

fn read_agent(dialect: Dialect, payload: &[u8], tail: Tail) -> Result<AgentRequest<'_>, WireError> {
    let mut outer = FieldReader::new(payload, dialect);
    let command = outer.binary("cmd")?;
    outer.i32("version")?;
    let mut inner = FieldReader::new(outer.binary("payload")?, dialect);
    tail.check(outer)?;
    let request = match command {
        UPDATE => AgentRequest::Update {
            id: inner.binary("id")?,
            section: inner.binary("section")?,
            data: inner.binary("data")?,
            op: inner.last_or_zero("op")?.cast_unsigned(),
        },
        QUERY => AgentRequest::Query {
            id: inner.binary("id")?,
            section: inner.binary("section")?,
            wait: inner.last_or_zero("wait")?,
        },
        AUTH => AgentRequest::Auth {
            token: inner.binary("token")?,
        },
        // The payload of these two is ignored whatever it is.
        SNIFF => return Ok(AgentRequest::Sniff),
        command => return Ok(AgentRequest::Unknown { command }),
    };
    tail.check(inner)?;
    Ok(request)
}

/// A payload fits exactly with the leading operation or without, never both ways: the two readings
/// differ by four bytes of which one has to be left over. When neither fits, bytes of an extension
/// follow, and the dialect's own custom decides.
fn read_traffic(dialect: Dialect, payload: &[u8]) -> Result<Request<'_>, WireError> {
    if let Some(request) = read_exact_traffic(dialect, payload) {
        return Ok(request);
    }
    let by_custom = dialect == Dialect::Document;
    read_traffic_from(dialect, payload, by_custom, Tail::Ignored)
}

fn read_exact_traffic(dialect: Dialect, payload: &[u8]) -> Option<Request<'_>> {
    [false, true]
        .into_iter()
        .find_map(|leading| read_traffic_from(dialect, payload, leading, Tail::Refused).ok())
}

fn read_traffic_from(
    dialect: Dialect,
    payload: &[u8],
    leading_operation: bool,
    tail: Tail,
) -> Result<Request<'_>, WireError> {
    let mut fields = FieldReader::new(payload, dialect);
    if leading_operation {
        let operation = fields.i32("operation")?;
        if operation != OPERATION {
            return Err(WireError::BadValue {
                field: "operation",
                value: u64::from(operation.cast_unsigned()),
            });
        }
    }
    let request = Request::Traffic {
        service: fields.binary("service")?,
        field: fields.binary("field")?,
        token: fields.binary("token")?,
        leading_operation,
    };
    tail.check(fields)?;
    Ok(request)
}

/// Appends a request. In the document's dialect an update's op and a query's wait are left out when
/// they are zero, since that dialect does not know them.
pub fn encode_request(out: &mut Vec<u8>, dialect: Dialect, mask: [u8; 4], request: &Request<'_>) {
    match *request {
        Request::Agent(request) => encode_agent(out, dialect, mask, request),
        Request::Traffic {
            service,
            field,
            token,
            leading_operation,
        } => frame::encode(out, dialect, mask, OP_TRAFFIC, |fields| {
            if leading_operation {
                fields.i32(OPERATION);
            }
            fields.binary(service);
            fields.binary(field);
            fields.binary(token);
        }),
    }
}

fn encode_agent(out: &mut Vec<u8>, dialect: Dialect, mask: [u8; 4], request: AgentRequest<'_>) {
    let command = request.command();
    let has_last = |value: bool| dialect == Dialect::Stock || value;
    frame::encode(out, dialect, mask, OP_AGENT, |outer| {
        outer.binary(command);
        outer.i32(AGENT_VERSION);
        outer.nested(|inner| match request {
            AgentRequest::Update {
                id,
                section,
                data,
                op,
            } => {
                inner.binary(id);
                inner.binary(section);
                inner.binary(data);
                if has_last(op != 0) {
                    inner.u32(op);
                }
            }
            AgentRequest::Query { id, section, wait } => {
                inner.binary(id);
                inner.binary(section);
                if has_last(wait != 0) {
                    inner.i32(wait);
                }
            }
            AgentRequest::Auth { token } => inner.binary(token),
            AgentRequest::Sniff | AgentRequest::Unknown { .. } => {}
        });
    });
}

impl<'a> AgentRequest<'a> {
    /// The cmd by which it travels, and which its reply repeats.
    pub fn command(&self) -> &'a [u8] {
        match *self {
            Self::Update { .. } => UPDATE,
            Self::Query { .. } => QUERY,
            Self::Sniff => SNIFF,
            Self::Auth { .. } => AUTH,
            Self::Unknown { command } => command,
        }
    }
}

pub(super) const UPDATE: &[u8] = b"update";
pub(super) const QUERY: &[u8] = b"query";
pub(super) const SNIFF: &[u8] = b"sniff";
pub(super) const AUTH: &[u8] = b"auth";

/// The only operation a traffic request can lead with.
const OPERATION: i32 = 0;

/// The version inside an agent request, which nobody looks at.
const AGENT_VERSION: i32 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Document, Dialect::Stock];

    fn length(dialect: Dialect, value: u64) -> Vec<u8> {
        match dialect {
            Dialect::Document => u32::try_from(value)
                .unwrap_or(u32::MAX)
                .to_le_bytes()
                .to_vec(),
            Dialect::Stock => value.to_le_bytes().to_vec(),
        }
    }

    fn binary(dialect: Dialect, bytes: &[u8]) -> Vec<u8> {
        [length(dialect, bytes.len() as u64), bytes.to_vec()].concat()
    }

    fn agent(dialect: Dialect, command: &[u8], inner: &[u8]) -> Vec<u8> {
        [
            binary(dialect, command),
            vec![0xff; 4],
            binary(dialect, inner),
        ]
        .concat()
    }

    fn key(dialect: Dialect) -> Vec<u8> {
        [binary(dialect, b"id"), binary(dialect, b"section")].concat()
    }

    fn traffic(dialect: Dialect, operation: Option<i32>) -> Vec<u8> {
        let leading = operation.map(|value| value.to_le_bytes().to_vec());
        [
            leading.unwrap_or_default(),
            binary(dialect, b"service"),
            binary(dialect, b"field"),
            binary(dialect, b"token"),
        ]
        .concat()
    }

    fn leads(op: u8, dialect: Dialect, payload: &[u8]) -> Result<bool, WireError> {
        match Request::read(op, dialect, payload)? {
            Request::Traffic {
                service: b"service",
                field: b"field",
                token: b"token",
                leading_operation,
            } => Ok(leading_operation),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn absent_op_and_wait_are_zero_and_cut_ones_are_refused() {
        for dialect in BOTH {
            let update = [key(dialect), binary(dialect, b"data")].concat();
            let payload = agent(dialect, UPDATE, &update);
            assert_eq!(
                Request::read(OP_AGENT, dialect, &payload),
                Ok(Request::Agent(AgentRequest::Update {
                    id: b"id",
                    section: b"section",
                    data: b"data",
                    op: 0
                }))
            );
            let with_op = [update, vec![1, 0, 0, 0]].concat();
            let payload = agent(dialect, UPDATE, &with_op);
            let read = Request::read(OP_AGENT, dialect, &payload).unwrap();
            assert!(matches!(
                read,
                Request::Agent(AgentRequest::Update { op: 1, .. })
            ));
            let payload = agent(dialect, QUERY, &key(dialect));
            let read = Request::read(OP_AGENT, dialect, &payload).unwrap();
            assert!(matches!(
                read,
                Request::Agent(AgentRequest::Query { wait: 0, .. })
            ));
        }
        let cut = [key(Dialect::Stock), vec![1, 0]].concat();
        let payload = agent(Dialect::Stock, QUERY, &cut);
        assert_eq!(
            Request::read(OP_AGENT, Dialect::Stock, &payload),
            Err(WireError::Truncated {
                field: "wait",
                need: 4,
                have: 2
            })
        );
    }

    #[test]
    fn bytes_behind_the_last_field_are_ignored_but_not_exact() {
        for dialect in BOTH {
            for inner in [b"TRAIL".to_vec(), Vec::new()] {
                let wait = 0_i32.to_le_bytes().to_vec();
                let query = [key(dialect), wait, inner].concat();
                let outer = [agent(dialect, QUERY, &query), b"more".to_vec()].concat();
                let read = Request::read(OP_AGENT, dialect, &outer).unwrap();
                assert!(matches!(
                    read,
                    Request::Agent(AgentRequest::Query { wait: 0, .. })
                ));
                assert!(!Request::is_exact(OP_AGENT, dialect, &outer));
            }
        }
    }

    #[test]
    fn a_leading_operation_is_seen_and_only_zero_is_known() {
        for dialect in BOTH {
            assert_eq!(
                leads(OP_TRAFFIC, dialect, &traffic(dialect, None)),
                Ok(false)
            );
            assert_eq!(
                leads(OP_TRAFFIC, dialect, &traffic(dialect, Some(0))),
                Ok(true)
            );
            for operation in [1, 2, 3, -1, i32::MIN] {
                let payload = traffic(dialect, Some(operation));
                assert!(leads(OP_TRAFFIC, dialect, &payload).is_err(), "{operation}");
            }
        }
    }

    #[test]
    fn extended_traffic_is_read_by_the_custom_of_its_dialect() {
        let extended = |dialect, operation| [traffic(dialect, operation), vec![7; 5]].concat();
        let stock = extended(Dialect::Stock, None);
        assert_eq!(leads(OP_TRAFFIC, Dialect::Stock, &stock), Ok(false));
        let document = extended(Dialect::Document, Some(0));
        assert_eq!(leads(OP_TRAFFIC, Dialect::Document, &document), Ok(true));
    }

    #[test]
    fn hostile_inner_lengths_are_refused() {
        let hostile = [
            u64::MAX,
            0xffff_ffff_ffff_fffc,
            1 << 63,
            (1 << 63) - 1,
            u64::from(u32::MAX),
            100,
        ];
        for dialect in BOTH {
            for bad in hostile {
                let bad = length(dialect, bad);
                for (op, payload) in [
                    (OP_AGENT, [bad.clone(), b"query".to_vec()].concat()),
                    (
                        OP_AGENT,
                        [binary(dialect, QUERY), vec![0; 4], bad.clone()].concat(),
                    ),
                    (OP_AGENT, agent(dialect, QUERY, &bad)),
                    (OP_AGENT, agent(dialect, AUTH, &bad)),
                    (OP_TRAFFIC, bad.clone()),
                    (OP_TRAFFIC, [vec![0; 4], bad.clone()].concat()),
                    (
                        OP_TRAFFIC,
                        [binary(dialect, b"service"), bad.clone()].concat(),
                    ),
                ] {
                    let read = Request::read(op, dialect, &payload);
                    assert!(read.is_err(), "{read:?}");
                }
            }
        }
    }
}

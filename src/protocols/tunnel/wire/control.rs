//! The frames of a control connection.

use std::fmt;
use std::net::SocketAddr;

use super::{Reason, Refusal, TICKET, Ticket, UUID, Uuid, address};
use crate::wire::{Reader, WireError, Writer};

/// What client and server tell each other, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// The first word of the server.
    Welcome {
        /// What the client's connections for frames belong to.
        session: Uuid,
    },
    /// The client wants a public port for a service.
    Expose(Expose<'a>),
    /// It has one.
    Exposed(Exposed),
    /// It gets none; or, where it had one, none any more.
    Refused {
        /// Which request.
        request: u32,
        /// Why, for programs.
        code: Refusal,
        /// Why, for people.
        text: &'a str,
    },
    /// A visitor wants a data connection.
    Visit(Visit),
    /// The server wants data connections that have no visitor yet.
    PoolWanted(TicketList<'a>),
    /// A visitor's connection has ended or will not be: told by the side that knows, for visitors that
    /// have no data connection.
    Closed {
        /// Which.
        uuid: Uuid,
        /// Why.
        reason: Reason,
    },
    /// A service is over: its port is closed, what is open goes on.
    Withdraw {
        /// Which.
        service: u16,
    },
    /// A newer client has the service.
    Superseded {
        /// Which.
        service: u16,
        /// The epoch under which this client cannot have it any more.
        epoch: u64,
        /// What to tell people.
        text: &'a str,
    },
    /// Is there anybody?
    Ping(u64),
    /// The answer, with the same number.
    Pong(u64),
    /// The server is stopping: no new visitors, and after so many seconds none at all.
    Drain {
        /// Until what is open is closed.
        seconds: u32,
    },
}

/// What a client wants exposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expose<'a> {
    /// Comes back in the answer.
    pub request: u32,
    /// What visitors speak.
    pub transport: Transport,
    /// How their bytes travel.
    pub mode: Mode,
    /// The wanted port; 0 is any.
    pub port: u16,
    /// What else is wanted.
    pub options: Options,
    /// The epoch that this client had the service under before it lost its connection; 0 for a fresh
    /// start. A void one is refused as superseded, a fresh start never is.
    pub epoch: u64,
    /// The service's name, as it came; [`super::Name`] judges it, so that a bad one is answered.
    pub name: &'a [u8],
}

/// What a client has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// Of the request.
    pub request: u32,
    /// The service's number, from now on, on this control connection.
    pub service: u16,
    /// How long the port is remembered after the client has left.
    pub lease_seconds: u32,
    /// Newest wins; see [`Expose::epoch`].
    pub epoch: u64,
    /// Where visitors go.
    pub public: SocketAddr,
}

/// A visitor that waits for a data connection; for UDP the first one of a service that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// What the data connection must name.
    pub uuid: Uuid,
    /// The service that the visitor came to.
    pub service: u16,
    /// What admits the data connection.
    pub ticket: Ticket,
    /// The visitor's own address.
    pub visitor: SocketAddr,
}

/// What visitors of a service speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Transport {
    const fn byte(self) -> u8 {
        match self {
            Self::Tcp => 1,
            Self::Udp => 2,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8("transport")? {
            1 => Ok(Self::Tcp),
            2 => Ok(Self::Udp),
            other => Err(bad_value("transport", other)),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// How the bytes of a service's visitors travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A data connection for each visitor; for UDP one for all.
    Direct,
    /// Two connections for all visitors, one for each direction.
    Mux,
}

impl Mode {
    const fn byte(self) -> u8 {
        match self {
            Self::Direct => 1,
            Self::Mux => 2,
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8("mode")? {
            1 => Ok(Self::Direct),
            2 => Ok(Self::Mux),
            other => Err(bad_value("mode", other)),
        }
    }
}

/// A set of wishes, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(pub u32);

impl Options {
    /// Where the wanted port is taken or outside of the range, another one will do.
    pub const ANY_PORT_WILL_DO: u32 = 1;

    /// In mode *mux*: a visitor with much to carry may be moved to a data connection of its own.
    pub const MAY_MOVE: u32 = 2;

    /// Whether another port will do.
    pub const fn any_port_will_do(self) -> bool {
        self.0 & Self::ANY_PORT_WILL_DO != 0
    }

    /// Whether visitors may be moved.
    pub const fn may_move(self) -> bool {
        self.0 & Self::MAY_MOVE != 0
    }

    /// Whether there is a wish that this version does not know, and so cannot fulfil: that is refused
    /// as unsupported, never passed over.
    pub const fn has_unknown(self) -> bool {
        self.0 & !(Self::ANY_PORT_WILL_DO | Self::MAY_MOVE) != 0
    }
}

/// Tickets of the pool.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketList<'a>(&'a [[u8; TICKET]]);

impl<'a> TicketList<'a> {
    /// These tickets, or the first [`MAX_TICKETS`] of them.
    pub fn new(tickets: &'a [[u8; TICKET]]) -> Self {
        Self(tickets.get(..MAX_TICKETS).unwrap_or(tickets))
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = Ticket> + use<'a> {
        self.0.iter().copied().map(Ticket::new)
    }

    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Without the secrets.
impl fmt::Debug for TicketList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketList({})", self.len())
    }
}

impl<'a> Control<'a> {
    /// The frame at the front of `bytes` and how many of them it takes; `Ok(None)` until all of it is
    /// there. An unknown type is told by its byte, and a length that the type cannot have by the
    /// head, so that nobody waits for such a body.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some(&kind) = bytes.first() else {
            return Ok(None);
        };
        let (least, most) = bounds(kind).ok_or_else(|| bad_value("frame type", kind))?;
        let Some((&[_, l0, l1, l2, l3], rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let need = usize::try_from(length).unwrap_or(usize::MAX);
        if need > most {
            return Err(WireError::TooLong {
                field: "frame",
                length: length.into(),
                most: most as u64,
            });
        }
        if need < least {
            return Err(WireError::Truncated {
                field: "frame",
                need: least,
                have: need,
            });
        }
        let Some(body) = rest.get(..need) else {
            return Ok(None);
        };
        let mut reader = Reader::new(body);
        let frame = Self::read(kind, &mut reader)?;
        reader.finish()?;
        Ok(Some((frame, HEAD + need)))
    }

    fn read(kind: u8, reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(match kind {
            kind::EXPOSE => Self::Expose(Expose::read(reader)?),
            kind::EXPOSED => Self::Exposed(Exposed {
                request: reader.u32_le("request")?,
                service: reader.u16_le("service")?,
                lease_seconds: reader.u32_le("lease")?,
                epoch: reader.u64_le("epoch")?,
                public: address::read(reader)?,
            }),
            kind::REFUSED => Self::Refused {
                request: reader.u32_le("request")?,
                code: Refusal::from_byte(reader.u8("code")?),
                text: text(reader)?,
            },
            kind::VISIT => Self::Visit(Visit {
                uuid: uuid(reader)?,
                service: reader.u16_le("service")?,
                ticket: Ticket::new(reader.array("ticket")?),
                visitor: address::read(reader)?,
            }),
            kind::POOL_WANTED => Self::PoolWanted(tickets(reader)?),
            kind::CLOSED => Self::Closed {
                uuid: uuid(reader)?,
                reason: Reason::from_byte(reader.u8("reason")?),
            },
            kind::WITHDRAW => Self::Withdraw {
                service: reader.u16_le("service")?,
            },
            kind::SUPERSEDED => Self::Superseded {
                service: reader.u16_le("service")?,
                epoch: reader.u64_le("epoch")?,
                text: text(reader)?,
            },
            kind::PING => Self::Ping(reader.u64_le("number")?),
            kind::PONG => Self::Pong(reader.u64_le("number")?),
            kind::DRAIN => Self::Drain {
                seconds: reader.u32_le("seconds")?,
            },
            kind::WELCOME => Self::Welcome {
                session: uuid(reader)?,
            },
            other => return Err(bad_value("frame type", other)),
        })
    }

    /// Appends the whole frame. A text is cut to [`MAX_TEXT`] bytes, and a name to 255, which is more
    /// than any name has.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut writer = Writer::new(out);
        writer.u8(self.kind());
        writer.u32_le(0);
        self.write(&mut writer);
        // No body is near the end of a u32.
        let length = (writer.position() - start - HEAD) as u32;
        if let Some(field) = writer.since(start + 1).get_mut(..4) {
            field.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Expose(expose) => expose.write(writer),
            Self::Exposed(exposed) => {
                writer.u32_le(exposed.request);
                writer.u16_le(exposed.service);
                writer.u32_le(exposed.lease_seconds);
                writer.u64_le(exposed.epoch);
                address::write(writer, exposed.public);
            }
            Self::Refused {
                request,
                code,
                text,
            } => {
                writer.u32_le(request);
                writer.u8(code.byte());
                writer.bytes(fitting(text).as_bytes());
            }
            Self::Visit(visit) => {
                writer.bytes(visit.uuid.as_bytes());
                writer.u16_le(visit.service);
                writer.bytes(visit.ticket.as_bytes());
                address::write(writer, visit.visitor);
            }
            Self::PoolWanted(tickets) => {
                writer.u16_le(tickets.len() as u16);
                writer.bytes(tickets.0.as_flattened());
            }
            Self::Closed { uuid, reason } => {
                writer.bytes(uuid.as_bytes());
                writer.u8(reason.byte());
            }
            Self::Withdraw { service } => writer.u16_le(service),
            Self::Superseded {
                service,
                epoch,
                text,
            } => {
                writer.u16_le(service);
                writer.u64_le(epoch);
                writer.bytes(fitting(text).as_bytes());
            }
            Self::Ping(number) | Self::Pong(number) => writer.u64_le(number),
            Self::Drain { seconds } => writer.u32_le(seconds),
            Self::Welcome { session } => writer.bytes(session.as_bytes()),
        }
    }

    /// Whether a client may say it.
    pub const fn is_from_client(&self) -> bool {
        matches!(self, Self::Expose(_)) || self.is_from_both()
    }

    /// Whether a server may say it.
    pub const fn is_from_server(&self) -> bool {
        !matches!(self, Self::Expose(_))
    }

    const fn is_from_both(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. } | Self::Withdraw { .. } | Self::Ping(_) | Self::Pong(_)
        )
    }

    const fn kind(&self) -> u8 {
        match self {
            Self::Expose(_) => kind::EXPOSE,
            Self::Exposed(_) => kind::EXPOSED,
            Self::Refused { .. } => kind::REFUSED,
            Self::Visit(_) => kind::VISIT,
            Self::PoolWanted(_) => kind::POOL_WANTED,
            Self::Closed { .. } => kind::CLOSED,
            Self::Withdraw { .. } => kind::WITHDRAW,
            Self::Superseded { .. } => kind::SUPERSEDED,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::Drain { .. } => kind::DRAIN,
            Self::Welcome { .. } => kind::WELCOME,
        }
    }
}

impl<'a> Expose<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        Ok(Self {
            request: reader.u32_le("request")?,
            transport: Transport::read(reader)?,
            mode: Mode::read(reader)?,
            port: reader.u16_le("port")?,
            options: Options(reader.u32_le("options")?),
            epoch: reader.u64_le("epoch")?,
            name: {
                let count = reader.u8("name")?.into();
                reader.bytes("name", count)?
            },
        })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32_le(self.request);
        writer.u8(self.transport.byte());
        writer.u8(self.mode.byte());
        writer.u16_le(self.port);
        writer.u32_le(self.options.0);
        writer.u64_le(self.epoch);
        let name = self.name.get(..0xff).unwrap_or(self.name);
        writer.u8(name.len() as u8);
        writer.bytes(name);
    }
}

fn uuid(reader: &mut Reader<'_>) -> Result<Uuid, WireError> {
    reader.array("uuid").map(Uuid::from_bytes)
}

fn text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    std::str::from_utf8(reader.rest()).map_err(|error| WireError::BadValue {
        field: "text, not UTF-8 at",
        value: error.valid_up_to() as u64,
    })
}

fn tickets<'a>(reader: &mut Reader<'a>) -> Result<TicketList<'a>, WireError> {
    let count = usize::from(reader.u16_le("count")?);
    let (tickets, rest) = reader.bytes("tickets", count * TICKET)?.as_chunks();
    debug_assert!(rest.is_empty());
    Ok(TicketList(tickets))
}

/// As much of the text as a frame holds, without half a letter.
fn fitting(text: &str) -> &str {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn bad_value(field: &'static str, value: u8) -> WireError {
    WireError::BadValue {
        field,
        value: value.into(),
    }
}

/// The fewest and the most bytes of a type's body; none for a type that there is not.
const fn bounds(kind: u8) -> Option<(usize, usize)> {
    match kind {
        kind::EXPOSE => Some((21, 21 + 0xff)),
        kind::EXPOSED => Some((18 + address::SHORTEST, 18 + address::LONGEST)),
        kind::REFUSED => Some((5, 5 + MAX_TEXT)),
        kind::VISIT => {
            let bare = UUID + 2 + TICKET;
            Some((bare + address::SHORTEST, bare + address::LONGEST))
        }
        kind::POOL_WANTED => Some((2, 2 + MAX_TICKETS * TICKET)),
        kind::CLOSED => Some((UUID + 1, UUID + 1)),
        kind::WITHDRAW => Some((2, 2)),
        kind::SUPERSEDED => Some((10, 10 + MAX_TEXT)),
        kind::PING | kind::PONG => Some((8, 8)),
        kind::DRAIN => Some((4, 4)),
        kind::WELCOME => Some((UUID, UUID)),
        _ => None,
    }
}

/// The types, by their bytes.
mod kind {
    pub(super) const EXPOSE: u8 = 1;
    pub(super) const EXPOSED: u8 = 2;
    pub(super) const REFUSED: u8 = 3;
    pub(super) const VISIT: u8 = 4;
    pub(super) const POOL_WANTED: u8 = 5;
    pub(super) const CLOSED: u8 = 6;
    pub(super) const WITHDRAW: u8 = 7;
    pub(super) const SUPERSEDED: u8 = 8;
    pub(super) const PING: u8 = 9;
    pub(super) const PONG: u8 = 10;
    pub(super) const DRAIN: u8 = 11;
    pub(super) const WELCOME: u8 = 12;
}

/// Bytes of a frame before its body.
pub const HEAD: usize = 5;

/// The longest body that any type may ever have: a whole frame fits into 64 KiB.
pub const MAX_BODY: usize = (64 << 10) - HEAD;

/// The longest text, in bytes.
pub const MAX_TEXT: usize = 512;

/// The most tickets in one frame.
pub const MAX_TICKETS: usize = 256;

/// What a superseded client is told.
pub const SUPERSEDED: &str = "superseded: a newer client with this identity has the service now";

const _: () = assert!(2 + MAX_TICKETS * TICKET <= MAX_BODY);

//! Why a session ended: exactly one reason for each, fit for a log line and a counter.

use std::fmt;
use std::io;

use super::{RelayEnd, Relayed};
use crate::stats::Reason;
use crate::wire::WireError;

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// Whose doing it was.
    pub side: Side,
    /// What happened.
    pub cause: Cause,
    /// The peers were told, and are given the time to read it.
    pub told: bool,
}

/// One of the parties of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who came to us.
    Downstream,
    /// Whom we dialled.
    Upstream,
    /// Towpath itself.
    Own,
}

/// What ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// All was said and done.
    Finished,
    /// Its connection is another session's now, whose line in the log tells the rest.
    HandedOn,
    /// A frame broke the protocol.
    Wire(WireError),
    /// What came is not of the protocol; the words say why.
    Malformed(&'static str),
    /// The stream ended inside a frame.
    Truncated,
    /// Something took longer than it may; the word says what.
    Deadline(&'static str),
    /// A socket failed during the operation named.
    Io(&'static str, io::ErrorKind),
    /// The request is against the configuration; the words say which part.
    Denied(&'static str),
    /// No address of the upstream could be reached; the words say why the last one could not.
    Unreachable(&'static str),
    /// There was no room for it; the words say where.
    Overload(&'static str),
    /// The server is stopping.
    Stopping,
    /// What it came by or went by is no longer in the configuration.
    Removed,
    /// An operator ended it.
    Kicked,
    /// The session's code panicked.
    Panicked,
}

impl Close {
    /// The peer who came to us did it.
    pub fn downstream(cause: Cause) -> Self {
        Self::of(Side::Downstream, cause)
    }

    /// The peer whom we dialled did it.
    pub fn upstream(cause: Cause) -> Self {
        Self::of(Side::Upstream, cause)
    }

    /// We did it.
    pub fn own(cause: Cause) -> Self {
        Self::of(Side::Own, cause)
    }

    fn of(side: Side, cause: Cause) -> Self {
        let told = false;
        Self { side, cause, told }
    }

    /// The same, with peers who were told: what is queued for them leaves before their connections
    /// end by FIN, and what they still send is read and dropped for a while, so that no reset eats
    /// the words.
    #[must_use]
    pub fn told(self) -> Self {
        let told = true;
        Self { told, ..self }
    }

    /// The end of a session whose connection another has.
    pub fn handed_on() -> Self {
        Self::own(Cause::HandedOn)
    }

    /// The ordinary end.
    pub fn finished() -> Self {
        Self::downstream(Cause::Finished)
    }

    /// True when what is still queued for the peers is flushed before their connections close, and
    /// these close by FIN. A client whose backend cannot be reached has done nothing wrong.
    pub fn is_graceful(&self) -> bool {
        self.told || self.is_ordinary() || matches!(self.cause, Cause::Unreachable(_))
    }

    /// True when a peer broke a rule, a cap was hit or a backend failed: an operator may want to
    /// know. A peer that vanishes or falls silent is everyday.
    pub fn is_fault(&self) -> bool {
        let silent = Cause::Deadline("idle");
        let dead = Cause::Deadline("keepalive");
        let vanished = matches!(self.cause, Cause::Io(..)) || [silent, dead].contains(&self.cause);
        !self.is_ordinary() && !vanished
    }

    /// True when there is nothing to tell about it that another session's end does not tell.
    pub fn is_handed_on(&self) -> bool {
        self.cause == Cause::HandedOn
    }

    /// True when nothing failed, so that nobody is to be named for it.
    fn is_ordinary(&self) -> bool {
        let own = [
            Cause::Finished,
            Cause::HandedOn,
            Cause::Stopping,
            Cause::Removed,
            Cause::Kicked,
        ];
        own.contains(&self.cause)
    }
}

impl Cause {
    /// Which of the counters it is counted by.
    pub fn reason(&self) -> Reason {
        match self {
            Cause::Finished => Reason::Finished,
            Cause::HandedOn => Reason::HandedOn,
            Cause::Wire(_) | Cause::Malformed(_) => Reason::ProtocolError,
            Cause::Truncated => Reason::Truncated,
            Cause::Deadline(_) => Reason::Timeout,
            Cause::Io(..) => Reason::IoError,
            Cause::Denied(_) => Reason::Denied,
            Cause::Unreachable(_) => Reason::Unreachable,
            Cause::Overload(_) => Reason::Overload,
            Cause::Stopping => Reason::Stopping,
            Cause::Removed => Reason::Removed,
            Cause::Kicked => Reason::Kicked,
            Cause::Panicked => Reason::Panicked,
        }
    }

    /// One word for counters and for limiting log lines.
    pub fn word(&self) -> &'static str {
        self.reason().word()
    }
}

impl From<WireError> for Close {
    /// Frames come from downstream in every protocol that has frames at this point.
    fn from(error: WireError) -> Self {
        Self::downstream(Cause::Wire(error))
    }
}

impl From<Relayed> for Close {
    /// The end of a session that did nothing but relay from then on, the first of the relay's two
    /// connections being the downstream one.
    fn from(relayed: Relayed) -> Self {
        match relayed.end {
            RelayEnd::Finished => Self::finished(),
            RelayEnd::Idle => Self::own(Cause::Deadline("idle")),
            RelayEnd::Broken(0, why) => Self::downstream(Cause::Io("relay", why)),
            RelayEnd::Broken(_, why) => Self::upstream(Cause::Io("relay", why)),
        }
    }
}

/// `downstream: protocol error: checksum ...`, and just the words for the ordinary end.
impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            _ if self.is_ordinary() => return write!(f, "{}", self.cause),
            Side::Downstream => "downstream",
            Side::Upstream => "upstream",
            Side::Own => "towpath",
        };
        write!(f, "{side}: {}", self.cause)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Finished => f.write_str("finished"),
            Cause::Wire(error) => write!(f, "protocol error: {error}"),
            Cause::Malformed(why) => write!(f, "protocol error: {why}"),
            Cause::Truncated => f.write_str("stream ended inside a frame"),
            Cause::Deadline(what) => write!(f, "{what} timeout"),
            Cause::Io(operation, kind) => write!(f, "{operation}: {kind}"),
            Cause::Denied(why) => write!(f, "denied: {why}"),
            Cause::Unreachable(why) => write!(f, "unreachable: {why}"),
            Cause::Overload(place) => write!(f, "overload: {place}"),
            Cause::Stopping => f.write_str("server stopping"),
            Cause::Removed => f.write_str("removed from the configuration"),
            Cause::HandedOn => f.write_str("handed on"),
            Cause::Kicked => f.write_str("kicked"),
            Cause::Panicked => f.write_str("session panicked"),
        }
    }
}

//! What sessions tell each other, on the same core or another.

use std::any::Any;
use std::fmt;

use crate::net::{Parcel, Place};
use crate::reactor::{Handle, SessionKey};

/// One session's words to another of the same protocol: a value of whatever type the two agree on.
pub struct Mail(Box<dyn Any + Send>);

impl Mail {
    /// Wraps the words.
    pub fn new<T: Any + Send>(words: T) -> Self {
        Self(Box::new(words))
    }

    /// The words again; `None` when they are of another type, so not from the same protocol.
    pub fn open<T: Any>(self) -> Option<T> {
        self.0.downcast().ok().map(|words| *words)
    }
}

/// What it says is the sessions' own business.
impl fmt::Debug for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mail")
    }
}

/// A letter on its way to a session of another core.
#[derive(Debug)]
pub struct Post {
    /// The session on the core whose box it lies in.
    pub to: SessionKey,
    /// Who wrote it; of a letter that comes back, whom it was for.
    pub from: Handle,
    /// What it says.
    pub mail: Mail,
    /// It found nobody and is on its way back.
    pub returned: bool,
    /// The connection that goes with it.
    pub freight: Option<Box<Freight>>,
}

/// A connection on its way to another core.
pub struct Freight {
    /// The socket.
    pub parcel: Parcel,
    /// What its peer has sent and nobody has taken.
    pub unread: Vec<u8>,
    /// What is still to be sent to it.
    pub unsent: Vec<u8>,
    /// The peer's stream has ended behind `unread`.
    pub ended: bool,
    /// The own stream is to end behind `unsent`.
    pub shut_wanted: bool,
    /// Its place among the server's connections.
    pub place: Option<Place>,
}

impl fmt::Debug for Freight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Freight({} unread)", self.unread.len())
    }
}

//! What sessions tell each other, on the same core or another.

use std::any::Any;
use std::fmt;

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
}

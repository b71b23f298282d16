//! Who has the store: this process, or for a moment or for good a newer one of this server.
//!
//! ```text
//!            Close: files closed                  Leave
//!   ours ───────────────────────────> away ──────────────────> gone: updates and leases are refused
//!     ^   updates and leases go on      │   updates and leases wait,
//!     │                                 │   lookups and queries go on
//!     └────────── Open: files opened ───┘
//!              what has waited is done
//! ```
//!
//! A newer process begins in `away`, with the files open: it does not change what the older one may have
//! to take back. What is to be done about the store is done at the end of a round, when all that was
//! asked before is on the disk and answered.
//!
//! **Bounds.** [`HELD`] requests wait, with [`HELD_BYTES`] of updates; whoever comes then is told "busy".

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::leases::NoPort;
use super::{
    Answer, Asker, Command, Control, Instant, ROUND, ROUND_BYTES, Reply, Request, bytes_of,
};
use crate::reactor::Handle;
use crate::store::Refusal;

/// What is to become of the store's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// They are closed, so that a newer process can open them; what would change them waits.
    Close,
    /// They are opened again, and what has waited is done.
    Open,
    /// The newer process keeps them; what has waited is refused, and all that comes.
    Leave,
}

/// The state of it.
#[derive(Default)]
pub(super) struct Custody {
    stage: Stage,
    /// What waits, in the order in which it came.
    held: VecDeque<Request>,
    /// Bytes of the updates among it.
    bytes: usize,
    /// Whose leases wait. A session that has ended is not among them, and gets none.
    leasing: HashSet<Handle>,
    /// What is to be done at the end of this round, and who is told. One at a time is asked for.
    wish: Option<(Files, Answering)>,
}

/// Takes the answer to an errand.
type Answering = Box<dyn FnOnce(Answer) + Send>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Ours,
    Away,
    Gone,
}

impl Custody {
    /// That of a newer process, which changes nothing before it is told to.
    pub(super) fn away() -> Self {
        Self {
            stage: Stage::Away,
            ..Self::default()
        }
    }

    /// True when the store may be changed.
    pub(super) fn is_ours(&self) -> bool {
        self.stage == Stage::Ours
    }

    /// True when something that has waited can be done.
    pub(super) fn is_behind(&self) -> bool {
        self.is_ours() && !self.held.is_empty()
    }

    /// Notes what is to be done at the end of the round.
    pub(super) fn note(&mut self, files: Files, answer: Answering) {
        self.wish = Some((files, answer));
    }

    /// Keeps a request for later; gives it back where there is no room.
    fn hold(&mut self, request: Request) -> Result<(), Request> {
        let bytes = bytes_of(&request);
        if self.held.len() >= HELD || self.bytes + bytes > HELD_BYTES {
            return Err(request);
        }
        if !matches!(request.command, Command::Update(_)) {
            self.leasing.insert(request.from);
        }
        self.bytes += bytes;
        self.held.push_back(request);
        Ok(())
    }

    /// The oldest that waits and is still wanted.
    fn release(&mut self) -> Option<Request> {
        while let Some(request) = self.held.pop_front() {
            self.bytes -= bytes_of(&request);
            let is_update = matches!(request.command, Command::Update(_));
            if is_update || self.leasing.contains(&request.from) {
                return Some(request);
            }
        }
        self.leasing.clear();
        None
    }
}

impl Control {
    /// The same for a newer process of a server: until [`Files::Open`] it changes nothing.
    pub fn waiting(mut self) -> Self {
        self.custody = Custody::away();
        self
    }

    /// Takes out of a round what has to wait or cannot be done, and puts before it what has waited.
    pub(super) fn screen(&mut self, batch: &mut Vec<Request>, now: Instant) {
        if self.custody.is_ours() && self.custody.held.is_empty() {
            return;
        }
        let mut stay = Vec::new();
        for request in batch.drain(..) {
            if matches!(request.command, Command::Ended) {
                self.custody.leasing.remove(&request.from);
            }
            if !changes_the_store(&request.command) {
                stay.push(request);
            } else if self.custody.stage == Stage::Gone {
                self.turn_away(&request, now);
            } else if let Err(request) = self.custody.hold(request) {
                let Request { from, ticket, .. } = request;
                self.post(Asker { from, ticket }, Reply::Busy, now);
            }
        }
        let mut bytes = 0;
        while self.custody.is_ours()
            && batch.len() < ROUND
            && bytes < ROUND_BYTES
            && let Some(request) = self.custody.release()
        {
            bytes += bytes_of(&request);
            batch.push(request);
        }
        batch.append(&mut stay);
    }

    /// Does what was asked about the files in this round.
    pub(super) fn change_hands(&mut self, now: Instant, unix: i64) {
        let Some((files, answer)) = self.custody.wish.take() else {
            return;
        };
        let outcome = match (files, self.custody.stage) {
            (Files::Close, Stage::Ours) => {
                let lent = self.store.lend();
                if lent.is_ok() {
                    self.custody.stage = Stage::Away;
                }
                lent
            }
            (Files::Open, Stage::Away) => {
                self.custody.stage = Stage::Ours;
                // Where that fails, the updates are refused as after any failure of the disk.
                self.store.take_back(unix)
            }
            (Files::Leave, Stage::Away) => {
                self.custody.stage = Stage::Gone;
                while let Some(request) = self.custody.release() {
                    self.turn_away(&request, now);
                }
                Ok(())
            }
            (Files::Open, Stage::Ours) | (Files::Leave, Stage::Gone) => Ok(()),
            (Files::Close | Files::Leave | Files::Open, _) => {
                Err("this process does not have the store, or only this one has".to_owned())
            }
        };
        answer(Answer::Files(outcome));
    }

    /// Refuses what only the newer process can do.
    fn turn_away(&mut self, request: &Request, now: Instant) {
        let Request { from, ticket, .. } = *request;
        let reply = match request.command {
            Command::Update(_) => Reply::Stored(Err(Refusal::HandedOver)),
            _ => {
                let why = Refusal::HandedOver.to_string();
                Reply::NoPort(NoPort::NotStored(Arc::from(why)))
            }
        };
        self.post(Asker { from, ticket }, reply, now);
    }
}

fn changes_the_store(command: &Command) -> bool {
    matches!(
        command,
        Command::Update(_) | Command::Lease { .. } | Command::ForeignPort { .. }
    )
}

/// Requests that may wait: for the moment that a newer process takes to open the store, far more than
/// come in.
pub const HELD: usize = 16 * ROUND;

/// Bytes of updates that may wait.
pub const HELD_BYTES: usize = 4 * ROUND_BYTES;

//! What the admin address tells of the configuration in force. Whoever puts another in force sets it
//! anew; the admin thread reads it for each answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::guard::Guard;
use crate::config::Secret;
use crate::session::{Listen, RouteRow};

/// The configuration in force, as far as it is told.
pub struct Panel {
    shown: RwLock<Shown>,
    /// How often it was read again, well and not.
    reloads: [AtomicU64; 2],
    /// When it was read, in milliseconds since the Unix epoch.
    configured: AtomicU64,
}

/// What is told of it.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Where the server listens.
    pub listeners: Vec<Listen>,
    /// Where its roles lead.
    pub routes: Vec<RouteRow>,
    /// What a client of the admin address must show.
    pub token: Option<Secret>,
}

impl Panel {
    /// With the configuration of the start, read at this time since the Unix epoch.
    pub fn new(shown: Shown, read: Duration) -> Self {
        Self {
            shown: RwLock::new(shown),
            reloads: Default::default(),
            configured: AtomicU64::new(millis(read)),
        }
    }

    /// What is in force.
    pub fn shown(&self) -> Shown {
        self.shown.read().clone()
    }

    /// Puts another in its place.
    pub fn show(&self, shown: Shown) {
        *self.shown.write() = shown;
    }

    /// A reading has ended, at this time since the Unix epoch; well or not.
    pub fn note_reload(&self, is_good: bool, now: Duration) {
        self.reloads[usize::from(!is_good)].fetch_add(1, Ordering::Relaxed);
        if is_good {
            self.configured.store(millis(now), Ordering::Relaxed);
        }
    }

    /// How many readings since the start went well, and how many did not.
    pub fn reloads(&self) -> [u64; 2] {
        [0, 1].map(|at: usize| self.reloads[at].load(Ordering::Relaxed))
    }

    /// When what is in force was read, since the Unix epoch.
    pub fn configured(&self) -> Duration {
        Duration::from_millis(self.configured.load(Ordering::Relaxed))
    }

    pub(super) fn guard(&self) -> Guard {
        Guard::new(self.shown.read().token.as_ref())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

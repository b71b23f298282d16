//! What a worker writes to the log, and how it keeps that bounded.
//!
//! An ordinary end of a session is one `info` line. A fault is a `warn` line, of each kind at most
//! [`LINES`] a second; how many were left out is said when the second is over.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::Slot;
use crate::reactor::Handle;
use crate::session::Close;
use crate::stats::{Counters, Metric};

/// One worker's log.
#[derive(Default)]
pub struct Journal {
    /// One entry for each kind of line; the kinds are words in the code, so they are few.
    kinds: Vec<Kind>,
    /// True while some kind has lines left out that were not reported yet.
    owing: bool,
}

struct Kind {
    word: &'static str,
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Journal {
    /// One line about a fault, unless there were too many of its kind in this second.
    pub fn warn(&mut self, now: Instant, kind: &'static str, text: impl FnOnce() -> String) {
        if self.may_write(now, kind) {
            log::warn!("{}", text());
        }
    }

    /// The line about a session that has ended.
    pub fn ended(
        &mut self,
        now: Instant,
        listener: &str,
        handle: Handle,
        slot: &Slot,
        close: &Close,
    ) {
        let fault = close.is_fault();
        let level = match fault {
            true => log::Level::Warn,
            false if close.is_handed_on() => log::Level::Debug,
            false => log::Level::Info,
        };
        if !log::log_enabled!(level) || (fault && !self.may_write(now, close.cause.word())) {
            return;
        }
        let mut line = format!("{listener} {handle}");
        if let Some(peer) = slot.peer {
            // Writing to a string cannot fail.
            let _ = write!(line, " from={peer}");
        }
        if let Some(session) = &slot.session {
            session.describe(&mut line);
        }
        let [up, down] = slot.moved;
        let seconds = now.saturating_duration_since(slot.opened).as_secs_f64();
        // Writing to a string cannot fail.
        if slot.moved != [0; 2] {
            let _ = write!(line, " up={up} down={down}");
        }
        let _ = write!(line, " seconds={seconds:.3} {close}");
        log::log!(level, "{line}");
    }

    /// Says what was left out in seconds that are over.
    pub fn settle(&mut self, now: Instant, counters: &Counters) {
        if !self.owing {
            return;
        }
        self.owing = false;
        for kind in &mut self.kinds {
            if kind.left_out == 0 {
                continue;
            }
            if now.saturating_duration_since(kind.since) < SECOND {
                self.owing = true;
                continue;
            }
            let (word, left_out) = (kind.word, std::mem::take(&mut kind.left_out));
            counters.add(Metric::Unlogged, left_out);
            log::warn!("{left_out} more lines like this were left out: {word}");
        }
    }

    fn may_write(&mut self, now: Instant, word: &'static str) -> bool {
        let at = match self.kinds.iter().position(|kind| kind.word == word) {
            Some(at) => at,
            None => {
                self.kinds.push(Kind {
                    word,
                    since: now,
                    lines: 0,
                    left_out: 0,
                });
                self.kinds.len() - 1
            }
        };
        let kind = &mut self.kinds[at];
        if now.saturating_duration_since(kind.since) >= SECOND && kind.left_out == 0 {
            kind.since = now;
            kind.lines = 0;
        }
        kind.lines += 1;
        if kind.lines <= LINES {
            return true;
        }
        kind.left_out += 1;
        self.owing = true;
        false
    }
}

/// Lines of one kind in one second.
const LINES: u32 = 4;

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_cut_and_the_rest_is_counted() {
        let mut journal = Journal::default();
        let counters = Counters::default();
        let start = Instant::now();
        let mut written = 0;
        for _ in 0..100 {
            written += u32::from(journal.may_write(start, "flood"));
        }
        assert_eq!(written, LINES);
        assert!(journal.may_write(start, "other"));
        journal.settle(start, &counters);
        assert_eq!(counters.get(Metric::Unlogged), 0, "the second is not over");
        journal.settle(start + SECOND, &counters);
        assert_eq!(counters.get(Metric::Unlogged), 100 - u64::from(LINES));
        assert!(journal.may_write(start + SECOND, "flood"));
    }
}

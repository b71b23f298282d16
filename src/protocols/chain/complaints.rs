//! What a core's part of the role has to say of single datagrams, of which there may be very many.
//!
//! As of sessions that fail, of each kind at most [`LINES`] lines are written a second; how many were
//! left out is said when that second is over, with the next line or by whoever sweeps.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::session::Cx;
use crate::stats::Metric;

/// The lines of one core, by their kinds.
#[derive(Default)]
pub(super) struct Complaints {
    /// The kinds are words in the code, so they are few.
    kinds: RefCell<Vec<Kind>>,
}

struct Kind {
    word: &'static str,
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Complaints {
    /// One line, unless there were too many of its kind in this second.
    pub(super) fn say(
        &self,
        word: &'static str,
        cx: &mut Cx<'_>,
        text: impl FnOnce(&Cx<'_>) -> String,
    ) {
        let (is_let_out, owed) = self.admit(word, cx.now);
        report(word, owed, cx);
        if is_let_out {
            log::warn!("{}", text(cx));
        }
    }

    /// Says what was left out in seconds that are over; true when there is nothing more to say.
    pub(super) fn settle(&self, cx: &mut Cx<'_>) -> bool {
        let mut is_done = true;
        for kind in self.kinds.borrow_mut().iter_mut() {
            if kind.is_over(cx.now) {
                report(kind.word, kind.renew(cx.now), cx);
            }
            is_done &= kind.left_out == 0;
        }
        is_done
    }

    /// Whether a line of that kind may be written now, and how many were left out in a second that is
    /// over.
    fn admit(&self, word: &'static str, now: Instant) -> (bool, u64) {
        let mut kinds = self.kinds.borrow_mut();
        let at = kinds.iter().position(|kind| kind.word == word);
        let at = at.unwrap_or_else(|| {
            kinds.push(Kind {
                word,
                since: now,
                lines: 0,
                left_out: 0,
            });
            kinds.len() - 1
        });
        let kind = &mut kinds[at];
        let owed = match kind.is_over(now) {
            true => kind.renew(now),
            false => 0,
        };
        let is_let_out = kind.lines < LINES;
        match is_let_out {
            true => kind.lines += 1,
            false => kind.left_out += 1,
        }
        (is_let_out, owed)
    }
}

impl Kind {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= SECOND
    }

    /// Another second begins; how many lines were left out in the last one.
    fn renew(&mut self, now: Instant) -> u64 {
        (self.since, self.lines) = (now, 0);
        std::mem::take(&mut self.left_out)
    }
}

fn report(word: &str, left_out: u64, cx: &mut Cx<'_>) {
    if left_out > 0 {
        cx.count(Metric::Unlogged, left_out);
        log::warn!("{left_out} more lines like this were left out: {word}");
    }
}

/// Lines of one kind in one second.
const LINES: u32 = 4;

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_kind_is_cut_and_the_rest_is_told_when_its_second_is_over() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let admitted = (0..100).map(|_| complaints.admit("flood", start));
        let admitted: Vec<_> = admitted.collect();
        assert!(admitted.iter().all(|(_, owed)| *owed == 0));
        let written = admitted.iter().filter(|(is_let_out, _)| *is_let_out);
        assert_eq!(written.count(), LINES as usize);
        assert_eq!(complaints.admit("other", start), (true, 0));
        let rest = 100 - u64::from(LINES);
        assert_eq!(complaints.admit("flood", start + SECOND), (true, rest));
        assert_eq!(complaints.admit("flood", start + SECOND), (true, 0));
    }
}

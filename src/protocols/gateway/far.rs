//! What endpoints on different cores tell each other, and the credit that bounds it.
//!
//! ```text
//!   dialler's session                          dialled one's session
//!     Dial ──────────────────────────────────────> Connect to its peer
//!     Accept to its peer <─────────────── Joined   (or Refused)
//!     Frames ────────────────────────────────────> checked again, behind its queue
//!     goes on when it was held <─────────── Taken
//!     Closed ───────────────── either way ───────> Close to its peer
//! ```
//!
//! Letters between two sessions keep their order, so data follows the Joined that it belongs to, and
//! a Closed follows the data. Both cores keep a record of the connection; a serial number tells a
//! connection from an earlier one of the same id.

use std::collections::{HashMap, VecDeque};

use super::wire::Dialect;
use crate::reactor::Handle;

/// One session's words to another of the gateway.
pub(super) enum Word {
    /// Asks to be joined.
    Dial(Dial),
    /// It is joined.
    Joined { id: u32, serial: u64 },
    /// It could not be.
    Refused { id: u32, serial: u64 },
    /// The connection has ended.
    Closed { id: u32, serial: u64 },
    /// Whole frames.
    Frames(Vec<u8>),
    /// So many bytes of frames are on their way to the peer.
    Taken(usize),
}

/// A dial on its way to another core.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial {
    /// The connection's id.
    pub(super) id: u32,
    pub(super) serial: u64,
    /// The dialler's own id.
    pub(super) dialler: u32,
    /// What the dialler speaks.
    pub(super) dialect: Dialect,
}

/// A dial that waits for its answer: there is one at a time for each endpoint, so that answers come
/// in the order of the dials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Whom it is for.
    pub(super) to: Handle,
    pub(super) id: u32,
    pub(super) serial: u64,
    /// The connection and the remote id as the dialler named them.
    pub(super) named: (u32, u32),
}

/// What one endpoint has to do with others on other cores.
#[derive(Default)]
pub(super) struct Far {
    /// Bound: one for each endpoint that it has a connection with.
    lanes: HashMap<Handle, Lane>,
    /// Dials that wait for room in its queue. Bound: one for each endpoint of other cores.
    pub(super) waiting: VecDeque<(Handle, Dial)>,
    /// Its own dial under way.
    pub(super) call: Option<Call>,
    /// Lanes to be told what was taken as soon as the queue is short.
    owed: Vec<Handle>,
}

/// Frames between two endpoints of different cores.
#[derive(Default)]
struct Lane {
    joints: usize,
    /// Bytes sent and not reported taken.
    under_way: usize,
    /// Bytes received and not reported taken.
    taken: usize,
    owed: bool,
}

impl Far {
    /// One connection more with an endpoint.
    pub(super) fn join(&mut self, with: Handle) {
        self.lanes.entry(with).or_default().joints += 1;
    }

    /// One connection less.
    pub(super) fn part(&mut self, with: Handle) {
        if let Some(lane) = self.lanes.get_mut(&with) {
            lane.joints -= 1;
            if lane.joints == 0 {
                self.lanes.remove(&with);
            }
        }
    }

    /// Whether frames may be sent on a lane: until a window of bytes is under way.
    pub(super) fn has_credit(&self, to: Handle) -> bool {
        self.lanes
            .get(&to)
            .is_some_and(|lane| lane.under_way < WINDOW)
    }

    /// Compares its lanes with the connections there are; for tests.
    pub(super) fn check(&self, joints: &HashMap<Handle, usize>) {
        let lanes = self.lanes.iter().map(|(&with, lane)| (with, lane.joints));
        assert_eq!(&lanes.collect::<HashMap<_, _>>(), joints, "lanes");
    }

    /// Notes that frames were sent.
    pub(super) fn sent(&mut self, to: Handle, bytes: usize) {
        if let Some(lane) = self.lanes.get_mut(&to) {
            lane.under_way += bytes;
        }
    }

    /// Notes that the other end has taken frames; true when sending may go on that could not.
    pub(super) fn credited(&mut self, from: Handle, bytes: usize) -> bool {
        let Some(lane) = self.lanes.get_mut(&from) else {
            return false;
        };
        let held = lane.under_way >= WINDOW;
        lane.under_way = lane.under_way.saturating_sub(bytes);
        held && lane.under_way < WINDOW
    }

    /// Notes that frames came; with room in the queue, how many bytes are to be reported taken.
    /// Without, that is left until [`Far::settle`].
    pub(super) fn received(&mut self, from: Handle, bytes: usize, room: bool) -> Option<usize> {
        let lane = self.lanes.get_mut(&from)?;
        lane.taken += bytes;
        if lane.taken < REPORT {
            return None;
        }
        if room {
            return Some(std::mem::take(&mut lane.taken));
        }
        if !lane.owed {
            lane.owed = true;
            self.owed.push(from);
        }
        None
    }

    /// The queue is short again: whom to report how much.
    pub(super) fn settle(&mut self) -> Vec<(Handle, usize)> {
        let mut reports = Vec::new();
        for from in std::mem::take(&mut self.owed) {
            if let Some(lane) = self.lanes.get_mut(&from) {
                lane.owed = false;
                reports.push((from, std::mem::take(&mut lane.taken)));
            }
        }
        reports
    }
}

/// Bytes that may be under way from one endpoint to another; a frame that began below it goes whole.
const WINDOW: usize = 64 * 1024;

/// Taken bytes are reported in portions, so that the window is open again before it is used up.
const REPORT: usize = WINDOW / 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reactor::SessionKey;

    fn handle(index: u32) -> Handle {
        let session = SessionKey::from_parts(index, 1).unwrap();
        Handle { core: 1, session }
    }

    #[test]
    fn a_window_closes_and_opens_again() {
        let (mut sender, mut receiver) = (Far::default(), Far::default());
        let (a, b) = (handle(1), handle(2));
        assert!(!sender.has_credit(b), "nobody is joined");
        sender.join(b);
        receiver.join(a);
        for round in 0..10 {
            let mut sent = 0;
            while sender.has_credit(b) {
                sender.sent(b, 10_000);
                sent += 10_000;
            }
            assert!(sent > 0, "round {round} is held for ever");
            let reports: Vec<usize> = (0..sent / 10_000)
                .filter_map(|_| receiver.received(a, 10_000, true))
                .collect();
            let opened: Vec<bool> = reports.iter().map(|&n| sender.credited(b, n)).collect();
            assert!(opened.contains(&true), "round {round}");
        }
    }

    #[test]
    fn without_room_nothing_is_reported_until_it_is_settled() {
        let mut receiver = Far::default();
        let a = handle(1);
        receiver.join(a);
        for _ in 0..3 {
            assert_eq!(receiver.received(a, WINDOW, false), None);
        }
        assert_eq!(receiver.settle(), [(a, 3 * WINDOW)]);
        assert_eq!(receiver.settle(), []);
        receiver.part(a);
        assert!(receiver.lanes.is_empty());
        assert_eq!(receiver.received(a, WINDOW, true), None, "from nobody");
    }
}

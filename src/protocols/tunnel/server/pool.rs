//! Data connections that a client has opened before there is a visitor for them.
//!
//! How many are wanted follows the visitors: one that finds none there doubles the number, and a while
//! in which less than half of them were used halves it, down to none. A connection that has waited for
//! long may be dead without anybody's knowing, so it is closed and another one asked for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::net::ConnKey;

/// The pool of one client.
pub(super) struct Pool {
    /// The oldest first.
    idle: VecDeque<(ConnKey, Instant)>,
    /// Asked for and not there yet, by when they were asked for.
    asked: VecDeque<(Instant, usize)>,
    wanted: usize,
    /// Taken since the last look.
    used: usize,
}

impl Pool {
    pub(super) fn new() -> Self {
        Self {
            idle: VecDeque::new(),
            asked: VecDeque::new(),
            wanted: 0,
            used: 0,
        }
    }

    /// A visitor comes: a connection for it, if there is one. There are to be `most` at most.
    pub(super) fn take(&mut self, most: usize) -> Option<ConnKey> {
        self.used += 1;
        let taken = self.idle.pop_back();
        if taken.is_none() {
            self.wanted = (self.wanted * 2).max(1);
        }
        self.wanted = self.wanted.min(most);
        taken.map(|(conn, _)| conn)
    }

    /// A connection has come; false when it is not needed any more.
    pub(super) fn put(&mut self, conn: ConnKey, now: Instant) -> bool {
        if let Some((_, count)) = self.asked.front_mut() {
            *count -= 1;
            if *count == 0 {
                self.asked.pop_front();
            }
        }
        let room = self.idle.len() < self.wanted;
        if room {
            self.idle.push_back((conn, now));
        }
        room
    }

    /// A connection has ended; true when it was one of the pool.
    pub(super) fn forget(&mut self, conn: ConnKey) -> bool {
        let at = self.idle.iter().position(|(idle, _)| *idle == conn);
        at.and_then(|at| self.idle.remove(at)).is_some()
    }

    /// How many are to be asked for; they count as asked for.
    pub(super) fn missing(&mut self, now: Instant, most_at_once: usize) -> usize {
        let asked: usize = self.asked.iter().map(|(_, count)| count).sum();
        let missing = self.wanted.saturating_sub(self.idle.len() + asked);
        let missing = missing.min(most_at_once);
        if missing > 0 {
            self.asked.push_back((now, missing));
        }
        missing
    }

    /// Looks at the use since the last time: which connections are to be closed.
    pub(super) fn look(&mut self, now: Instant, life: Duration) -> Vec<ConnKey> {
        // A ticket that was not used in time never will be.
        self.asked
            .retain(|(at, _)| now.saturating_duration_since(*at) < life);
        if self.used * 2 < self.wanted {
            self.wanted /= 2;
        }
        self.used = 0;
        let mut surplus = Vec::new();
        while let Some((conn, since)) = self.idle.front()
            && (self.idle.len() > self.wanted || now.saturating_duration_since(*since) >= STALE)
        {
            surplus.push(*conn);
            self.idle.pop_front();
        }
        surplus
    }
}

/// How long a connection may wait for a visitor.
const STALE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(number: u32) -> ConnKey {
        ConnKey::from_parts(number, 1).unwrap()
    }

    #[test]
    fn it_grows_with_visitors_and_shrinks_without() {
        let (mut pool, now) = (Pool::new(), Instant::now());
        assert_eq!(pool.missing(now, 100), 0);
        for wanted in [1, 2, 4, 5, 5] {
            assert_eq!(pool.take(5), None);
            assert_eq!(pool.wanted, wanted);
        }
        assert_eq!((pool.missing(now, 3), pool.missing(now, 3)), (3, 2));
        assert_eq!(pool.missing(now, 3), 0);
        for number in 0..5 {
            assert!(pool.put(conn(number), now));
        }
        assert!(!pool.put(conn(9), now));
        assert_eq!(
            pool.take(5),
            Some(conn(4)),
            "the newest is the likeliest to live"
        );
        assert!(pool.forget(conn(0)) && !pool.forget(conn(0)));
        let life = Duration::from_secs(10);
        assert_eq!(pool.look(now, life), []);
        assert_eq!(pool.look(now, life), [conn(1)]);
        assert_eq!(pool.look(now, life), [conn(2)]);
        assert_eq!(pool.look(now, life), [conn(3)]);
        assert_eq!(pool.missing(now, 3), 0);
    }

    #[test]
    fn what_was_asked_for_and_never_came_is_asked_for_again() {
        let (mut pool, now) = (Pool::new(), Instant::now());
        pool.take(5);
        assert_eq!((pool.missing(now, 9), pool.missing(now, 9)), (1, 0));
        let life = Duration::from_secs(10);
        pool.take(5);
        assert_eq!(pool.missing(now, 9), 1);
        pool.used = 2;
        pool.look(now + life, life);
        assert_eq!(pool.missing(now + life, 9), 2);
        let stale = now + life;
        assert!(pool.put(conn(1), stale));
        pool.used = 2;
        assert_eq!(pool.look(stale + STALE, life), [conn(1)]);
    }
}

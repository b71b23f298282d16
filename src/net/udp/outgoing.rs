//! What waits to leave by the datagram sockets of one core: one store of bytes for all of them, and a
//! line through it for each.
//!
//! Datagrams of one length that are queued for one address one after the other become a train, as
//! their bytes lie one behind the other already. Bounds: [`MOST_BYTES`] in [`MOST_ENTRIES`] datagrams
//! and trains; what finds no room is dropped.

use std::net::SocketAddr;

use super::{PLACE, Train};
use crate::sys::Departure;

/// What waits to leave by the sockets of one core until the end of the turn, or until it has become
/// long.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One datagram or train that waits.
struct Entry {
    to: Option<SocketAddr>,
    start: usize,
    len: usize,
    /// As in [`Train`].
    segment: usize,
    /// What leaves by the same socket behind it.
    next: Option<u32>,
}

/// One socket's part of an [`Outgoing`]: its first and its last entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line(Option<(u32, u32)>);

impl Line {
    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl Outgoing {
    /// Queues a datagram, made of parts that are put together; false when there is no room.
    pub fn push(&mut self, line: &mut Line, to: Option<SocketAddr>, parts: &[&[u8]]) -> bool {
        let len = parts.iter().map(|part| part.len()).sum();
        let joins = self.joins(*line, to, len);
        if !self.has_room(len) || (!joins && self.entries.len() >= MOST_ENTRIES) {
            return false;
        }
        let start = self.bytes.len();
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        match self.entries.last_mut().filter(|_| joins) {
            Some(last) => {
                if last.segment == 0 {
                    last.segment = last.len;
                }
                last.len += len;
            }
            None => self.append(line, to, start, len, 0),
        }
        true
    }

    /// Queues a train; how many of its datagrams found no room.
    pub fn push_train(
        &mut self,
        line: &mut Line,
        to: Option<SocketAddr>,
        train: &Train<'_>,
    ) -> usize {
        let (payload, segment) = (train.payload, train.segment);
        if segment == 0 || payload.len() <= segment {
            return usize::from(!self.push(line, to, &[payload]));
        }
        let mut dropped = 0;
        for part in payload.chunks(longest_train(segment)) {
            if !self.has_room(part.len()) || self.entries.len() >= MOST_ENTRIES {
                dropped += super::count(part.len(), segment);
                continue;
            }
            let start = self.bytes.len();
            self.bytes.extend_from_slice(part);
            let segment = if part.len() > segment { segment } else { 0 };
            self.append(line, to, start, part.len(), segment);
        }
        dropped
    }

    /// What leaves by one socket, in order.
    pub fn leaving(&self, line: Line, longest_segment: usize) -> Leaving<'_> {
        Leaving {
            outgoing: self,
            entry: line.0.map(|(first, _)| first),
            offset: 0,
            longest_segment,
        }
    }

    /// True when so much waits that it should not wait for the end of the turn.
    pub fn is_long(&self) -> bool {
        self.bytes.len() >= LONG_BYTES || self.entries.len() >= LONG_ENTRIES
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets everything; all lines are to be forgotten, too.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }

    /// True when it takes up memory.
    pub fn has_memory(&self) -> bool {
        self.bytes.capacity() + self.entries.capacity() > 0
    }

    /// Gives its memory back.
    pub fn release(&mut self) {
        *self = Self::default();
    }

    fn has_room(&self, len: usize) -> bool {
        len <= PLACE && self.bytes.len() + len <= MOST_BYTES
    }

    /// True when a datagram of that length prolongs the line's last entry: its bytes come to lie
    /// right behind, and only the last datagram of a train may be a shorter one.
    fn joins(&self, line: Line, to: Option<SocketAddr>, len: usize) -> bool {
        let newest = self.entries.len().checked_sub(1);
        let (Some((_, last)), Some(newest)) = (line.0, newest) else {
            return false;
        };
        let entry = &self.entries[newest];
        let each = match entry.segment {
            0 => entry.len,
            segment => segment,
        };
        last as usize == newest
            && entry.to == to
            && (1..=each).contains(&len)
            && entry.len.is_multiple_of(each)
            && entry.len + len <= longest_train(each)
    }

    fn append(
        &mut self,
        line: &mut Line,
        to: Option<SocketAddr>,
        start: usize,
        len: usize,
        segment: usize,
    ) {
        let number = self.entries.len() as u32;
        self.entries.push(Entry {
            to,
            start,
            len,
            segment,
            next: None,
        });
        let first = match line.0 {
            Some((first, last)) => {
                self.entries[last as usize].next = Some(number);
                first
            }
            None => number,
        };
        line.0 = Some((first, number));
    }
}

/// What leaves by one socket, from some point on.
#[derive(Clone)]
pub struct Leaving<'a> {
    outgoing: &'a Outgoing,
    entry: Option<u32>,
    /// How much of the entry has left, datagram by datagram.
    offset: usize,
    /// See [`longest_segment`](super::Socket::longest_segment).
    pub longest_segment: usize,
}

impl<'a> Iterator for Leaving<'a> {
    type Item = Departure<'a>;

    fn next(&mut self) -> Option<Departure<'a>> {
        let outgoing = self.outgoing;
        let entry = outgoing.entries.get(self.entry? as usize)?;
        let bytes = outgoing.bytes.get(entry.start..entry.start + entry.len)?;
        let whole = entry.segment <= self.longest_segment && self.offset == 0;
        let (payload, segment) = match whole || entry.segment == 0 {
            true => (bytes, entry.segment),
            false => {
                let rest = &bytes[self.offset..];
                (&rest[..rest.len().min(entry.segment)], 0)
            }
        };
        self.offset += payload.len();
        if self.offset >= entry.len {
            self.entry = entry.next;
            self.offset = 0;
        }
        Some(Departure {
            to: entry.to,
            payload,
            segment,
        })
    }
}

/// How many datagrams a departure has.
pub(super) fn count(departure: &Departure<'_>) -> usize {
    super::count(departure.payload.len(), departure.segment)
}

/// The most bytes of a train of datagrams of that length: the system takes so many datagrams, and
/// so many bytes as one datagram may have.
fn longest_train(segment: usize) -> usize {
    (LONGEST / segment).clamp(1, TRAIN) * segment
}

/// The longest datagram of IPv4.
const LONGEST: usize = 65_507;

/// Datagrams of one train that every kernel takes.
const TRAIN: usize = 64;

/// What may wait to leave by all sockets of a core together, beyond which datagrams are dropped:
/// more than one call of a session may well say, as a long store is emptied between calls.
pub const MOST_BYTES: usize = 4 << 20;

/// See [`MOST_BYTES`].
pub const MOST_ENTRIES: usize = 8192;

const LONG_BYTES: usize = 256 * 1024;
const LONG_ENTRIES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const NO: Option<SocketAddr> = None;

    fn train(payload: &[u8], segment: usize) -> Train<'_> {
        Train {
            from: "10.0.0.1:1".parse().unwrap(),
            payload,
            segment,
        }
    }

    fn leave(outgoing: &Outgoing, line: Line, longest: usize) -> Vec<(usize, usize)> {
        let leaving = outgoing.leaving(line, longest);
        leaving
            .map(|one| (one.payload.len(), one.segment))
            .collect()
    }

    #[test]
    fn datagrams_of_one_length_to_one_address_are_joined() {
        let (mut outgoing, mut line) = (Outgoing::default(), Line::default());
        let elsewhere = Some("10.0.0.1:1".parse().unwrap());
        for len in [3, 3, 2, 2, 0, 0, 4] {
            assert!(outgoing.push(
                &mut line,
                NO,
                &[&[7; 1][..len.min(1)], &vec![7; len.max(1) - 1]]
            ));
        }
        assert!(outgoing.push(&mut line, elsewhere, &[&[7; 4]]));
        let want = [(8, 3), (2, 0), (0, 0), (0, 0), (4, 0), (4, 0)];
        assert_eq!(leave(&outgoing, line, usize::MAX), want);
        let want = [
            (3, 0),
            (3, 0),
            (2, 0),
            (2, 0),
            (0, 0),
            (0, 0),
            (4, 0),
            (4, 0),
        ];
        assert_eq!(leave(&outgoing, line, 2), want, "a train refused");
    }

    #[test]
    fn lines_do_not_mix() {
        let (mut outgoing, mut lines) = (Outgoing::default(), [Line::default(); 2]);
        for number in [0, 1, 1, 0, 0] {
            assert!(outgoing.push(&mut lines[number], NO, &[&[number as u8; 5]]));
        }
        for (number, want) in [(0, vec![(5, 0), (10, 5)]), (1, vec![(10, 5)])] {
            assert_eq!(leave(&outgoing, lines[number], usize::MAX), want);
            let mut leaving = outgoing.leaving(lines[number], usize::MAX);
            assert!(leaving.all(|one| one.payload.iter().all(|&byte| byte == number as u8)));
        }
    }

    #[test]
    fn trains_are_no_longer_than_the_system_takes() {
        let (mut outgoing, mut line) = (Outgoing::default(), Line::default());
        assert_eq!(
            outgoing.push_train(&mut line, NO, &train(&[1; 65_000], 1_000)),
            0
        );
        assert_eq!(
            leave(&outgoing, line, usize::MAX),
            [(64_000, 1_000), (1_000, 0)]
        );
        for _ in 0..130 {
            assert!(outgoing.push(&mut line, NO, &[b"x"]));
        }
        let tail = leave(&outgoing, line, usize::MAX).split_off(1);
        let want = [(1_001, 1_000), (64, 1), (64, 1), (1, 0)];
        assert_eq!(tail, want, "and the first of these ends the train before");
        let (mut outgoing, mut line) = (Outgoing::default(), Line::default());
        assert_eq!(
            outgoing.push_train(&mut line, NO, &train(&[1; 65_536], 40_000)),
            0
        );
        assert_eq!(
            leave(&outgoing, line, usize::MAX),
            [(40_000, 0), (25_536, 0)]
        );
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_told() {
        let (mut outgoing, mut line) = (Outgoing::default(), Line::default());
        let long = vec![0; 60_000];
        let fits = MOST_BYTES / long.len();
        for _ in 0..fits {
            assert!(outgoing.push(&mut line, NO, &[&long]));
        }
        assert!(outgoing.is_long());
        assert!(!outgoing.push(&mut line, NO, &[&long]));
        assert_eq!(outgoing.push_train(&mut line, NO, &train(&long, 999)), 61);
        assert!(
            outgoing.push(&mut line, NO, &[b"short"]),
            "a short one fits"
        );
        outgoing.clear();
        let mut lines = vec![Line::default(); MOST_ENTRIES + 1];
        let pushed = lines
            .iter_mut()
            .map(|line| usize::from(outgoing.push(line, NO, &[b"x"])))
            .sum::<usize>();
        assert_eq!(pushed, MOST_ENTRIES);
        assert!(!outgoing.push(&mut Line::default(), NO, &[&vec![0; PLACE + 1]]));
    }
}

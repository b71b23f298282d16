//! A queue of bytes in blocks of the pool: read into at the tail, written from at the head.
//!
//! ```text
//!   head()                                tail
//!   [..ddddddd] [ddddddddd] [dddddd....]          spent blocks in front wait for `trim`
//! ```
//!
//! Whole blocks pass from ring to ring without a copy. A ring knows no socket: reading and writing
//! are closures over its slices, one vectored call each. It never drops bytes: a ring is emptied
//! by [`Ring::clear`], which gives the blocks back to their pool.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};

use super::{BLOCK, Bytes, Pool};

/// Bytes waiting in order. An empty ring is one word: it holds no block, and no list of blocks.
#[derive(Default)]
pub struct Ring {
    chain: Option<Box<Chain>>,
}

/// The blocks of a ring that has bytes; the pool keeps some of the empty ones for the next.
#[derive(Default)]
pub(super) struct Chain {
    blocks: VecDeque<Block>,
    len: usize,
    /// How many blocks in front have been consumed and await [`Ring::trim`].
    spent: usize,
}

/// Its length; the bytes are nobody's business in a log.
impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({} bytes)", self.len())
    }
}

struct Block {
    bytes: Bytes,
    start: u32,
    end: u32,
    /// Taken for bytes that the worker queued itself, so not out of the budget for reading.
    own: bool,
}

impl Block {
    fn filled(&self) -> &[u8] {
        &self.bytes[self.start as usize..self.end as usize]
    }

    fn room(&self) -> usize {
        BLOCK - self.end as usize
    }
}

/// What [`Ring::fill`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filled {
    /// How many bytes the closure read.
    pub count: usize,
    /// How many it was offered room for; fewer read means that the source ran dry.
    pub room: usize,
}

impl Ring {
    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.chain.as_ref().map_or(0, |chain| chain.len)
    }

    /// True when no byte waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first run of bytes that lie side by side; empty only when the ring is.
    pub fn head(&self) -> &[u8] {
        self.live().next().map_or(&[], Block::filled)
    }

    /// Copies the bytes from `offset` on into `to`; how many there were.
    pub fn copy_to(&self, offset: usize, to: &mut [u8]) -> usize {
        let (mut skip, mut done) = (offset, 0);
        for block in self.live() {
            let bytes = block.filled();
            if skip >= bytes.len() {
                skip -= bytes.len();
                continue;
            }
            let part = &bytes[skip..];
            let count = part.len().min(to.len() - done);
            to[done..done + count].copy_from_slice(&part[..count]);
            (skip, done) = (0, done + count);
            if done == to.len() {
                break;
            }
        }
        done
    }

    /// Takes the first `count` bytes, at most all of them, out of the ring and appends them to
    /// `to`.
    pub fn take_into(&mut self, count: usize, to: &mut Vec<u8>) {
        let mut left = count.min(self.len());
        while left > 0 {
            let head = self.head();
            let part = &head[..head.len().min(left)];
            to.extend_from_slice(part);
            let taken = part.len();
            left -= taken;
            self.consume(taken);
        }
    }

    /// Copies the first `count` bytes, at most all of them, behind what `to` holds, and drops them
    /// here. The copy's blocks are not out of the pool's budget.
    pub fn forward(&mut self, count: usize, to: &mut Ring, pool: &mut Pool) {
        let mut left = count.min(self.len());
        while left > 0 {
            let head = self.head();
            let part = &head[..head.len().min(left)];
            to.push(part, pool);
            let taken = part.len();
            left -= taken;
            self.consume(taken);
        }
    }

    /// Drops the first `count` bytes, at most all of them. Their blocks stay until the engine
    /// trims the ring.
    pub fn consume(&mut self, count: usize) {
        if let Some(chain) = &mut self.chain {
            chain.consume(count);
        }
    }

    /// Gives consumed blocks back, and the list of blocks when none is left.
    pub fn trim(&mut self, pool: &mut Pool) {
        let Some(chain) = &mut self.chain else { return };
        chain.trim(pool);
        if chain.blocks.is_empty()
            && let Some(chain) = self.chain.take()
        {
            pool.put_away(chain);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.consume(self.len());
        self.trim(pool);
    }

    /// Appends bytes that the worker queues itself: not out of the pool's budget.
    pub fn push(&mut self, bytes: &[u8], pool: &mut Pool) {
        if !bytes.is_empty() {
            self.chain(pool).push(bytes, pool);
        }
    }

    /// Moves everything that `other` holds behind what this ring holds; no byte is copied.
    pub fn append(&mut self, other: &mut Ring, pool: &mut Pool) {
        other.trim(pool);
        if self.is_empty() {
            self.clear(pool);
            std::mem::swap(self, other);
        } else if let (Some(own), Some(mut chain)) = (&mut self.chain, other.chain.take()) {
            own.len += std::mem::take(&mut chain.len);
            own.blocks.append(&mut chain.blocks);
            pool.put_away(chain);
        }
    }

    /// Reads into up to `most` blocks (the tail's free part first) by one call of `read`.
    ///
    /// An empty ring gets one block in any case. `None` when there are bytes in the ring and the
    /// pool has no further block: nothing was called. An error leaves the ring as it was.
    pub fn fill(
        &mut self,
        pool: &mut Pool,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<Filled>> {
        let outcome = self.chain(pool).fill(pool, most, read);
        self.trim(pool);
        outcome
    }

    /// Writes from the head by one call of `write`, consumes what it took and returns the count.
    pub fn drain(
        &mut self,
        pool: &mut Pool,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices: [IoSlice<'_>; SLICES] = [IoSlice::new(&[]); SLICES];
        let mut used = 0;
        for (slice, block) in slices.iter_mut().zip(self.live()) {
            *slice = IoSlice::new(block.filled());
            used += 1;
        }
        let count = write(&slices[..used])?;
        assert!(count <= self.len(), "a write took more than it was offered");
        self.consume(count);
        self.trim(pool);
        Ok(count)
    }

    /// Debug sweep: the count agrees with the blocks, and no live block is empty.
    pub fn check(&self) {
        let filled = self.live().map(|block| block.filled().len());
        assert_eq!(self.len(), filled.sum::<usize>());
        assert!(self.live().all(|block| !block.filled().is_empty()));
    }

    fn chain(&mut self, pool: &mut Pool) -> &mut Chain {
        self.chain.get_or_insert_with(|| pool.spare_chain())
    }

    fn live(&self) -> impl Iterator<Item = &Block> {
        let chain = self.chain.iter();
        chain.flat_map(|chain| chain.blocks.range(chain.spent..))
    }
}

impl Chain {
    fn consume(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        while let Some(block) = self.blocks.get_mut(self.spent) {
            let taken = left.min(block.filled().len());
            block.start += taken as u32;
            left -= taken;
            if !block.filled().is_empty() {
                break;
            }
            self.spent += 1;
        }
    }

    fn trim(&mut self, pool: &mut Pool) {
        for block in self.blocks.drain(..self.spent) {
            pool.give_back(block.bytes, block.own);
        }
        self.spent = 0;
    }

    fn push(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            let room = match self.blocks.back() {
                Some(tail) if self.blocks.len() > self.spent => tail.room(),
                _ => 0,
            };
            if room == 0 {
                self.grow(pool.take_own(), true);
                continue;
            }
            let Some(tail) = self.blocks.back_mut() else {
                return;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(room));
            let end = tail.end as usize;
            tail.bytes[end..end + part.len()].copy_from_slice(part);
            tail.end += part.len() as u32;
            bytes = rest;
        }
    }

    fn fill(
        &mut self,
        pool: &mut Pool,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> Option<io::Result<Filled>> {
        let before = self.blocks.len();
        let live = before > self.spent;
        let tail_room = match self.blocks.back() {
            Some(tail) if live => tail.room(),
            _ => 0,
        };
        // A nearly full tail is not worth a slice of its own.
        let first = if tail_room >= BLOCK / 4 {
            before - 1
        } else {
            before
        };
        while self.blocks.len() - first < most.clamp(1, SLICES) {
            match pool.take() {
                Some(bytes) => self.grow(bytes, false),
                // One block for whoever has none, whatever others hold.
                None if !live && self.blocks.len() == first => {
                    self.grow(pool.take_beyond(), false);
                }
                None => break,
            }
        }
        if self.blocks.len() == first {
            return None;
        }
        let outcome = self.read_behind(first, read);
        // Blocks that stayed empty go back; the ring holds none without bytes in it.
        while self.blocks.len() > before
            && let Some(block) = self.blocks.pop_back()
        {
            if block.end > 0 {
                self.blocks.push_back(block);
                break;
            }
            pool.give_back(block.bytes, block.own);
        }
        Some(outcome)
    }

    /// Calls `read` with the free parts of all blocks from `first` on and books what it read.
    fn read_behind(
        &mut self,
        first: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<Filled> {
        let mut slices: [IoSliceMut<'_>; SLICES] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut used, mut room) = (0, 0);
        for (slice, block) in slices.iter_mut().zip(self.blocks.range_mut(first..)) {
            room += block.room();
            *slice = IoSliceMut::new(&mut block.bytes[block.end as usize..]);
            used += 1;
        }
        let count = read(&mut slices[..used])?;
        assert!(count <= room, "a read filled more than it was offered");
        let mut left = count;
        for block in self.blocks.range_mut(first..) {
            let part = left.min(block.room());
            block.end += part as u32;
            left -= part;
        }
        self.len += count;
        Ok(Filled { count, room })
    }

    fn grow(&mut self, bytes: Bytes, own: bool) {
        self.blocks.push_back(Block {
            bytes,
            start: 0,
            end: 0,
            own,
        });
    }

    /// Ready for the next ring: after a burst the list itself is larger than is worth keeping.
    pub(super) fn emptied(mut self: Box<Self>) -> Box<Self> {
        self.blocks.shrink_to(LIST);
        self
    }
}

/// The most blocks that one vectored call covers: 256 KiB.
const SLICES: usize = 16;

/// Room for so many blocks stays allocated in a list that is kept.
const LIST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 % 251) as u8).collect()
    }

    /// A reader that gives at most `most` bytes of `source` for each call.
    fn reads<'a>(
        source: &'a mut &[u8],
        most: usize,
    ) -> impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize> + 'a {
        move |slices| {
            let mut left = most;
            let mut count = 0;
            for slice in slices {
                let part = slice.len().min(source.len()).min(left);
                slice[..part].copy_from_slice(&source[..part]);
                *source = &source[part..];
                left -= part;
                count += part;
            }
            Ok(count)
        }
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_cuts() {
        let mut pool = Pool::new(1 << 20);
        let mut ring = Ring::default();
        let want = pattern(200_000);
        let (mut source, mut got) = (&want[..], Vec::new());
        let mut seed = 88_172_645_463_325_252u64;
        while got.len() < want.len() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let size = (seed >> 20) as usize % 40_000;
            if seed.is_multiple_of(2) {
                let filled = ring.fill(
                    &mut pool,
                    (seed >> 8) as usize % 20,
                    reads(&mut source, size),
                );
                assert!(filled.unwrap().unwrap().count <= size);
            } else {
                ring.drain(&mut pool, |slices| {
                    let mut left = size;
                    for slice in slices {
                        let part = slice.len().min(left);
                        got.extend_from_slice(&slice[..part]);
                        left -= part;
                    }
                    Ok(size - left)
                })
                .unwrap();
            }
            ring.check();
        }
        assert!(got == want);
        assert!(ring.is_empty());
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn a_used_up_pool_leaves_one_block_to_each_ring() {
        let mut pool = Pool::new(0);
        let bytes = pattern(4 * BLOCK);
        let mut greedy = Ring::default();
        while pool.left() > 0 {
            let filled = greedy.fill(&mut pool, 1, reads(&mut &bytes[..], BLOCK));
            assert_eq!(filled.unwrap().unwrap().count, BLOCK);
        }
        assert!(pool.is_low());
        assert!(greedy.fill(&mut pool, 1, |_| panic!("no read")).is_none());
        let mut late = Ring::default();
        let filled = late.fill(&mut pool, 4, reads(&mut &bytes[..], 4 * BLOCK));
        let want = Filled {
            count: BLOCK,
            room: BLOCK,
        };
        assert_eq!(filled.unwrap().unwrap(), want);
        assert!(late.fill(&mut pool, 1, |_| panic!("no read")).is_none());
        late.push(b"answer", &mut pool);
        assert_eq!(late.len(), BLOCK + 6);
        greedy.clear(&mut pool);
        late.clear(&mut pool);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn a_failed_read_leaves_no_empty_block_behind() {
        let mut pool = Pool::new(1 << 20);
        let mut ring = Ring::default();
        let refused = ring.fill(&mut pool, 4, |_| Err(io::ErrorKind::WouldBlock.into()));
        assert!(refused.unwrap().is_err());
        assert_eq!(pool.lent(), 0);
        ring.check();
    }

    #[test]
    fn forwarded_bytes_leave_the_budget_for_reading_alone() {
        let mut pool = Pool::new(0);
        let bytes = pattern(3 * BLOCK);
        let (mut rx, mut tx) = (Ring::default(), Ring::default());
        for _ in 0..8 {
            let (before, mut source) = (pool.left(), &bytes[..]);
            let filled = rx.fill(&mut pool, 3, reads(&mut source, 3 * BLOCK));
            assert_eq!(filled.unwrap().unwrap().count, 3 * BLOCK);
            assert_eq!(pool.left(), before - 3);
            rx.forward(BLOCK + 5, &mut tx, &mut pool);
            rx.forward(usize::MAX, &mut tx, &mut pool);
            rx.trim(&mut pool);
            assert_eq!(pool.left(), before, "queued bytes starve the readers");
        }
        tx.check();
        let mut got = Vec::new();
        tx.take_into(usize::MAX, &mut got);
        assert!(got.chunks(3 * BLOCK).all(|part| part == bytes));
        tx.trim(&mut pool);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn appending_moves_blocks_and_keeps_the_order() {
        let mut pool = Pool::new(1 << 20);
        let (mut a, mut b) = (Ring::default(), Ring::default());
        a.push(b"first ", &mut pool);
        b.push(b"xxsecond", &mut pool);
        b.consume(2);
        a.append(&mut b, &mut pool);
        a.check();
        assert!(b.is_empty());
        let mut out = [0; 32];
        assert_eq!(a.copy_to(0, &mut out), 12);
        assert_eq!(&out[..12], b"first second");
        assert_eq!(a.copy_to(6, &mut out[..3]), 3);
        assert_eq!(&out[..3], b"sec");
        let mut taken = Vec::new();
        a.take_into(8, &mut taken);
        assert_eq!(taken, b"first se");
        a.clear(&mut pool);
        assert_eq!(pool.lent(), 0);
    }

    #[test]
    fn pushing_after_everything_was_consumed_starts_a_new_block() {
        let mut pool = Pool::new(1 << 20);
        let mut ring = Ring::default();
        ring.push(b"abc", &mut pool);
        ring.consume(3);
        ring.push(b"def", &mut pool);
        assert_eq!((ring.head(), ring.len()), (&b"def"[..], 3));
        ring.check();
        ring.trim(&mut pool);
        assert_eq!(pool.lent(), 1);
    }
}

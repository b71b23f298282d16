//! Memory for bytes in flight: a pool of fixed blocks with a budget, rings made of them, and
//! kernel pipes on loan.
//!
//! A connection that has nothing to read or write holds no block. The budget bounds what peers
//! can make a worker hold: when it is used up, a connection reads into one block and no more until
//! that is empty, so that peers who do not read stop nobody else. What a session queues, its own
//! words or frames that it forwards, is not counted against the budget, as each role bounds that
//! itself: a long queue for one peer leaves room to read for the others. So
//!
//! ```text
//!   bytes read and not yet taken <= budget + one block for each connection
//! ```

mod pipe;
mod ring;

pub use pipe::{Loan, Pipes};
use ring::Chain;
pub use ring::{Filled, Ring};

/// The bytes of one block. Large enough that a full read announces bulk, small enough that ten
/// thousand slow readers stay affordable.
pub const BLOCK: usize = 16 * 1024;

type Bytes = Box<[u8; BLOCK]>;

/// One worker's blocks: those lent out are counted against the budget, and a few free ones are
/// kept warm.
pub struct Pool {
    free: Vec<Bytes>,
    /// Lists for rings that will have bytes. A ring owns its list behind one word, so the boxes
    /// themselves are what is kept.
    #[allow(clippy::vec_box)]
    chains: Vec<Box<Chain>>,
    lent: usize,
    /// Those of the lent ones that hold what sessions queued.
    own: usize,
    budget: usize,
    /// Blocks given back to the allocator since [`Pool::take_freed`].
    freed: usize,
    /// The fewest free blocks there were since [`Pool::drop_spare`].
    least_free: usize,
}

impl Pool {
    /// A pool that lends at most `budget` bytes' worth of blocks, and at least [`LEAST`] blocks.
    pub fn new(budget: usize) -> Self {
        Self {
            free: Vec::new(),
            chains: Vec::new(),
            lent: 0,
            own: 0,
            least_free: 0,
            freed: 0,
            budget: (budget / BLOCK).max(LEAST),
        }
    }

    /// How many blocks may still be lent for reading.
    pub fn left(&self) -> usize {
        self.budget.saturating_sub(self.lent - self.own)
    }

    /// True when more than half of the budget is lent: time to read in small pieces.
    pub fn is_low(&self) -> bool {
        self.lent - self.own > self.budget / 2
    }

    /// How many blocks are lent out now.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// How many bytes the blocks have room for that hold what sessions queued.
    pub fn queued(&self) -> usize {
        self.own * BLOCK
    }

    /// A block to read into; `None` when the budget is used up.
    fn take(&mut self) -> Option<Bytes> {
        (self.left() > 0).then(|| self.take_beyond())
    }

    /// A block for what a session queues.
    fn take_own(&mut self) -> Bytes {
        self.own += 1;
        self.take_beyond()
    }

    /// Counts a block that was lent for reading among those that sessions queued.
    fn disown(&mut self) {
        self.own += 1;
    }

    /// A block for bytes that must not be dropped, past the budget if need be.
    fn take_beyond(&mut self) -> Bytes {
        self.lent += 1;
        let block = self.free.pop().unwrap_or_else(zeroed);
        self.least_free = self.least_free.min(self.free.len());
        block
    }

    /// True when free blocks are kept.
    pub fn has_spare(&self) -> bool {
        !self.free.is_empty()
    }

    /// Gives the free blocks back to the allocator that have not been needed since the last call.
    pub fn drop_spare(&mut self) {
        self.free.truncate(self.free.len() - self.least_free);
        self.least_free = self.free.len();
    }

    /// True when a burst is over whose blocks the allocator may still keep; it is told once.
    pub fn take_freed(&mut self) -> bool {
        let many = self.freed >= BURST && self.lent < WARM;
        if many {
            self.freed = 0;
        }
        many
    }

    fn spare_chain(&mut self) -> Box<Chain> {
        self.chains.pop().unwrap_or_default()
    }

    fn put_away(&mut self, chain: Box<Chain>) {
        if self.chains.len() < WARM {
            self.chains.push(chain.emptied());
        }
    }

    fn give_back(&mut self, block: Bytes, own: bool) {
        self.lent -= 1;
        self.own -= usize::from(own);
        if self.free.len() < WARM {
            self.free.push(block);
        } else {
            self.freed += 1;
        }
    }
}

/// A zeroed block, made on the heap at once: an array of this size does not belong on the stack.
fn zeroed() -> Bytes {
    match vec![0; BLOCK].into_boxed_slice().try_into() {
        Ok(block) => block,
        Err(_) => unreachable!("a slice of BLOCK bytes is an array of BLOCK bytes"),
    }
}

/// Free blocks (and lists of blocks) kept for the next burst: 1 MiB; more go back to the allocator.
const WARM: usize = 64;

/// After so many freed blocks, 8 MiB, it is worth asking the allocator for its free memory.
const BURST: usize = 512;

/// Even a tiny budget lends so many blocks, or nothing would move at all.
const LEAST: usize = 16;

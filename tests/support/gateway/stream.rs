//! Messages of one virtual connection that can be told from each other and from any other's: a
//! lost, doubled, swapped, cut or strayed one shows.

use crate::support::bulk::Numbers;

use super::data;

/// The same seed and sizes give the same messages, to the one who sends and to the one who checks.
pub struct Stream {
    seed: u64,
    block: Vec<u8>,
    sizes: Numbers,
    least: usize,
    next: u64,
}

impl Stream {
    /// Messages of exactly `size` bytes.
    pub fn of(seed: u64, size: usize) -> Self {
        Self::between(seed, size, size)
    }

    /// Messages of `least` to `most` bytes.
    pub fn between(seed: u64, least: usize, most: usize) -> Self {
        Self {
            seed,
            block: Numbers::new(seed + 1).bytes(most),
            sizes: Numbers::new(seed + 2),
            least,
            next: 0,
        }
    }

    fn payload(&mut self) -> &[u8] {
        let most = self.block.len();
        let size = self.least + self.sizes.below(most - self.least + 1);
        let number = self.next.to_le_bytes();
        let marked = number.len().min(most);
        self.block[..marked].copy_from_slice(&number[..marked]);
        self.next += 1;
        &self.block[..size]
    }

    /// The next message as a frame.
    pub fn frame(&mut self, conn: u32) -> Vec<u8> {
        data(conn, self.payload())
    }

    /// Fails unless this is the next message.
    pub fn check(&mut self, got: &[u8]) {
        let (seed, number) = (self.seed, self.next);
        let expected = self.payload();
        assert!(
            got == expected,
            "stream {seed}: message {number} has {} bytes, not {}, or others",
            got.len(),
            expected.len()
        );
    }

    /// How many messages were made or checked.
    pub fn count(&self) -> u64 {
        self.next
    }
}

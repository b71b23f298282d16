//! Long streams of bytes that can be told apart: made from a seed, compared by their hash.

use ring::digest::{Context, SHA256};

use super::peer::Peer;

/// A stream's name for comparison.
pub type Hash = Vec<u8>;

/// A small generator of numbers; the same seed gives the same numbers.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, most: usize) -> usize {
        usize::try_from(self.next() % most as u64).unwrap()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(count).collect()
    }
}

const BLOCK: usize = 256 * 1024;

/// Sends `total` bytes made from `seed`, ends the direction, and returns their hash.
pub fn send(peer: &mut Peer, seed: u64, total: usize) -> Hash {
    let mut hash = Context::new(&SHA256);
    pour(peer, seed, total, &mut hash);
    peer.finish();
    hash.finish().as_ref().to_vec()
}

/// Sends `total` bytes made from `seed` and adds them to a hash. Every block differs from every
/// other, so that a lost, doubled or swapped one shows.
pub fn pour(peer: &mut Peer, seed: u64, total: usize, hash: &mut Context) {
    let mut block = Numbers::new(seed).bytes(BLOCK);
    for number in 0..total.div_ceil(BLOCK) {
        block[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let part = &block[..BLOCK.min(total - number * BLOCK)];
        hash.update(part);
        peer.send(part);
    }
}

/// Reads up to the end; how many bytes came, and their hash.
pub fn receive(peer: &mut Peer) -> (usize, Hash) {
    receive_with(peer, || {})
}

/// The same, with something done before each read.
pub fn receive_with(peer: &mut Peer, mut before: impl FnMut()) -> (usize, Hash) {
    let mut buffer = vec![0; BLOCK];
    let mut hash = Context::new(&SHA256);
    let mut total = 0;
    loop {
        before();
        let more = peer.some(&mut buffer).unwrap_or_else(|error| {
            panic!("{error} after {total} bytes");
        });
        if more == 0 {
            return (total, hash.finish().as_ref().to_vec());
        }
        hash.update(&buffer[..more]);
        total += more;
    }
}

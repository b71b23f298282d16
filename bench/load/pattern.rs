//! The bytes that every client sends: a stream whose byte at offset `n` is known from `n`, so that
//! a receiver can check what it got without remembering what was sent.
//!
//! The period is prime: a block lost, doubled or moved by any power of two shows.

/// The stream's bytes, made once.
pub struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    /// Makes the bytes.
    pub fn new() -> Self {
        let bytes = (0..BLOCK + PERIOD).map(|at| (at % PERIOD) as u8).collect();
        Self { bytes }
    }

    /// At most `most` bytes of the stream from `offset` on; never none unless `most` is 0.
    pub fn at(&self, offset: u64, most: usize) -> &[u8] {
        let start = (offset % PERIOD as u64) as usize;
        let end = start + most.min(BLOCK);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// True when `bytes` are what the stream has from `offset` on.
    pub fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let mut offset = offset;
        bytes.chunks(BLOCK).all(|chunk| {
            let same = self.at(offset, chunk.len()) == chunk;
            offset += chunk.len() as u64;
            same
        })
    }
}

/// The most that one call of [`Pattern::at`] gives, and so the size of one write.
pub const BLOCK: usize = 256 * 1024;
const PERIOD: usize = 251;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_make_one_stream() {
        let pattern = Pattern::new();
        let mut stream = Vec::new();
        for most in [1, 250, 251, 252, 4096, BLOCK, BLOCK + 9] {
            stream.extend_from_slice(pattern.at(stream.len() as u64, most));
        }
        assert!(pattern.holds(0, &stream));
        assert!(pattern.holds(777, &stream[777..]));
    }

    #[test]
    fn a_wrong_lost_or_doubled_byte_shows() {
        let pattern = Pattern::new();
        let stream = pattern.at(0, 1000).to_vec();
        let mut wrong = stream.clone();
        wrong[500] ^= 1;
        assert!(!pattern.holds(0, &wrong));
        assert!(!pattern.holds(0, &stream[1..]));
        assert!(!pattern.holds(999, &stream));
        assert!(!pattern.holds(512, &stream[..512]));
    }
}

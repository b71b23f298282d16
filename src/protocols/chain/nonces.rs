//! Random numbers for the seals: drawn from the system some KiB at a time, so that a nonce costs no
//! system call.

use ring::rand::{SecureRandom, SystemRandom};

use super::wire::{KEY, Key, NONCE, Nonce};

/// Gives nonces, each used once. Each core, or client, has its own.
pub struct Nonces {
    system: SystemRandom,
    drawn: Box<[u8]>,
    /// Where the next nonce begins.
    next: usize,
}

impl Nonces {
    /// Draws nothing yet.
    pub fn new() -> Self {
        Self {
            system: SystemRandom::new(),
            drawn: vec![0; BATCH * NONCE].into(),
            next: BATCH * NONCE,
        }
    }
}

/// It ends only where the system gives no random bytes; then nothing can be sealed, and asking again
/// asks the system again.
impl Iterator for Nonces {
    type Item = Nonce;

    fn next(&mut self) -> Option<Nonce> {
        if self.next >= self.drawn.len() {
            self.system.fill(&mut self.drawn).ok()?;
            self.next = 0;
        }
        let nonce = self.drawn[self.next..].first_chunk().copied()?;
        self.next += NONCE;
        Some(nonce)
    }
}

impl Default for Nonces {
    fn default() -> Self {
        Self::new()
    }
}

/// A new key; none where the system gives no random bytes.
pub fn random_key() -> Option<Key> {
    let mut bytes = [0; KEY];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Key::from_bytes(bytes))
}

/// Nonces of one draw: 6 KiB.
const BATCH: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_nonce_comes_twice() {
        let nonces: HashSet<Nonce> = Nonces::new().take(3 * BATCH).collect();
        assert_eq!(nonces.len(), 3 * BATCH);
        assert_ne!(random_key(), random_key());
    }
}

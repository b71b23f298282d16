//! The hash of connection ids.

use std::hash::{BuildHasher, Hasher};

/// Spreads ids over a table. Peers of the document's dialect choose ids, so a random seed keeps
/// them from choosing such as collide.
#[derive(Clone, Copy)]
pub(super) struct Scatter(pub(super) u64);

/// The hash of one id.
pub(super) struct Scattered(u64);

impl BuildHasher for Scatter {
    type Hasher = Scattered;

    fn build_hasher(&self) -> Scattered {
        Scattered(self.0)
    }
}

impl Hasher for Scattered {
    fn write_u32(&mut self, id: u32) {
        let mixed = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 29;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }
}

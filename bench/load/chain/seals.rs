//! The payload's seal on one connection of the client's: records made and opened, with what waits on
//! either side of them.

use std::io;

use towpath::protocols::chain::wire::{MAX_RECORD, Opened, Opener, Sealer, record_len};

/// Both directions. At most what one write takes waits in the one, one read in the other.
pub struct Seals {
    sealer: Sealer,
    opener: Opener,
    /// Records that are not wholly written, from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    /// What came and is no whole record yet.
    raw: Vec<u8>,
    /// Payload that came and was not taken, from `plain_at` on.
    plain: Vec<u8>,
    plain_at: usize,
}

impl Seals {
    /// Nothing has come or gone.
    pub fn new((sealer, opener): (Sealer, Opener)) -> Self {
        Self {
            sealer,
            opener,
            out: Vec::new(),
            out_at: 0,
            raw: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
        }
    }

    /// Seals so much of the payload as one write takes; how much that is.
    pub fn seal(&mut self, payload: &[u8]) -> usize {
        let taken = payload.get(..AT_ONCE).unwrap_or(payload);
        self.sealer.seal(&mut self.out, taken);
        taken.len()
    }

    /// What is to be written.
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.out_at..).unwrap_or_default()
    }

    /// So much of it was.
    pub fn written(&mut self, count: usize) {
        self.out_at += count;
        if self.out_at >= self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
    }

    /// Takes what came.
    pub fn feed(&mut self, came: &[u8]) -> io::Result<()> {
        self.raw.extend_from_slice(came);
        let mut begin = 0;
        while let Some(rest) = self.raw.get_mut(begin..) {
            let length = record_len(rest).map_err(spoilt)?;
            let Some(record) = length.and_then(|length| rest.get_mut(..length)) else {
                break;
            };
            begin += record.len();
            if let Opened::Payload(payload) = self.opener.open(record).map_err(spoilt)? {
                self.plain.extend_from_slice(payload);
            }
        }
        self.raw.drain(..begin);
        Ok(())
    }

    /// Gives payload that has come: `None` if there is none yet, 0 bytes at its end.
    pub fn take(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let waiting = self.plain.get(self.plain_at..).unwrap_or_default();
        let count = waiting.len().min(buffer.len());
        if count == 0 {
            return self.opener.is_closed().then_some(0);
        }
        for (to, from) in buffer.iter_mut().zip(waiting) {
            *to = *from;
        }
        self.plain_at += count;
        if self.plain_at == self.plain.len() {
            self.plain.clear();
            self.plain_at = 0;
        }
        Some(count)
    }
}

fn spoilt(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The most payload that one write seals.
const AT_ONCE: usize = 4 * MAX_RECORD;

//! A bounded channel into a worker's loop, with a bell that wakes the loop when it sleeps.
//!
//! ```text
//!   any thread                                the loop's thread
//!   post: letter -> channel, fence,           1 the poll returns
//!         rung? no -> raise flag, wake   -->   2 open: lower flag, fence, drain the channel
//! ```
//!
//! The order on both sides makes a lost letter impossible: a sender that finds the flag raised
//! put its letter in before the reader's fence, so the drain that follows the lowering sees it.
//! One wake-up (a write to an eventfd) serves every letter posted before the reader gets to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// What wakes a sleeping loop. The loop's poll implements it; tests pass one of their own.
pub trait Bell: Send + Sync {
    /// Makes the loop's next (or present) sleep end at once. Never blocks.
    fn ring(&self);
}

impl Bell for mio::Waker {
    fn ring(&self) {
        // The only errors of an eventfd write are "full", which means that it is rung already,
        // and a closed descriptor, which means that the loop is gone.
        let _ = self.wake();
    }
}

/// The end that posts; clone it for every sender.
pub struct Address<M> {
    letters: Sender<M>,
    rung: Arc<AtomicBool>,
    bell: Arc<dyn Bell>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self {
            letters: self.letters.clone(),
            rung: Arc::clone(&self.rung),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<M> Address<M> {
    /// Leaves a letter and rings. Never blocks: when the box is full, or its owner is gone, the
    /// letter comes back.
    pub fn post(&self, letter: M) -> Result<(), M> {
        self.letters.try_send(letter).map_err(|error| match error {
            TrySendError::Full(letter) | TrySendError::Disconnected(letter) => letter,
        })?;
        fence(Ordering::SeqCst);
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.bell.ring();
        }
        Ok(())
    }
}

/// The loop's end.
pub struct Mailbox<M> {
    letters: Receiver<M>,
    rung: Arc<AtomicBool>,
    // The bell lives as long as its reader, so that no sender ever rings a closed descriptor.
    _bell: Arc<dyn Bell>,
}

impl<M> Mailbox<M> {
    /// Lowers the bell's flag and takes at most `most` letters. When letters are left over, the
    /// second value is true and the caller opens again before it sleeps.
    pub fn open(&mut self, most: usize, mut take: impl FnMut(M)) -> bool {
        self.rung.store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        for _ in 0..most {
            match self.letters.try_recv() {
                Ok(letter) => take(letter),
                Err(_) => return false,
            }
        }
        !self.letters.is_empty()
    }

    /// True when a letter lies in the box or the bell has rung since the last [`Mailbox::open`]:
    /// the loop opens before it sleeps. The box counts by itself, since the letters that an open
    /// has left over have rung already.
    pub fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Acquire) || !self.letters.is_empty()
    }
}

/// A box of at most `depth` letters whose arrival rings `bell`.
pub fn mailbox<M>(depth: usize, bell: Arc<dyn Bell>) -> (Address<M>, Mailbox<M>) {
    let (sender, receiver) = bounded(depth);
    let rung = Arc::new(AtomicBool::new(false));
    let address = Address {
        letters: sender,
        rung: Arc::clone(&rung),
        bell: Arc::clone(&bell),
    };
    let mailbox = Mailbox {
        letters: receiver,
        rung,
        _bell: bell,
    };
    (address, mailbox)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Bell for Count {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn one_ring_serves_all_letters_until_the_box_is_opened() {
        let bell = Arc::new(Count::default());
        let (address, mut mailbox) = mailbox(8, Arc::clone(&bell) as Arc<dyn Bell>);
        for letter in 0..3 {
            address.post(letter).unwrap();
        }
        assert_eq!(bell.0.load(Ordering::SeqCst), 1);
        let mut got = Vec::new();
        assert!(!mailbox.open(8, |letter| got.push(letter)));
        assert_eq!(got, [0, 1, 2]);
        address.post(3).unwrap();
        assert_eq!(bell.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_full_or_ownerless_box_gives_the_letter_back() {
        let (address, mailbox) = mailbox(1, Arc::new(Count::default()));
        assert_eq!(address.post('a'), Ok(()));
        assert_eq!(address.post('b'), Err('b'));
        drop(mailbox);
        assert_eq!(address.post('c'), Err('c'));
    }

    #[test]
    fn what_is_left_over_is_told() {
        let (address, mut mailbox) = mailbox(8, Arc::new(Count::default()));
        for letter in 0..3 {
            address.post(letter).unwrap();
        }
        assert!(mailbox.open(2, |_| {}));
        assert!(
            mailbox.has_rung(),
            "the loop would sleep over the last letter"
        );
        assert!(!mailbox.open(2, |_| {}));
        assert!(!mailbox.has_rung());
    }

    #[test]
    fn no_letter_is_lost_between_threads() {
        const LETTERS: usize = 20_000;
        let bell = Arc::new(Count::default());
        let (address, mut mailbox) = mailbox(LETTERS, Arc::clone(&bell) as Arc<dyn Bell>);
        let sender = std::thread::spawn(move || {
            for letter in 0..LETTERS {
                address.post(letter).unwrap();
            }
        });
        // The reader opens only when the bell has rung, as a sleeping loop would.
        let mut next = 0;
        while next < LETTERS {
            while !mailbox.has_rung() {
                std::hint::spin_loop();
            }
            mailbox.open(usize::MAX, |letter| {
                assert_eq!(letter, next);
                next += 1;
            });
        }
        sender.join().unwrap();
    }
}

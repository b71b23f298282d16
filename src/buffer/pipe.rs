//! Kernel pipes on loan: bulk bytes pass through them without being copied to user space.
//!
//! A direction holds a pipe only while bytes lie in it; an empty one goes back for the next. The
//! kernel's memory behind them counts against the budget of the worker, so there are few of them,
//! and whoever finds none copies instead: slower, never wrong.

use std::io;

/// One worker's pipes: those lent out, and a few empty ones kept.
pub struct Pipes<P> {
    free: Vec<P>,
    lent: usize,
    most: usize,
    capacity: usize,
    /// The fewest free pipes there were since [`Pipes::drop_spare`].
    least_free: usize,
    /// Set when the system gave no pipe: counts the loans that are refused before it is asked
    /// again, so that a system without pipes costs one call in a thousand.
    pause: usize,
}

/// A pipe with bytes in it.
pub struct Loan<P> {
    /// The pipe.
    pub pipe: P,
    /// How many bytes lie in it.
    pub pending: usize,
}

impl<P> Pipes<P> {
    /// At most as many pipes of `capacity` bytes as fit into `budget` bytes; none for capacity 0.
    pub fn new(budget: usize, capacity: usize) -> Self {
        let most = match capacity {
            0 => 0,
            capacity => (budget / capacity).clamp(LEAST, MOST),
        };
        Self {
            free: Vec::new(),
            lent: 0,
            most,
            capacity,
            least_free: 0,
            pause: 0,
        }
    }

    /// True when no pipe is ever lent.
    pub fn is_off(&self) -> bool {
        self.most == 0
    }

    /// How many are lent out now.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// How many there are, those that are kept free among them.
    pub fn held(&self) -> usize {
        self.lent + self.free.len()
    }

    /// How many bytes those that are lent out may hold.
    pub fn bytes(&self) -> usize {
        self.lent * self.capacity
    }

    /// An empty pipe, made by `make` when no free one is left; `None` when all that there may be
    /// are lent, or the system gives none.
    pub fn take(&mut self, make: impl FnOnce(usize) -> io::Result<P>) -> Option<Loan<P>> {
        if self.lent >= self.most {
            return None;
        }
        let pipe = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.pause > 0 => {
                self.pause -= 1;
                return None;
            }
            None => match make(self.capacity) {
                Ok(pipe) => pipe,
                Err(_) => {
                    self.pause = PAUSE;
                    return None;
                }
            },
        };
        self.least_free = self.least_free.min(self.free.len());
        self.lent += 1;
        Some(Loan { pipe, pending: 0 })
    }

    /// True when free pipes are kept.
    pub fn has_spare(&self) -> bool {
        !self.free.is_empty()
    }

    /// Closes the free pipes that have not been needed since the last call.
    pub fn drop_spare(&mut self) {
        self.free.truncate(self.free.len() - self.least_free);
        self.least_free = self.free.len();
    }

    /// Takes a pipe back. One with bytes in it is closed: they belonged to a pair that has broken.
    pub fn give_back(&mut self, loan: Loan<P>) {
        self.lent -= 1;
        if loan.pending == 0 && self.free.len() < KEPT {
            self.free.push(loan.pipe);
        }
    }
}

/// Even a small budget lends so many, for bulk pairs to take turns.
const LEAST: usize = 4;

/// Two descriptors each: beyond this they would crowd out connections.
const MOST: usize = 1024;

/// Empty pipes kept: an empty pipe costs the kernel its slots, no pages.
const KEPT: usize = 32;

const PAUSE: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_lent_up_to_the_budget_and_used_again() {
        let mut pipes = Pipes::new(5 << 20, 1 << 20);
        let mut made = 0;
        let mut loans: Vec<Loan<u32>> = Vec::new();
        while let Some(loan) = pipes.take(|_| {
            made += 1;
            Ok(made)
        }) {
            loans.push(loan);
        }
        assert_eq!((loans.len(), pipes.lent()), (5, 5));
        let mut torn = loans.pop().unwrap();
        torn.pending = 1;
        pipes.give_back(torn);
        pipes.give_back(loans.pop().unwrap());
        assert_eq!(
            pipes.take(|_| panic!("there is a free one")).unwrap().pipe,
            4
        );
        assert_eq!(pipes.take(|_| Ok(99)).unwrap().pipe, 99);
    }

    #[test]
    fn pipes_that_nobody_needs_are_closed() {
        let mut pipes: Pipes<()> = Pipes::new(8 << 20, 1 << 20);
        let loans: Vec<_> = (0..4).filter_map(|_| pipes.take(|_| Ok(()))).collect();
        for loan in loans {
            pipes.give_back(loan);
        }
        pipes.drop_spare();
        assert_eq!(pipes.free.len(), 4, "all were in use a moment ago");
        let loan = pipes.take(|_| Ok(())).unwrap();
        pipes.give_back(loan);
        pipes.drop_spare();
        assert_eq!(pipes.free.len(), 1, "three were not needed");
        pipes.drop_spare();
        assert!(!pipes.has_spare());
    }

    #[test]
    fn a_system_without_pipes_is_asked_seldom() {
        let mut pipes: Pipes<()> = Pipes::new(1 << 30, 1 << 20);
        let mut asked = 0;
        for _ in 0..10 * PAUSE {
            let none = pipes.take(|_| {
                asked += 1;
                Err(io::ErrorKind::OutOfMemory.into())
            });
            assert!(none.is_none());
        }
        assert_eq!(asked, 10);
    }

    #[test]
    fn capacity_zero_means_never() {
        assert!(Pipes::<()>::new(1 << 30, 0).take(|_| Ok(())).is_none());
    }
}

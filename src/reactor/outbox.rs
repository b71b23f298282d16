//! Letters on their way to one loop, kept while its box is full.
//!
//! It neither blocks nor loses a letter, unless the loop has not taken a single one for ten
//! seconds: such a loop hangs or is gone, and to wait for it would stop the others. Whoever posts
//! bounds how many letters wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Address;

/// The sender's side of one loop's box.
pub struct Outbox<M> {
    address: Address<M>,
    waiting: VecDeque<M>,
    /// Since when the box has taken nothing.
    stuck: Option<Instant>,
    given_up: bool,
    core: usize,
}

impl<M> Outbox<M> {
    /// For the box of the worker of that number.
    pub fn new(core: usize, address: Address<M>) -> Self {
        Self {
            address,
            waiting: VecDeque::new(),
            stuck: None,
            given_up: false,
            core,
        }
    }

    /// How many letters wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Posts the letter, behind those that wait already.
    pub fn post(&mut self, letter: M, now: Instant) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(letter);
            return;
        }
        match self.address.post(letter) {
            Ok(()) => self.moved(),
            Err(_) if self.given_up => {}
            Err(letter) => {
                self.waiting.push_back(letter);
                self.stuck.get_or_insert(now);
            }
        }
    }

    /// Posts as many of the waiting letters as there is room for.
    pub fn flush(&mut self, now: Instant) {
        while let Some(letter) = self.waiting.pop_front() {
            match self.address.post(letter) {
                Ok(()) => self.moved(),
                Err(letter) => {
                    self.waiting.push_front(letter);
                    break;
                }
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        let since = *self.stuck.get_or_insert(now);
        if now.saturating_duration_since(since) >= PATIENCE {
            log::error!(
                "worker takes no letters, {} dropped worker=w{}",
                self.waiting.len(),
                self.core
            );
            self.waiting = VecDeque::new();
            self.given_up = true;
        }
    }

    fn moved(&mut self) {
        self.stuck = None;
        self.given_up = false;
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

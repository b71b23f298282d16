//! Letters on their way to one worker, kept while its box is full.
//!
//! The control thread alone uses it. It neither blocks nor loses a letter, unless the worker has
//! not taken a single one for ten seconds: such a worker hangs or is gone, and to wait for it
//! would stop the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Letter;
use crate::reactor::Address;

pub(super) struct Outbox {
    address: Address<Letter>,
    waiting: VecDeque<Letter>,
    /// Since when the box has taken nothing.
    stuck: Option<Instant>,
    given_up: bool,
    core: usize,
}

impl Outbox {
    pub(super) fn new(core: usize, address: Address<Letter>) -> Self {
        Self {
            address,
            waiting: VecDeque::new(),
            stuck: None,
            given_up: false,
            core,
        }
    }

    /// How many letters wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Posts the letter, behind those that wait already.
    pub(super) fn post(&mut self, letter: Letter, now: Instant) {
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
    pub(super) fn flush(&mut self, now: Instant) {
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
                "control: worker takes no letters, {} dropped worker=w{}",
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

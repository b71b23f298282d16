//! One worker's thread: from its parts to its last turn.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ring::rand::{SecureRandom, SystemRandom};

use super::StartError;
use super::listeners::{Opened, Share};
use super::signals::Stopper;
use crate::config::{Limits, Way};
use crate::control::{Letter, Request};
use crate::net::{Doors, Kernel, Load, Poller, Quota, SocketOptions};
use crate::reactor::{Address, Mailbox, Pulse};
use crate::session::{Post, Service};
use crate::stats::Counters;
use crate::sys;
use crate::worker::{AccessQueue, Order, Phase, Setup, Worker};

/// What all workers count together.
#[derive(Clone)]
pub(super) struct Common {
    /// Places for connections.
    pub(super) quota: Arc<Quota>,
    /// How near the server is to what it may use.
    pub(super) load: Arc<Load>,
    /// Who may come in where.
    pub(super) doors: Arc<Doors>,
}

/// What one worker's thread starts with.
pub(super) struct Part {
    pub(super) number: usize,
    pub(super) pin: bool,
    pub(super) poller: Poller,
    pub(super) kernel: Kernel,
    pub(super) mailbox: Mailbox<Letter>,
    pub(super) post: Mailbox<Post>,
    pub(super) orders: Mailbox<Order>,
    pub(super) cores: Vec<Address<Post>>,
    pub(super) services: Vec<Arc<dyn Service>>,
    pub(super) roles: Vec<&'static str>,
    pub(super) listeners: Vec<Share>,
    pub(super) limits: Limits,
    pub(super) buffer_memory: usize,
    pub(super) way: Way,
    pub(super) options: SocketOptions,
    pub(super) spin: Duration,
    pub(super) pipe_size: usize,
    pub(super) questions: Sender<Request>,
    pub(super) phase: Arc<Phase>,
    pub(super) house: Common,
    pub(super) counters: Arc<Counters>,
    pub(super) access: Option<AccessQueue>,
    pub(super) stopper: Stopper,
    pub(super) pulse: Arc<Pulse>,
}

impl Part {
    /// Starts it.
    pub(super) fn start(self) -> Result<JoinHandle<()>, StartError> {
        let name = format!("worker-{}", self.number);
        thread::Builder::new()
            .name(name)
            .spawn(move || self.run())
            .map_err(|error| StartError::System("start a worker thread", error))
    }

    fn run(mut self) {
        // A worker that ends before its time leaves connections that nobody serves: the whole
        // server stops then, and its supervisor starts it anew.
        let guard = Guard(self.stopper.clone());
        if self.pin {
            match sys::pin_thread(self.number % sys::processors()) {
                Ok(cpu) => log::debug!("worker {} runs on processor {cpu}", self.number),
                Err(error) => log::warn!("worker {} is not pinned: {error}", self.number),
            }
        }
        let core = self.number as u8;
        let setup = Setup {
            core,
            handshake_timeout: self.limits.handshake_timeout,
            idle_timeout: self.limits.idle_timeout,
            drain_timeout: self.limits.drain_timeout,
            drain_spread: self.limits.drain_spread,
            buffer_memory: self.buffer_memory,
            way: self.way,
            socket_options: self.options,
            pipe_size: self.pipe_size,
            seed: seed(),
            control: self.questions,
            mailbox: self.mailbox,
            post: self.post,
            orders: self.orders,
            cores: self.cores,
            phase: self.phase,
            quota: self.house.quota,
            doors: self.house.doors,
            load: self.house.load,
            counters: self.counters,
            seats: self
                .services
                .iter()
                .map(|service| service.seat(core))
                .collect(),
            roles: self.roles,
        };
        let mut worker = Worker::new(self.kernel, setup, Instant::now());
        if let Some(access) = self.access {
            worker.record_to(access);
        }
        for share in self.listeners {
            let (service, number) = (share.service, share.number);
            let taken = match share.socket {
                Opened::Stream(socket) => worker.listen(socket, share.listen, service, number),
                Opened::Datagram(socket) => {
                    worker.listen_datagrams(socket, share.listen, service, number)
                }
            };
            if let Err(error) = taken {
                log::error!("worker {core} cannot watch a listener: {error}");
                return;
            }
        }
        worker.reside();
        let spin = self.spin;
        while !worker.is_done() {
            match self.poller.wait(worker.rest(), spin) {
                Ok(ready) => {
                    worker.turn(Instant::now(), ready);
                    self.pulse.beat();
                }
                Err(error) => {
                    log::error!("worker {core} cannot wait for events: {error}");
                    return;
                }
            }
        }
        worker.close_books();
        self.pulse.end();
        std::mem::forget(guard);
    }
}

/// Stops the server when it is dropped.
struct Guard(Stopper);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A seed for masks. Without a source of randomness they are merely less random.
fn seed() -> u64 {
    let mut bytes = [1; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

//! A worker's place before its thread is there: its poll and its boxes. The control thread's beginning, and
//! the loops that a watchdog looks at.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::StartError;
use super::watchdog::Loop;
use crate::control::leases::Pool;
use crate::control::resolver::Resolver;
use crate::control::{Asker, Control, Letter, Request, unix_now};
use crate::net::{self, Kernel, Poller, SocketOptions};
use crate::reactor::{self, Address, Bell, Mailbox, Pulse, mailbox};
use crate::session::Post;
use crate::store::Store;
use crate::worker::Order;

/// A worker's poll and mailbox, made before the threads so that they know each other.
pub(super) struct Desk {
    pub(super) poller: Poller,
    pub(super) kernel: Kernel,
    pub(super) bell: Arc<dyn Bell>,
    pub(super) address: Address<Letter>,
    pub(super) mailbox: Mailbox<Letter>,
    pub(super) core: Address<Post>,
    pub(super) post: Mailbox<Post>,
    pub(super) ordering: Address<Order>,
    pub(super) orders: Mailbox<Order>,
}

impl Desk {
    /// Opens its poll and its boxes.
    pub(super) fn open(options: SocketOptions) -> io::Result<Self> {
        let (poller, kernel, bell) = net::open(options)?;
        let (address, mailbox) = mailbox(LETTERS, Arc::clone(&bell));
        let (core, post) = reactor::mailbox(LETTERS, Arc::clone(&bell));
        let (ordering, orders) = reactor::mailbox(ORDERS, Arc::clone(&bell));
        Ok(Self {
            core,
            post,
            ordering,
            orders,
            poller,
            kernel,
            bell,
            address,
            mailbox,
        })
    }
}

/// A worker's loop, for the watchdog.
pub(super) fn worker_loop(number: usize, pulse: &Arc<Pulse>, bell: Arc<dyn Bell>) -> Loop {
    Loop {
        name: format!("worker {number}"),
        pulse: Arc::clone(pulse),
        wake: Box::new(move || bell.ring()),
    }
}

/// The control thread's.
pub(super) fn control_loop(control: &Control, questions: Sender<Request>) -> Loop {
    Loop {
        name: "control".to_owned(),
        pulse: control.pulse(),
        wake: Box::new(move || {
            if let Some(wake) = Request::wake() {
                // One that finds the queue full is not needed.
                let _ = questions.try_send(wake);
            }
        }),
    }
}

/// The control thread's state, once the workers' boxes are there; `waits` for an older process to give the
/// store up.
pub(super) fn begin_control(
    store: Store,
    resolver: Resolver<Asker>,
    pools: Vec<Pool>,
    waits: bool,
) -> impl FnOnce(Vec<Address<Letter>>) -> Control {
    move |addresses| {
        let control = Control::new(store, resolver, addresses);
        let control = control.lending(pools, Instant::now(), unix_now());
        match waits {
            true => control.waiting(),
            false => control,
        }
    }
}

/// Starts it.
pub(super) fn start_control(
    control: Control,
    asked: Receiver<Request>,
) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name("control".into())
        .spawn(move || control.run(asked))
        .map_err(|error| StartError::System("start the control thread", error))
}

/// Letters that may wait for a worker, from control and from other workers alike; the sender keeps
/// those that do not fit.
const LETTERS: usize = 16_384;

/// Orders of the house that may wait for a worker: those of one client of the admin address each.
const ORDERS: usize = 256;

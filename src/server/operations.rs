//! The admin address's place in the house: bound with the other listeners, started when everything that
//! it tells of is there, ended behind the workers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use mio::net::TcpListener;

use super::part::Common;
use super::passed::{ADMIN, Passed};
use super::reload::Caller;
use super::signals::Stopper;
use super::supervisor::Supervisor;
use super::{Plan, StartError};
use crate::admin::{self, Admin, Grounds, NoReload, Panel, Reload};
use crate::config;
use crate::control::Request;
use crate::reactor::Address;
use crate::session::{Listen, Transport};
use crate::stats::Counters;
use crate::store::Memory;
use crate::worker::{AccessTally, Order};

/// The admin address's listeners, before it is started.
pub(super) struct Operations {
    listeners: Vec<TcpListener>,
    told: Vec<Listen>,
    started: Instant,
}

/// What the rest of the house lends it.
pub(super) struct Site<'a> {
    pub(super) plan: &'a Plan,
    pub(super) panel: &'a Arc<Panel>,
    pub(super) reload: Option<Caller>,
    pub(super) supervisor: &'a Arc<Supervisor>,
    /// By the wall clock, since the Unix epoch.
    pub(super) started: Duration,
    pub(super) counters: &'a [Arc<Counters>],
    pub(super) orders: &'a [Address<Order>],
    pub(super) questions: Sender<Request>,
    pub(super) memory: Memory,
    pub(super) access: Arc<AccessTally>,
    pub(super) house: &'a Common,
    pub(super) stopper: &'a Stopper,
}

impl Operations {
    /// Where it is to listen.
    pub(super) fn asked(config: &config::Admin) -> Vec<Listen> {
        let listen = |&address: &SocketAddr| Listen {
            role: ADMIN,
            name: None,
            address,
            transport: Transport::Stream,
            terms: Arc::default(),
        };
        config.listen.iter().map(listen).collect()
    }

    /// Binds every address, or takes the socket that was passed for it.
    pub(super) fn bind(config: &config::Admin, passed: &Passed) -> Result<Self, StartError> {
        let mut operations = Self {
            listeners: Vec::new(),
            told: Vec::new(),
            started: Instant::now(),
        };
        for mut listen in Self::asked(config) {
            let claimed = passed.claim(&listen);
            let claimed = claimed.and_then(|(_, sockets)| sockets.into_iter().next());
            let opened = match claimed {
                Some(claimed) => admin::adopt(claimed.socket),
                None => admin::bind(listen.address),
            };
            let opened = opened.and_then(|listener| Ok((listener.local_addr()?, listener)));
            match opened {
                Ok((address, listener)) => {
                    listen.address = address;
                    operations.listeners.push(listener);
                    operations.told.push(listen);
                }
                Err(error) => return Err(StartError::Listen(listen, error)),
            }
        }
        Ok(operations)
    }

    /// Where it listens.
    pub(super) fn listens(&self) -> &[Listen] {
        &self.told
    }

    /// How many descriptors it needs with its clients, and how many at the least.
    pub(super) fn needs(config: &config::Admin) -> (usize, usize) {
        match config.listen.len() {
            0 => (0, 0),
            listeners => (listeners + admin::DESCRIPTORS, listeners + LEAST),
        }
    }

    /// Starts it; nothing where it is off.
    pub(super) fn start(self, site: Site<'_>) -> Result<Option<Admin>, StartError> {
        if self.listeners.is_empty() {
            return Ok(None);
        }
        let (stopper, supervisor) = (site.stopper.clone(), Arc::clone(site.supervisor));
        let reload: Box<dyn Reload> = match site.reload {
            Some(caller) => Box::new(caller),
            None => Box::new(NoReload),
        };
        let grounds = Grounds {
            panel: Arc::clone(site.panel),
            patience: site.plan.core.limits.handshake_timeout,
            started: self.started,
            started_unix: site.started,
            counters: site.counters.to_vec(),
            workers: site.orders.to_vec(),
            control: site.questions,
            memory: site.memory,
            access: site.access,
            quota: Arc::clone(&site.house.quota),
            load: Arc::clone(&site.house.load),
            phase: stopper.phase(),
            drain: Box::new(move || {
                if !stopper.is_ending() {
                    log::info!("draining: asked by the admin address; a signal stops at once");
                    stopper.drain();
                    supervisor.stopping();
                }
            }),
            reload,
        };
        Admin::start(self.listeners, grounds)
            .map(Some)
            .map_err(|error| StartError::System("start the admin thread", error))
    }
}

/// Its poll, its bell, and one client.
const LEAST: usize = 3;

//! The tunnel client as a library: public ports for services of this host, kept by a thread of its own.
//!
//! It is a whole server of one role that listens nowhere: the same event loop, and a control thread for
//! the lookup of names. [`Expose::start`] begins it; what happens is told by [`Expose::events`], in
//! order.
//!
//! ```no_run
//! use towpath::tunnel::{Event, Expose, Options, service};
//!
//! let web = service("web", "127.0.0.1:8080").ok_or("no name or no address")?;
//! let options = Options::new("tunnel.example:7400", "expose.id", vec![web]).ok_or("no server")?;
//! let expose = Expose::start(options)?;
//! for event in expose.events() {
//!     match event {
//!         Event::Exposed { name, public } => println!("{name} is at {public}"),
//!         Event::Ended => break,
//!         _ => {}
//!     }
//! }
//! expose.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use super::{Plan, Running, StartError, Stopper, start};
use crate::config::{Core, KEYS, Settings};
pub use crate::protocols::tunnel::client::Event;
use crate::protocols::tunnel::client::{Clients, Tell};
use crate::protocols::tunnel::config::Expose as Config;
pub use crate::protocols::tunnel::config::{Exposure, ProxyProtocol};
pub use crate::protocols::tunnel::wire::{Name, Refusal};
use crate::upstream::Target;

/// What a client is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server, its token, the identity's file, the services.
    pub expose: Config,
    /// How many threads serve visitors; 0 is one for each core.
    pub workers: usize,
}

impl Options {
    /// Services exposed by the server at `HOST:PORT`, under the identity in a file, which is made on
    /// first use; none where the server is no `HOST:PORT`. Without a token, on one thread.
    pub fn new(
        server: &str,
        identity: impl Into<PathBuf>,
        services: Vec<Exposure>,
    ) -> Option<Self> {
        let expose = Config {
            server: target(server)?,
            token: None,
            identity: Some(identity.into()),
            services,
        };
        Some(Self { expose, workers: 1 })
    }
}

/// A service for streams at `HOST:PORT`, on any public port; none where it is no such address, or the
/// name is none.
pub fn service(name: &str, local: &str) -> Option<Exposure> {
    Some(Exposure {
        name: Name::new(name.as_bytes())?,
        local: target(local)?,
        port: None,
        udp: false,
        mux: false,
        direct: false,
        proxy_protocol: None,
    })
}

/// The host and port of `HOST:PORT`, an IPv6 address in brackets.
pub fn target(text: &str) -> Option<Target> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() || (host.contains(':') && bare.is_none()) {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = host.into();
    Some(Target { host, port })
}

/// A client at work. Dropping it stops it, without waiting.
pub struct Expose {
    running: Option<Running>,
    stopper: Stopper,
    events: Receiver<Event>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    public: Mutex<BTreeMap<Name, SocketAddr>>,
}

impl Expose {
    /// Begins; errors are the system's, and whether the server is there is told by events.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let (sender, events) = bounded(EVENTS);
        let state = Arc::<State>::default();
        let noted = Arc::clone(&state);
        let tell: Tell = Arc::new(move |event| {
            noted.note(&event);
            // Nobody has read the last thousand, so nobody misses this one.
            let _ = sender.try_send(event);
        });
        let mut core = Core::read(&mut Settings::new(&[KEYS]));
        core.workers = options.workers;
        let exposes = vec![options.expose];
        let running = start(Plan {
            core,
            roles: vec![Box::new(Clients { exposes, tell })],
            told: Vec::new(),
            address_file: None,
        })?;
        let stopper = running.stopper();
        Ok(Self {
            running: Some(running),
            stopper,
            events,
            state,
        })
    }

    /// What happens. It ends when the client has stopped.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// The public address of a service, while it has one.
    pub fn public(&self, name: &Name) -> Option<SocketAddr> {
        self.state.public.lock().get(name).copied()
    }

    /// What stops it from another thread.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Stops: no new visitors, and returns when those that are being served have left.
    pub fn stop(mut self) -> Result<(), StartError> {
        self.stopper.drain();
        self.running.take().map_or(Ok(()), Running::wait)
    }
}

impl Drop for Expose {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.stopper.stop();
        }
    }
}

impl State {
    fn note(&self, event: &Event) {
        let mut known = self.public.lock();
        match event {
            Event::Exposed { name, public } => drop(known.insert(name.clone(), *public)),
            Event::Refused { name, .. } | Event::Superseded { name, .. } => {
                known.remove(name);
            }
            Event::Lost { .. } | Event::Denied { .. } | Event::Ended => known.clear(),
            Event::Connected
            | Event::Draining
            | Event::Unreachable { .. }
            | Event::Failed { .. } => {}
        }
    }
}

/// Events that may wait for their reader; a later one is dropped.
const EVENTS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_host_and_a_port() {
        for right in ["a.example:1", "10.0.0.1:65535", "[::1]:7400"] {
            assert_eq!(target(right).unwrap().to_string(), right);
        }
        for wrong in ["", "a", ":1", "a:0", "a:65536", "::1:7400", "[]:1"] {
            assert_eq!(target(wrong), None, "{wrong}");
        }
    }
}

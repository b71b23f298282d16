//! The real program as a hop and as an access server, and rows of hops.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::client::Headers;
use super::datagram::Flow;
use super::{Hop, Key};
use crate::support::node::plan::free_ports;
use crate::support::server::{Server, Setup};

/// How a server with the chain role is to be started.
#[derive(Clone)]
pub struct Plan {
    pub setup: Setup,
    keys: BTreeMap<String, String>,
    key: Key,
    /// Access listeners; they stand behind the table.
    access: String,
}

impl Plan {
    /// A hop on a free port that dials what is not guarded.
    pub fn new(key: Key) -> Self {
        let plan = Self {
            setup: Setup::new(),
            keys: BTreeMap::new(),
            key,
            access: String::new(),
        };
        plan.line("listen", "[\"127.0.0.1:0\"]")
            .line("key", &format!("{:?}", key.text()))
    }

    /// One that dials these, as `allow` names them, and nothing else.
    pub fn allowing<T: ToString>(key: Key, allow: &[T]) -> Self {
        Self::new(key).list("allow", allow)
    }

    /// A key of `[chain]` with its value as it stands in the file.
    pub fn line(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.into(), value.into());
        self
    }

    /// A key of `[chain]` with a text.
    pub fn text(self, key: &str, value: &str) -> Self {
        self.line(key, &format!("{value:?}"))
    }

    /// A key of `[chain]` with a list of texts.
    pub fn list<T: ToString>(self, key: &str, values: &[T]) -> Self {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        self.line(key, &format!("{values:?}"))
    }

    /// On a port that nobody else gets when the hop is gone, as one that the kernel gives out may.
    pub fn on_a_lasting_port(self) -> Self {
        let port = *free_ports(1).start();
        self.list("listen", &[format!("127.0.0.1:{port}")])
    }

    /// Access listeners beside the hop, as [`access`] makes them.
    pub fn tables(mut self, tables: &str) -> Self {
        self.access += tables;
        self
    }

    pub fn setup(mut self, change: impl FnOnce(Setup) -> Setup) -> Self {
        self.setup = change(self.setup);
        self
    }

    pub fn workers(self, count: usize) -> Self {
        self.setup(|setup| setup.top(&format!("workers = {count}")))
    }

    fn table(&self) -> String {
        let lines = self.keys.iter();
        let lines: String = lines
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        format!("[chain]\n{lines}{}", self.access)
    }

    pub fn start(&self) -> Proxy {
        let server = self.setup.clone().tables(&self.table()).start();
        let listed = server.addresses["chain"].as_array();
        let listed = listed.expect("the address file has the chain's listeners");
        let hops = listed.iter().map(|at| Hop {
            address: at.as_str().unwrap().parse().unwrap(),
            key: self.key,
        });
        Proxy {
            hops: hops.collect(),
            server,
        }
    }
}

/// A running server with the chain role.
pub struct Proxy {
    pub server: Server,
    /// One for each of its listeners.
    pub hops: Vec<Hop>,
}

impl Proxy {
    pub fn hop(&self) -> Hop {
        self.hops[0].clone()
    }

    pub fn headers(&self, destination: Vec<u8>) -> Headers {
        Headers::new(&self.hops[..1], destination)
    }

    pub fn flow(&self, destination: Vec<u8>) -> Flow {
        Flow::new(&self.hops[..1], destination)
    }

    /// Fails unless it is idle, ends well when it is told to, and has not panicked.
    pub fn stop(self) {
        self.server.expect_open(0);
        self.server.stop();
    }
}

/// Several hops in a row, each a process of its own that dials the next one, what all of them are
/// allowed to, and nothing else.
pub struct Row {
    pub proxies: Vec<Proxy>,
}

impl Row {
    pub fn new<T: ToString>(count: u8, allow: &[T]) -> Self {
        Self::with(count, allow, |plan| plan)
    }

    /// The same with something said about each.
    pub fn with<T: ToString>(count: u8, allow: &[T], change: impl Fn(Plan) -> Plan) -> Self {
        let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
        let mut next = Vec::new();
        let mut proxies = Vec::new();
        for number in (1..=count).rev() {
            let allow = [&allow[..], &next].concat();
            let proxy = change(Plan::allowing(Key::number(number), &allow)).start();
            next = vec![proxy.hop().address.to_string()];
            proxies.insert(0, proxy);
        }
        Self { proxies }
    }

    pub fn hops(&self) -> Vec<Hop> {
        self.proxies.iter().map(Proxy::hop).collect()
    }

    pub fn headers(&self, destination: SocketAddr) -> Headers {
        Headers::to(&self.hops(), destination)
    }

    pub fn headers_to(&self, destination: Vec<u8>) -> Headers {
        Headers::new(&self.hops(), destination)
    }

    pub fn flow(&self, destination: SocketAddr) -> Flow {
        Flow::to(&self.hops(), destination)
    }

    /// Every one is idle and ends well.
    pub fn stop(self) {
        self.proxies.into_iter().for_each(Proxy::stop);
    }

    /// Every one ends well, flows or not.
    pub fn stop_with_flows(self) {
        for proxy in self.proxies {
            proxy.server.stop();
        }
    }
}

/// A list of hops as `via` has it.
pub fn via(hops: &[Hop]) -> String {
    let hops = hops.iter().map(|hop| {
        let key = hop.key.text();
        format!("{{ address = \"{}\", key = \"{key}\" }}", hop.address)
    });
    format!("[{}]", hops.collect::<Vec<_>>().join(", "))
}

/// An access listener of this name on a free port; `lines` are its further keys.
pub fn access(name: &str, protocol: &str, lines: &[String]) -> String {
    let lines = lines.join("\n");
    format!(
        "[[chain.access]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\n\
         protocol = \"{protocol}\"\n{lines}\n"
    )
}

/// An access listener through these hops to a fixed destination.
pub fn fixed(protocol: &str, hops: &[Hop], to: impl ToString) -> String {
    let to = to.to_string();
    access(
        protocol,
        protocol,
        &[format!("via = {}", via(hops)), format!("to = {to:?}")],
    )
}

/// An access listener through these hops to wherever its clients say.
pub fn dynamic(protocol: &str, hops: &[Hop]) -> String {
    access(protocol, protocol, &[format!("via = {}", via(hops))])
}

/// A server with these access listeners and no hop of its own.
pub fn serve(tables: &str) -> Server {
    Setup::new().tables(tables).start()
}

/// Where the access listener of this name is.
pub fn access_address(server: &Server, name: &str) -> SocketAddr {
    let text = server.addresses["access"][name][0].as_str();
    text.expect("the address file names it").parse().unwrap()
}

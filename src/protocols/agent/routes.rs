//! The traffic proxy's table: service and field to targets, guarded by tokens.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Digest, SHA256, digest};
use subtle::ConstantTimeEq;

use super::config::Route;
use crate::config::Secret;
use crate::control::resolver::Names;
use crate::net::{ConnKey, Throttle};
use crate::session::{Cx, Word};
use crate::upstream::{Targets, introduce};
use crate::wire::proxy::Version;

/// A secret to compare with, kept as its digest; none lets everything pass.
///
/// Comparing digests takes the same time whatever the lengths and wherever the first difference.
pub struct Token(Option<Digest>);

impl Token {
    /// An empty secret is none.
    pub fn of(secret: Option<&Secret>) -> Self {
        let secret = secret.map(Secret::expose).filter(|bytes| !bytes.is_empty());
        Self(secret.map(|bytes| digest(&SHA256, bytes)))
    }

    /// True when there is a secret at all.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// True when there is no secret, or `shown` is it.
    pub fn admits(&self, shown: &[u8]) -> bool {
        let shown = digest(&SHA256, shown);
        match &self.0 {
            Some(secret) => secret.as_ref().ct_eq(shown.as_ref()).into(),
            None => true,
        }
    }
}

/// All services of one core.
pub struct Routes {
    services: HashMap<Box<[u8]>, Hosts>,
    /// Compared with when the service is unknown, so that this takes as long as a wrong token.
    nobody: Token,
}

struct Hosts {
    name: Rc<str>,
    throttle: Option<Arc<Throttle>>,
    token: Token,
    send_proxy: Option<Version>,
    fields: HashMap<Box<[u8]>, Field>,
}

struct Field {
    name: Rc<str>,
    targets: Rc<Targets>,
}

/// Where a traffic request leads.
pub struct Way {
    /// The service's name in the configuration.
    pub service: Rc<str>,
    /// The field's name in the configuration: `default` when the request's own is not there.
    pub field: Rc<str>,
    /// What limits its bytes.
    pub throttle: Option<Arc<Throttle>>,
    /// The hosts to try.
    pub targets: Rc<Targets>,
    /// How they learn who the client is.
    pub send_proxy: Option<Version>,
}

impl Way {
    /// Its service and field, in words for the log.
    pub fn words(&self) -> String {
        asked_for(self.service.as_bytes(), self.field.as_bytes())
    }

    /// What comes before a relay: who the client is, and how fast it may go.
    pub fn begin(&self, client: ConnKey, backend: ConnKey, cx: &mut Cx<'_>) {
        if let Some(throttle) = &self.throttle {
            cx.pace(client, backend, vec![Arc::clone(throttle)]);
        }
        introduce(self.send_proxy, client, backend, cx);
    }
}

impl Routes {
    /// The table by the configuration, with what limits each of its routes on all cores together.
    pub fn new(
        routes: &[Route],
        throttles: &[Option<Arc<Throttle>>],
        connect_timeout: Duration,
        names: &Names,
    ) -> Self {
        let services = routes.iter().zip(throttles).map(|(route, throttle)| {
            let fields = route.fields.iter().map(|(field, targets)| {
                let entry = Field {
                    name: Rc::from(field.as_str()),
                    targets: Targets::new(targets.clone(), connect_timeout, names.clone()),
                };
                (field.as_bytes().into(), entry)
            });
            let hosts = Hosts {
                name: Rc::from(route.name.as_str()),
                throttle: throttle.clone(),
                token: Token::of(route.token.as_ref()),
                send_proxy: route.send_proxy,
                fields: fields.collect(),
            };
            (route.name.as_bytes().into(), hosts)
        });
        Self {
            services: services.collect(),
            nobody: Token(Some(digest(&SHA256, b"no service has this name"))),
        }
    }

    /// The way of a request; the error says what is wrong with it, for the log alone.
    pub fn find(&self, service: &[u8], field: &[u8], token: &[u8]) -> Result<Way, &'static str> {
        let Some(hosts) = self.services.get(service) else {
            self.nobody.admits(token);
            return Err("service unknown");
        };
        if !hosts.token.admits(token) {
            return Err("token wrong");
        }
        let own = hosts.fields.get(field);
        let Some(found) = own.or_else(|| hosts.fields.get(DEFAULT)) else {
            return Err("neither field nor default");
        };
        Ok(Way {
            service: Rc::clone(&hosts.name),
            field: Rc::clone(&found.name),
            throttle: hosts.throttle.clone(),
            targets: Rc::clone(&found.targets),
            send_proxy: hosts.send_proxy,
        })
    }
}

/// What a request asks for, in words for the log: its service and field, cut where they are long.
pub fn asked_for(service: &[u8], field: &[u8]) -> String {
    let shown = |name: &[u8]| String::from_utf8_lossy(&name[..name.len().min(SHOWN)]).into_owned();
    let (service, field) = (shown(service), shown(field));
    format!(" service={} field={}", Word(&service), Word(&field))
}

/// Bytes of a name that are told.
const SHOWN: usize = 64;

/// The field that serves requests whose own is not configured.
const DEFAULT: &[u8] = b"default";

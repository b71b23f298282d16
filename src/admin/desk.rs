//! What each request means: answered at once from what is shared, or asked of workers and the control
//! thread and answered when they have.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::request::Request;
use super::response::{Refusal, Response};
use super::{Grounds, NotReloaded, Wish, house, metrics, page, status};
use crate::control::{self, Command, Errand, Query};
use crate::reactor::{Address, Handle, SessionKey};
use crate::worker::{self, Filter, Order, Page, Row, Task};

/// What is known of the server, and who is asked for the rest.
pub(super) struct Desk {
    pub(super) grounds: Grounds,
    /// Where workers answer.
    workers: Address<worker::Answer>,
    /// Where the control thread answers.
    control: Address<(u64, control::Answer)>,
    /// Where the house answers.
    pub(super) house: Address<(u64, Result<Value, NotReloaded>)>,
    tickets: u64,
}

/// What is to be done with a request.
pub(super) enum Outcome {
    /// It is answered.
    Now(Response),
    /// It waits for others.
    Later(Waiting),
}

/// A request that waits for an answer of another thread.
pub(super) struct Waiting {
    /// Comes back in the answer.
    pub(super) ticket: u64,
    /// It is answered without them then.
    pub(super) until: Instant,
    pub(super) inquiry: Inquiry,
}

pub(super) enum Inquiry {
    Sessions(Listing),
    Kick(Handle),
    Metrics,
    Status,
    Leases,
    Change { release: bool },
    House,
}

/// A walk over the sessions of all cores.
pub(super) struct Listing {
    filter: Filter,
    most: usize,
    /// The core that is asked, and the place in its table from which on.
    core: usize,
    from: u32,
    rows: Vec<Row>,
}

/// What a path names.
enum Endpoint {
    Page,
    Metrics,
    Status,
    Sessions,
    Session(Handle),
    Leases,
    Lease(String, u16),
    Routes(Option<String>),
    Store,
    Reload,
    Drain,
}

impl Desk {
    pub(super) fn new(
        grounds: Grounds,
        workers: Address<worker::Answer>,
        control: Address<(u64, control::Answer)>,
        house: Address<(u64, Result<Value, NotReloaded>)>,
    ) -> Self {
        Self {
            grounds,
            workers,
            control,
            house,
            tickets: 0,
        }
    }

    /// Serves a request.
    pub(super) fn serve(&mut self, request: &Request, now: Instant) -> Outcome {
        match self.try_serve(request, now) {
            Ok(outcome) => outcome,
            Err(refusal) => Outcome::Now(refusal.into()),
        }
    }

    fn try_serve(&mut self, request: &Request, now: Instant) -> Result<Outcome, Refusal> {
        let reads = matches!(request.method.as_str(), "GET" | "HEAD");
        let endpoint = Endpoint::of(&request.path);
        let guard = self.grounds.panel.guard();
        // The page tells nothing by itself; it asks for the token.
        if let (true, Some(Endpoint::Page)) = (reads, &endpoint) {
            guard.check_host(request)?;
            return Ok(Outcome::Now(page::response()));
        }
        guard.check(request, !reads)?;
        let endpoint = endpoint.ok_or_else(|| Refusal::new(404, "there is nothing here"))?;
        let allowed = endpoint.methods();
        if !allowed.split(", ").any(|method| method == request.method) {
            let why = format!("allowed here: {allowed}");
            return Err(Refusal::new(405, why).header(format!("Allow: {allowed}")));
        }
        let query = Parameters::of(request, endpoint.parameters())?;
        Ok(match endpoint {
            Endpoint::Page => Outcome::Now(page::response()),
            Endpoint::Metrics => self.ask(Query::Pools, Inquiry::Metrics, now),
            Endpoint::Status => self.ask(Query::Pools, Inquiry::Status, now),
            Endpoint::Sessions => self.list(Listing::of(&query)?, now),
            Endpoint::Session(handle) => self.kick(handle, now)?,
            Endpoint::Leases => self.ask(leases(&query)?, Inquiry::Leases, now),
            Endpoint::Lease(pool, port) => self.change(request, pool, port, now)?,
            Endpoint::Routes(name) => self.routes(request, name, now)?,
            Endpoint::Store => Outcome::Now(Response::json(&status::store(&self.grounds))),
            Endpoint::Reload => {
                let dry_run = query.switch("dry_run")?;
                self.wish(Wish::Reload { dry_run }, now)
            }
            Endpoint::Drain => Outcome::Now(self.drain()),
        })
    }

    /// Takes a worker's answer; `Later` when more have to be asked.
    pub(super) fn hear_worker(
        &mut self,
        waiting: Waiting,
        answer: worker::Outcome,
        now: Instant,
    ) -> Outcome {
        match (waiting.inquiry, answer) {
            (Inquiry::Sessions(listing), worker::Outcome::Listed(page)) => {
                self.go_on(listing, page, waiting.until, now)
            }
            (Inquiry::Kick(handle), worker::Outcome::Kicked(true)) => {
                Outcome::Now(Response::json(&json!({ "kicked": handle.to_string() })))
            }
            (Inquiry::Kick(handle), worker::Outcome::Kicked(false)) => {
                Outcome::Now(gone(handle).into())
            }
            // Tickets are never used twice, so this is nobody's answer.
            (inquiry, _) => Outcome::Now(self.without(inquiry, now)),
        }
    }

    /// Takes the control thread's answer.
    pub(super) fn hear_control(
        &self,
        waiting: Waiting,
        answer: control::Answer,
        now: Instant,
    ) -> Response {
        match (waiting.inquiry, answer) {
            (Inquiry::Metrics, control::Answer::Pools(pools)) => {
                metrics::response(&self.grounds, &pools)
            }
            (Inquiry::Status, control::Answer::Pools(pools)) => {
                Response::json(&status::whole(&self.grounds, Some(&pools), now))
            }
            (Inquiry::Leases, control::Answer::Leases(rows, more)) => {
                Response::json(&status::leases(&rows, more))
            }
            (Inquiry::Change { release }, control::Answer::Changed(changed)) => {
                status::changed(release, changed)
            }
            (inquiry, _) => self.without(inquiry, now),
        }
    }

    /// Nobody has answered in time: what is known is told, and that it is not all.
    pub(super) fn give_up(&self, waiting: Waiting, now: Instant) -> Response {
        self.without(waiting.inquiry, now)
    }

    fn without(&self, inquiry: Inquiry, now: Instant) -> Response {
        match inquiry {
            Inquiry::Sessions(listing) => {
                let next = Some(listing.cursor());
                Response::json(&status::sessions(&listing.rows, next, true))
            }
            Inquiry::Metrics => metrics::response(&self.grounds, &[]),
            Inquiry::Status => Response::json(&status::whole(&self.grounds, None, now)),
            Inquiry::Kick(_) => Refusal::new(504, "the session's core has not answered yet").into(),
            Inquiry::House => house::unanswered(),
            Inquiry::Leases | Inquiry::Change { .. } => {
                Refusal::new(504, "the control thread has not answered yet").into()
            }
        }
    }

    pub(super) fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Asks the control thread.
    fn ask(&mut self, query: Query, inquiry: Inquiry, now: Instant) -> Outcome {
        let ticket = self.ticket();
        let control = self.control.clone();
        let errand = Errand {
            query,
            answer: Box::new(move |answer| {
                // There is room for as many as there are clients.
                let _ = control.post((ticket, answer));
            }),
        };
        let request = control::Request {
            from: NOBODY,
            ticket: 0,
            command: Command::Operator(errand),
        };
        match self.grounds.control.try_send(request) {
            Ok(()) => Outcome::Later(Waiting {
                ticket,
                until: now + PATIENCE,
                inquiry,
            }),
            Err(_) => Outcome::Now(self.without(inquiry, now)),
        }
    }

    /// Asks the next core of a walk, or ends it.
    fn list(&mut self, listing: Listing, now: Instant) -> Outcome {
        self.list_until(listing, now + PATIENCE, now)
    }

    fn list_until(&mut self, listing: Listing, until: Instant, now: Instant) -> Outcome {
        let enough = listing.rows.len() >= listing.most;
        let Some(worker) = self.grounds.workers.get(listing.core) else {
            return Outcome::Now(Response::json(&status::sessions(
                &listing.rows,
                None,
                false,
            )));
        };
        if enough {
            let next = Some(listing.cursor());
            return Outcome::Now(Response::json(&status::sessions(
                &listing.rows,
                next,
                false,
            )));
        }
        let worker = worker.clone();
        let ticket = self.ticket();
        let task = Task::List {
            from: listing.from,
            most: listing.most - listing.rows.len(),
            filter: listing.filter.clone(),
        };
        self.order(
            &worker,
            ticket,
            task,
            Inquiry::Sessions(listing),
            until,
            now,
        )
    }

    fn go_on(&mut self, mut listing: Listing, page: Page, until: Instant, now: Instant) -> Outcome {
        listing.rows.extend(page.rows);
        match page.next {
            Some(next) => listing.from = next,
            None => {
                listing.core += 1;
                listing.from = 0;
            }
        }
        self.list_until(listing, until, now)
    }

    fn kick(&mut self, handle: Handle, now: Instant) -> Result<Outcome, Refusal> {
        let worker = self.grounds.workers.get(usize::from(handle.core));
        let worker = worker.cloned().ok_or_else(|| gone(handle))?;
        let ticket = self.ticket();
        let task = Task::Kick(handle.session);
        let inquiry = Inquiry::Kick(handle);
        Ok(self.order(&worker, ticket, task, inquiry, now + PATIENCE, now))
    }

    fn order(
        &self,
        worker: &Address<Order>,
        ticket: u64,
        task: Task,
        inquiry: Inquiry,
        until: Instant,
        now: Instant,
    ) -> Outcome {
        let order = Order {
            ticket,
            task,
            answer: self.workers.clone(),
        };
        match worker.post(order) {
            Ok(()) => Outcome::Later(Waiting {
                ticket,
                until,
                inquiry,
            }),
            Err(_) => Outcome::Now(self.without(inquiry, now)),
        }
    }

    fn change(
        &mut self,
        request: &Request,
        pool: String,
        port: u16,
        now: Instant,
    ) -> Result<Outcome, Refusal> {
        let release = request.method == "DELETE";
        let query = match release {
            true => Query::Release { pool, port },
            false => Query::Pin {
                pool,
                port,
                pinned: pinned(&request.body)?,
            },
        };
        Ok(self.ask(query, Inquiry::Change { release }, now))
    }

    fn drain(&self) -> Response {
        (self.grounds.drain)();
        Response::json(&json!({ "phase": "draining" })).status(202)
    }
}

impl Endpoint {
    fn of(path: &[String]) -> Option<Self> {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            [""] => Self::Page,
            ["metrics"] => Self::Metrics,
            ["status"] => Self::Status,
            ["sessions"] => Self::Sessions,
            ["sessions", id] => Self::Session(id.parse().ok()?),
            ["leases"] => Self::Leases,
            // Names of pools have slashes, and may be written with them or with %2F.
            ["leases", pool @ .., port] if !pool.is_empty() => {
                Self::Lease(pool.join("/"), port.parse().ok()?)
            }
            ["routes"] => Self::Routes(None),
            ["routes", name] if !name.is_empty() => Self::Routes(Some((*name).to_owned())),
            ["store"] => Self::Store,
            ["reload"] => Self::Reload,
            ["drain"] => Self::Drain,
            _ => return None,
        })
    }

    /// What may be done here.
    fn methods(&self) -> &'static str {
        match self {
            Self::Session(_) => "DELETE",
            Self::Lease(..) => "PUT, DELETE",
            Self::Routes(Some(_)) => "GET, HEAD, PUT, DELETE",
            Self::Reload | Self::Drain => "POST",
            _ => "GET, HEAD",
        }
    }

    /// What its query may say.
    fn parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Sessions => &["role", "listener", "peer", "limit", "after"],
            Self::Leases => &["pool", "limit", "after"],
            Self::Reload => &["dry_run"],
            _ => &[],
        }
    }
}

/// A query whose names are all known.
struct Parameters<'a>(&'a [(String, String)]);

impl<'a> Parameters<'a> {
    fn of(request: &'a Request, known: &[&str]) -> Result<Self, Refusal> {
        let pairs = &request.query;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = match known {
                    [] => "none is taken here".to_owned(),
                    some => format!("known here: {}", some.join(", ")),
                };
                return Err(Refusal::bad(format!("unknown parameter {name}; {known}")));
            }
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(Refusal::bad(format!("{name} is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    fn text(&self, name: &str) -> Option<String> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }

    fn switch(&self, name: &str) -> Result<bool, Refusal> {
        match self.text(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("" | "1" | "true") => Ok(true),
            Some(_) => Err(Refusal::bad(format!("{name} is 0 or 1"))),
        }
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let Some(text) = self.text("limit") else {
            return Ok(USUAL_ROWS);
        };
        let limit = text.parse().ok();
        limit
            .filter(|limit| (1..=MOST_ROWS).contains(limit))
            .ok_or_else(|| Refusal::bad(format!("limit is a number from 1 to {MOST_ROWS}")))
    }
}

impl Listing {
    fn of(query: &Parameters<'_>) -> Result<Self, Refusal> {
        let (peer, port) = match query.text("peer") {
            None => (None, None),
            Some(text) => {
                let whole = text.parse::<std::net::SocketAddr>().ok();
                let ip = text.parse().ok().or_else(|| whole.map(|peer| peer.ip()));
                let wrong = || Refusal::bad("peer is an address, with or without a port");
                (
                    Some(ip.ok_or_else(wrong)?.to_canonical()),
                    whole.map(|peer| peer.port()),
                )
            }
        };
        let (core, from) = match query.text("after") {
            None => (0, 0),
            Some(text) => {
                let parts = text.split_once('.');
                let read =
                    parts.and_then(|(core, from)| Some((core.parse().ok()?, from.parse().ok()?)));
                read.ok_or_else(|| Refusal::bad("after is what `next` said"))?
            }
        };
        Ok(Self {
            filter: Filter {
                role: query.text("role"),
                listener: query.text("listener"),
                peer,
                port,
            },
            most: query.limit()?,
            core,
            from,
            rows: Vec::new(),
        })
    }

    /// Where to go on.
    fn cursor(&self) -> String {
        format!("{}.{}", self.core, self.from)
    }
}

fn leases(query: &Parameters<'_>) -> Result<Query, Refusal> {
    let wrong = || Refusal::bad("after is what `next` said");
    let after = match query.text("after") {
        None => None,
        Some(text) => {
            let (pool, port) = text.rsplit_once(':').ok_or_else(wrong)?;
            Some((pool.to_owned(), port.parse().map_err(|_| wrong())?))
        }
    };
    Ok(Query::Leases {
        pool: query.text("pool"),
        after,
        most: query.limit()?,
    })
}

fn pinned(body: &[u8]) -> Result<bool, Refusal> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let pinned = value.as_ref().and_then(|value| value["pinned"].as_bool());
    pinned.ok_or_else(|| Refusal::bad("the body must be {\"pinned\": true} or false"))
}

fn gone(handle: Handle) -> Refusal {
    Refusal::new(
        404,
        format!("there is no session {handle}; it may have ended"),
    )
}

/// Requests to the control thread that are no session's: their answers go where the errand says.
const NOBODY: Handle = Handle {
    core: u8::MAX,
    session: FIRST,
};

const FIRST: SessionKey = match SessionKey::from_parts(0, 1) {
    Some(key) => key,
    None => unreachable!(),
};

/// How long others are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

const USUAL_ROWS: usize = 100;

const MOST_ROWS: usize = 1000;

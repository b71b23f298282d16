//! One core's endpoints and the virtual connections between them.
//!
//! ```text
//!   endpoint (a TCP connection) ──< joint (a virtual connection) >── endpoint, here or on another core
//! ```
//!
//! Everything that two sessions must agree on is decided here in one step: who is joined with whom,
//! who is told of it in which order, who may close. So nobody is told twice, and nothing is left
//! behind by whoever leaves. Sessions call it; frames are read in `frames.rs`, and what
//! crosses between cores is in `abroad.rs`.
//!
//! Bounds: an endpoint has at most [`RESERVED`] ids that it was given and did not dial with; clients
//! have `max_conns_per_client` connections of their own making; nobody is dialled or told of a close
//! who has more than a quantum queued beyond what frames may queue.

mod abroad;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use slab::Slab;

use super::Rules;
use super::directory::{Directory, Found, Kind};
use super::far::{Call, Dial, Far, Word};
use super::scatter::Scatter;
use super::wire::{Command, Dialect};
use crate::net::ConnKey;
use crate::reactor::Handle;
use crate::runs::QUANTUM;
use crate::session::{Cx, Mail};
use crate::stats::Metric;

/// One core's part of the gateway.
pub(super) struct Hall {
    pub(super) rules: Arc<Rules>,
    directory: Arc<Directory>,
    endpoints: Slab<Endpoint>,
    joints: HashMap<u32, Joint, Scatter>,
    scatter: Scatter,
    /// Numbers the connections dialled to other cores.
    serial: u64,
    /// The server stops: nobody is joined any more.
    pub(super) stopping: bool,
}

/// One TCP connection that has introduced itself.
pub(super) struct Endpoint {
    handle: Handle,
    pub(super) conn: ConnKey,
    pub(super) kind: Kind,
    pub(super) id: u32,
    /// `None` while a client has not told.
    pub(super) dialect: Option<Dialect>,
    joints: HashSet<u32, Scatter>,
    /// Given by Open, not dialled with; the oldest first.
    reserved: VecDeque<u32>,
    /// Nothing for those who have never met another core.
    far: Option<Box<Far>>,
}

/// One virtual connection; the dialler's end comes first.
struct Joint {
    ends: [End; 2],
    /// Agreed with the other core; 0 when both ends are here.
    serial: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The endpoint's place in this hall.
    Near(usize),
    /// On another core.
    Far(Handle),
}

/// Where a frame goes.
pub(super) enum Route {
    /// Onto this connection, until so many bytes are queued there.
    Near(ConnKey, usize),
    /// To another core; the flag says whether there is credit.
    Far(Handle, bool),
    /// The sender has no connection of this id.
    Nowhere,
}

/// How far a command got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is done.
    Done,
    /// It is to be tried again when so few bytes are queued on that connection.
    AwaitRoom(ConnKey, usize),
    /// The answer comes from another core; until then nothing more is taken from the dialler.
    AwaitAnswer,
}

impl Hall {
    /// An empty hall. The seed scatters ids that peers choose.
    pub(super) fn new(rules: Arc<Rules>, directory: Arc<Directory>, seed: u64) -> Self {
        let scatter = Scatter(seed);
        Self {
            rules,
            directory,
            endpoints: Slab::new(),
            joints: HashMap::with_hasher(scatter),
            scatter,
            serial: 0,
            stopping: false,
        }
    }

    /// Enters an endpoint, a server under the id that it claims: its place, or `None` when there is
    /// no id left for a client.
    pub(super) fn enter(
        &mut self,
        conn: ConnKey,
        server: Option<u32>,
        cx: &Cx<'_>,
    ) -> Option<usize> {
        let entry = self.endpoints.vacant_entry();
        let (handle, seat) = (cx.handle, entry.key());
        let found = Found { handle, seat };
        let (kind, id, dialect) = match server {
            Some(id) => {
                self.directory.enter_server(id, found);
                (Kind::Server, id, Some(self.rules.server_dialect))
            }
            None => {
                let id = self.directory.enter_client(found)?;
                (Kind::Client, id, self.rules.dialect)
            }
        };
        entry.insert(Endpoint {
            handle,
            conn,
            kind,
            id,
            dialect,
            joints: HashSet::with_hasher(self.scatter),
            reserved: VecDeque::new(),
            far: None,
        });
        Some(seat)
    }

    /// An endpoint goes: each of its connections is closed at the other end.
    pub(super) fn leave(&mut self, seat: usize, cx: &mut Cx<'_>) {
        let (kind, id, handle) = {
            let endpoint = &self.endpoints[seat];
            (endpoint.kind, endpoint.id, endpoint.handle)
        };
        // Nobody can dial it from here on.
        self.directory.leave(kind, id, handle);
        let none = HashSet::with_hasher(self.scatter);
        for id in std::mem::replace(&mut self.endpoints[seat].joints, none) {
            self.part(id, Some(seat), cx);
        }
        let endpoint = self.endpoints.remove(seat);
        for id in endpoint.reserved {
            self.directory.conns.give_up(id, handle);
        }
        let Some(far) = endpoint.far else { return };
        if let Some(Call { to, id, serial, .. }) = far.call {
            // Joined or not, the other end learns that nobody is here.
            self.directory.conns.free(id);
            tell(to, Word::Closed { id, serial }, cx);
        }
        for (from, Dial { id, serial, .. }) in far.waiting {
            tell(from, Word::Refused { id, serial }, cx);
        }
    }

    /// The endpoint at a place.
    pub(super) fn endpoint(&self, seat: usize) -> &Endpoint {
        &self.endpoints[seat]
    }

    /// What an endpoint speaks; one that has not told is taken to speak what servers speak.
    pub(super) fn dialect(&self, seat: usize) -> Dialect {
        let told = self.endpoints[seat].dialect;
        told.unwrap_or(self.rules.server_dialect)
    }

    /// Notes what a client has turned out to speak.
    pub(super) fn learn(&mut self, seat: usize, dialect: Dialect) {
        self.endpoints[seat].dialect = Some(dialect);
    }

    /// True when it has no connection and awaits none.
    pub(super) fn is_idle(&self, seat: usize) -> bool {
        let endpoint = &self.endpoints[seat];
        endpoint.joints.is_empty() && endpoint.far.as_ref().is_none_or(|far| far.call.is_none())
    }

    /// True while its dial is answered on another core.
    pub(super) fn is_calling(&self, seat: usize) -> bool {
        let far = self.endpoints[seat].far.as_ref();
        far.is_some_and(|far| far.call.is_some())
    }

    /// Where a frame of an endpoint goes.
    pub(super) fn route(&self, seat: usize, id: u32, cx: &Cx<'_>) -> Route {
        let Some((joint, side)) = self.own(seat, id) else {
            return Route::Nowhere;
        };
        match joint.ends[1 - side] {
            End::Near(other) => {
                let other = &self.endpoints[other];
                Route::Near(other.conn, self.most_queued(other.kind, cx))
            }
            End::Far(to) => {
                let far = self.endpoints[seat].far.as_ref();
                Route::Far(to, far.is_some_and(|far| far.has_credit(to)))
            }
        }
    }

    /// How many bytes may be queued for an endpoint before those who send to it are held.
    ///
    /// A server's queue is one quantum, which all its clients take turns to fill. A client's is as
    /// long as memory allows, for whoever waits for a slow client keeps a server from all others:
    /// twice what is left of the memory, so that one takes two thirds of it at most, two a bit
    /// more together, and a newcomer always finds some.
    fn most_queued(&self, kind: Kind, cx: &Cx<'_>) -> usize {
        match kind {
            Kind::Server => QUANTUM,
            Kind::Client => {
                let left = self.rules.max_queue_memory.saturating_sub(cx.queued());
                QUANTUM.max(2 * left)
            }
        }
    }

    /// Whether so much is queued for an endpoint that it must be told nothing more; then, when it
    /// may be. Commands have a margin of their own, so that a flood of frames never holds them.
    fn is_clogged(&self, seat: usize, cx: &Cx<'_>) -> Option<Step> {
        let endpoint = &self.endpoints[seat];
        let most = self.most_queued(endpoint.kind, cx);
        let clogged = cx.unsent(endpoint.conn) > most + QUANTUM;
        clogged.then_some(Step::AwaitRoom(endpoint.conn, most))
    }

    /// True while an endpoint does not take the answers to its own commands.
    pub(super) fn is_deaf(&self, seat: usize, cx: &Cx<'_>) -> bool {
        self.is_clogged(seat, cx).is_some()
    }

    /// Gives an endpoint an id to dial with. The oldest that it was given lapses when there are too
    /// many.
    pub(super) fn open(&mut self, seat: usize) -> Option<u32> {
        let endpoint = &mut self.endpoints[seat];
        let id = self.directory.conns.reserve(endpoint.handle)?;
        endpoint.reserved.push_back(id);
        if endpoint.reserved.len() > RESERVED
            && let Some(oldest) = endpoint.reserved.pop_front()
        {
            self.directory.conns.give_up(oldest, endpoint.handle);
        }
        Some(id)
    }

    /// Joins an endpoint with the one that it names, or refuses.
    pub(super) fn dial(&mut self, seat: usize, named: (u32, u32), cx: &mut Cx<'_>) -> Step {
        let (wanted, remote) = named;
        let endpoint = &self.endpoints[seat];
        let most = self.rules.max_conns_per_client;
        let full = endpoint.kind == Kind::Client && most > 0 && endpoint.joints.len() >= most;
        let found = match full || self.stopping {
            true => None,
            false => self.directory.find(endpoint.kind, remote),
        };
        let Some(found) = found else {
            return self.refuse(seat, named, cx);
        };
        let near = found.handle.core == cx.handle.core;
        if near && let Some(wait) = self.is_clogged(found.seat, cx) {
            return wait;
        }
        let Some(id) = self.take_id(seat, wanted) else {
            return self.refuse(seat, named, cx);
        };
        if !near {
            return self.call(seat, found.handle, id, named, cx);
        }
        let joint = Joint {
            ends: [End::Near(seat), End::Near(found.seat)],
            serial: 0,
        };
        self.joints.insert(id, joint);
        self.endpoints[found.seat].joints.insert(id);
        let (dialect, dialler) = self.accept(seat, id, remote, cx);
        self.connect(found.seat, id, dialler, dialect, cx);
        Step::Done
    }

    /// The id of a new connection: as the dialler chose it, where its dialect lets it choose.
    fn take_id(&mut self, seat: usize, wanted: u32) -> Option<u32> {
        let conns = &self.directory.conns;
        if self.dialect(seat) == Dialect::Fastway {
            return conns.fresh();
        }
        let endpoint = &mut self.endpoints[seat];
        // One that is free again may be known here still, until the other core's word has come.
        if self.joints.contains_key(&wanted) || !conns.claim(wanted, endpoint.handle) {
            return None;
        }
        if let Some(at) = endpoint.reserved.iter().position(|&id| id == wanted) {
            endpoint.reserved.remove(at);
        }
        Some(wanted)
    }

    fn refuse(&self, seat: usize, (conn, remote): (u32, u32), cx: &mut Cx<'_>) -> Step {
        let refuse = Command::Refuse { conn, remote };
        self.say(seat, refuse, cx);
        Step::Done
    }

    /// Tells the dialler that it is joined; what it speaks, and its id.
    fn accept(&mut self, seat: usize, id: u32, remote: u32, cx: &mut Cx<'_>) -> (Dialect, u32) {
        self.say(seat, Command::Accept { conn: id, remote }, cx);
        let dialect = self.dialect(seat);
        let endpoint = &mut self.endpoints[seat];
        endpoint.joints.insert(id);
        (dialect, endpoint.id)
    }

    /// Tells the dialled one. A client that has not spoken yet is spoken to as its dialler speaks.
    fn connect(&mut self, seat: usize, id: u32, remote: u32, like: Dialect, cx: &mut Cx<'_>) {
        self.endpoints[seat].dialect.get_or_insert(like);
        self.say(seat, Command::Connect { conn: id, remote }, cx);
    }

    /// Closes one of an endpoint's own connections at both ends; of any other there is nothing to
    /// close.
    pub(super) fn close(&mut self, seat: usize, id: u32, cx: &mut Cx<'_>) -> Step {
        let Some((joint, side)) = self.own(seat, id) else {
            if self.joints.contains_key(&id) {
                cx.count(Metric::Ignored, 1);
            }
            return Step::Done;
        };
        if let End::Near(other) = joint.ends[1 - side]
            && let Some(wait) = self.is_clogged(other, cx)
        {
            return wait;
        }
        self.part(id, None, cx);
        Step::Done
    }

    /// Ends a connection: its ends here are told, but for the one who leaves, and so is the core of
    /// the other.
    fn part(&mut self, id: u32, leaving: Option<usize>, cx: &mut Cx<'_>) {
        let Some(Joint { ends, serial }) = self.joints.remove(&id) else {
            return;
        };
        if let End::Near(_) = ends[0] {
            self.directory.conns.free(id);
        }
        for (side, end) in ends.into_iter().enumerate() {
            match end {
                End::Near(seat) => {
                    self.endpoints[seat].joints.remove(&id);
                    if leaving != Some(seat) {
                        self.say(seat, Command::Close { conn: id }, cx);
                    }
                }
                End::Far(to) => {
                    tell(to, Word::Closed { id, serial }, cx);
                    if let End::Near(seat) = ends[1 - side] {
                        self.far(seat).part(to);
                    }
                }
            }
        }
    }

    /// A connection of which an endpoint is an end, and which end.
    fn own(&self, seat: usize, id: u32) -> Option<(&Joint, usize)> {
        let joint = self.joints.get(&id)?;
        let side = joint.ends.iter().position(|end| *end == End::Near(seat))?;
        Some((joint, side))
    }

    fn far(&mut self, seat: usize) -> &mut Far {
        self.endpoints[seat].far.get_or_insert_default()
    }

    /// Queues a command for an endpoint's peer.
    pub(super) fn say(&self, seat: usize, command: Command, cx: &mut Cx<'_>) {
        let frame = self.dialect(seat).frame(command);
        cx.send(self.endpoints[seat].conn, frame.as_ref());
    }

    /// Sweeps over everything for contradictions; for tests.
    pub(super) fn check(&self) {
        for (id, joint) in &self.joints {
            if let End::Near(_) = joint.ends[0] {
                assert!(
                    self.directory.conns.is_alive(*id),
                    "{id} may be given again"
                );
            }
            for end in joint.ends {
                if let End::Near(seat) = end {
                    assert!(
                        self.endpoints[seat].joints.contains(id),
                        "an end has forgotten {id}"
                    );
                }
            }
        }
        for (seat, endpoint) in &self.endpoints {
            let found = Found {
                handle: endpoint.handle,
                seat,
            };
            self.directory.check(endpoint.kind, endpoint.id, found);
            let mut lanes: HashMap<Handle, usize> = HashMap::new();
            for &id in &endpoint.joints {
                let own = self.own(seat, id);
                let other = own.map(|(joint, side)| joint.ends[1 - side]);
                assert!(other.is_some(), "{id} is nobody's");
                if let Some(End::Far(with)) = other {
                    *lanes.entry(with).or_default() += 1;
                }
            }
            if let Some(far) = &endpoint.far {
                far.check(&lanes);
            }
        }
    }
}

/// Posts a word to an endpoint of another core.
fn tell(to: Handle, word: Word, cx: &mut Cx<'_>) {
    cx.post(to, Mail::new(word));
}

/// Ids that an endpoint may have been given and not dialled with.
const RESERVED: usize = 1024;

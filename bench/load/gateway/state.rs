//! What all endpoints of a run share: the plan, the pattern, the one read buffer, the directory of
//! virtual connections, the counts.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use super::client::origin;
use super::plan::Plan;
use super::wire::Unit;
use crate::histogram::Histogram;
use crate::meter::corrupt;
use crate::pattern::{BLOCK, Pattern};

/// Counts of the measured window.
pub struct Tally {
    /// Messages that the gateway has delivered, at either end.
    pub messages: u64,
    /// Round trips, or connections that were opened and closed.
    pub operations: u64,
    /// Dials that were refused.
    pub refusals: u64,
    /// How long the operations took, where that is the question.
    pub latency: Histogram,
}

impl Tally {
    /// Nothing counted.
    pub fn new() -> Self {
        Self {
            messages: 0,
            operations: 0,
            refusals: 0,
            latency: Histogram::new(),
        }
    }

    /// One operation more.
    pub fn complete(&mut self, took: Duration) {
        self.operations += 1;
        self.latency.record(took);
    }
}

/// Whose a virtual connection is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The client's index.
    pub client: usize,
    /// The connection's index within the client.
    pub conn: usize,
    /// Messages of it that have come to where they are counted.
    arrived: u64,
}

/// What the endpoints of a run work with.
pub struct Run<'a> {
    /// What is to be done.
    pub plan: &'a Plan,
    /// What messages consist of.
    pub pattern: Pattern,
    /// Where everything is read to; nothing stays in it between two calls.
    pub buffer: Vec<u8>,
    /// The counts since the window began, or before it since the start.
    pub tally: Tally,
    /// Clients that the gateway has answered.
    pub greeted: usize,
    /// Dials that were accepted.
    pub accepted: u64,
    /// Clients that were given permits by the server end and may not know it yet.
    pub woken: Vec<usize>,
    permits: Vec<usize>,
    places: HashMap<u32, Place>,
    refusals: u64,
}

impl<'a> Run<'a> {
    /// For a run that has not begun.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            pattern: Pattern::new(),
            buffer: vec![0; 2 * BLOCK],
            tally: Tally::new(),
            greeted: 0,
            accepted: 0,
            woken: Vec::new(),
            permits: vec![0; plan.clients],
            places: HashMap::new(),
            refusals: 0,
        }
    }

    /// A virtual connection has come to be.
    pub fn settle(&mut self, id: u32, client: usize, conn: usize) -> io::Result<()> {
        let place = Place {
            client,
            conn,
            arrived: 0,
        };
        match self.places.insert(id, place) {
            None => Ok(()),
            Some(_) => Err(corrupt("an id was given to two connections at once")),
        }
    }

    /// Counts what the gateway brought to the server end.
    pub fn note_part_at_server(&mut self, unit: Unit) {
        if let Unit::Part { ends: true, .. } = unit {
            self.tally.messages += 1;
        }
    }

    /// Checks what has arrived where its way ends; gives the connection once a message is whole.
    /// At the server end its permit goes back to the client.
    pub fn deliver(&mut self, unit: Unit, bytes: &[u8]) -> io::Result<Option<Place>> {
        let Unit::Part {
            conn,
            at,
            len,
            ends,
        } = unit
        else {
            return Ok(None);
        };
        let Some(place) = self.places.get_mut(&conn) else {
            return Err(corrupt("a message came on a connection that nobody opened"));
        };
        if self.plan.verify {
            let text = bytes.get(bytes.len() - len..).unwrap_or_default();
            let offset = origin(conn, place.arrived) + at as u64;
            if at + len > self.plan.size || !self.pattern.holds(offset, text) {
                return Err(corrupt("a message is not the one that was sent"));
            }
        }
        if !ends {
            return Ok(None);
        }
        if at + len != self.plan.size {
            return Err(corrupt("a message has another length than was sent"));
        }
        place.arrived += 1;
        let place = *place;
        if !self.plan.load.is_echoed() {
            self.give_permit(place.client);
        }
        Ok(Some(place))
    }

    /// The permits that a client has got from the server end since it last asked.
    pub fn take_permits(&mut self, client: usize) -> usize {
        let permits = self.permits.get_mut(client);
        permits.map(std::mem::take).unwrap_or_default()
    }

    /// Until the server has been let in dials are refused, and nobody tells when that is; a
    /// gateway that goes on refusing is not being measured.
    pub fn note_refusal(&mut self) -> io::Result<()> {
        if self.accepted == 0 {
            return Ok(());
        }
        self.tally.refusals += 1;
        self.refusals += 1;
        if self.refusals < MOST_REFUSALS {
            return Ok(());
        }
        Err(corrupt("the gateway goes on refusing dials"))
    }

    fn give_permit(&mut self, client: usize) {
        if let Some(permits) = self.permits.get_mut(client) {
            if *permits == 0 {
                self.woken.push(client);
            }
            *permits += 1;
        }
    }
}

/// The server under test, as it calls itself to the gateway.
pub const SERVER_ID: u32 = 1;
const MOST_REFUSALS: u64 = 1000;

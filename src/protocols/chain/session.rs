//! One client's connection through a plain listener: dial, relay, end. The states are drawn in
//! `mod.rs`.

use std::fmt::Write;
use std::rc::Rc;

use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx, Event, Session};
use crate::upstream::{Dialling, Progress, Target, Targets};

/// One connection of an access listener. As a relayed pair may be idle for hours, it keeps nothing
/// then but where it leads.
pub(super) struct AccessSession {
    targets: Rc<Targets>,
    state: State,
}

enum State {
    /// The first event is still to come.
    Fresh,
    /// Boxed, so that its memory is free again when it is over.
    Dialling(ConnKey, Box<Dialling>),
    /// The client, and the number of the target that was reached.
    Relaying(ConnKey, u32),
}

impl AccessSession {
    /// A session that awaits its connection.
    pub(super) fn new(targets: Rc<Targets>) -> Self {
        let state = State::Fresh;
        Self { targets, state }
    }

    fn dialled(&mut self, progress: Progress, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (progress, &self.state) {
            (Progress::Connected(backend), State::Dialling(client, dialling)) => {
                let client = *client;
                self.state = State::Relaying(client, dialling.number());
                cx.relay(client, backend);
                Ok(())
            }
            (Progress::Failed(failure), _) => Err(Close::upstream(failure.into())),
            _ => Ok(()),
        }
    }

    /// Where it leads, or tries to.
    fn target(&self) -> Option<&Target> {
        match &self.state {
            State::Fresh => None,
            State::Dialling(_, dialling) => Some(dialling.target()),
            State::Relaying(_, number) => self.targets.get(*number),
        }
    }
}

impl Session for AccessSession {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match (&mut self.state, event) {
            (State::Fresh, Event::Accepted { conn, .. }) => {
                let (dialling, progress) = Dialling::start(&self.targets, cx);
                self.state = State::Dialling(conn, Box::new(dialling));
                self.dialled(progress, cx)
            }
            (_, Event::Relayed(relayed)) => Err(relayed.into()),
            (State::Relaying(client, _), Event::Lost { conn, why }) if conn != *client => {
                Err(Close::upstream(Cause::Io("connection", why)))
            }
            (_, Event::Lost { why, .. }) => Err(Close::downstream(Cause::Io("connection", why))),
            (State::Dialling(_, dialling), event) => {
                let progress = dialling.handle(&event, cx);
                self.dialled(progress, cx)
            }
            // The client's bytes and its end wait for the relay, and a server that stops waits for
            // the session.
            _ => Ok(()),
        }
    }

    fn describe(&self, out: &mut String) {
        if let Some(target) = self.target() {
            // Writing to a string cannot fail.
            let _ = write!(out, " to={target}");
        }
    }
}

/// What comes to a listener whose protocol is not served yet: connections are closed without a
/// byte, datagrams are dropped.
pub(super) struct Unserved;

impl Session for Unserved {
    fn handle(&mut self, event: Event<'_>, _cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Accepted { .. } => Err(Close::own(Cause::Denied("not served yet"))),
            Event::Stopping => Err(Close::own(Cause::Stopping)),
            _ => Ok(()),
        }
    }

    fn describe(&self, _out: &mut String) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_pair_costs_its_session_four_words() {
        assert!(size_of::<AccessSession>() <= 32);
    }
}

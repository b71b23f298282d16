//! One core's listeners of all services for TCP in mode *direct*: whoever comes gets a session.
//!
//! A control connection, on whatever core, says what to listen to and when to stop. One hall is there
//! on each core from the start. The hall of core 0 also sweeps over the tickets.
//!
//! Bounds: a listener for each service; visitors that wait and visitors in all as the rules say. Who
//! comes beyond that is closed at once, so that visitors never take what data connections need.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::visitor::Visitor;
use super::words::{Share, Word};
use crate::net::{ConnKey, ListenerKey, Sharing};
use crate::reactor::Handle;
use crate::session::{Close, Cx, Event, Mail, Session};
use crate::stats::Metric;

/// The hall of a core.
pub(super) struct Hall {
    desk: Rc<RefCell<Desk>>,
    /// By the number that its listening is asked for with.
    doors: HashMap<u32, Door>,
    /// Those that are open.
    listeners: HashMap<ListenerKey, u32>,
    /// Those that a control connection has asked for.
    asked: HashMap<(Handle, u16), u32>,
    serial: u32,
    /// When it was last said that there is no room.
    warned: Option<Instant>,
}

struct Door {
    share: Arc<Share>,
    listener: Option<ListenerKey>,
}

impl Hall {
    pub(super) fn new(desk: Rc<RefCell<Desk>>) -> Self {
        Self {
            desk,
            doors: HashMap::new(),
            listeners: HashMap::new(),
            asked: HashMap::new(),
            serial: 0,
            warned: None,
        }
    }

    fn open(&mut self, share: Arc<Share>, at: SocketAddr, sharing: Sharing, cx: &mut Cx<'_>) {
        self.serial = self.serial.wrapping_add(1);
        self.asked
            .insert((share.control, share.number), self.serial);
        let listener = None;
        self.doors.insert(self.serial, Door { share, listener });
        cx.listen_with(at, self.serial, sharing);
    }

    fn opened(&mut self, number: u32, listener: ListenerKey, cx: &mut Cx<'_>) {
        let Some(door) = self.doors.get_mut(&number) else {
            return cx.unlisten(listener); // It was closed before it was open.
        };
        door.listener = Some(listener);
        self.listeners.insert(listener, number);
        answer(&door.share, Ok(()), cx);
    }

    fn refused(&mut self, number: u32, why: io::ErrorKind, cx: &mut Cx<'_>) {
        if let Some(door) = self.doors.remove(&number) {
            self.asked.remove(&(door.share.control, door.share.number));
            answer(&door.share, Err(why), cx);
        }
    }

    fn close(&mut self, control: Handle, number: u16, cx: &mut Cx<'_>) {
        let asked = self.asked.remove(&(control, number));
        let door = asked.and_then(|number| self.doors.remove(&number));
        if let Some(listener) = door.and_then(|door| door.listener) {
            self.listeners.remove(&listener);
            cx.unlisten(listener);
        }
    }

    fn visit(&mut self, conn: ConnKey, peer: SocketAddr, listener: ListenerKey, cx: &mut Cx<'_>) {
        let number = self.listeners.get(&listener);
        let door = number.and_then(|number| self.doors.get(number));
        let Some(share) = door.map(|door| Arc::clone(&door.share)) else {
            return cx.close(conn);
        };
        let visitor = Visitor::admit(&self.desk, &share, peer);
        let handle = visitor.and_then(|visitor| cx.spawn(Box::new(visitor)));
        match handle {
            Some(handle) => cx.hand(conn, handle, Mail::new(Word::Arrival)),
            None => {
                cx.close(conn);
                cx.count(Metric::Shed, 1);
                self.warn(&share, peer, cx);
            }
        }
    }

    /// Says at most once a second that a visitor finds no room.
    fn warn(&mut self, share: &Share, peer: SocketAddr, cx: &Cx<'_>) {
        let lately = |at: Instant| cx.now.saturating_duration_since(at) < Duration::from_secs(1);
        if self.warned.is_none_or(|at| !lately(at)) {
            self.warned = Some(cx.now);
            let (handle, name) = (cx.handle, &share.name);
            log::warn!("tunnel {handle} service={name} from={peer} refused: too many visitors");
        }
    }

    fn sweep(&self, cx: &mut Cx<'_>) {
        self.desk.borrow().lobby.tickets.sweep(cx.now);
        cx.arm(SWEEP, BETWEEN_SWEEPS);
    }
}

fn answer(share: &Share, outcome: Result<(), io::ErrorKind>, cx: &mut Cx<'_>) {
    let number = share.number;
    let word = Word::Opened { number, outcome };
    cx.post(share.control, Mail::new(word));
}

impl Session for Hall {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Opened => {
                self.desk.borrow().lobby.enter_hall(cx.handle);
                if cx.handle.core == 0 {
                    self.sweep(cx);
                }
            }
            Event::Accepted {
                conn,
                peer,
                listener: Some(listener),
            } => self.visit(conn, peer, listener, cx),
            Event::Listening { listener, tag } => self.opened(tag, listener, cx),
            Event::Refused { tag, why } => self.refused(tag, why, cx),
            Event::Timer { .. } => self.sweep(cx),
            Event::Mail { from, mail } => match mail.open() {
                Some(Word::Open { share, at, sharing }) => self.open(share, at, sharing, cx),
                Some(Word::Close { number }) => self.close(from, number, cx),
                _ => {}
            },
            Event::Returned { to, mail } => {
                // Whoever asked for it has gone meanwhile.
                if let Some(Word::Opened { number, .. }) = mail.open() {
                    self.close(to, number, cx);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn describe(&self, out: &mut String) {
        out.push_str(" hall");
    }
}

const SWEEP: u8 = 0;

const BETWEEN_SWEEPS: Duration = Duration::from_secs(2);

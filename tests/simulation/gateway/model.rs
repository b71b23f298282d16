//! What must hold when everything has arrived, everybody has read and nothing moves any more.

use std::time::Duration;

use super::peer::{Fate, Line, Peer};
use super::town::Town;

impl Town {
    /// Everything arrives and is read, until nothing moves any more.
    pub fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            let before = self.progress();
            for peer in 0..self.peers.len() {
                let socket = self.peers[peer].socket;
                self.world(peer).borrow_mut().deliver(socket, usize::MAX);
                self.read(peer, usize::MAX);
            }
            self.quiesce();
            // Letters that found a full box are tried again after a while.
            self.row.pass(Duration::from_millis(1));
            self.observe();
            quiet = if self.progress() == before {
                quiet + 1
            } else {
                0
            };
        }
    }

    fn progress(&self) -> (usize, usize, usize) {
        let mut sums = (0, 0, 0);
        for (peer, one) in self.peers.iter().enumerate() {
            let world = self.world(peer);
            let world = world.borrow();
            let socket = &world.sockets[one.socket];
            sums.0 += one.parsed + socket.received.len();
            sums.1 += socket.untaken();
            sums.2 += usize::from(socket.closed);
        }
        sums
    }

    /// Compares what everybody has seen.
    pub fn check_settled(&self) {
        for (peer, one) in self.peers.iter().enumerate() {
            match one.fate {
                Fate::Alive => self.check_alive(peer, one),
                _ => assert!(
                    self.is_closed(peer),
                    "peer {peer} is {:?} and stays",
                    one.fate
                ),
            }
            for (number, line) in one.lines.iter().enumerate() {
                self.check_line(peer, number, line);
            }
        }
    }

    fn check_alive(&self, peer: usize, one: &Peer) {
        assert!(one.due.is_empty(), "peer {peer} awaits {:?}", one.due);
        let world = self.world(peer);
        let untaken = world.borrow().sockets[one.socket].untaken();
        assert_eq!(untaken, 0, "peer {peer} is not read");
        for (id, &extra) in &one.extra {
            let most = one.strays.get(id).copied().unwrap_or(0) + self.unheard(one, *id);
            assert!(
                extra <= most,
                "peer {peer} got {extra} Closes more for {id}"
            );
        }
        for id in one.strays.keys() {
            let had = one.lines.iter().any(|line| line.id == *id);
            let told = one.extra.contains_key(id);
            assert!(had || told, "peer {peer} was not told that it has no {id}");
        }
    }

    /// Messages on an id that the other end has not got: they may have met no connection.
    fn unheard(&self, one: &Peer, id: u32) -> usize {
        let same = one.lines.iter().filter(|line| line.id == id);
        same.map(|line| line.sent.len() - self.got(line)).sum()
    }

    fn got(&self, line: &Line) -> usize {
        line.partner
            .map_or(0, |(other, its)| self.peers[other].lines[its].got)
    }

    fn check_line(&self, peer: usize, number: usize, line: &Line) {
        let one = &self.peers[peer];
        let Some((other, its)) = line.partner else {
            assert!(
                line.ended || !one.is_alive(),
                "peer {peer} has {} open, with nobody",
                line.id
            );
            return;
        };
        let (them, their) = (&self.peers[other], &self.peers[other].lines[its]);
        if !one.is_alive() {
            return;
        }
        // They may not have heard the first message, if they broke off.
        let known = their.partner;
        assert!(known.is_none_or(|known| known == (peer, number)));
        let broken = line.hung_up || their.hung_up || !them.is_alive();
        assert_eq!(
            line.ended, broken,
            "peer {peer} and {other} on {}: ended for no reason, or not ended",
            line.id
        );
        // All that was sent before an end in order arrives at whoever has not broken off.
        let in_order = matches!(them.fate, Fate::Alive | Fate::Ended | Fate::Doomed);
        if in_order && !line.hung_up {
            assert_eq!(
                line.got,
                their.sent.len(),
                "messages from {other} ({:?}) to {peer} on {} are missing: {line:?} {their:?}",
                them.fate,
                line.id
            );
        }
    }
}

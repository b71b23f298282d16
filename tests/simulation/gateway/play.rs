//! What the peers do: a random one at each step.

use std::time::Duration;

use towpath::protocols::gateway::wire::{Command, Dialect};

use super::peer::{Due, Fate, said};
use super::town::{HANDSHAKE, Town};

impl Town {
    /// One thing happens.
    pub fn step(&mut self) {
        match self.random.below(1000) {
            0..30 => self.come(),
            30..110 => self.dial_somebody(),
            110..300 => self.say_something(),
            300..330 => self.break_off(),
            330..350 => self.meddle(),
            350..370 => self.chat(),
            370..376 => self.leave(),
            376..380 => self.misbehave(),
            380..386 => self.stall(),
            386..640 => self.arrive(),
            640..820 => self.take_some(),
            820..835 => self.pass(),
            _ => {}
        }
        self.row.step();
        self.observe();
    }

    /// One of those that `fits`.
    fn any(&mut self, fits: impl Fn(&Self, usize) -> bool) -> Option<usize> {
        let some: Vec<usize> = (0..self.peers.len()).filter(|&n| fits(self, n)).collect();
        match some.len() {
            0 => None,
            count => Some(some[self.random.below(count)]),
        }
    }

    fn speaker(&mut self) -> Option<usize> {
        self.any(|town, n| town.peers[n].may_speak())
    }

    /// One of a peer's connections that it may still send on.
    fn line(&mut self, peer: usize) -> Option<usize> {
        let one = &self.peers[peer];
        let mut some: Vec<usize> = one.open.values().copied().collect();
        some.retain(|&line| !one.lines[line].hung_up);
        some.sort_unstable();
        match some.len() {
            0 => None,
            count => Some(some[self.random.below(count)]),
        }
    }

    fn come(&mut self) {
        if self.peers.len() >= MOST_PEERS {
            return;
        }
        let core = self.random.below(self.row.cores.len());
        if self.random.chance(60) {
            let dialect = match self.config.dialect {
                Some(dialect) => dialect,
                None => DIALECTS[self.random.below(2)],
            };
            self.join_client(core, dialect);
            return;
        }
        let id = self.random.below(SERVERS) as u32;
        if self.random.chance(60) {
            self.settled_server(core, id);
        } else {
            self.join_server(core, id);
        }
    }

    fn dial_somebody(&mut self) {
        let Some(peer) = self.speaker() else { return };
        for _ in 0..1 + self.random.below(3) {
            let remote = match self.peers[peer].is_client() {
                true => self.random.below(SERVERS + 1) as u32,
                false => self.some_client(),
            };
            if let Some(id) = self.wanted(peer, remote) {
                self.dial(peer, id, remote);
            }
        }
    }

    fn some_client(&mut self) -> u32 {
        let mut known: Vec<u32> = self.clients.keys().copied().collect();
        known.sort_unstable();
        match known.len() {
            0 => 12,
            count => known[self.random.below(count)],
        }
    }

    /// An id to dial with: one that it was given, or one of its own choice.
    fn wanted(&mut self, peer: usize, remote: u32) -> Option<u32> {
        let one = &self.peers[peer];
        if one.dialect == Dialect::Fastway {
            return Some(0);
        }
        let given = one.reserved.last().copied();
        // Two ranges: a peer cannot tell an Accept from a Connect with the very same ids.
        let first = if one.is_client() { 1 } else { 101 };
        if given.is_some() && self.random.chance(50) {
            return given;
        }
        let id = first + self.random.below(OWN_IDS) as u32;
        self.is_clear(id, peer, remote).then_some(id)
    }

    /// Nobody whom the dial may reach can take the new connection for an earlier one of its id, which
    /// would still send on that: with ids of their own choice, peers must see to this themselves.
    fn is_clear(&self, id: u32, dialler: usize, remote: u32) -> bool {
        let dialling = |due: &Due| matches!(due, Due::Dialled(dial) if dial.id == id);
        let own = &self.peers[dialler];
        if own.open.contains_key(&id) || own.due.iter().any(dialling) {
            return false;
        }
        let client = own.is_client();
        let reached = |n: usize| match client {
            true => self.peers[n].server == Some(remote),
            false => self.clients.get(&remote) == Some(&n),
        };
        let mut told = 0_isize;
        for (n, one) in self.peers.iter().enumerate() {
            let lines = one.lines.iter().filter(|line| line.id == id);
            if one.is_client() == client {
                let same = |due: &Due| matches!(due, Due::Dialled(dial) if (dial.id, dial.remote) == (id, remote));
                if one.due.iter().any(same) {
                    return false;
                }
                let dialled = lines.filter(|line| line.dialled && line.remote == remote);
                told += dialled.count() as isize;
            } else if reached(n) {
                let world = self.world(n);
                let untaken = world.borrow().sockets[one.socket].untaken();
                let had = lines.filter(|line| !line.dialled).count();
                if had > 0 && (one.open.contains_key(&id) || untaken > 0) {
                    return false;
                }
                told -= had as isize;
            }
        }
        told == 0
    }

    fn say_something(&mut self) {
        let Some(peer) = self.speaker() else { return };
        let Some(line) = self.line(peer) else { return };
        for _ in 0..1 + self.random.below(4) {
            let most = [1, 40, 1_000, self.config.max_packet as usize][self.random.below(4)];
            let len = self.random.below(most + 1);
            self.talk(peer, line, len);
        }
    }

    /// One end closes, and sometimes the other at the same time.
    fn break_off(&mut self) {
        let Some(peer) = self.speaker() else { return };
        let Some(line) = self.line(peer) else { return };
        self.hang_up(peer, line);
        if let Some((other, its)) = self.peers[peer].lines[line].partner {
            let (them, their) = (&self.peers[other], &self.peers[other].lines[its]);
            let may = them.may_speak() && !their.ended && !their.hung_up;
            if may && self.random.chance(40) {
                self.hang_up(other, its);
            }
        }
    }

    /// Data or a Close for a connection of others, or of nobody.
    fn meddle(&mut self) {
        let Some(peer) = self.speaker() else { return };
        let Some(victim) = self.any(|town, n| !town.peers[n].open.is_empty()) else {
            return;
        };
        let mut ids: Vec<u32> = self.peers[victim].open.keys().copied().collect();
        ids.sort_unstable();
        let id = match self.random.chance(80) {
            true => ids[self.random.below(ids.len())],
            false => 0x7777_0000 + self.random.below(100) as u32,
        };
        // What it may have itself before this arrives is no stranger's.
        let own = id <= 101 + OWN_IDS as u32 || self.peers[peer].lines.iter().any(|l| l.id == id);
        let joined = self.peers[victim]
            .lines
            .iter()
            .any(|line| line.id == id && line.partner.is_none_or(|(other, _)| other == peer));
        if own || (joined && victim != peer) || self.peers[peer].reserved.contains(&id) {
            return;
        }
        match self.random.chance(50) {
            true => self.say(peer, Command::Close { conn: id }),
            false => self.stray(peer, id, 7),
        }
    }

    fn chat(&mut self) {
        let Some(peer) = self.speaker() else { return };
        let few = self.peers[peer].reserved.len() < 4;
        match self.peers[peer].dialect {
            Dialect::Document if few && self.random.chance(50) => self.ask_id(peer),
            _ => self.ping(peer),
        }
    }

    fn leave(&mut self) {
        let Some(peer) = self.any(|town, n| town.peers[n].is_alive()) else {
            return;
        };
        match self.random.below(3) {
            0 => self.part(peer, Fate::Reset),
            1 => self.part(peer, Fate::Ended),
            _ => {
                // In the middle of a frame.
                if self.peers[peer].speaks {
                    self.post(peer, &[9, 0, 0, 0, 1, 0]);
                }
                self.part(peer, Fate::Ended);
            }
        }
    }

    /// What no endpoint may send. Behind it nothing is heard any more.
    fn misbehave(&mut self) {
        let Some(peer) = self.speaker() else { return };
        let over = self.config.max_packet + 1;
        let dialect = self.peers[peer].dialect;
        let frame = match self.random.below(6) {
            0 => self.random.below(4).to_le_bytes()[..4].to_vec(),
            1 => over.to_le_bytes().to_vec(),
            2 => vec![4, 0, 0, 0, 0, 0, 0, 0],
            3 => vec![5, 0, 0, 0, 0, 0, 0, 0, 200],
            4 => said(dialect, Command::Refuse { conn: 1, remote: 1 }),
            _ => {
                // One byte of an argument is missing.
                let mut frame = said(dialect, Command::Close { conn: 1 });
                frame.pop();
                frame[0] -= 1;
                frame
            }
        };
        self.post(peer, &frame);
        self.part(peer, Fate::Doomed);
    }

    fn stall(&mut self) {
        if let Some(peer) = self.any(|_, _| true) {
            self.peers[peer].stalled = !self.peers[peer].stalled;
        }
    }

    fn arrive(&mut self) {
        if let Some(peer) = self.any(|_, _| true) {
            let most = [1, 10, 500, 20_000][self.random.below(4)];
            let most = 1 + self.random.below(most);
            let socket = self.peers[peer].socket;
            self.world(peer).borrow_mut().deliver(socket, most);
        }
    }

    fn take_some(&mut self) {
        if let Some(peer) = self.any(|town, n| !town.peers[n].stalled) {
            let most = [10, 1_000, 30_000][self.random.below(3)];
            let most = 1 + self.random.below(most);
            self.read(peer, most);
        }
    }

    /// Time passes. Most give a sign of life before.
    fn pass(&mut self) {
        for peer in 0..self.peers.len() {
            if self.peers[peer].may_speak() && self.random.chance(70) {
                self.ping(peer);
            }
        }
        let most = Duration::from_millis(1 + self.random.below(700) as u64);
        self.wait(most);
    }

    /// Time passes; a client that takes nothing is closed when its time is over.
    pub fn wait(&mut self, most: Duration) {
        self.quiesce();
        let until = self.row.now + most;
        while self.row.now < until {
            self.row.pass(until - self.row.now);
            self.observe();
        }
        for peer in 0..self.peers.len() {
            let one = &self.peers[peer];
            let world = self.world(peer);
            let blocked = world.borrow().sockets[one.socket].is_blocked();
            let waited = self.row.now - one.taken;
            let slow = one.is_client() && blocked && one.is_alive();
            let most = self.config.slow_receiver_timeout + TICKS;
            assert!(
                !slow || waited < most,
                "peer {peer} may take nothing for ever"
            );
            let late = one.is_nobody() && self.row.now - one.joined >= HANDSHAKE + TICKS;
            assert!(!late, "peer {peer} may be nobody for ever");
        }
    }
}

const DIALECTS: [Dialect; 2] = [Dialect::Document, Dialect::Fastway];
const MOST_PEERS: usize = 24;

/// Servers' ids are below it, and the next one is nobody's.
pub const SERVERS: usize = 4;

/// So many ids are chosen by the peers themselves, so that they meet.
pub const OWN_IDS: usize = 8;

/// How exact timers are.
const TICKS: Duration = Duration::from_millis(50);

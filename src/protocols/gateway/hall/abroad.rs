//! The hall's dealings with endpoints on other cores. The words and the credit are told in `far.rs`.

use super::{End, Hall, Joint, Step, tell};
use crate::protocols::gateway::far::{Call, Dial, Word};
use crate::protocols::gateway::wire::{Command, HEAD, Head};
use crate::reactor::Handle;
use crate::session::Cx;

impl Hall {
    /// Begins a dial to another core.
    pub(super) fn call(
        &mut self,
        seat: usize,
        to: Handle,
        id: u32,
        named: (u32, u32),
        cx: &mut Cx<'_>,
    ) -> Step {
        self.serial += 1;
        let serial = self.serial;
        let dial = Dial {
            id,
            serial,
            dialler: self.endpoints[seat].id,
            dialect: self.dialect(seat),
        };
        self.far(seat).call = Some(Call {
            to,
            id,
            serial,
            named,
        });
        tell(to, Word::Dial(dial), cx);
        Step::AwaitAnswer
    }

    /// Takes what an endpoint of another core says to one of this.
    pub(in crate::protocols::gateway) fn hear(
        &mut self,
        seat: usize,
        from: Handle,
        word: Word,
        cx: &mut Cx<'_>,
    ) {
        match word {
            Word::Dial(dial) => {
                if self.is_clogged(seat, cx).is_some() {
                    self.far(seat).waiting.push_back((from, dial));
                } else {
                    self.answer(seat, from, dial, cx);
                }
            }
            Word::Joined { id, serial } => {
                if self.joints.contains_key(&id) {
                    // An earlier owner of the id has ended, and its other end has not heard yet.
                    tell(from, Word::Closed { id, serial }, cx);
                    self.declined(seat, from, id, serial, cx);
                } else if let Some(call) = self.answered(seat, from, id, serial) {
                    let ends = [End::Near(seat), End::Far(from)];
                    self.joints.insert(id, Joint { ends, serial });
                    self.far(seat).join(from);
                    self.accept(seat, id, call.named.1, cx);
                    cx.resume(self.endpoints[seat].conn);
                }
            }
            Word::Refused { id, serial } => self.declined(seat, from, id, serial, cx),
            Word::Closed { id, serial } => self.closed(seat, from, id, serial, cx),
            Word::Frames(bytes) => self.receive(seat, from, &bytes, cx),
            Word::Taken(count) => {
                if self.far(seat).credited(from, count) {
                    cx.resume(self.endpoints[seat].conn);
                }
            }
        }
    }

    /// A letter found nobody: only a dial waits for an answer.
    pub(in crate::protocols::gateway) fn returned(
        &mut self,
        seat: usize,
        to: Handle,
        word: Word,
        cx: &mut Cx<'_>,
    ) {
        if let Word::Dial(Dial { id, serial, .. }) = word {
            self.declined(seat, to, id, serial, cx);
        }
    }

    /// Joins or refuses a dial of another core.
    fn answer(&mut self, seat: usize, from: Handle, dial: Dial, cx: &mut Cx<'_>) {
        let Dial { id, serial, .. } = dial;
        if self.stopping || self.joints.contains_key(&id) {
            return tell(from, Word::Refused { id, serial }, cx);
        }
        let ends = [End::Far(from), End::Near(seat)];
        self.joints.insert(id, Joint { ends, serial });
        self.endpoints[seat].joints.insert(id);
        self.far(seat).join(from);
        self.connect(seat, id, dial.dialler, dial.dialect, cx);
        tell(from, Word::Joined { id, serial }, cx);
    }

    /// The dial that an answer belongs to, if it still waits for one.
    fn answered(&mut self, seat: usize, from: Handle, id: u32, serial: u64) -> Option<Call> {
        let call = &mut self.far(seat).call;
        call.take_if(|call| (call.to, call.id, call.serial) == (from, id, serial))
    }

    fn declined(&mut self, seat: usize, from: Handle, id: u32, serial: u64, cx: &mut Cx<'_>) {
        if let Some(call) = self.answered(seat, from, id, serial) {
            self.directory.conns.free(id);
            self.refuse(seat, call.named, cx);
            cx.resume(self.endpoints[seat].conn);
        }
    }

    /// The other core has ended a connection.
    fn closed(&mut self, seat: usize, from: Handle, id: u32, serial: u64, cx: &mut Cx<'_>) {
        let far = self.far(seat);
        far.waiting
            .retain(|(who, dial)| (*who, dial.id, dial.serial) != (from, id, serial));
        let ended = self.own(seat, id).is_some_and(|(joint, side)| {
            joint.ends[1 - side] == End::Far(from) && joint.serial == serial
        });
        if !ended {
            return; // Both ends closed it at once.
        }
        let joint = self.joints.remove(&id);
        if joint.is_some_and(|joint| joint.ends[0] == End::Near(seat)) {
            self.directory.conns.free(id);
        }
        self.endpoints[seat].joints.remove(&id);
        self.far(seat).part(from);
        self.say(seat, Command::Close { conn: id }, cx);
        // If it was held for want of credit, nobody is left to grant any.
        cx.resume(self.endpoints[seat].conn);
    }

    /// Frames from another core: those of connections that ended meanwhile are dropped.
    fn receive(&mut self, seat: usize, from: Handle, bytes: &[u8], cx: &mut Cx<'_>) {
        let conn = self.endpoints[seat].conn;
        let (mut run, mut at) = (0, 0);
        while let Some(frame) = frame_at(bytes, at) {
            let (id, len) = frame;
            let known = self
                .own(seat, id)
                .is_some_and(|(joint, side)| joint.ends[1 - side] == End::Far(from));
            if !known {
                cx.send(conn, &bytes[run..at]);
                run = at + len;
            }
            at += len;
        }
        cx.send(conn, &bytes[run..at]);
        let room = cx.unsent(conn) <= self.most_queued(self.endpoints[seat].kind, cx);
        if let Some(taken) = self.far(seat).received(from, bytes.len(), room) {
            tell(from, Word::Taken(taken), cx);
        }
    }

    /// Sends frames to another core.
    pub(in crate::protocols::gateway) fn ship(
        &mut self,
        seat: usize,
        to: Handle,
        frames: Vec<u8>,
        cx: &mut Cx<'_>,
    ) {
        self.far(seat).sent(to, frames.len());
        tell(to, Word::Frames(frames), cx);
    }

    /// An endpoint's queue is short again: those of other cores who wait for that go on.
    pub(in crate::protocols::gateway) fn drained(&mut self, seat: usize, cx: &mut Cx<'_>) {
        if self.endpoints[seat].far.is_none() {
            return;
        }
        for (from, taken) in self.far(seat).settle() {
            tell(from, Word::Taken(taken), cx);
        }
        while self.is_clogged(seat, cx).is_none()
            && let Some((from, dial)) = self.far(seat).waiting.pop_front()
        {
            self.answer(seat, from, dial, cx);
        }
    }
}

/// The connection and the size of the frame at an offset, if there is a whole one.
fn frame_at(bytes: &[u8], at: usize) -> Option<(u32, usize)> {
    let rest = bytes.get(at..)?;
    let head = Head::decode(rest.first_chunk::<HEAD>()?, u32::MAX).ok()?;
    (head.frame_len() <= rest.len()).then_some((head.conn, head.frame_len()))
}

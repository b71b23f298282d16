//! The engine's end of a simulated stream socket, and its pipe.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;

use towpath::net::{SocketOptions, Stream};

use super::{SLOTS, Shared};

/// The engine's end of a socket.
pub struct SimStream {
    pub(super) world: Shared,
    pub(super) id: usize,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        socket.closed = true;
        // As a kernel does: closing with unread bytes is a reset, which eats what is on the way.
        if socket.aborted {
            socket.outbound.clear();
        }
    }
}

/// A pipe that takes bytes into few slots, whatever their number: it may be full early.
pub struct SimPipe {
    pub(super) bytes: VecDeque<u8>,
    pub(super) slots: usize,
}

impl Stream for SimStream {
    type Pipe = SimPipe;

    fn peer(&self) -> Option<SocketAddr> {
        Some(self.world.borrow().sockets[self.id].peer)
    }

    fn read(&mut self, into: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.inbound.is_empty() && !socket.end_arrived {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut count = 0;
        for slice in into {
            let part = slice.len().min(socket.inbound.len());
            for (to, from) in slice.iter_mut().zip(socket.inbound.drain(..part)) {
                *to = from;
            }
            count += part;
        }
        Ok(count)
    }

    fn write(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        assert!(!socket.shut, "bytes behind the end of the stream");
        if socket.peer_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let held = std::mem::take(&mut socket.held_back);
        socket.outbound.extend(held);
        let mut left = socket.send_room.saturating_sub(socket.outbound.len());
        let mut count = 0;
        for slice in from {
            let part = slice.len().min(left);
            socket.outbound.extend(&slice[..part]);
            left -= part;
            count += part;
        }
        let offered: usize = from.iter().map(|slice| slice.len()).sum();
        socket.write_blocked |= count < offered;
        match count {
            0 if offered > 0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn write_last(&mut self, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.write(from)?;
        let offered: usize = from.iter().map(|slice| slice.len()).sum();
        // A kernel that has no room for all of it sends what it has taken.
        if count == offered {
            let mut world = self.world.borrow_mut();
            let socket = &mut world.sockets[self.id];
            let sent = socket.outbound.len() - count.min(SEGMENT);
            socket.held_back = socket.outbound.split_off(sent).into();
        }
        Ok(count)
    }

    fn in_flight(&self) -> usize {
        self.world.borrow().sockets[self.id].outbound.len()
    }

    fn shallow(&mut self, _: usize) {}

    fn shut(&mut self) -> io::Result<()> {
        self.push();
        self.world.borrow_mut().sockets[self.id].shut = true;
        Ok(())
    }

    fn local(&self) -> Option<SocketAddr> {
        Some(SocketAddr::from(([10, 0, 0, 1], 7100)))
    }

    fn connected(&mut self) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        if socket.refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        socket.connecting = false;
        Ok(())
    }

    fn abort(&mut self) {
        self.world.borrow_mut().sockets[self.id].aborted = true;
    }

    fn last(&mut self, _: SocketOptions) {}

    fn splice_in(&mut self, pipe: &mut SimPipe, count: usize) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let slot = world.slot;
        let piece = 1 + world.random.below(slot);
        let socket = &mut world.sockets[self.id];
        if socket.peer_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if socket.inbound.is_empty() && socket.end_arrived {
            return Ok(0);
        }
        if socket.inbound.is_empty() || pipe.slots == SLOTS {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // A slot for each piece: many small pieces fill the pipe long before its bytes do.
        let mut taken = 0;
        while pipe.slots < SLOTS && taken < count && !socket.inbound.is_empty() {
            let part = piece.min(count - taken).min(socket.inbound.len());
            pipe.bytes.extend(socket.inbound.drain(..part));
            pipe.slots += 1;
            taken += part;
        }
        world.spliced += taken;
        Ok(taken)
    }

    fn splice_out(&mut self, pipe: &mut SimPipe, count: usize, more: bool) -> io::Result<usize> {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        assert!(!socket.shut, "bytes behind the end of the stream");
        if socket.peer_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let room = socket
            .send_room
            .saturating_sub(socket.outbound.len() + socket.held_back.len());
        let part = count.min(pipe.bytes.len()).min(room);
        socket.write_blocked |= part < count;
        if part == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes: Vec<u8> = pipe.bytes.drain(..part).collect();
        if pipe.bytes.is_empty() {
            pipe.slots = 0;
        }
        let mut held: Vec<u8> = std::mem::take(&mut socket.held_back);
        held.extend(bytes);
        // The last bytes may be held back for those that are to follow.
        let kept = if more { held.len().min(SEGMENT) } else { 0 };
        socket.held_back = held.split_off(held.len() - kept);
        socket.outbound.extend(held);
        Ok(part)
    }

    fn push(&mut self) {
        let mut world = self.world.borrow_mut();
        let socket = &mut world.sockets[self.id];
        let held = std::mem::take(&mut socket.held_back);
        socket.outbound.extend(held);
    }
}

/// How much a socket holds back at most.
const SEGMENT: usize = 700;

//! Answers to what peers send, over connections to the addresses that they name.
//!
//! A thread of its own writes them: an address that does not answer must not hold up what others send.

use std::io;
use std::thread::{Builder, Scope};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::message::sender;
use super::output;
use crate::config::plain;
use crate::node::{Error, Node, Peer, opcode};
use crate::protocols::node::wire::Message;

/// The way to the thread that answers.
pub(super) struct Replies(Sender<Reply>);

struct Reply {
    to: String,
    opcode: u32,
    message: Vec<u8>,
}

impl Replies {
    /// Starts the thread; it ends with this value.
    pub(super) fn start<'a>(scope: &'a Scope<'a, '_>, node: &'a Node) -> io::Result<Self> {
        let (replies, waiting) = bounded(DEPTH);
        let thread = Builder::new().name("replies".to_owned());
        thread.spawn_scoped(scope, move || write(&waiting, node))?;
        Ok(Self(replies))
    }

    /// Answers what has an answer. One that finds too many before it is dropped, with a line.
    pub(super) fn answer(&self, message: &Message) {
        // Two nodes that reply would otherwise send the same data to and fro for ever.
        if message.reply_flag {
            return;
        }
        let (opcode, inner) = match message.opcode {
            opcode::PING => (opcode::PONG, &[][..]),
            opcode::KEEPALIVE => (opcode::KEEPALIVE_RESPONSE, &[][..]),
            opcode::BYTES => (opcode::BYTES, &message.message[..]),
            _ => return,
        };
        let reply = Reply {
            to: sender(message),
            opcode,
            message: inner.to_vec(),
        };
        if let Err(error) = self.0.try_send(reply) {
            let to = plain(&error.into_inner().to);
            output::say(&format!("no reply to {to}: {DEPTH} others wait"));
        }
    }
}

fn write(waiting: &Receiver<Reply>, node: &Node) {
    let mut peers = Vec::new();
    for reply in waiting {
        if let Err(error) = write_one(&mut peers, &reply, node) {
            output::say(&format!("no reply to {}: {error}", plain(&reply.to)));
        }
    }
}

/// Writes a reply to the connection that is there, or to a new one.
fn write_one(peers: &mut Vec<(String, Peer)>, reply: &Reply, node: &Node) -> Result<(), Error> {
    let known = peers.iter().position(|(to, _)| *to == reply.to);
    if let Some(mut known) = known.map(|at| peers.remove(at))
        && known.1.reply(reply.opcode, &reply.message).is_ok()
    {
        peers.push(known);
        return Ok(());
    }
    let mut peer = node.dial(&reply.to)?;
    peer.reply(reply.opcode, &reply.message)?;
    // The one that was not used for longest leaves.
    if peers.len() >= PEERS {
        peers.remove(0);
    }
    peers.push((reply.to.clone(), peer));
    Ok(())
}

/// Replies that may wait.
const DEPTH: usize = 64;

/// Connections that are kept for further replies.
const PEERS: usize = 16;

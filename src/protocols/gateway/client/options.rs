//! How an endpoint behaves.

use std::time::Duration;

use super::super::wire::{CONN_ID, Dialect, MAX_PACKET};

/// How an endpoint behaves. `..Options::default()` fills in what is not of interest.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which dialect to speak; [`Dialect::Document`]. A towpath hears from a client which one it
    /// speaks; for servers it is configured.
    pub dialect: Dialect,
    /// How long one address may take to connect, and the gateway to send its challenge; 5 s.
    pub connect_timeout: Duration,
    /// How long a dial waits for its answer; 10 s.
    pub dial_timeout: Duration,
    /// How long the gateway may take no byte at all before a send fails; 30 s. A gateway takes none
    /// as long as it has no room, since a receiver is slow. A message that it took in part cannot be
    /// taken back, so then the connection to the gateway ends.
    pub send_timeout: Duration,
    /// When to give the gateway up, because nothing came from it; never. The fastway dialect has its
    /// pings answered, so there a few of its intervals are a good choice; in the document's dialect it
    /// is for programs that know when they must hear something.
    pub silence_timeout: Option<Duration>,
    /// How often the fastway dialect sends a ping; 10 s. Zero means never. In the document's dialect
    /// the gateway pings and is answered.
    pub ping_interval: Duration,
    /// What a frame's length may be, in both directions; 512 KiB. A message has four bytes less.
    pub max_packet: u32,
    /// Bytes that may wait on one virtual connection to be received; 1 MiB. Each message counts with
    /// 64 bytes more than it has. A message that is larger than all of it waits alone.
    pub queue: usize,
    /// Connections that the other side has dialled and nobody has accepted; 128. Further ones are
    /// closed. A program that never accepts sets 0.
    pub backlog: usize,
}

impl Options {
    /// How many bytes a message may have.
    pub fn longest_message(&self) -> usize {
        (self.max_packet as usize).saturating_sub(CONN_ID)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dialect: Dialect::Document,
            connect_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            silence_timeout: None,
            ping_interval: Duration::from_secs(10),
            max_packet: MAX_PACKET,
            queue: 1 << 20,
            backlog: 128,
        }
    }
}

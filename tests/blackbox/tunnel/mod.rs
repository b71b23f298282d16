//! The tunnel role from outside: raw clients and visitors against the real program, and
//! `towpath expose`.

mod basics;
mod bytes;
mod command;
mod control;
mod credit;
mod datagrams;
mod handshake;
mod lost;
mod malformed;
mod mux;
mod pool;
mod ports;
mod proxy_protocol;
mod refused;
mod resident;
mod restarts;
mod shortage;
mod takeover;
mod tickets;
mod visitors;

use crate::support::tunnel::client::Client;

/// A client leaves; for lists of them.
fn leave(client: Client) {
    client.leave();
}

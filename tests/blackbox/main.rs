//! The real program from its user's side: sockets, signals, files, exit codes. These tests know
//! the protocol's text and the public face, never the program's insides.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod access_log;
mod admin;
mod auth;
mod backends;
mod bandwidth;
mod bulk;
mod chain;
mod clients;
mod commands;
mod crash;
mod damage;
mod exhaustion;
mod gateway;
mod handover;
mod hostile;
mod installed;
mod limits;
mod load;
mod node;
mod node_command;
mod proxy;
mod relay;
mod reload;
mod resets;
mod routes;
mod signals;
mod starts;
mod store;
mod stream;
mod supervised;
mod terms;
mod tunnel;
mod vectors;
mod wait;

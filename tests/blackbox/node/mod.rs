//! The node role from outside: raw nodes and visitors against the real program, and `towpath node`.

mod addresses;
mod commands;
mod control;
mod cycles;
mod datagrams;
mod drain;
mod keys;
mod leases;
mod life;
mod malformed;
mod settings;
mod stalls;
mod takeover;
mod transfer;
mod vectors;
mod visitors;

//! The gateway role from outside: raw clients and servers of both dialects against the real program.

mod codec;
mod commands;
mod cores;
mod cycles;
mod departures;
mod drain;
mod fairness;
mod flows;
mod handshake;
mod life;
mod limits;
mod malformed;
mod ownership;
mod segments;
mod settings;
mod stalls;
mod takeover;
mod vectors;

//! The chain role from outside: raw clients of every hop, real clients of the access listeners and of
//! the command line, and hops that lie.

mod access;
mod codec;
mod command;
mod curl;
mod datagram_errors;
mod datagrams;
mod errors;
mod flows;
mod hops;
mod hostile;
mod http;
mod lies;
mod lost;
mod malformed;
mod payload_key;
mod policy;
mod replay;
mod resets;
mod secluded;
mod settings;
mod several;
mod socks;
mod socks_udp;
mod splits;
mod strangers;

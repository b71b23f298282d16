//! Recorded and hostile bytes against the codecs, and the clients against servers made of them.
//!
//! No binary is started here; that is `blackbox`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod agent_client;
mod agent_mutation;
mod agent_vectors;
mod chain_client;
mod chain_mutation;
mod chain_socket;
mod chain_vectors;
mod gateway_client;
mod gateway_mutation;
mod gateway_peer;
mod gateway_record;
mod gateway_replay;
mod gateway_vectors;
mod node_client;
mod node_mutation;
mod node_vectors;
mod proxy_mutation;
mod random;
mod vectors;

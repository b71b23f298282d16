//! Another configuration for a running server: what it is told, what it takes over, who notices.

mod listeners;
mod mistakes;
mod relays;
mod residents;
mod roles;
mod routes;
mod signals;

use serde_json::Value;

use crate::support::command::{Finished, towpath};
use crate::support::server::Server;

/// `towpath reload` with these further words.
fn reload(server: &Server, words: &[&str]) -> Finished {
    let address = server.admin().address.to_string();
    let words = [&["reload"], words].concat();
    towpath(&words, &[("TOWPATH_ADMIN", &address)], b"")
}

/// A reload that must go well; the lines that say what has changed.
fn reloaded(server: &Server) -> Vec<String> {
    let told = server.admin().call("POST", "/reload", "", "");
    texts(&told.expect(200).json())
}

fn texts(told: &Value) -> Vec<String> {
    let changes = told["changes"].as_array().unwrap().iter();
    let changes = changes.map(|change| change["text"].as_str().unwrap().to_owned());
    let held = told["needs_restart"].as_array().unwrap().iter();
    changes
        .chain(held.map(|held| held.as_str().unwrap().to_owned()))
        .collect()
}

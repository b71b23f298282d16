//! What roles keep through a reload: nodes' and tunnels' ports, the gateway's connections, and whoever
//! has shown a token that is another now.

use crate::support::frame::Dialect;
use crate::support::gateway::{self, Dialect as Spoken};
use crate::support::peer::Peer;
use crate::support::server::Setup;
use crate::support::tunnel::client::{Client, identity};
use crate::support::tunnel::plan::Plan as Tunnels;

use super::reloaded;

#[test]
fn an_agents_token_is_another_for_who_comes_from_then_on() {
    let framed = Dialect::Document;
    let setup = Setup::new().admin();
    let server = setup.clone().agent("token = \"old\"").start();
    let mut known = server.connect();
    known.ask(framed, &framed.auth(b"old"));
    server.rewrite(&setup.agent("token = \"new\""));
    assert_eq!(reloaded(&server), ["agent.token: changed"]);
    let update = framed.update(b"id", b"section", b"data");
    assert_eq!(
        known.ask(framed, &update).code,
        0,
        "it has shown the old one"
    );
    let mut late = server.connect();
    assert_ne!(late.ask(framed, &framed.auth(b"old")).code, 0);
    assert_eq!(late.ask(framed, &framed.auth(b"new")).code, 0);
    assert_eq!(
        server.stored(b"id", b"section").as_deref(),
        Some(&b"data"[..])
    );
    server.stop();
}

#[test]
fn the_admin_addresss_own_token_is_another_at_once() {
    let table = |token: &str| format!("[admin]\ntoken = \"{token}\"\n");
    let setup = Setup::new().admin();
    let server = setup.clone().tables(&table("old")).start();
    let (old, new) = (server.admin().token("old"), server.admin().token("new"));
    new.call("GET", "/status", "", "").expect(401);
    server.rewrite(&setup.tables(&table("new")));
    let told = old.call("POST", "/reload", "", "").expect(200);
    assert!(told.body.contains("admin.token: changed"), "{}", told.body);
    old.call("GET", "/status", "", "").expect(401);
    new.call("GET", "/status", "", "").expect(200);
    server.stop();
}

#[test]
fn a_tunnels_visitors_and_ports_live_through_another_token() {
    let plan = Tunnels::new(4).flag("--admin=127.0.0.1:0");
    let tunnel = plan.start();
    let mut visited = tunnel.visited(1);
    visited.expect_passing(b"before");
    plan.text("token", "another token, and a long one")
        .rewrite(&tunnel.server);
    assert_eq!(reloaded(&tunnel.server), ["tunnel.token: changed"]);
    visited.expect_passing(b"behind");
    assert!(Client::try_connect(tunnel.address, identity(2), "wrong").is_err());
    let known = "another token, and a long one";
    assert!(Client::try_connect(tunnel.address, identity(2), known).is_ok());
    visited.leave();
    tunnel.server.stop();
}

#[test]
fn the_gateways_connections_live_on_and_a_removed_listener_takes_only_its_own() {
    let plan = gateway::Plan::new(Spoken::Document)
        .flag("--admin=127.0.0.1:0")
        .limit("drain_timeout = \"10m\"");
    let gateway = plan.start();
    let mut pair = gateway.pair(Spoken::Document, 7);
    pair.expect_echo();
    // A second address for clients in front of the first, and another key.
    let more = plan
        .clone()
        .auth_key("another key, and a long one")
        .key("clients", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]");
    more.rewrite(&gateway.server);
    let changes = reloaded(&gateway.server);
    assert_eq!(changes.len(), 2, "{changes:?}");
    pair.expect_echo();
    let second = gateway.server.now_at_all("gateway-clients")[1];
    let mut leaves = Peer::connect(second);
    leaves.settle();
    // It goes, and who came by it and is joined with nobody; the others dial on.
    plan.auth_key("another key, and a long one")
        .rewrite(&gateway.server);
    reloaded(&gateway.server);
    pair.expect_echo();
    leaves.expect_closed();
    pair.dial(7);
    drop(pair);
    gateway.server.stop();
}

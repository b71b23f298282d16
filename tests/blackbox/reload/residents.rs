//! What a server does by itself goes on through a reload where it is as it was, and begins anew where it
//! is not; and a node keeps its address.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::node::message::Sender;
use crate::support::node::{Node, plan};
use crate::support::server::{Server, Setup};
use crate::support::tunnel::plan::Plan as Tunnels;
use crate::support::tunnel::program::expect_echoing;
use crate::support::tunnel::wire::TOKEN;
use crate::support::until;

use super::reloaded;

/// The sessions of a role that are the server's own, by what they are called and are about.
fn own(server: &Server, role: &str) -> Vec<(String, String)> {
    let rows = server.admin().sessions(&format!("role={role}"));
    let own = rows.iter().filter(|row| row["own"] == true);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    own.map(|row| (text(&row["listener"]), text(&row["id"])))
        .collect()
}

/// An access listener with two chains, of which nobody answers.
fn two_chains(name: &str, interval: &str) -> String {
    let chain = "[[chain.access.chains]]\nvia = [{ address = \"127.0.0.1:1\" }]\n";
    format!(
        "[[chain.access]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nto = \"127.0.0.1:9\"\nprobe_interval = \"{interval}\"\n{chain}{chain}"
    )
}

#[test]
fn who_tries_chains_stays_with_its_listener_and_leaves_with_it() {
    let setup = Setup::new().admin().limit("drain_timeout = \"10m\"");
    let both = two_chains("a", "30s") + &two_chains("b", "30s");
    let server = setup.clone().tables(&both).start();
    let mut before = Vec::new();
    until("two try chains", || {
        before = own(&server, "access");
        before.len() == 2
    });
    let names: Vec<_> = before.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["access a probe", "access b probe"]);
    // Another in front, and the second otherwise.
    let other = two_chains("c", "30s") + &two_chains("a", "30s") + &two_chains("b", "40s");
    server.rewrite(&setup.clone().tables(&other));
    reloaded(&server);
    let mut after = Vec::new();
    until("three try chains, and not the one that has changed", || {
        after = own(&server, "access");
        after.len() == 3 && !after.contains(&before[1])
    });
    assert!(after.contains(&before[0]), "{before:?}, then {after:?}");
    server.rewrite(&setup.tables(&two_chains("c", "30s")));
    reloaded(&server);
    until("one tries chains", || own(&server, "access").len() == 1);
    assert_eq!(own(&server, "access")[0].0, "access c probe");
    server.stop();
}

#[test]
fn a_service_exposed_elsewhere_stays_and_another_comes_and_goes() {
    let tunnel = Tunnels::new(4).start();
    let backend = Backend::echo();
    let folder = Arc::new(Folder::new());
    let ports = tunnel.ports.clone();
    let expose = |name: &str, port: u16| {
        let (server, local) = (tunnel.address, backend.address);
        format!(
            "[[expose]]\nserver = \"{server}\"\ntoken = {TOKEN:?}\n[[expose.services]]\nname = \"{name}\"\nlocal = \"{local}\"\nport = {port}\n"
        )
    };
    let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    let [first, second] = [*ports.start(), *ports.start() + 1];
    let setup = Setup::new().admin().folder(&folder);
    let one = setup.clone().tables(&expose("web", first));
    let server = one.start();
    let told = |words: String| until("it is told", || server.log().contains(&words));
    told(format!("web has the public address {}", at(first)));
    expect_echoing(at(first));
    let before = own(&server, "tunnel");
    let both = expose("more", second) + &expose("web", first);
    server.rewrite(&setup.tables(&both));
    assert_eq!(reloaded(&server), ["expose: changed"]);
    told(format!("more has the public address {}", at(second)));
    expect_echoing(at(second));
    expect_echoing(at(first));
    let after = own(&server, "tunnel");
    assert!(
        before.iter().all(|one| after.contains(one)),
        "{before:?}, then {after:?}"
    );
    server.rewrite(&one);
    reloaded(&server);
    until("the port is closed", || {
        std::net::TcpStream::connect(at(second)).is_err()
    });
    expect_echoing(at(first));
    server.stop();
    tunnel.server.stop();
}

#[test]
fn a_node_keeps_its_address_though_its_listener_has_another_number() {
    let plan = plan::Plan::new(4).flag("--admin=127.0.0.1:0");
    let proxy = plan.start();
    let mut visited = proxy.visited(1);
    visited.expect_passing(b"before");
    let free = plan::free_ports(1);
    let front = SocketAddr::from(([127, 0, 0, 1], *free.start()));
    plan.key("listen", &format!("[\"{front}\", \"127.0.0.1:0\"]"))
        .key("max_visitors", "7")
        .rewrite(&proxy.server);
    let changes = reloaded(&proxy.server).join("\n");
    let added = format!("listener added: node on {front}");
    assert!(changes.contains(&added), "{changes}");
    assert!(changes.contains("-> 7"), "{changes}");
    visited.expect_passing(b"behind");
    visited.node.expect_keepalive();
    let (mut other, _) = proxy.registered(2);
    other.expect_keepalive();
    let mut third = Node::connect(front, Sender::number(3));
    third.request();
    third.expect_keepalive();
    drop((visited, other, third));
    proxy.server.stop();
}

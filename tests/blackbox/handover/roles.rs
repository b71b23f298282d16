//! What the other roles' clients see: ports on loan stay theirs, datagrams find the newer process.

use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::chain::client::Headers;
use crate::support::chain::destination::Datagrams;
use crate::support::chain::plan::Plan as Chain;
use crate::support::chain::{Key, address};
use crate::support::folder::Folder;
use crate::support::node::plan::Plan as Node;
use crate::support::peer::Peer;
use crate::support::tunnel::plan::Plan as Tunnel;
use crate::support::tunnel::program::{Program, expect_echoing};
use crate::support::until;

#[test]
fn a_client_of_the_tunnel_has_its_ports_again_while_its_visitors_go_on() {
    let (folder, backend) = (Arc::new(Folder::new()), Backend::echo());
    let plan = Tunnel::new(8).workers(2);
    let plan = plan.limit("drain_timeout = \"5m\"").folder(&folder);
    let mut tunnel = plan.start();
    let local = backend.address.to_string();
    let words = [format!("web={local}"), format!("ssh={local}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let identity = folder.path().join("expose.id");
    let program = Program::start(tunnel.address, &identity, &words);
    let publics = ["web", "ssh"].map(|name| program.public_of(name));
    let mut visitors = publics.map(Peer::connect);
    for peer in &mut visitors {
        peer.send(b"before").expect(b"before");
    }
    for round in 0..2 {
        tunnel.server.hand_over();
        publics.iter().for_each(|public| expect_echoing(*public));
        for peer in &mut visitors {
            peer.send([round; 100]).expect([round; 100]);
        }
    }
    for mut peer in visitors {
        peer.finish().expect_end();
    }
    assert_eq!(tunnel.server.ended(), Some(0), "{}", tunnel.server.log());
    publics.iter().for_each(|public| expect_echoing(*public));
    program.stop();
    tunnel.server.stop_heir();
}

#[test]
fn a_node_has_its_port_again() {
    // Nobody who has a port is left to wait, however slowly the others are told to go.
    let plan = Node::new(4).workers(2).limit("drain_timeout = \"5m\"");
    let mut proxy = plan.limit("drain_spread = \"4m\"").start();
    let (mut node, public) = proxy.registered(1);
    proxy.server.hand_over();
    node.expect_closed();
    let (node, again) = proxy.registered(1);
    assert_eq!(again, public);
    drop(node);
    assert_eq!(proxy.server.ended(), Some(0), "{}", proxy.server.log());
    proxy.expect_alive();
    proxy.server.stop_heir();
}

#[test]
fn datagrams_go_to_the_newer_process_alone() {
    let (echo, backend) = (Datagrams::echo(), Backend::echo());
    let allowed = [echo.address, backend.address];
    let mut proxy = Chain::allowing(Key::number(1), &allowed)
        .workers(2)
        .setup(|setup| setup.limit("drain_timeout = \"5m\""))
        .start();
    let mut flows: Vec<_> = (0..8)
        .map(|_| proxy.flow(address::at(echo.address)))
        .collect();
    flows.iter_mut().for_each(|flow| {
        flow.expect_echo(b"before");
    });
    // It keeps the older process there while the datagrams come.
    let mut stream = Headers::to(&[proxy.hop()], backend.address).dial();
    let relay = stream.expect_ok();
    relay.send(b"stream").expect(b"stream");
    let heir = proxy.server.hand_over();
    until("the older one has closed its listeners", || {
        !listens_at(proxy.server.process(), proxy.hop().address.port())
    });
    assert!(listens_at(heir, proxy.hop().address.port()));
    for round in 0..20 {
        for flow in &mut flows {
            flow.expect_echo(&[round; 10]);
        }
    }
    assert!(proxy.server.is_running());
    relay.send(b"stream").expect(b"stream");
    relay.finish().expect_end();
    assert_eq!(proxy.server.ended(), Some(0), "{}", proxy.server.log());
    proxy.server.stop_heir();
}

/// Whether a process has a socket for datagrams bound to this port.
fn listens_at(process: u32, port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let port = format!(":{port:04X}");
    let bound = table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.nth(1)?.ends_with(&port);
        words.nth(7).filter(|_| is_it)
    });
    let names: Vec<String> = bound.map(|inode| format!("socket:[{inode}]")).collect();
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let mut targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets.any(|target| names.iter().any(|name| target.to_str() == Some(name)))
}

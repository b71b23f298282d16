//! `towpath expose` at a server that has no use for it just now: it says so, and comes again.

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::tunnel::host::Host;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::{Program, expect_echoing, is_echoing};
use crate::support::tunnel::wire::refusal;
use crate::support::until;

const MODES: [&[&str]; 3] = [&[], &["--direct"], &["--mux"]];

#[test]
fn an_overloaded_server_is_asked_again_though_there_never_was_a_port() {
    let (host, folder) = (Host::new(), Folder::new());
    let identity = folder.path().join("expose.id");
    let program = Program::spawn(
        host.address,
        &identity,
        &["--json", "--mux", "web=127.0.0.1:9"],
    );
    let mut client = host.welcome();
    for _ in 0..3 {
        let request = client.wish();
        client.refuse(request, refusal::OVERLOADED);
    }
    program.expect_said("(overloaded); again in");
    let request = client.wish();
    client.expose(request, 30_099);
    assert_eq!(program.public_of("web").port(), 30_099);
}

fn administered(width: u16) -> Tunnel {
    Plan::new(width).flag("--admin=127.0.0.1:0").start()
}

#[test]
fn a_client_whose_port_an_operator_releases_asks_for_another() {
    for mode in MODES {
        let (tunnel, folder, backend) = (administered(2), Folder::new(), Backend::echo());
        let admin = tunnel.server.admin();
        let local = format!("web={}", backend.address);
        let words = [mode, &[&local]].concat();
        let identity = folder.path().join("expose.id");
        let program = Program::start(tunnel.address, &identity, &words);
        let first = program.public();
        expect_echoing(first);
        let path = format!("/leases/tunnel/tcp/{}", first.port());
        admin.call("DELETE", &path, "", "").expect(200);
        program.expect_said("an operator has released the port (released); again in");
        // The one that has been free the longest is the other one.
        let line: serde_json::Value = serde_json::from_str(&program.lines(2)[1]).unwrap();
        let second = line["public"].as_str().unwrap().parse().unwrap();
        assert_ne!(first, second);
        expect_echoing(second);
        assert!(!is_echoing(first), "{mode:?}");
        let said = program.said();
        assert!(!said.contains("superseded"), "{said}");
        program.stop();
        tunnel.stop();
    }
}

#[test]
fn a_released_port_may_be_the_same_again_and_others_stay() {
    let (tunnel, folder) = (administered(2), Folder::new());
    let [web, other] = ["web", "other"].map(|_| Backend::echo());
    let wanted = tunnel.ports.end().to_string();
    let admin = tunnel.server.admin();
    let start = |name: &str, words: &[&str]| {
        Program::start(tunnel.address, &folder.path().join(name), words)
    };
    let web = start("web", &["--port", &wanted, &web.address.to_string()]);
    let other = start("other", &[&other.address.to_string()]);
    let path = format!("/leases/tunnel/tcp/{wanted}");
    for _ in 0..3 {
        until("it has its port, and loses it", || {
            admin.call("DELETE", &path, "", "").status == 200
        });
    }
    expect_echoing(web.public());
    expect_echoing(other.public());
    assert!(!other.said().contains("released"), "{}", other.said());
    web.stop();
    other.stop();
}

#[test]
fn connections_for_visitors_that_the_server_closes_are_told() {
    let plan = Plan::new(2).key("max_connections_per_ip", "2");
    let (tunnel, folder, backend) = (plan.start(), Folder::new(), Backend::echo());
    let local = format!("web={}", backend.address);
    for mode in [&[][..], &["--mux"]] {
        let identity = folder.path().join(format!("{mode:?}"));
        let words = [mode, &[&local]].concat();
        let program = Program::spawn(tunnel.address, &identity, &words);
        program.expect_said("web: a connection for its visitors has failed: ");
        program.stop();
        tunnel.server.expect_open(0);
    }
}

#[test]
fn a_visitor_that_no_data_connection_comes_for_is_told() {
    let plan = Plan::new(1).text("visitor_timeout", "1s");
    let plan = plan.key("max_connections_per_ip", "1");
    let (tunnel, folder, backend) = (plan.start(), Folder::new(), Backend::echo());
    let local = format!("web={}", backend.address);
    let identity = folder.path().join("expose.id");
    let words = ["--direct", &local];
    let program = Program::start(tunnel.address, &identity, &words);
    crate::support::tunnel::expect_turned_away(program.public());
    program.expect_said("web: a connection for its visitors has failed: ");
    program.stop();
}

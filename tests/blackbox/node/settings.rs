//! The role's keys and flags: what `check` says of them, and what it says when they are wrong.

use crate::support::command::{Finished, towpath};
use crate::support::folder::Folder;
use crate::support::node::plan::{Plan, Proxy};
use crate::support::until;

/// Runs `check` on a configuration, with more words behind.
fn check(text: &str, more: &[&str]) -> Finished {
    let folder = Folder::new();
    let file = folder.write("towpath.toml", text);
    let arguments = [&["check", "--config", file.to_str().unwrap()], more].concat();
    towpath(&arguments, &[], b"")
}

#[test]
fn the_defaults_are_those_of_the_document() {
    let shown = check("[node]\nlisten = [\"127.0.0.1:7200\"]\n", &[])
        .expect(0)
        .text();
    let words = [
        "node",
        "127.0.0.1:7200",
        "20000-29999",
        "1564141146",
        "3h",
        "3m",
        "16M",
    ];
    let others = ["", "", "", "", "180m", "180s", ""];
    for (word, other) in words.into_iter().zip(others) {
        let is_shown = shown.contains(word) || (!other.is_empty() && shown.contains(other));
        assert!(is_shown, "{word}: {shown}");
    }
}

#[test]
fn check_shows_the_role() {
    let text = "[node]\n\
                listen = [\"127.0.0.1:7200\", \"[::1]:7200\"]\n\
                public_ip = \"203.0.113.7\"\n\
                bind_ip = \"0.0.0.0\"\n\
                ports = \"21000-21009\"\n\
                network_id = 77\n\
                lease = \"12h\"\n\
                keepalive_timeout = \"45s\"\n\
                max_frame = \"64K\"\n";
    let shown = check(text, &[]).expect(0).text();
    let words = [
        "127.0.0.1:7200",
        "[::1]:7200",
        "203.0.113.7",
        "0.0.0.0",
        "21000-21009",
        "77",
        "12h",
        "45s",
        "64K",
    ];
    for word in words {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "[node]\n\
                listen = [\"127.0.0.1:port\"]\n\
                public_ip = \"nowhere\"\n\
                bind_ip = 4\n\
                ports = \"29999-20000\"\n\
                network_id = -1\n\
                lease = 180\n\
                keepalive_timeout = \"soon\"\n\
                max_frame = \"lots\"\n\
                allow_keys = [\"abc\"]\n\
                keepalive_timout = \"3m\"\n";
    let finished = check(text, &[]).expect(78);
    assert_eq!(finished.text(), "");
    for line in 2..=11 {
        let place = format!("towpath.toml:{line}:");
        let told = finished.error.lines().find(|told| told.contains(&place));
        let told = told.unwrap_or_else(|| panic!("line {line}: {}", finished.error));
        assert!(told.contains("error:"), "{told}");
        let column = told
            .split(&place)
            .nth(1)
            .unwrap()
            .split(':')
            .next()
            .unwrap();
        assert!(column.parse::<u32>().is_ok(), "{told}");
    }
    for (line, hint) in [(7, "180s"), (11, "keepalive_timeout")] {
        let place = format!("towpath.toml:{line}:");
        let mut lines = finished.error.lines().filter(|told| told.contains(&place));
        assert!(
            lines.any(|told| told.contains(hint)),
            "{hint}: {}",
            finished.error
        );
    }
}

#[test]
fn ports_are_a_range_that_exists() {
    for ports in [
        "0-10",
        "20000",
        "70000-70001",
        "20000-",
        "-",
        "a-b",
        "20000-20001-20002",
    ] {
        let text = format!("[node]\nlisten = [\"127.0.0.1:7200\"]\nports = {ports:?}\n");
        let finished = check(&text, &[]);
        // A single port is a range of one, where that is understood.
        let codes: &[i32] = if ports == "20000" { &[0, 78] } else { &[78] };
        assert!(
            codes.contains(&finished.code.unwrap()),
            "{ports}: {finished:?}"
        );
    }
}

#[test]
fn a_role_without_listen_is_off() {
    let shown = check(
        "[node]\nports = \"21000-21009\"\n[agent]\nlisten = [\"127.0.0.1:0\"]\n",
        &[],
    );
    let shown = shown.expect(0).text();
    assert!(!shown.contains("21000"), "{shown}");
}

#[test]
fn flags_beat_the_file() {
    let plan = Plan::new(4).key("listen", "[\"127.0.0.1:1\"]");
    let plan = ["--node", "127.0.0.1:0"].into_iter().fold(plan, Plan::flag);
    plan.start().expect_alive();
    let off = check(&plan.table(), &["--node=off", "--agent=127.0.0.1:7100"]);
    let shown = off.expect(0).text();
    assert!(!shown.contains("127.0.0.1:1\n"), "{shown}");
}

#[test]
fn the_role_may_have_several_addresses() {
    let plan = Plan::new(4).key("listen", "[\"127.0.0.1:0\", \"127.0.0.1:0\"]");
    let mut proxy: Proxy = plan.start();
    let second = proxy.server.addresses["node"][1].as_str().unwrap();
    let (mut node, public) = proxy.registered(1);
    // One node wherever it comes; each address names itself.
    let first = std::mem::replace(&mut proxy.address, second.parse().unwrap());
    let (mut newer, again) = proxy.registered(1);
    assert_eq!(again, public);
    newer.expect_quiet();
    node.expect_quiet();
    assert_ne!(first, proxy.address);
}

#[test]
fn another_network_is_another_network() {
    let proxy = Plan::new(2).key("network_id", "77").start();
    let mut node = proxy.node(1);
    node.say(crate::support::node::message::opcode::PROXY_REQUEST);
    node.expect_closed();
}

#[test]
fn the_public_address_is_what_is_told() {
    let proxy = Plan::new(2).text("public_ip", "127.9.9.9").start();
    // The server names itself by it, too.
    let main = std::net::SocketAddr::from(([127, 9, 9, 9], proxy.address.port()));
    let mut node = proxy.node(1);
    let message = node.message(crate::support::node::message::opcode::PROXY_REQUEST);
    node.send(message.frame());
    let got = node.next_frame().unwrap();
    let answer = crate::support::node::message::Message::of_frame(&got);
    let public: std::net::SocketAddr = answer.proxy_address().parse().unwrap();
    assert_eq!(public.ip(), main.ip());
    assert!(proxy.ports.contains(&public.port()));
    assert_eq!(
        got,
        crate::support::node::message::response(main, 1, public)
    );
    // It listens where it was told to.
    let mut visitor = crate::support::peer::Peer::connect(([127, 0, 0, 1], public.port()).into());
    let bytes = crate::support::node::message::frame(b"in");
    visitor.send(&bytes);
    node.expect(&bytes);
}

#[test]
fn the_listener_is_logged() {
    let proxy = Proxy::new(1);
    until("the line is there", || {
        let log = proxy.server.log();
        let mut lines = log.lines();
        let address = proxy.address.to_string();
        lines.any(|line| line.contains("node listening") && line.contains(&address))
    });
}

#[test]
fn help_tells_of_the_role() {
    let help = towpath(&["serve", "--help"], &[], b"").expect(0).text();
    assert!(help.contains("--node"), "{help}");
    let help = towpath(&["--help"], &[], b"").expect(0).text();
    assert!(
        help.lines()
            .any(|line| line.trim_start().starts_with("node")),
        "{help}"
    );
}

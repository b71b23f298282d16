//! The role's keys and flags: what `check` says of them, and what it says when they are wrong.

use crate::support::command::{Finished, towpath};
use crate::support::folder::Folder;
use crate::support::gateway::{DIALECTS, Dialect, Plan};
use crate::support::until;

/// Runs `check` on a configuration, with more words behind.
fn check(text: &str, more: &[&str]) -> Finished {
    let folder = Folder::new();
    let file = folder.write("towpath.toml", text);
    let arguments = [&["check", "--config", file.to_str().unwrap()], more].concat();
    towpath(&arguments, &[], b"")
}

#[test]
fn check_shows_the_role() {
    for dialect in DIALECTS {
        let plan = Plan::new(dialect).text("dialect", "fastway");
        let plan = plan
            .key("max_conns_per_client", "77")
            .text("max_packet", "64K");
        let shown = check(&plan.table(), &[]).expect(0).text();
        let words = [
            "gateway",
            "127.0.0.1:0",
            "fastway",
            dialect.name(),
            "77",
            "64K",
        ];
        for word in words {
            assert!(
                shown.to_lowercase().contains(&word.to_lowercase()),
                "{word}: {shown}"
            );
        }
        assert!(!shown.contains("test key"), "a secret: {shown}");
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "[gateway]\n\
                clients = [\"127.0.0.1:0\"]\n\
                servers = [\"127.0.0.1:port\"]\n\
                dialect = \"fastwai\"\n\
                server_dialect = \"auto\"\n\
                max_packet = \"lots\"\n\
                max_conns_per_client = -1\n\
                client_idle_timeout = 30\n\
                server_idle_timeout = \"soon\"\n\
                slow_receiver_timeout = \"10 parsecs\"\n\
                max_cons_per_client = 3\n";
    let finished = check(text, &[]).expect(78);
    assert_eq!(finished.text(), "");
    for line in 3..=11 {
        let place = format!("towpath.toml:{line}:");
        let told = finished.error.lines().find(|told| told.contains(&place));
        let told = told.unwrap_or_else(|| panic!("line {line}: {}", finished.error));
        assert!(told.contains("error:"), "{told}");
    }
    let hints = [
        (4, "document"),
        (4, "fastway"),
        (5, "document"),
        (8, "30s"),
        (11, "max_conns_per_client"),
    ];
    for (line, hint) in hints {
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
fn the_defaults_are_those_of_the_document() {
    let text = "[gateway]\nclients = [\"127.0.0.1:0\"]\nservers = [\"127.0.0.1:0\"]\n";
    let shown = check(text, &[]).expect(0).text();
    for word in ["auto", "document", "512K", "16", "30s", "10s"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
}

#[test]
fn a_key_that_protects_nothing_is_told_of() {
    let text = |address: &str, key: &str| {
        format!(
            "[gateway]\nclients = [\"127.0.0.1:0\"]\nservers = [{address:?}]\nauth_key = {key:?}\n"
        )
    };
    // For everybody to see, an empty key is nobody's wish.
    let open = check(&text("0.0.0.0:0", ""), &[]);
    assert!(open.error.contains("auth_key"), "{open:?}");
    // And a good one is nothing to talk about.
    let good = check(&text("0.0.0.0:0", "a key of more than sixteen bytes"), &[]).expect(0);
    assert_eq!(good.error, "");
    assert!(!good.text().contains("sixteen"), "{}", good.text());
    let near = check(&text("127.0.0.1:0", ""), &[]).expect(0);
    assert_eq!(near.error, "");
}

#[test]
fn flags_beat_the_file() {
    let plan = Plan::new(Dialect::Fastway)
        .key("clients", "[\"127.0.0.1:1\"]")
        .key("servers", "[\"127.0.0.1:1\"]");
    let plan = [
        "--gateway-clients",
        "127.0.0.1:0",
        "--gateway-servers",
        "127.0.0.1:0",
    ]
    .into_iter()
    .fold(plan, Plan::flag);
    let gateway = plan.start();
    gateway.expect_alive();
    let off = check(
        &plan.table(),
        &[
            "--gateway-clients=off",
            "--gateway-servers=off",
            "--agent=127.0.0.1:7100",
        ],
    );
    let shown = off.expect(0).text();
    assert!(!shown.contains("127.0.0.1:1"), "{shown}");
}

#[test]
fn a_listener_may_have_several_addresses() {
    let two = "[\"127.0.0.1:0\", \"[::1]:0\"]";
    let plan = Plan::new(Dialect::Fastway)
        .key("clients", two)
        .key("servers", two);
    let mut gateway = plan.start();
    for (clients, servers) in [(0, 1), (1, 0), (1, 1)] {
        let bound = |name: &str, at: usize| {
            let list = &gateway.server.addresses[name];
            list[at].as_str().unwrap().parse().unwrap()
        };
        (gateway.clients, gateway.servers) = (
            bound("gateway-clients", clients),
            bound("gateway-servers", servers),
        );
        gateway.expect_alive();
    }
}

#[test]
fn each_listener_is_logged() {
    let gateway = Plan::new(Dialect::Fastway).start();
    for address in [gateway.clients, gateway.servers] {
        // The address file is there before the log's thread has written all lines.
        let mut line = String::new();
        until("the listener is in the log", || {
            let log = gateway.server.log();
            let found = log.lines().find(|line| line.contains(&address.to_string()));
            line = found.unwrap_or_default().to_owned();
            !line.is_empty()
        });
        assert!(
            line.contains("gateway") && line.contains("listening"),
            "{line}"
        );
    }
}

#[test]
fn help_tells_of_the_flags() {
    let help = towpath(&["serve", "--help"], &[], b"").expect(0).text();
    for flag in ["--gateway-clients", "--gateway-servers"] {
        assert!(help.contains(flag), "{help}");
    }
}

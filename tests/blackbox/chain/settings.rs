//! What a server refuses to start with, and what its log never shows.

use crate::support::backend::Backend;
use crate::support::chain::Key;
use crate::support::chain::plan::{Plan, access, dynamic, fixed, via};
use crate::support::server::Setup;

/// Fails unless a server with these tables does not start, and says why in these words.
fn expect_refused(tables: &str, words: &[&str]) {
    let (code, said) = Setup::new().tables(tables).fail();
    assert_eq!(code, 78, "{tables}\n{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_hop_without_a_key_starts_on_loopback_only() {
    for listen in ["0.0.0.0:0", "[::]:0", ":0"] {
        expect_refused(&format!("[chain]\nlisten = [\"{listen}\"]\n"), &["key"]);
    }
    let tables = "[chain]\nlisten = [\"127.0.0.1:0\"]\n";
    let server = Setup::new().tables(tables).start();
    assert_eq!(server.addresses["chain"].as_array().unwrap().len(), 1);
    server.stop();
}

#[test]
fn keys_that_are_none_are_told_of_and_not_shown() {
    let long = Key::number(1).text() + &Key::number(2).text();
    for key in ["c2hvcnQ", "c2hvcnQ=", "%%%%", &long] {
        let tables = format!("[chain]\nlisten = [\"127.0.0.1:0\"]\nkey = \"{key}\"\n");
        let (code, said) = Setup::new().tables(&tables).fail();
        assert_eq!(code, 78, "{said}");
        assert!(said.contains("32 bytes"), "{said}");
        assert!(!said.contains(key), "{said}");
    }
}

#[test]
fn unknown_keys_are_told_of_with_the_nearest() {
    expect_refused(
        "[chain]\nlisten = [\"127.0.0.1:0\"]\nalow = []\n",
        &["alow", "allow"],
    );
    let lines = ["via = []".to_owned(), "to = \"a:1\"".to_owned()];
    let typed = access("db", "tcp", &lines).replace("protocol", "protocoll");
    expect_refused(&typed, &["protocoll", "protocol"]);
}

#[test]
fn rules_that_are_none_are_told_of() {
    for rule in [
        "*",
        "localhost",
        "10.0.0.0/33:*",
        "10.0.0.0/8:65536",
        "[::1:80",
    ] {
        let tables = format!("[chain]\nlisten = [\"127.0.0.1:0\"]\nallow = [\"{rule}\"]\n");
        expect_refused(&tables, &["allow"]);
    }
}

#[test]
fn listeners_that_make_no_sense_are_told_of() {
    let to = |text: &str| ["via = []".to_owned(), format!("to = \"{text}\"")];
    expect_refused(&access("db", "tcp", &["via = []".to_owned()]), &["to"]);
    expect_refused(&access("db", "gopher", &to("a:1")), &["protocol"]);
    expect_refused(&access("db", "socks5", &to("a:1")), &["to"]);
    expect_refused(&access("db", "tcp", &to("a")), &["to"]);
    let twice = access("db", "tcp", &to("a:1")) + &access("db", "tcp", &to("a:2"));
    expect_refused(&twice, &["db"]);
    let hop = crate::support::chain::Hop {
        address: "127.0.0.1:1".parse().unwrap(),
        key: Key::number(1),
    };
    let bad = fixed("tcp", &[hop], "a:1").replace("key = ", "kye = ");
    expect_refused(&bad, &["kye", "key"]);
}

#[test]
fn secrets_are_in_no_log() {
    let backend = Backend::echo();
    let plan = Plan::allowing(Key::number(1), &[backend.address]);
    let proxy = plan
        .setup(|setup| setup.flag("--log").flag("trace"))
        .start();
    let lines = [
        format!("via = {}", via(&proxy.hops)),
        "users = { ann = \"her-own-password\" }".to_owned(),
    ];
    let tables = access("users", "socks5", &lines) + &dynamic("http", &proxy.hops);
    let access = Setup::new().flag("--log").flag("trace").tables(&tables);
    let access = access.start();
    let headers = proxy.headers(crate::support::chain::address::at(backend.address));
    let payload = b"the payload is nobody's business";
    headers.dial().expect_echo(payload);
    for log in [proxy.server.log(), access.log()] {
        assert!(!log.contains(&Key::number(1).text()), "{log}");
        assert!(!log.contains("her-own-password"), "{log}");
        assert!(!log.contains("nobody's business"), "{log}");
    }
    access.stop();
    proxy.stop();
}

//! The rules themselves, fed with what breaks them and with what does not.

use crate::rules::*;
use crate::source::{Source, blank, test_modules};

#[test]
fn a_file_without_its_sentence_shows() {
    let rule = opens_with_a_sentence;
    breaks(rule, "src/a.rs", "use std::fs;");
    passes(rule, "src/a.rs", "//! A room.");
}

#[test]
fn a_long_file_shows() {
    let rule = is_short;
    breaks(rule, "src/a.rs", &"\n".repeat(601));
    passes(rule, "src/a.rs", &"\n".repeat(600));
}

#[test]
fn unsafe_elsewhere_or_unexplained_shows() {
    let rule = keeps_unsafe_in_sys;
    breaks(rule, "src/net.rs", "// SAFETY: no.\nunsafe {}");
    breaks(rule, "src/sys.rs", "unsafe {}");
    passes(rule, "src/sys.rs", "// SAFETY: sound.\nunsafe {}");
    passes(
        rule,
        "src/net.rs",
        "// unsafe\n#![deny(unsafe_code)] \"unsafe\"",
    );
}

#[test]
fn climbing_to_a_higher_floor_shows() {
    let rule = keeps_to_its_floor;
    breaks(rule, "src/wire/mod.rs", "use crate::net::Conn;");
    breaks(rule, "src/wire/mod.rs", "use super::net::Conn;");
    passes(rule, "src/net/conn.rs", "use super::{listener, quota};");
    breaks(rule, "src/net/conn.rs", "use super::super::worker;");
    breaks(rule, "src/net.rs", "use crate::{wire, relay::Link, sys};");
    breaks(rule, "src/buffer.rs", "use crate::reactor::Key;");
    breaks(rule, "src/worker.rs", "use crate::protocols::agent;");
    breaks(rule, "src/worker.rs", "use crate::upstream::Targets;");
    passes(rule, "src/worker.rs", "use crate::{session, net};");
    passes(rule, "src/worker/links.rs", "use super::{Slot, Timer};");
    passes(rule, "src/server.rs", "use crate::{worker, protocols};");
}

#[test]
fn protocols_that_know_each_other_and_homeless_rooms_show() {
    let rule = keeps_to_its_floor;
    breaks(
        rule,
        "src/protocols/node/mod.rs",
        "use crate::protocols::agent;",
    );
    breaks(
        rule,
        "src/protocols/node/mod.rs",
        "use super::agent::Frame;",
    );
    breaks(
        rule,
        "src/protocols/node/wire.rs",
        "use super::super::agent;",
    );
    passes(
        rule,
        "src/protocols/node/mod.rs",
        "use crate::protocols::node::X;",
    );
    breaks(rule, "src/protocols/node.rs", "use crate::worker;");
    breaks(rule, "src/attic.rs", "");
    passes(
        rule,
        "src/wire.rs",
        "#[cfg(test)]\nmod tests { use crate::net; }",
    );
}

#[test]
fn reading_the_list_shows() {
    let rule = leaves_the_list_to_the_server;
    breaks(rule, "src/worker.rs", "PROTOCOLS.len()");
    passes(rule, "src/server.rs", "PROTOCOLS.len()");
}

#[test]
fn a_protocol_that_calls_the_system_shows() {
    let rule = keeps_protocols_off_the_system;
    breaks(rule, "src/protocols/a/mod.rs", "use mio::Poll;");
    breaks(rule, "src/protocols/a/client.rs", "use mio::Poll;");
    breaks(rule, "src/protocols/a/mod.rs", "Instant::now()");
    passes(rule, "src/protocols/a/client.rs", "Instant::now()");
}

#[test]
fn a_codec_that_sees_more_than_bytes_shows() {
    let rule = keeps_codecs_pure;
    breaks(rule, "src/wire/mod.rs", "log::info!()");
    breaks(rule, "src/protocols/a/wire/mod.rs", "let s: TcpStream;");
    passes(rule, "src/protocols/a/session.rs", "log::info!()");
}

#[test]
fn a_protocol_word_in_the_engine_room_shows() {
    let rule = keeps_the_engine_room_ignorant;
    breaks(rule, "src/net/conn.rs", "// for agents");
    passes(rule, "src/net/conn.rs", "a.chain(b).set_nodelay()");
}

#[test]
fn a_shared_lock_shows() {
    let rule = shares_no_lock;
    breaks(rule, "src/net/conn.rs", "x: Arc<\n Mutex<u8>>");
    passes(rule, "src/cli/top.rs", "x: Arc<Mutex<u8>>");
}

#[test]
fn a_sleeping_test_shows() {
    let rule = never_sleeps_in_a_test;
    breaks(rule, "tests/a.rs", "thread::sleep(x)");
    breaks(rule, "src/a.rs", "#[cfg(test)]\nmod tests { sleep(x) }");
    passes(rule, "src/a.rs", "fn ends_a_sleep() { thread::sleep(x) }");
    passes(rule, "tests/a.rs", "fn ends_a_sleep() {}");
}

#[test]
fn unfinished_work_shows() {
    let rule = leaves_nothing_unfinished;
    breaks(rule, "Makefile", concat!("# TO", "DO later"));
}

#[test]
fn a_private_path_shows() {
    let rule = names_no_private_path;
    breaks(rule, "README.md", concat!("cd /ho", "me/me/x"));
}

#[test]
fn a_lax_script_shows() {
    let rule = is_a_strict_script;
    breaks(rule, "bench/a.sh", "set -e");
    passes(rule, "bench/a.sh", "set -euo pipefail");
}

#[test]
fn strangers_and_gaps_at_the_top_level_show() {
    let names = |list: &str| list.split(' ').map(String::from).collect::<Vec<_>>();
    let agreed = "Cargo.lock Cargo.toml LICENSE Makefile README.md bench conf src tests .gitignore";
    assert_eq!(top_level_breaches(&names(agreed)), Vec::<String>::new());
    assert_eq!(
        top_level_breaches(&names(&format!("{agreed} docs"))).len(),
        1
    );
    assert_eq!(
        top_level_breaches(&names(&agreed.replace("LICENSE ", ""))).len(),
        1
    );
}

#[test]
fn a_target_that_the_readme_leaves_out_shows() {
    let makefile = ".PHONY: run test\nrun:\n";
    assert_eq!(untold_targets(makefile, "`make run`, then `test`").len(), 0);
    assert_eq!(untold_targets(makefile, "make run, then tests").len(), 1);
}

#[test]
fn blanking_hides_comments_and_literals_and_nothing_else() {
    let shown = |text: &str| blank(text).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(shown("a // b\nc /* d\n e */ f"), "a c f");
    assert_eq!(shown(r#"x("a \" b", 'c', '\'', b"d") y"#), "x( , , , b ) y");
    assert_eq!(
        shown("r#\"a \" b\"# c: &'a str, for<'b> d"),
        "c: &'a str, for<'b> d"
    );
    assert_eq!(blank("\"a\nb\"").lines().count(), 2);
}

#[test]
fn a_module_for_tests_only_is_known_from_its_parent() {
    let path = "src/store/mod.rs".to_string();
    let text = "#[cfg(test)]\nmod faults;\nmod disk;".to_string();
    let parent = Source {
        path,
        text,
        tests_only: false,
    };
    assert_eq!(test_modules(&parent), ["src/store/faults"]);
}

/// How many breaches `rule` finds in this text at this path.
fn found(rule: Rule, path: &str, text: &str) -> usize {
    let (path, text) = (path.to_string(), text.to_string());
    rule(&Source {
        path,
        text,
        tests_only: false,
    })
    .len()
}

#[track_caller]
fn breaks(rule: Rule, path: &str, text: &str) {
    assert_eq!(found(rule, path, text), 1, "{path}: {text}");
}

#[track_caller]
fn passes(rule: Rule, path: &str, text: &str) {
    assert_eq!(found(rule, path, text), 0, "{path}: {text}");
}

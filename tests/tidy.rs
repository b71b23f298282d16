//! The house rules, kept as tests over the source text: who may import whom, where `unsafe` may
//! stand, how files open and how long they get, what lies at the top level.
//!
//! Each rule is a function from a text to its breaches (`tidy/rules.rs`), so that `tidy/cases.rs`
//! can feed it bad snippets: a rule that cannot fail keeps nothing. Adding a room to the house
//! means adding it to the table of floors there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "tidy/cases.rs"]
mod cases;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;

use rules::*;
use source::{Source, sources, top, top_level};

/// Runs the rules over the files that `choose` picks and tells of all breaches at once.
fn keep(rules: &[Rule], choose: fn(&Source) -> bool) {
    let sources = sources();
    let chosen: Vec<&Source> = sources.iter().filter(|source| choose(source)).collect();
    assert!(!chosen.is_empty(), "there is nothing to keep the rule over");
    let mut breaches = Vec::new();
    for source in chosen {
        let found = rules.iter().flat_map(|rule| rule(source));
        breaches.extend(found.map(|what| format!("{}: {what}", source.path)));
    }
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn rust_files_open_well_stay_short_and_keep_unsafe_in_one_place() {
    let rules: [Rule; 4] = [
        opens_with_a_sentence,
        is_short,
        keeps_unsafe_in_sys,
        never_sleeps_in_a_test,
    ];
    keep(&rules, |source| source.path.ends_with(".rs"));
}

#[test]
fn rooms_keep_to_their_floors() {
    let rules: [Rule; 6] = [
        keeps_to_its_floor,
        leaves_the_list_to_the_server,
        keeps_protocols_off_the_system,
        keeps_codecs_pure,
        keeps_the_engine_room_ignorant,
        shares_no_lock,
    ];
    keep(&rules, |source| source.path.starts_with("src/"));
}

#[test]
fn texts_are_finished_and_nobodys_own() {
    let rules: [Rule; 2] = [leaves_nothing_unfinished, names_no_private_path];
    keep(&rules, |_| true);
}

#[test]
fn scripts_are_strict_and_executable() {
    use std::os::unix::fs::PermissionsExt;

    fn is_executable(source: &Source) -> Vec<String> {
        let mode = fs::metadata(top().join(&source.path))
            .unwrap()
            .permissions()
            .mode();
        breach(mode & 0o111 != 0o111, || "is not executable".into())
    }
    let rules: [Rule; 2] = [is_a_strict_script, is_executable];
    keep(&rules, |source| {
        source.path.ends_with(".sh") || source.path == ".ci/run"
    });
}

#[test]
fn the_top_level_is_as_agreed() {
    let breaches = top_level_breaches(&top_level());
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn the_readme_tells_of_every_make_target() {
    let read = |name| fs::read_to_string(top().join(name)).unwrap();
    let breaches = untold_targets(&read("Makefile"), &read("README.md"));
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

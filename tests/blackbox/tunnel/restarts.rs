//! `towpath expose` over restarts: its own, the server's, and a second one of the same identity.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::{Program, answer, expect_echoing, is_echoing};
use crate::support::until;

fn identity(folder: &Folder) -> PathBuf {
    folder.path().join("expose.id")
}

/// A visitor at this address is greeted by this backend.
fn is_greeted(public: SocketAddr, line: &str) -> bool {
    answer(public, b"").as_deref() == Some(line.as_bytes())
}

#[test]
fn the_port_is_the_same_when_the_client_is_started_again() {
    let (tunnel, folder, backend) = (Tunnel::new(8), Folder::new(), Backend::echo());
    let local = backend.address.to_string();
    let path = identity(&folder);
    let program = Program::start(tunnel.address, &path, &[&local]);
    let public = program.public();
    program.stop();
    // Another identity does not get it.
    let other = folder.path().join("other.id");
    let other = Program::start(tunnel.address, &other, &[&local]);
    assert_ne!(other.public(), public);
    for round in 0..4 {
        let program = Program::start(tunnel.address, &path, &[&local]);
        assert_eq!(program.public(), public, "round {round}");
        expect_echoing(public);
        match round % 2 {
            0 => program.stop(),
            // As a power cut would.
            _ => drop(program),
        }
    }
    tunnel.server.expect_alive();
}

fn server_restarts(kills: bool) {
    let (folder, backend) = (Arc::new(Folder::new()), Backend::echo());
    let plan = Plan::fixed(8).folder(&folder);
    let mut tunnel = plan.start();
    let local = backend.address.to_string();
    let words = [format!("web={local}"), format!("ssh={local}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = Program::start(tunnel.address, &identity(&folder), &words);
    let publics = ["web", "ssh"].map(|name| program.public_of(name));
    for _ in 0..3 {
        publics.iter().for_each(|public| expect_echoing(*public));
        match kills {
            true => tunnel.server.kill(),
            false => tunnel.server.stop(),
        }
        let start = Instant::now();
        tunnel = plan.start();
        publics.iter().for_each(|public| expect_echoing(*public));
        eprintln!("back after {:?}", start.elapsed());
    }
    // Three losses and three returns are told, and no endless list of tries: there are some more of
    // them where the server takes long to start, each after about twice as long as the one before.
    let said = program.said();
    assert!(said.lines().count() <= 60, "{said}");
    program.stop();
    tunnel.server.stop();
}

#[test]
fn the_ports_are_the_same_when_the_server_is_stopped_and_started() {
    server_restarts(false);
}

#[test]
fn the_ports_are_the_same_when_the_server_is_killed_and_started() {
    server_restarts(true);
}

#[test]
fn a_frozen_client_keeps_nothing_busy() {
    let (tunnel, folder) = (Tunnel::new(2), Folder::new());
    let [old, new] = ["the old one", "the new one"].map(Backend::banner);
    let [old_local, new_local] = [&old, &new].map(|backend| backend.address.to_string());
    let path = identity(&folder);
    let frozen = Program::start(tunnel.address, &path, &["--name", "web", &old_local]);
    let public = frozen.public();
    until("the old one serves", || is_greeted(public, "the old one"));
    frozen.signal("STOP");
    let start = Instant::now();
    let program = Program::start(tunnel.address, &path, &["--name", "web", &new_local]);
    assert_eq!(program.public(), public);
    until("the new one serves", || is_greeted(public, "the new one"));
    eprintln!("taken over after {:?}", start.elapsed());
    frozen.signal("CONT");
    frozen.expect_said("superseded");
    for _ in 0..20 {
        assert!(is_greeted(public, "the new one"));
    }
    assert!(!program.said().contains("superseded"), "{}", program.said());
    program.stop();
}

#[test]
fn a_client_that_was_superseded_stays_away_when_the_server_is_started_again() {
    let folder = Arc::new(Folder::new());
    let plan = Plan::fixed(2).folder(&folder);
    let tunnel = plan.start();
    let [old, new] = ["the old one", "the new one"].map(Backend::banner);
    let [old_local, new_local] = [&old, &new].map(|backend| backend.address.to_string());
    let path = identity(&folder);
    let older = Program::start(tunnel.address, &path, &["--name", "web", &old_local]);
    let newer = Program::start(tunnel.address, &path, &["--name", "web", &new_local]);
    let public = newer.public();
    older.expect_said("superseded");
    tunnel.server.kill();
    let _tunnel = plan.start();
    until("the new one serves", || is_greeted(public, "the new one"));
    for _ in 0..20 {
        assert!(is_greeted(public, "the new one"));
    }
}

#[test]
fn two_names_of_one_identity_live_side_by_side() {
    let (tunnel, folder) = (Tunnel::new(2), Folder::new());
    let [web, ssh] = ["I am web", "I am ssh"].map(Backend::banner);
    let [web_local, ssh_local] = [&web, &ssh].map(|backend| backend.address.to_string());
    let path = identity(&folder);
    let web = Program::start(tunnel.address, &path, &["--name", "web", &web_local]);
    let ssh = Program::start(tunnel.address, &path, &["--name", "ssh", &ssh_local]);
    assert_ne!(web.public(), ssh.public());
    for _ in 0..10 {
        assert!(is_greeted(web.public(), "I am web"));
        assert!(is_greeted(ssh.public(), "I am ssh"));
    }
    for program in [&web, &ssh] {
        assert!(!program.said().contains("superseded"), "{}", program.said());
    }
    // One that ends is no end of the other.
    web.stop();
    assert!(is_greeted(ssh.public(), "I am ssh"));
}

#[test]
fn fifty_clients_that_lose_their_server_all_come_back() {
    crate::support::kernel::raise_own_descriptor_limit();
    let (folder, backend) = (Arc::new(Folder::new()), Backend::echo());
    let plan = Plan::fixed(50).folder(&folder);
    let tunnel = plan.start();
    let local = backend.address.to_string();
    let programs: Vec<Program> = (0..50)
        .map(|number| {
            let path = folder.path().join(format!("{number}.id"));
            Program::spawn(tunnel.address, &path, &["--json", &local])
        })
        .collect();
    let publics: Vec<SocketAddr> = programs.iter().map(Program::public).collect();
    publics.iter().for_each(|public| expect_echoing(*public));
    tunnel.server.kill();
    let start = Instant::now();
    let tunnel = plan.start();
    let mut missing = publics.clone();
    until("all are back", || {
        missing.retain(|public| !is_echoing(*public));
        missing.is_empty()
    });
    eprintln!("all back after {:?}", start.elapsed());
    // Each in its own place.
    for (program, public) in programs.iter().zip(&publics) {
        assert_eq!(program.public(), *public);
    }
    drop(programs);
    tunnel.server.stop();
}

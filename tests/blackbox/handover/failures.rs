//! A newer process that does not come to serve: the older one goes on with everything, and says why.

use std::path::{Path, PathBuf};

use crate::support::backend::Backend;
use crate::support::command::{TOWPATH, copy};
use crate::support::folder::Folder;
use crate::support::server::{Server, Setup};
use crate::support::until;

/// A server whose program's file is a copy that can be replaced.
struct Replaceable {
    server: Server,
    setup: Setup,
    file: PathBuf,
    folder: Folder,
}

impl Replaceable {
    fn start(setup: &Setup) -> Self {
        let folder = Folder::new();
        let file = folder.path().join("towpath");
        let setup = setup.clone().program(&file);
        copy(Path::new(TOWPATH), &file);
        Self {
            server: setup.start(),
            setup,
            file,
            folder,
        }
    }

    /// Puts a script in the program's place.
    fn replace(&self, script: &str) {
        let text = self
            .folder
            .write("script", format!("#!/bin/sh\n{script}\n"));
        copy(&text, &self.file);
    }

    fn restore(&self) {
        copy(Path::new(TOWPATH), &self.file);
    }

    /// Asks for it, waits until it has come to nothing for this reason, and sees that all goes on.
    fn expect_failure(&mut self, why: &str) {
        let before = self.server.log().len();
        self.server.signal("USR2");
        until("the older one goes on", || {
            self.server.log()[before..].contains("; this process goes on")
        });
        let log = self.server.log();
        let said = &log[before..];
        assert!(said.contains(why), "{why} in {said}");
        assert_eq!(said.matches("handover: ").count(), 2, "{said}");
        assert!(self.server.is_running());
        self.server.expect_alive();
    }

    /// The next one, which is as it should be, serves.
    fn expect_success(mut self) {
        self.server.store(b"kept", b"s", b"all the time");
        self.server.hand_over();
        assert_eq!(self.server.ended(), Some(0), "{}", self.server.log());
        let kept = self.server.stored(b"kept", b"s");
        assert_eq!(kept.as_deref(), Some(&b"all the time"[..]));
        self.server.stop_heir();
    }
}

#[test]
fn a_program_that_does_not_run_is_told_by_how_it_ended() {
    let backend = Backend::echo();
    let mut one = Replaceable::start(&Setup::to(backend.address).top("workers = 2"));
    let mut relay = one.server.open();
    for (script, why) in [
        ("exit 3", "the new process exited with 3"),
        ("kill -SEGV $$", "the new process was ended by signal 11"),
        ("exec 0<&-; exit 0", "the new process exited with 0"),
    ] {
        one.replace(script);
        one.expect_failure(why);
    }
    let nothing = one.folder.write("nothing", "");
    std::fs::rename(nothing, &one.file).unwrap();
    one.expect_failure("cannot start");
    std::fs::remove_file(&one.file).unwrap();
    one.expect_failure("No such file or directory");
    relay.send(b"all the time").expect(b"all the time");
    relay.finish().expect_end();
    one.restore();
    one.expect_success();
}

#[test]
fn a_configuration_with_a_mistake_changes_nothing() {
    let mut one = Replaceable::start(&Setup::new());
    one.server.rewrite_as("[agent]\nlisten = 5\n");
    one.expect_failure("the new process exited with 78");
    // An address that another program has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let other = format!("[gateway]\nclients = [\"{at}\"]\n");
    one.server.rewrite(&one.setup.clone().tables(&other));
    one.expect_failure("the new process exited with 75");
    one.server.rewrite(&one.setup);
    one.expect_success();
}

#[test]
fn a_process_that_fails_with_the_store_in_its_hands_gives_it_back() {
    let mut one = Replaceable::start(&Setup::new());
    one.server.store(b"kept", b"s", b"before");
    // Everything is right but the place of the store; or, when that is open, of the access log.
    for (flag, code) in [("--data-dir", 1), ("--access-log", 78)] {
        one.replace(&format!("exec {TOWPATH} \"$@\" {flag}=/dev/null/nowhere"));
        one.expect_failure(&format!("the new process exited with {code}"));
        let log = one.server.log();
        assert!(log.contains("/dev/null/nowhere"), "{log}");
    }
    let kept = one.server.stored(b"kept", b"s");
    assert_eq!(kept.as_deref(), Some(&b"before"[..]));
    one.restore();
    one.expect_success();
}

#[test]
fn a_process_that_hangs_is_killed() {
    let mut one = Replaceable::start(&Setup::new());
    // It reads and says nothing; should this test be killed, it ends.
    one.replace("exec cat >/dev/null");
    one.expect_failure("has not said checked within 10s and is killed");
    one.restore();
    one.expect_success();
}

#[test]
fn a_program_of_another_version_refuses() {
    let setup = Setup::new().environment("TOWPATH_HANDOVER", "99");
    let (code, said) = setup.fail();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("speaks version 99 of its words"), "{said}");
}

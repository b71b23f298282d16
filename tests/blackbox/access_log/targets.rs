//! Where the records go: a file that is rotated under load, stdout, targets that take nothing; and what is
//! written when the server ends.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::{Logged, flags, json_records, with};
use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::server::{Server, Setup};
use crate::support::until;

/// A session: one frame and its answer.
fn query(server: &Server) {
    let wide = Dialect::Stock;
    server
        .connect()
        .ask(wide, &wide.query(b"nobody", b"nothing"));
}

#[test]
fn no_record_is_lost_or_doubled_by_rotations_under_load() {
    let backend = Backend::silent();
    let logged = Logged::start(Setup::to(backend.address).top("workers = 2"), "json");
    let (server, path) = (&logged.server, &logged.path);
    let asked = AtomicUsize::new(0);
    let is_over = AtomicBool::new(false);
    let rotated: Vec<_> = (0..8).map(|n| path.with_extension(n.to_string())).collect();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    query(server);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for old in &rotated {
            let seen = asked.load(Ordering::SeqCst);
            until("some more are asked", || {
                asked.load(Ordering::SeqCst) > seen + 50
            });
            std::fs::rename(path, old).unwrap();
            server.signal("USR1");
            until("the file is there anew", || path.exists());
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let asked = asked.load(Ordering::SeqCst);
    logged.expect_recorded(asked as u64);
    let files = rotated.iter().chain([path]);
    let mut records: Vec<_> = files.flat_map(|file| json_records(file)).collect();
    assert_eq!(records.len(), asked);
    records.sort_by_key(|record| record["id"].to_string());
    records.dedup_by_key(|record| record["id"].to_string());
    assert_eq!(records.len(), asked, "a record is there twice");
    assert_eq!(
        server.admin().metric("towpath_log_dropped_total", "access"),
        0.0
    );
    logged.server.stop();
}

#[test]
fn a_file_is_continued_and_open_to_its_owner_and_group() {
    let folder = Folder::new();
    let path = folder.path().join("access.log");
    for round in 1..3 {
        let server = flags(Setup::new(), &path, "json").start();
        query(&server);
        server.stop();
        assert_eq!(json_records(&path).len(), round);
    }
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    // The umask may take the group's part, too.
    assert_eq!(mode & 0o137, 0, "{mode:o}");
    assert_eq!(mode & 0o600, 0o600, "{mode:o}");
}

#[test]
fn what_is_open_when_the_server_ends_has_its_record() {
    let backend = Backend::echo();
    for signals in [1, 2] {
        let setup = Setup::to(backend.address).limit("drain_timeout = \"100ms\"");
        let mut logged = Logged::start(setup.top("workers = 2"), "json");
        let mut relays: Vec<_> = (0..6).map(|_| logged.server.open()).collect();
        for relay in &mut relays {
            relay.send(b"open").expect(b"open");
        }
        for _ in 0..signals {
            logged.server.signal("TERM");
        }
        assert_eq!(logged.server.ended(), Some(0));
        let records = logged.records();
        let stopping = with(&records, "reason", "stopping");
        assert_eq!(stopping.len(), 6, "{records:#?}");
        assert!(
            stopping.iter().all(|record| record["up"] == 4),
            "{records:#?}"
        );
    }
}

#[test]
fn stdout_takes_the_records_and_nothing_else() {
    let folder = Folder::new();
    let path = folder.path().join("out");
    let script = format!("exec \"$@\" > {}", path.display());
    let server = flags(Setup::new(), Path::new("stdout"), "json")
        .wrapper(&["sh", "-c", &script, "sh"])
        .start();
    query(&server);
    query(&server);
    server.signal("USR1");
    server.stop();
    assert_eq!(json_records(&path).len(), 2);
}

#[test]
fn a_full_disk_loses_records_and_nothing_else() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address).admin();
    let server = flags(setup, Path::new("/dev/full"), "text").start();
    for _ in 0..20 {
        query(&server);
    }
    let admin = server.admin();
    until("the lost records are counted", || {
        admin.metric("towpath_log_dropped_total", "access") == 20.0
    });
    assert!(admin.metric("towpath_access_errors_total", "") >= 1.0);
    server.open().send(b"goes on").expect(b"goes on");
    let told = || server.log().matches("cannot be written").count();
    until("the log tells of it", || told() > 0);
    assert_eq!(told(), 1, "{}", server.log());
    server.stop();
}

fn pipe(folder: &Folder) -> std::path::PathBuf {
    let path = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    path
}

#[test]
fn a_pipe_may_find_its_reader_late_and_lose_it() {
    let backend = Backend::echo();
    let folder = Folder::new();
    let path = pipe(&folder);
    let setup = Setup::to(backend.address).admin();
    let mut server = flags(setup, &path, "json").start();
    let admin = server.admin();
    query(&server);
    until("what nobody could read is counted", || {
        admin.metric("towpath_log_dropped_total", "access") == 1.0
    });
    for round in 1..3 {
        // Opened so that it waits for nobody; read when something must be there.
        let mut reader = OpenOptions::new()
            .read(true)
            .custom_flags(libc_nonblock())
            .open(&path)
            .unwrap();
        let mut got = Vec::new();
        // All that the pipe can hold, so that the reader leaves no part of a record behind.
        let mut some = vec![0; 64 * 1024];
        until("a record comes by the pipe", || {
            query(&server);
            if let Ok(count) = reader.read(&mut some) {
                got.extend_from_slice(&some[..count]);
            }
            got.contains(&b'\n')
        });
        assert!(
            got.starts_with(b"{\"time\":"),
            "{round}: not at a record's start"
        );
        drop(reader);
    }
    server.open().send(b"goes on").expect(b"goes on");
    assert!(server.is_running());
    server.stop();
}

/// O_NONBLOCK on Linux.
fn libc_nonblock() -> i32 {
    0o4000
}

#[test]
fn a_pipe_that_nobody_empties_stops_nothing() {
    let backend = Backend::echo();
    let folder = Folder::new();
    let path = pipe(&folder);
    let reader: File = OpenOptions::new()
        .read(true)
        .custom_flags(libc_nonblock())
        .open(&path)
        .unwrap();
    let setup = Setup::to(backend.address).admin().top("workers = 2");
    let server = flags(setup, &path, "json").start();
    let admin = server.admin();
    let mut relay = server.open();
    until("records are lost and counted", || {
        for _ in 0..500 {
            query(&server);
        }
        relay.send(b"goes on").expect(b"goes on");
        admin.metric("towpath_log_dropped_total", "access") > 0.0
    });
    drop(relay);
    server.stop();
    drop(reader);
}

#[test]
fn a_log_that_cannot_be_opened_is_told_at_the_start() {
    let path = Path::new("/nonexistent-folder/access.log");
    let (code, said) = flags(Setup::new(), path, "text").fail();
    assert_eq!(code, 78, "{said}");
    assert!(
        said.contains("cannot open the access log /nonexistent-folder/access.log"),
        "{said}"
    );
}

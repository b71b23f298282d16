//! A store that cannot be used: damaged, cut off, out of disk space.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};

const NARROW: Dialect = Dialect::Document;

/// The store's file: after an orderly stop, the one that holds every record.
fn store_file(data: &Path) -> PathBuf {
    data.join("store.redb")
}

/// A store with something in it, and its file. The server is gone.
fn filled(setup: &Setup) -> PathBuf {
    let server = setup.start();
    for id in 0..50_u8 {
        server.store(&[id], b"s", &vec![id; 1000]);
    }
    let file = store_file(server.data());
    server.stop();
    file
}

fn expect_refused(setup: &Setup, file: &Path) {
    let before = std::fs::read(file).unwrap();
    let (code, said) = setup.fail();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(file.to_str().unwrap()),
        "the message names the file: {said}"
    );
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        std::fs::read(file).unwrap() == before,
        "what is damaged is left for repair"
    );
}

#[test]
fn a_store_whose_head_is_overwritten_is_refused_with_a_message() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let file = filled(&setup);
    let handle = std::fs::File::options().write(true).open(&file).unwrap();
    handle.write_all_at(&[0xa5; 4096], 0).unwrap();
    expect_refused(&setup, &file);
}

#[test]
fn a_store_that_is_cut_off_is_refused_with_a_message() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let file = filled(&setup);
    let handle = std::fs::File::options().write(true).open(&file).unwrap();
    handle.set_len(5000).unwrap();
    expect_refused(&setup, &file);
}

#[test]
fn a_store_that_is_something_else_is_refused_with_a_message() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let file = filled(&setup);
    std::fs::write(&file, b"this is a text file of somebody else\n").unwrap();
    expect_refused(&setup, &file);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused_with_a_message() {
    let folder = Arc::new(Folder::new());
    folder.write("data", b"a file where the directory should be");
    let (code, said) = Setup::new().folder(&folder).fail();
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains(folder.path().join("data").to_str().unwrap()),
        "{said}"
    );
}

/// A server whose files may grow little beyond what they are: the disk is as good as full.
fn cramped(setup: &Setup, file: &Path) -> Server {
    let room = std::fs::metadata(file).unwrap().len() + 2 * 1024 * 1024;
    // Without the trap, the kernel's SIGXFSZ would end the process instead of failing the write.
    let words = format!("trap '' XFSZ; exec prlimit --fsize={room}: \"$@\"");
    setup.clone().wrapper(&["sh", "-c", &words, "sh"]).start()
}

/// Stores large values until the disk is full; the keys that were acknowledged.
fn fill(peer: &mut Peer) -> Vec<u8> {
    let mut stored = Vec::new();
    for id in 100..=250_u8 {
        let reply = peer.ask(NARROW, &NARROW.update(&[id], b"big", &vec![id; 200_000]));
        if reply.code != 0 {
            let message = reply.expect_refused(b"update");
            eprintln!("after {} updates: {message}", stored.len());
            return stored;
        }
        stored.push(id);
    }
    panic!("the disk never fills");
}

fn expect_stored(server: &Server, ids: &[u8]) {
    for id in ids {
        assert!(
            server.stored(&[*id], b"big") == Some(vec![*id; 200_000]),
            "{id} is lost"
        );
    }
    for id in 0..50_u8 {
        assert_eq!(server.stored(&[id], b"s"), Some(vec![id; 1000]));
    }
}

#[test]
fn a_full_disk_refuses_updates_and_serves_queries() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let file = filled(&setup);
    let server = cramped(&setup, &file);
    let mut peer = server.connect();
    let stored = fill(&mut peer);
    expect_stored(&server, &stored);
    for _ in 0..5 {
        let again = NARROW.update(b"again", b"s", &vec![b'x'; 200_000]);
        peer.ask(NARROW, &again).expect_refused(b"update");
    }
    assert_eq!(
        server.stored(b"again", b"s"),
        None,
        "a refused update is not seen"
    );
    expect_stored(&server, &stored);
    server.stop();
    // With room again, the store opens and holds exactly what was acknowledged.
    let server = setup.start();
    expect_stored(&server, &stored);
    assert_eq!(server.stored(b"again", b"s"), None);
    server.expect_alive();
    server.stop();
}

#[test]
fn a_disk_that_has_room_again_takes_updates_without_a_restart() {
    let folder = Arc::new(Folder::new());
    let setup = Setup::new().folder(&folder);
    let file = filled(&setup);
    let server = cramped(&setup, &file);
    let mut peer = server.connect();
    let stored = fill(&mut peer);
    kernel::set_limit(server.process(), "--fsize=unlimited:");
    crate::support::until("updates are taken again", || {
        let update = NARROW.update(b"again", b"s", &vec![b'x'; 200_000]);
        peer.ask(NARROW, &update).code == 0
    });
    expect_stored(&server, &stored);
    server.stop();
    let server = setup.start();
    expect_stored(&server, &stored);
    assert_eq!(server.stored(b"again", b"s"), Some(vec![b'x'; 200_000]));
    server.stop();
}

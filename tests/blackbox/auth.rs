//! The store's token: updates need it, queries do not, and nothing ever shows it.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::support::backend::Backend;
use crate::support::command::{TOWPATH, copy};
use crate::support::folder::Folder;
use crate::support::frame::{self, DIALECTS, Dialect};
use crate::support::kernel::is_root;
use crate::support::route::Route;
use crate::support::server::{Server, Setup};

const TOKEN: &[u8] = b"store-secret-4711";

fn guarded() -> Server {
    let token = format!("token = {:?}", String::from_utf8_lossy(TOKEN));
    Setup::new().agent(&token).start()
}

#[test]
fn an_update_without_the_token_is_refused_and_the_connection_lives_on() {
    let server = guarded();
    let narrow = Dialect::Document;
    let mut peer = server.connect();
    peer.ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_refused(b"update");
    peer.ask(narrow, &narrow.query(b"id", b"s"))
        .expect_missing(narrow);
    // The same connection may still authorise itself.
    peer.ask(narrow, &narrow.auth(TOKEN)).expect_done(b"auth");
    peer.ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_done(b"update");
    let reply = peer.ask(narrow, &narrow.query(b"id", b"s"));
    assert_eq!(reply.record(narrow).1, b"v");
}

#[test]
fn a_removal_needs_the_token_too() {
    let server = guarded();
    let wide = Dialect::Stock;
    let mut peer = server.connect();
    peer.send([wide.auth(TOKEN), wide.update(b"id", b"s", b"v")].concat());
    peer.reply(wide).expect_done(b"auth");
    peer.reply(wide).expect_done(b"update");
    server
        .connect()
        .ask(wide, &frame::remove(b"id", b"s"))
        .expect_refused(b"update");
    assert_eq!(server.stored(b"id", b"s").as_deref(), Some(&b"v"[..]));
}

#[test]
fn a_wrong_token_is_refused_whatever_its_length() {
    let server = guarded();
    let longer = [TOKEN, b"1"].concat();
    let shorter = &TOKEN[..TOKEN.len() - 1];
    let huge = vec![b'x'; 400_000];
    for dialect in DIALECTS {
        for token in [&b""[..], b"wrong", &longer, shorter, &huge] {
            let mut peer = server.connect();
            let update = dialect.update(b"id", b"s", b"v");
            peer.send([dialect.auth(token), update].concat());
            peer.reply(dialect).expect_refused(b"auth");
            peer.reply(dialect).expect_refused(b"update");
        }
    }
    assert_eq!(server.stored(b"id", b"s"), None);
}

#[test]
fn the_token_counts_for_its_own_connection_only() {
    let server = guarded();
    let narrow = Dialect::Document;
    let mut first = server.connect();
    first.ask(narrow, &narrow.auth(TOKEN)).expect_done(b"auth");
    let mut second = server.connect();
    second
        .ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_refused(b"update");
    first
        .ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_done(b"update");
}

#[test]
fn the_token_may_come_from_a_file() {
    let folder = crate::support::folder::Folder::new();
    let file = folder.write("token", b"from the file\n");
    let server = Setup::new()
        .agent(&format!("token = {{ file = {file:?} }}"))
        .start();
    let narrow = Dialect::Document;
    let mut peer = server.connect();
    peer.ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_refused(b"update");
    peer.ask(narrow, &narrow.auth(b"from the file"))
        .expect_done(b"auth");
    peer.ask(narrow, &narrow.update(b"id", b"s", b"v"))
        .expect_done(b"update");
}

#[test]
fn a_crash_leaves_no_core_file_with_secrets() {
    let server = Setup::new().start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{core:?}");
    server.stop();
}

/// Opens the folder of the configuration, where the server writes its addresses, and runs it.
const AS_NOBODY: &str = "chmod 777 \"${4%/*}\" && exec setpriv --reuid=65534 --clear-groups \"$@\"";

/// Whose memory another process of the same user may read, by the owner of its files in /proc.
#[test]
fn nobody_but_root_looks_into_a_server() {
    if !is_root() {
        return; // It could be started as nobody else.
    }
    for (debuggable, owner) in [("false", 0), ("true", 65_534)] {
        let folder = Arc::new(Folder::new());
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        // Where the program was built, nobody else may come.
        let program = folder.path().join("towpath");
        copy(Path::new(TOWPATH), &program);
        let server = Setup::new()
            .folder(&folder)
            .program(&program)
            .wrapper(&["sh", "-c", AS_NOBODY, "sh"])
            .top(&format!("debuggable = {debuggable}"))
            .start();
        let memory = std::fs::metadata(format!("/proc/{}/mem", server.process())).unwrap();
        assert_eq!(memory.uid(), owner, "debuggable = {debuggable}");
        server.stop();
    }
}

#[test]
fn no_secret_and_no_payload_reaches_the_log() {
    let backend = Backend::echo();
    let token = format!("token = {:?}", String::from_utf8_lossy(TOKEN));
    let server = Setup::new()
        .agent(&token)
        .environment("RUST_LOG", "trace")
        .route(
            Route::new("svc")
                .token("route-secret-0815")
                .host("x", backend.address),
        )
        .start();
    let narrow = Dialect::Document;
    let mut peer = server.connect();
    peer.ask(narrow, &narrow.auth(b"guessed-secret-99"))
        .expect_refused(b"auth");
    peer.ask(narrow, &narrow.auth(TOKEN)).expect_done(b"auth");
    peer.ask(narrow, &narrow.update(b"id", b"s", b"stored-payload-1"))
        .expect_done(b"update");
    let mut relay = server.relay(Dialect::Stock, "svc", "x", "route-secret-0815");
    relay
        .send(b"relayed-payload-2")
        .expect(b"relayed-payload-2")
        .finish()
        .expect_end();
    let mut refused = server.connect();
    refused
        .send(Dialect::Stock.traffic(b"svc", b"x", b"guessed-secret-98"))
        .expect_closed();
    crate::support::until("the log names the listener", || {
        server.log().contains("listening on")
    });
    let log = server.log();
    let private = [
        "store-secret",
        "route-secret",
        "guessed-secret",
        "-payload-",
    ];
    for word in private {
        assert!(!log.contains(word), "{word} in the log:\n{log}");
    }
    server.stop();
}

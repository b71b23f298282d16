//! `towpath status`, `top`, `kick`, `drain` and `reload` against a running server, and without one.

use serde_json::Value;

use crate::support::backend::Backend;
use crate::support::command::{Finished, towpath};
use crate::support::folder::Folder;
use crate::support::server::{Server, Setup};
use crate::support::until;

fn operate(server: &Server, words: &[&str]) -> Finished {
    let address = server.admin().address.to_string();
    towpath(words, &[("TOWPATH_ADMIN", &address)], b"")
}

#[test]
fn status_and_top_fit_a_terminal_and_tell_json() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).admin().start();
    let mut relay = server.open();
    relay.send(b"hello").expect(b"hello");
    let shown = operate(&server, &["status"]).expect(0).text();
    for part in [": serving, pid ", "agent", "CORE", "routes: 1"] {
        assert!(shown.contains(part), "{shown}");
    }
    let top = operate(&server, &["top", "--once", "--sort", "bytes"])
        .expect(0)
        .text();
    let peer = relay.local().to_string();
    assert!(
        top.starts_with("ID ") && top.contains(&peer) && top.contains("service=svc"),
        "{top}"
    );
    assert!(
        shown.lines().all(|line| line.chars().count() <= 80),
        "{shown}"
    );
    let status: Value =
        serde_json::from_str(&operate(&server, &["status", "--json"]).expect(0).text()).unwrap();
    assert_eq!(status["phase"], "serving");
    let top: Value = serde_json::from_str(
        &operate(&server, &["top", "--json", "--once"])
            .expect(0)
            .text(),
    )
    .unwrap();
    assert_eq!(top["sessions"][0]["peer"], peer.as_str());
    assert!(top["sessions"][0]["rate_up"].is_number(), "{top}");
    operate(&server, &["top", "--sort", "name"]).expect(2);
    drop(relay);
    server.stop();
}

#[test]
fn kick_drain_and_reload_say_what_came_of_it() {
    let backend = Backend::echo();
    let mut server = Setup::to(backend.address).admin().start();
    let mut relay = server.open();
    let mut rows = Vec::new();
    until("the session is there", || {
        rows = server.admin().sessions("role=agent");
        rows.len() == 1
    });
    let id = rows[0]["id"].as_str().unwrap();
    let done = operate(&server, &["kick", id]).expect(0);
    assert_eq!(done.text(), format!("kicked {id}\n"));
    relay.expect_end();
    let again = operate(&server, &["kick", id, "--json"]).expect(1);
    assert!(
        again.error.contains("there is no session"),
        "{}",
        again.error
    );
    let wrong = operate(&server, &["kick", "17"]).expect(2);
    assert!(wrong.error.contains("w1#0.4"), "{}", wrong.error);
    operate(&server, &["kick"]).expect(2);
    let reload = operate(&server, &["reload", "--dry-run"]).expect(0);
    assert_eq!(reload.text(), "nothing would change\n");
    let reload = operate(&server, &["reload"]).expect(0);
    assert_eq!(reload.text(), "nothing has changed\n");
    let drain = operate(&server, &["drain", "--json"]).expect(0);
    assert_eq!(drain.text(), "{\"phase\":\"draining\"}\n");
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    let gone = operate(&server, &["status"]).expect(1);
    let address = server.admin().address;
    let wanted = format!("no server answers at {address}; is it running, and is [admin] on?");
    assert!(gone.error.contains(&wanted), "{}", gone.error);
}

#[test]
fn a_token_is_shown_where_one_is_asked_for() {
    let folder = Folder::new();
    let file = folder.write("token", "open sesame\n");
    let file = file.to_str().unwrap();
    let flag = format!("--admin-token-file={file}");
    let server = Setup::new().admin().flag(&flag).start();
    let refused = operate(&server, &["status"]).expect(77);
    assert!(refused.error.contains("--token-file"), "{}", refused.error);
    operate(&server, &["status", "--token-file", file]).expect(0);
    let address = server.admin().address.to_string();
    let with = [
        ("TOWPATH_ADMIN", &*address),
        ("TOWPATH_ADMIN_TOKEN", "open sesame"),
    ];
    towpath(&["status", "--json"], &with, b"").expect(0);
    server.stop();
}

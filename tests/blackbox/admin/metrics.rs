//! The text that Prometheus reads.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::backend::Backend;
use crate::support::server::Setup;
use crate::support::until;

#[test]
fn promtool_finds_nothing_wrong() {
    let server = Setup::new()
        .admin()
        .tables("[node]\nlisten = [\"127.0.0.1:0\"]\n[gateway]\nclients = [\"127.0.0.1:0\"]\nservers = [\"127.0.0.1:0\"]\n")
        .start();
    let answer = server.admin().call("GET", "/metrics", "", "").expect(200);
    assert!(
        answer
            .head
            .contains("Content-Type: text/plain; version=0.0.4"),
        "{}",
        answer.head
    );
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool, of Debian's package prometheus");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(answer.body.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
    server.stop();
}

#[test]
fn what_happens_is_counted() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).admin().start();
    let admin = server.admin();
    let ended = |reason: &str| {
        admin.metric(
            "towpath_sessions_ended_total",
            &format!("role=\"agent\",reason=\"{reason}\""),
        )
    };
    let mut relay = server.open();
    relay.send(vec![1; 5000]).take(5000);
    relay.finish().expect_end();
    server
        .connect()
        .send(b"this is no frame of that protocol")
        .rest();
    until("both have ended", || {
        ended("finished") + ended("protocol_error") == 2.0
    });
    assert_eq!(ended("finished"), 1.0);
    assert_eq!(
        admin.metric("towpath_sessions_opened_total", "role=\"agent\""),
        2.0
    );
    assert_eq!(admin.metric("towpath_sessions", "role=\"agent\""), 0.0);
    assert_eq!(admin.metric("towpath_accepted_total", ""), 2.0);
    for way in ["up", "down"] {
        let bytes = admin.metric(
            "towpath_session_bytes_total",
            &format!("direction=\"{way}\""),
        );
        assert!((5000.0..6000.0).contains(&bytes), "{way} {bytes}");
    }
    server.store(b"id", b"section", b"value");
    assert_eq!(admin.metric("towpath_store_records", ""), 1.0);
    assert_eq!(admin.get("/store")["bytes"].as_u64(), Some(14));
    let routes = admin.get("/routes");
    assert_eq!(routes["routes"][0]["name"], "svc");
    assert_eq!(
        admin.get("/routes/svc")["routes"][0]["to"][0],
        backend.address.to_string()
    );
    admin.call("GET", "/routes/none", "", "").expect(404);
    server.stop();
}

//! Routes set and removed by hand, by the admin address: until the next reload.

use serde_json::json;

use crate::support::admin::Answer;
use crate::support::backend::Backend;
use crate::support::frame::Dialect;
use crate::support::server::{Server, Setup};

use super::reloaded;

fn put(server: &Server, name: &str, body: &str) -> Answer {
    let path = format!("/routes/{name}");
    server.admin().call("PUT", &path, "", body)
}

fn body(backend: &Backend, token: &str) -> String {
    let (host, service) = (backend.address.ip().to_string(), backend.address.port());
    let host = json!({ "host": host, "service": service });
    json!({ "token": token, "hosts": { "default": host } }).to_string()
}

#[test]
fn a_route_by_hand_is_served_shown_and_gone_with_the_next_reload() {
    let (echo, other) = (Backend::echo(), Backend::banner("other"));
    let setup = Setup::to(echo.address).admin();
    let server = setup.start();
    let admin = server.admin();
    let mut relay = server.open();
    let done = put(&server, "new", &body(&other, "word")).expect(200);
    assert!(
        done.body.contains("route added: new default"),
        "{}",
        done.body
    );
    server
        .relay(Dialect::Stock, "new", "x", "word")
        .expect("other");
    let shown = admin.get("/routes/new");
    assert_eq!(shown["routes"][0]["token"], true);
    assert_eq!(shown["routes"][0]["to"][0], other.address.to_string());
    assert!(!shown.to_string().contains("word") && !server.log().contains("word"));
    // In the place of one that the file has.
    put(&server, "svc", &body(&other, "")).expect(200);
    server.relay(Dialect::Stock, "svc", "x", "").expect("other");
    relay.send("still").expect("still");
    // The same once more is no change.
    let same = put(&server, "svc", &body(&other, "")).expect(200).json();
    assert_eq!(same["changes"].as_array().unwrap().len(), 0);
    // What else a route has is told by its name.
    let mut limited: serde_json::Value = serde_json::from_str(&body(&other, "")).unwrap();
    limited["bandwidth"] = "3M".into();
    let done = put(&server, "svc", &limited.to_string()).expect(200);
    assert!(done.body.contains(", bandwidth 3M"), "{}", done.body);
    assert_eq!(admin.get("/routes/svc")["routes"][0]["bandwidth"], "3M");
    admin.call("DELETE", "/routes/new", "", "").expect(200);
    admin.call("DELETE", "/routes/new", "", "").expect(404);
    admin.call("GET", "/routes/new", "", "").expect(404);
    put(&server, "later", &body(&other, "")).expect(200);
    let changes = reloaded(&server).join("\n");
    for part in [
        "route changed: svc default: ",
        "route removed: later default",
    ] {
        assert!(changes.contains(part), "{part}: {changes}");
    }
    let mut back = server.open();
    back.send("echo").expect("echo").finish().expect_end();
    relay.send("still").expect("still").finish().expect_end();
    server.stop();
}

#[test]
fn bodies_that_are_no_route_are_refused_with_a_reason() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).admin().start();
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let host = r#"{"host": "127.0.0.1", "service": "80"}"#;
    for (body, reason) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("\u{1}", "no JSON"),
        (deep.as_str(), "no JSON"),
        ("null", "`hosts`"),
        ("[]", "`hosts`"),
        ("7", "`hosts`"),
        ("{}", "without hosts"),
        (r#"{"hosts": {}}"#, "without hosts"),
        (r#"{"hosts": []}"#, "without hosts"),
        (r#"{"hosts": {"default": []}}"#, "an empty list"),
        (r#"{"hosts": {"default": {"host": "a"}}}"#, "no `service`"),
        (
            r#"{"hosts": {"default": {"host": "a b", "service": 1}}}"#,
            "`host`",
        ),
        (
            r#"{"hosts": {"default": {"host": "a", "service": 70000}}}"#,
            "`service`",
        ),
        (
            r#"{"hosts": {"default": {"host": "a", "service": 1.5}}}"#,
            "`service`",
        ),
        (
            r#"{"hosts": {"default": {"host": null, "service": 1}}}"#,
            "no `host`",
        ),
        (&format!(r#"{{"host": {{"default": {host}}}}}"#), "`hosts`"),
        (
            &format!(r#"{{"hosts": {{"default": {host}}}, "tokn": "x"}}"#),
            "`token`",
        ),
        (
            &format!(r#"{{"hosts": {{"default": {host}}}, "token": {{"file": "/dev/null"}}}}"#),
            "only a text",
        ),
        (
            &format!(r#"{{"hosts": {{"default": {host}}}, "token": 7}}"#),
            "`token`",
        ),
    ] {
        let refused = put(&server, "new", body).expect(400);
        assert!(refused.body.contains(reason), "{body}: {}", refused.body);
    }
    let admin = server.admin();
    put(&server, "new", &"x".repeat(70_000)).expect(413);
    admin.call("POST", "/routes/new", "", "").expect(405);
    admin.call("PUT", "/routes", "", "{}").expect(405);
    admin.call("PUT", "/routes/a/b", "", "{}").expect(404);
    let page = "Origin: http://127.0.0.1\r\n";
    let good = format!(r#"{{"hosts": {{"default": {host}}}}}"#);
    admin.call("PUT", "/routes/", "", &good).expect(404);
    admin.call("PUT", "/routes/new", page, &good).expect(403);
    admin.call("DELETE", "/routes/svc", page, "").expect(403);
    assert_eq!(admin.get("/routes")["routes"].as_array().unwrap().len(), 1);
    server.expect_alive();
    server.stop();
}

#[test]
fn a_route_needs_its_role() {
    let setup = Setup::new()
        .admin()
        .flag("--agent=off")
        .flag("--gateway-clients=127.0.0.1:0");
    let table = "[[chain.access]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nvia = []\nto = \"127.0.0.1:1\"\n";
    let server = setup.tables(table).start();
    let host = r#"{"hosts": {"default": {"host": "127.0.0.1", "service": "80"}}}"#;
    let refused = put(&server, "new", host).expect(409);
    assert!(refused.body.contains("agent is off"), "{}", refused.body);
    server.stop();
}

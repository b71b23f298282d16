//! What nobody should send to the admin address, and what it says to it.

use crate::support::server::Setup;

#[test]
fn hosts_that_may_be_somebody_elses_names_are_refused() {
    let server = Setup::new().admin().start();
    let admin = server.admin();
    let asked = |lines: &str| {
        let text = format!("GET /status HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
        admin.raw(text.as_bytes()).status
    };
    assert_eq!(asked(""), 400, "no host");
    assert_eq!(asked("Host: a\r\nHost: a\r\n"), 400);
    for foreign in [
        "evil.example",
        "evil.example:7900",
        "127.0.0.1.evil.example",
        "localhost.evil",
    ] {
        assert_eq!(asked(&format!("Host: {foreign}\r\n")), 403, "{foreign}");
    }
    for own in [
        "127.0.0.1",
        "localhost",
        "LocalHost:1",
        "[::1]:7900",
        "192.0.2.7",
    ] {
        assert_eq!(asked(&format!("Host: {own}\r\n")), 200, "{own}");
    }
    admin.raw(b"GET /status HTTP/1.0\r\n\r\n").expect(200);
    server.stop();
}

#[test]
fn what_is_no_request_is_answered_and_closed() {
    let server = Setup::new().admin().start();
    let admin = server.admin();
    let head = "POST /drain HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let long = "a".repeat(100 * 1024);
    for (request, status) in [
        (
            format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {long}\r\n\r\n"),
            400,
        ),
        (format!("GET /{long}"), 400),
        (
            format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            501,
        ),
        (
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
            501,
        ),
        (
            format!("{head}Content-Length: 0\r\nContent-Length: 5\r\n\r\n"),
            400,
        ),
        (format!("{head}Content-Length: 0, 0\r\n\r\n"), 400),
        (format!("{head}Content-Length : 0\r\n\r\n"), 400),
        (
            format!("{head}Content-Length: 70000\r\n\r\n{}", "b".repeat(70_000)),
            413,
        ),
        ("\u{16}\u{3}\u{1}\u{0}\u{5}garbage\r\n\r\n".to_owned(), 400),
        ("SSH-2.0-OpenSSH_9\r\n".to_owned(), 400),
    ] {
        let answer = admin.raw(request.as_bytes()).expect(status);
        assert!(answer.json()["error"].is_string(), "{answer:?}");
        assert!(answer.head.contains("Connection: close"), "{answer:?}");
    }
    for (method, path, status) in [
        ("GET", "/../etc/passwd", 404),
        ("GET", "/%2e%2e/", 404),
        ("GET", "/status/", 404),
        ("GET", "/sessions/w0%231", 404),
        ("DELETE", "/leases/node/tcp/99999", 404),
        ("GET", "/sessions?rol=agent", 400),
        ("GET", "/sessions?limit=0", 400),
        ("GET", "/sessions?limit=1001", 400),
        ("GET", "/sessions?limit=1&limit=2", 400),
        ("GET", "/sessions?after=x", 400),
        ("GET", "/sessions?peer=nobody", 400),
    ] {
        admin.call(method, path, "", "").expect(status);
    }
    let answer = admin.call("GET", "/drain", "", "").expect(405);
    assert!(answer.head.contains("\r\nAllow: POST\r\n"), "{answer:?}");
    admin.call("BREW", "/status", "", "").expect(405);
    assert_eq!(admin.get("/status")["phase"], "serving");
    server.expect_alive();
    server.stop();
}

#[test]
fn nothing_is_changed_without_the_token_nor_for_a_page() {
    let server = Setup::new().admin().start();
    let admin = server.admin();
    for line in [
        "Origin: http://evil.example\r\n",
        "Origin: null\r\n",
        "Sec-Fetch-Site: cross-site\r\n",
    ] {
        admin.call("POST", "/drain", line, "").expect(403);
        admin
            .call("DELETE", "/sessions/w0%230.1", line, "")
            .expect(403);
    }
    assert_eq!(admin.get("/status")["phase"], "serving");
    server.stop();

    let setup = Setup::new()
        .admin()
        .environment("TOWPATH_ADMIN_TOKEN", "open sesame");
    let server = setup.start();
    let admin = server.admin();
    for path in ["/status", "/metrics", "/sessions", "/nothing"] {
        let answer = admin.call("GET", path, "", "").expect(401);
        assert!(
            answer.head.contains("WWW-Authenticate: Bearer"),
            "{answer:?}"
        );
    }
    for wrong in ["open", "open sesame!", "", "OPEN SESAME"] {
        let line = format!("Authorization: Bearer {wrong}\r\n");
        admin.call("POST", "/drain", &line, "").expect(401);
    }
    // The page tells nothing by itself.
    let page = admin.call("GET", "/", "", "").expect(200);
    assert!(page.head.contains("text/html") && page.body.contains("/status"));
    assert!(!page.body.contains("http://") && !page.body.contains("https://"));
    let admin = admin.token("open sesame");
    assert_eq!(admin.get("/status")["phase"], "serving");
    assert!(!server.log().contains("sesame"));
    server.stop();
}

#[test]
fn requests_may_come_in_pieces_and_in_a_row() {
    let server = Setup::new().admin().start();
    let admin = server.admin();
    let one = "GET /store HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let last = "HEAD /store HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let mut peer = admin.connect();
    for byte in one.bytes() {
        peer.send([byte]);
    }
    peer.send(format!("{}{last}", one.repeat(40))).finish();
    let (bytes, _) = peer.rest();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 42);
    assert_eq!(text.matches("\"records\"").count(), 41, "HEAD has no body");
    server.stop();
}

#[test]
fn who_only_holds_a_place_makes_room_for_the_next() {
    let server = Setup::new()
        .admin()
        .limit("handshake_timeout = \"5s\"")
        .start();
    let admin = server.admin();
    let request = "GET /store HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut holders = Vec::new();
    // Silent ones, slow ones, and such as have been served and stay.
    for round in 0..300 {
        let mut peer = admin.connect();
        match round % 3 {
            0 => {}
            1 => drop(peer.try_send(b"GET /sto")),
            _ => drop(peer.try_send(request.as_bytes())),
        }
        holders.push(peer);
    }
    // The operator is served, whoever holds all places.
    for _ in 0..10 {
        assert_eq!(admin.get("/status")["phase"], "serving");
    }
    // At most 32 are there; the others have seen their end.
    for peer in &mut holders[..268] {
        peer.rest();
    }
    // A request that does not come, or not to its end, is not waited for.
    let mut peer = admin.connect();
    peer.send(b"GET /sto");
    let (bytes, _) = peer.rest();
    assert!(bytes.starts_with(b"HTTP/1.1 408"), "{bytes:?}");
    server.expect_alive();
    server.stop();
}

//! The traffic proxy's choice: service, token, field, default. The cases of the document's
//! example, in both dialects.

use std::time::{Duration, Instant};

use crate::support::backend::Backend;
use crate::support::frame::{AGENT, DIALECTS, Dialect, MOST, TRAFFIC};
use crate::support::route::Route;
use crate::support::server::{Server, Setup};
use crate::support::until;

/// The document's example: `test_http` with the fields github, baidu and default, each told apart
/// by its banner; a service without a token; one without a default.
struct Example {
    server: Server,
    _backends: [Backend; 3],
}

impl Example {
    fn start() -> Self {
        let backends = ["github|", "baidu||", "default"].map(Backend::banner);
        let [github, baidu, default] = backends.each_ref().map(|backend| backend.address);
        let test_http = Route::new("test_http").token("test_http_token");
        let server = Setup::new()
            .limit("handshake_timeout = \"60s\"")
            .route(
                test_http
                    .host("github", github)
                    .host("baidu", baidu)
                    .host("default", default),
            )
            .route(Route::new("open").host("github", github))
            .route(Route::new("strict").token("t").host("github", github))
            .start();
        Self {
            server,
            _backends: backends,
        }
    }

    fn expect_closed(&self, service: &str, field: &str, token: &str) {
        for dialect in DIALECTS {
            let (service, field) = (service.as_bytes(), field.as_bytes());
            let request = dialect.traffic(service, field, token.as_bytes());
            self.server.connect().send(request).expect_closed();
        }
    }

    fn expect_reached(&self, service: &str, field: &str, token: &str, banner: &str) {
        for dialect in DIALECTS {
            let mut peer = self.server.relay(dialect, service, field, token);
            peer.expect(banner)
                .send(b"ping")
                .expect(b"ping")
                .finish()
                .expect_end();
        }
    }
}

#[test]
fn a_known_service_token_and_field_reach_their_host() {
    let example = Example::start();
    example.expect_reached("test_http", "github", "test_http_token", "github|");
    example.expect_reached("test_http", "baidu", "test_http_token", "baidu||");
}

#[test]
fn case_1_an_unknown_service_is_closed() {
    let example = Example::start();
    for service in [
        "ghost",
        "",
        "TEST_HTTP",
        "test_htt",
        "test_http\0",
        "test_http2",
    ] {
        example.expect_closed(service, "github", "test_http_token");
    }
    example.server.expect_alive();
}

#[test]
fn case_2_a_wrong_token_is_closed() {
    let example = Example::start();
    for token in [
        "",
        "nope",
        "test_http_toke",
        "test_http_token2",
        "TEST_HTTP_TOKEN",
    ] {
        example.expect_closed("test_http", "github", token);
        // The token comes before the field.
        example.expect_closed("test_http", "not there", token);
    }
    example.server.expect_alive();
}

#[test]
fn case_3_a_missing_field_goes_to_the_default() {
    let example = Example::start();
    for field in [
        "not there",
        "",
        "GITHUB",
        "github2",
        "default",
        "../github",
        "\0",
    ] {
        example.expect_reached("test_http", field, "test_http_token", "default");
    }
}

#[test]
fn case_4_neither_the_field_nor_a_default_is_closed() {
    let example = Example::start();
    for field in ["not there", "", "default"] {
        example.expect_closed("strict", field, "t");
        example.expect_closed("open", field, "");
    }
    example.server.expect_alive();
}

#[test]
fn a_service_without_a_token_takes_any() {
    let example = Example::start();
    for token in ["", "anything"] {
        example.expect_reached("open", "github", token, "github|");
    }
}

#[test]
fn a_token_as_large_as_a_frame_is_only_wrong() {
    let example = Example::start();
    for dialect in DIALECTS {
        let overhead = dialect.traffic_payload(b"test_http", b"github", b"").len();
        let token = vec![b'x'; MOST - overhead];
        let payload = dialect.traffic_payload(b"test_http", b"github", &token);
        assert_eq!(payload.len(), MOST);
        example
            .server
            .connect()
            .send(dialect.frame(TRAFFIC, &payload))
            .expect_closed();
        // Where no token is asked for, the same length passes.
        let token = vec![b'x'; MOST - dialect.traffic_payload(b"open", b"github", b"").len()];
        let payload = dialect.traffic_payload(b"open", b"github", &token);
        let mut peer = example.server.connect();
        peer.send(dialect.frame(TRAFFIC, &payload))
            .expect(dialect.greeting())
            .expect(b"github|");
    }
}

#[test]
fn a_refused_request_never_reaches_a_backend() {
    let backend = Backend::echo();
    let setup = Setup::new().route(Route::new("svc").token("t").host("x", backend.address));
    let server = setup.start();
    for dialect in DIALECTS {
        for (service, field, token) in [("svc", "x", "u"), ("svc", "y", "t"), ("svd", "x", "t")] {
            let (service, field) = (service.as_bytes(), field.as_bytes());
            let request = dialect.traffic(service, field, token.as_bytes());
            server
                .connect()
                .send([request, b"payload".to_vec()].concat())
                .expect_closed();
        }
    }
    assert_eq!(backend.accepted(), 0);
}

#[test]
fn a_wrong_token_and_an_unknown_service_take_the_same_time() {
    let example = Example::start();
    let time = |service: &[u8], token: &[u8]| {
        let start = Instant::now();
        let request = Dialect::Stock.traffic(service, b"github", token);
        example.server.connect().send(request).expect_closed();
        start.elapsed()
    };
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let rounds = 0..60;
    let pairs: (Vec<_>, Vec<_>) = rounds
        .map(|_| {
            (
                time(b"ghost", b"test_http_token"),
                time(b"test_http", b"wrong"),
            )
        })
        .unzip();
    let (unknown, wrong) = (median(pairs.0), median(pairs.1));
    // One class of time: no penalty, no sleep on one of the two. A tight bound would measure the
    // machine's other work.
    assert!(
        unknown.abs_diff(wrong) < Duration::from_millis(20),
        "{unknown:?} and {wrong:?}"
    );
}

#[test]
fn the_log_names_the_reason_that_the_wire_hides() {
    let example = Example::start();
    let refusals = [
        ("ghost", "github", "x", "service"),
        ("test_http", "github", "x", "token"),
        ("strict", "nothing", "t", "default"),
    ];
    for (service, field, token, word) in refusals {
        let (service, field) = (service.as_bytes(), field.as_bytes());
        let mut peer = example.server.connect();
        let from = format!("from={} ", peer.local());
        peer.send(Dialect::Stock.traffic(service, field, token.as_bytes()))
            .expect_closed();
        until("the log tells of the refusal", || {
            let log = example.server.log();
            log.lines()
                .any(|line| line.contains(&from) && line.contains(word))
        });
    }
}

#[test]
fn a_client_cannot_write_lines_into_the_log() {
    let example = Example::start();
    for name in [
        &b"ghost\n2026-01-01 ERROR forged"[..],
        b"ghost\r\n\x1b[31mforged",
        b"\0\xff",
    ] {
        for dialect in DIALECTS {
            let requests = [
                dialect.traffic(name, name, name),
                dialect.traffic(b"test_http", name, b"test_http_token"),
                dialect.frame(AGENT, &dialect.command(name, name)),
            ];
            for request in requests {
                let mut peer = example.server.connect();
                peer.send(request).finish().rest();
            }
            example.server.store(name, name, name);
        }
    }
    example.server.expect_alive();
    let log = example.server.log();
    assert!(
        log.lines()
            .all(|line| line.starts_with("20") && line.contains("Z ")),
        "{log}"
    );
    let is_control = |letter: char| letter.is_control() && letter != '\n';
    assert!(!log.contains(is_control), "{}", log.escape_debug());
}

#[test]
fn a_service_may_be_named_as_in_etc_services() {
    // The port of a name is fixed by the system's list, so nothing is dialled here.
    let setup = Setup::new().route(Route::new("svc").named("x", "127.0.0.1", "http"));
    setup.start().stop();
    let setup = Setup::new().route(Route::new("svc").named("x", "127.0.0.1", "no-such-service"));
    let (code, said) = setup.fail();
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("no-such-service"), "{said}");
}

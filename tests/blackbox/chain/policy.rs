//! What a hop dials for others: nothing on this machine or its network that is not named by address,
//! whatever way it is asked for.

use std::net::{SocketAddr, TcpListener};

use crate::support::backend::{Backend, echo};
use crate::support::chain::destination::Datagrams;
use crate::support::chain::plan::{Plan, Proxy, access, access_address, serve};
use crate::support::chain::{Key, address, code, http, socks};
use crate::support::frame::Dialect;
use crate::support::node::plan::free_ports;

/// A hop with these `allow` and `deny`.
fn hop(allow: &[&str], deny: &[&str]) -> Proxy {
    Plan::allowing(Key::number(1), allow)
        .list("deny", deny)
        .start()
}

/// Listeners on the same port of all loopback addresses there are, by TCP and by UDP.
struct Inside {
    port: u16,
    backends: Vec<Backend>,
    datagrams: Vec<Datagrams>,
}

impl Inside {
    fn new() -> Self {
        let port = *free_ports(1).start();
        let addresses = ["127.0.0.1", "[::1]"].map(|host| format!("{host}:{port}"));
        let addresses = addresses.map(|text| text.parse::<SocketAddr>().unwrap());
        let serve = |at: &SocketAddr| {
            Backend::serve_on(TcpListener::bind(at).unwrap(), |peer, _| echo(peer))
        };
        Self {
            port,
            backends: addresses.iter().map(serve).collect(),
            datagrams: addresses.map(Datagrams::echo_at).into(),
        }
    }

    fn reached(&self) -> usize {
        let streams = self.backends.iter().map(Backend::accepted);
        streams
            .chain(self.datagrams.iter().map(Datagrams::received))
            .sum()
    }
}

fn expect_forbidden(proxy: &Proxy, what: &str, destination: &[u8]) {
    eprintln!("{what}");
    let mut chained = proxy.headers(destination.to_vec()).dial_with(b"payload");
    chained.expect_error(1, code::FORBIDDEN);
    let mut flow = proxy.flow(destination.to_vec());
    flow.send(b"payload").expect_error(1, code::FORBIDDEN);
}

#[test]
fn what_is_guarded_is_refused_by_default() {
    let inside = Inside::new();
    let proxy = Plan::new(Key::number(1)).start();
    let open = hop(&["*:*"], &[]);
    for host in [
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:0.0.0.0]",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "[::ffff:10.1.2.3]",
        "[::ffff:192.168.1.1]",
        "224.0.0.1",
        "255.255.255.255",
        "[fe80::1]",
        "[ff02::1]",
        "[fc00::1]",
    ] {
        let bytes = address::ip(&format!("{host}:{}", inside.port));
        expect_forbidden(&proxy, host, &bytes);
        expect_forbidden(&open, host, &bytes);
    }
    assert_eq!(inside.reached(), 0);
    open.server.stop();
    proxy.server.stop();
}

#[test]
fn names_and_texts_lead_to_no_guarded_address_either() {
    let inside = Inside::new();
    let proxy = hop(&["*:*", "*.example:*"], &[]);
    for host in [
        "localhost",
        "LocalHost",
        "127.0.0.1",
        "0.0.0.0",
        "169.254.169.254",
        "10.1.2.3",
    ] {
        let bytes = address::named(host, inside.port);
        expect_forbidden(&proxy, host, &bytes);
    }
    assert_eq!(inside.reached(), 0);
    proxy.server.stop();
}

#[test]
fn old_ways_to_write_an_address_lead_nowhere() {
    let inside = Inside::new();
    let proxy = Plan::new(Key::number(1)).start();
    for host in [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "0x0",
        "127.0.1",
        "localhost.",
        "::1",
        "::",
        "[::1]",
        "::ffff:127.0.0.1",
    ] {
        let mut chained = proxy.headers(address::named(host, inside.port)).dial();
        let answer = chained.answer();
        // Some are asked of the machine's name server, which may not answer in time.
        let refusals = [
            code::FORBIDDEN,
            code::RESOLVE,
            code::PROTOCOL,
            code::TIMEOUT,
        ];
        assert!(refusals.contains(&answer.code), "{host}: {answer:?}");
        chained.peer.expect_end();
    }
    assert_eq!(inside.reached(), 0);
    proxy.stop();
}

#[test]
fn what_is_named_by_address_is_dialled() {
    let inside = Inside::new();
    let port = inside.port;
    for (allow, destination) in [
        (
            format!("127.0.0.1:{port}"),
            address::ip(&format!("127.0.0.1:{port}")),
        ),
        (
            format!("127.0.0.0/8:{port}"),
            address::ip(&format!("127.0.0.1:{port}")),
        ),
        (
            "127.0.0.1:*".into(),
            address::ip(&format!("127.0.0.1:{port}")),
        ),
        (
            format!("[::1]:{port}"),
            address::ip(&format!("[::1]:{port}")),
        ),
        (
            format!("127.0.0.1:{port}"),
            address::ip(&format!("[::ffff:127.0.0.1]:{port}")),
        ),
        (
            format!("localhost:{port}"),
            address::named("localhost", port),
        ),
        (
            format!("127.0.0.1:{port}"),
            address::named("localhost", port),
        ),
    ] {
        eprintln!("{allow}");
        let proxy = hop(&[&allow], &[]);
        proxy
            .headers(destination.clone())
            .dial()
            .expect_echo(b"allowed");
        proxy.flow(destination).expect_echo(b"allowed");
        proxy.server.stop();
    }
}

#[test]
fn a_rule_opens_its_port_and_its_address_alone() {
    let [here, there] = [Inside::new(), Inside::new()];
    let allow = format!("127.0.0.1:{}", here.port);
    let proxy = hop(&[&allow], &[]);
    let other_port = address::ip(&format!("127.0.0.1:{}", there.port));
    let other_address = address::ip(&format!("[::1]:{}", here.port));
    let another = address::ip(&format!("127.0.0.2:{}", here.port));
    let neither = address::ip("8.8.8.8:53");
    for (what, destination) in [
        ("another port", other_port),
        ("another address", other_address),
        ("another loopback address", another),
        ("an address in no rule", neither),
    ] {
        expect_forbidden(&proxy, what, &destination);
    }
    assert_eq!(here.reached() + there.reached(), 0);
    proxy.server.stop();
}

#[test]
fn deny_beats_allow() {
    let inside = Inside::new();
    let port = inside.port;
    let exact = format!("127.0.0.1:{port}");
    let named = format!("localhost:{port}");
    for deny in [exact.as_str(), "127.0.0.0/8:*", "*:*"] {
        let proxy = hop(&[&exact, &named, "*:*"], &[deny]);
        for destination in [
            address::ip(&exact),
            address::ip(&format!("[::ffff:127.0.0.1]:{port}")),
            address::named("127.0.0.1", port),
        ] {
            expect_forbidden(&proxy, deny, &destination);
        }
        proxy.server.stop();
    }
    let proxy = hop(&[&exact, &named], &[&named]);
    expect_forbidden(&proxy, "a name", &address::named("localhost", port));
    assert_eq!(inside.reached(), 0);
    proxy.server.stop();
}

/// A server with every role that there is, and all of its listeners.
fn crowded(allow: &[&str]) -> (Proxy, Vec<SocketAddr>) {
    let ports: Vec<u16> = free_ports(8).collect();
    let tables = format!(
        "[node]\nlisten = [\"127.0.0.1:0\"]\nports = \"{}-{}\"\n\
         [gateway]\nclients = [\"127.0.0.1:0\"]\nservers = [\"127.0.0.1:0\"]\n\
         [admin]\nlisten = [\"127.0.0.1:0\"]\n\
         [tunnel]\nlisten = [\"127.0.0.1:0\"]\n",
        ports[0], ports[7]
    );
    let more = access("own", "tcp", &["via = []\nto = \"127.0.0.1:9\"".to_owned()]);
    let plan = Plan::allowing(Key::number(1), allow);
    let proxy = plan
        .setup(|setup| setup.tables(&tables))
        .tables(&more)
        .start();
    let mut own = Vec::new();
    collect(&proxy.server.addresses, &mut own);
    assert!(own.len() >= 8, "{own:?}");
    (proxy, own)
}

/// Every address in the address file, wherever it stands.
fn collect(value: &serde_json::Value, found: &mut Vec<SocketAddr>) {
    match value {
        serde_json::Value::String(text) => found.extend(text.parse::<SocketAddr>().ok()),
        serde_json::Value::Array(list) => list.iter().for_each(|item| collect(item, found)),
        serde_json::Value::Object(map) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[test]
fn own_listeners_are_refused_though_their_network_is_allowed() {
    for allow in [&["*:*"][..], &["127.0.0.0/8:*", "[::ffff:127.0.0.0/104]:*"]] {
        let (proxy, own) = crowded(allow);
        for address in own {
            let port = address.port();
            expect_forbidden(&proxy, &address.to_string(), &address::at(address));
            for host in ["[::ffff:127.0.0.1]", "0.0.0.0"] {
                let text = format!("{host}:{port}");
                expect_forbidden(&proxy, &text, &address::ip(&text));
            }
            expect_forbidden(&proxy, "localhost", &address::named("localhost", port));
        }
        proxy.server.stop();
    }
}

#[test]
fn an_own_listener_that_is_named_by_its_address_is_dialled() {
    let port = *free_ports(1).start();
    let agent: SocketAddr = ([127, 0, 0, 1], port).into();
    let plan = Plan::allowing(Key::number(1), &[agent]);
    let proxy = plan.setup(|setup| setup.listen(agent)).start();
    proxy.server.store(b"id", b"section", b"value");
    let mut chained = proxy.headers(address::at(agent)).dial();
    let wide = Dialect::Stock;
    let reply = chained
        .expect_ok()
        .ask(wide, &wide.query(b"id", b"section"));
    assert_eq!(reply.code, 0);
    drop(chained);
    proxy.stop();
}

#[test]
fn an_access_listener_without_hops_keeps_to_the_same_policy() {
    let inside = Inside::new();
    let lines = ["via = []".to_owned()];
    let tables = access("socks5", "socks5", &lines) + &access("http", "http", &lines);
    let server = serve(&tables);
    let target: SocketAddr = ([127, 0, 0, 1], inside.port).into();
    let mut client = socks::Socks::open(access_address(&server, "socks5"));
    client.expect_refusal(socks::CONNECT, &socks::at(target), socks::reply::FORBIDDEN);
    let head = http::connect(&target.to_string(), &[]);
    let (answer, _) = http::ask(access_address(&server, "http"), &head);
    assert_eq!(answer.status, 403);
    assert_eq!(inside.reached(), 0);
    server.stop();
}

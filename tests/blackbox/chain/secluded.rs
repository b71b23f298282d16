//! What needs a network of its own: no way to anywhere, private addresses that answer, and names that
//! change their minds.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::backend::{Backend, echo};
use crate::support::chain::datagram::Flow;
use crate::support::chain::destination::Datagrams;
use crate::support::chain::names::{self, Say};
use crate::support::chain::plan::{Plan, Row, access_address, dynamic, serve};
use crate::support::chain::secluded::{ADDRESSES, NOWHERE, PUBLIC, secluded};
use crate::support::chain::socks::{self, Socks, reply};
use crate::support::chain::{Key, address, code, http, program};
use crate::support::until;

/// Runs the test of this name here, in seclusion.
macro_rules! alone {
    ($name:ident, $body:block) => {
        #[test]
        fn $name() {
            secluded(concat!("chain::secluded::", stringify!($name)), || $body);
        }
    };
}

/// An echo at an address of seclusion.
fn echo_at(host: &str) -> Backend {
    let listener = TcpListener::bind(format!("{host}:0")).unwrap();
    Backend::serve_on(listener, |peer, _| echo(peer))
}

/// As an address is written in a socket's address.
fn bracketed(text: &str) -> String {
    let host = text.split('/').next().unwrap();
    match host.contains(':') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

alone!(an_unreachable_destination_is_told_of_at_each_hop, {
    let bad = address::ip(&format!("{NOWHERE}:80"));
    let six = address::ip("[2606:4700::1]:80");
    let name = address::named("nowhere.example", 80);
    for count in 1..=3 {
        let row = Row::new(count, &["*:*"]);
        for hop in 1..=usize::from(count) {
            for bad in [&bad, &six, &name] {
                let headers = row.headers_to(bad.clone()).with_address(hop, bad.clone());
                headers
                    .dial_with(&[1; 60_000])
                    .expect_error(hop, code::UNREACHABLE);
                let mut flow = Flow::new(&row.hops(), bad.clone());
                let mut requests = flow.requests();
                requests[hop - 1].address.clone_from(bad);
                flow.send_as(requests, b"lost")
                    .expect_error(hop, code::UNREACHABLE);
            }
        }
        row.stop_with_flows();
    }
});

alone!(unreachable_has_its_code_in_socks_http_and_words, {
    let row = Row::new(2, &["*:*"]);
    let server = serve(&(dynamic("socks5", &row.hops()) + &dynamic("http", &row.hops())));
    let there = socks::at(format!("{NOWHERE}:80").parse().unwrap());
    let mut client = Socks::open(access_address(&server, "socks5"));
    client.expect_refusal(socks::CONNECT, &there, reply::HOST_UNREACHABLE);
    let head = http::connect(&format!("{NOWHERE}:80"), &[]);
    let (answer, _) = http::ask(access_address(&server, "http"), &head);
    assert_eq!(answer.status, 502);
    let finished = program::run(&format!("{NOWHERE}:80"), &row.hops(), &[], b"").expect(1);
    let line = format!("hop 2 ({}): ", row.hops()[1].address);
    assert!(finished.error.contains(&line), "{}", finished.error);
    server.stop();
    row.stop();
});

alone!(
    private_addresses_are_dialled_where_they_are_named_and_nowhere_else,
    {
        let hosts = ADDRESSES.map(bracketed);
        let backends: Vec<Backend> = hosts.iter().map(|host| echo_at(host)).collect();
        let closed = Plan::new(Key::number(1)).start();
        let any = Plan::allowing(Key::number(1), &["*:*", "*.example:*"]).start();
        for (host, backend) in hosts.iter().zip(&backends) {
            eprintln!("{host}");
            if host == PUBLIC {
                continue;
            }
            for proxy in [&closed, &any] {
                let headers = proxy.headers(address::at(backend.address));
                headers.dial().expect_error(1, code::FORBIDDEN);
                let mut flow = proxy.flow(address::at(backend.address));
                flow.send(b"x").expect_error(1, code::FORBIDDEN);
            }
            assert_eq!(backend.accepted(), 0);
            let open = Plan::allowing(Key::number(1), &[backend.address]).start();
            open.headers(address::at(backend.address))
                .dial()
                .expect_echo(b"allowed");
            open.stop();
        }
        // A public address needs no word of its own.
        let public = &backends[ADDRESSES.len() - 1];
        closed
            .headers(address::at(public.address))
            .dial()
            .expect_echo(b"public");
        closed.server.stop();
        any.server.stop();
    }
);

alone!(a_network_opens_what_is_in_it, {
    let backend = echo_at("10.1.2.3");
    let port = backend.address.port();
    for (allow, expected) in [
        (format!("10.0.0.0/8:{port}"), code::OK),
        ("10.1.2.0/24:*".to_owned(), code::OK),
        ("10.1.3.0/24:*".to_owned(), code::FORBIDDEN),
        (format!("10.0.0.0/8:{}", port - 1), code::FORBIDDEN),
    ] {
        let proxy = Plan::allowing(Key::number(1), std::slice::from_ref(&allow)).start();
        for destination in [
            address::at(backend.address),
            address::named("inner.example", port),
        ] {
            let mut chained = proxy.headers(destination).dial();
            assert_eq!(chained.answer().code, expected, "{allow}");
        }
        proxy.server.stop();
    }
});

alone!(a_name_leads_where_its_address_may, {
    let inner = echo_at("10.1.2.3");
    let looped = Backend::echo();
    let public = echo_at(PUBLIC);
    let six = echo_at("[::1]");
    let by_name = ["*:*", "*.example:*", "loop.example:*", "inner.example:*"];
    let proxy = Plan::allowing(Key::number(1), &by_name).start();
    for (name, backend) in [
        ("loop.example", &looped),
        ("loop6.example", &six),
        ("inner.example", &inner),
    ] {
        let destination = address::named(name, backend.address.port());
        proxy
            .headers(destination.clone())
            .dial()
            .expect_error(1, code::FORBIDDEN);
        let mut flow = proxy.flow(destination);
        flow.send(b"x").expect_error(1, code::FORBIDDEN);
        assert_eq!(backend.accepted(), 0, "{name}");
    }
    let destination = address::named("public.example", public.address.port());
    proxy.headers(destination).dial().expect_echo(b"public");
    proxy.server.stop();
    // Named by its address, the same name may lead there.
    let proxy = Plan::allowing(Key::number(1), &[looped.address]).start();
    let destination = address::named("loop.example", looped.address.port());
    proxy.headers(destination).dial().expect_echo(b"by address");
    proxy.stop();
    // `localhost` in a rule is that name alone.
    let port = looped.address.port();
    let proxy = Plan::allowing(Key::number(1), &[format!("localhost:{port}")]).start();
    proxy
        .headers(address::named("localhost", port))
        .dial()
        .expect_echo(b"localhost");
    proxy.stop();
});

alone!(rules_by_name_open_what_is_public_alone_under_that_name, {
    let public = echo_at(PUBLIC);
    let port = public.address.port();
    for (allow, name, expected) in [
        (format!("public.example:{port}"), "public.example", code::OK),
        (format!("public.example:{port}"), "PUBLIC.example", code::OK),
        (format!("*.example:{port}"), "public.example", code::OK),
        (format!("public.example:{port}"), "8.8.4.4", code::FORBIDDEN),
        (format!("*.other:{port}"), "public.example", code::FORBIDDEN),
        (format!("8.8.4.4:{port}"), "public.example", code::OK),
    ] {
        let proxy = Plan::allowing(Key::number(1), std::slice::from_ref(&allow)).start();
        let mut chained = proxy.headers(address::named(name, port)).dial();
        assert_eq!(chained.answer().code, expected, "{allow} for {name}");
        drop(chained);
        proxy.stop();
    }
    let deny = format!("public.example:{port}");
    let proxy = Plan::new(Key::number(1)).list("deny", &[deny]).start();
    let named = address::named("public.example", port);
    proxy.headers(named).dial().expect_error(1, code::FORBIDDEN);
    proxy
        .headers(address::at(public.address))
        .dial()
        .expect_echo(b"not by its name");
    proxy.stop();
});

alone!(every_address_of_a_name_is_tried, {
    // `localhost` is two addresses here, and only one of them takes connections.
    for host in ["127.0.0.1", "[::1]"] {
        let backend = echo_at(host);
        let port = backend.address.port();
        let row = Row::new(2, &[format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
        for _ in 0..10 {
            let headers = row.headers_to(address::named("localhost", port));
            headers.dial().expect_echo(b"either way");
        }
        row.stop();
        // Nor does one that is forbidden stand before one that is not.
        let row = Row::new(1, &[backend.address]);
        let headers = row.headers_to(address::named("localhost", port));
        headers.dial().expect_echo(b"the allowed one");
        row.stop();
    }
});

alone!(an_unknown_name_is_told_of, {
    let server = names::serve(|_, _| Say::Unknown);
    for count in 1..=3 {
        let row = Row::new(count, &["*:*"]);
        for hop in 1..=usize::from(count) {
            let bad = address::named("name.invalid", 80);
            let headers = row.headers_to(bad.clone()).with_address(hop, bad.clone());
            headers.dial().expect_error(hop, code::RESOLVE);
            let mut flow = Flow::new(&row.hops(), bad.clone());
            let mut requests = flow.requests();
            requests[hop - 1].address = bad;
            flow.send_as(requests, b"lost")
                .expect_error(hop, code::RESOLVE);
        }
        row.stop_with_flows();
    }
    assert!(server.received() > 0, "nobody was asked");
});

alone!(a_name_that_is_looked_up_forever_holds_up_nobody, {
    let _silent = names::serve(|_, _| Say::Nothing);
    let echo = Datagrams::echo();
    let backend = Backend::echo();
    let allow = [
        echo.address.to_string(),
        backend.address.to_string(),
        "*:*".to_owned(),
    ];
    let plan = Plan::allowing(Key::number(1), &allow).workers(1);
    let proxy = plan.text("dial_timeout", "3s").start();
    let bad = address::named("slow.example", 80);
    let mut flows: Vec<Flow> = (0..8).map(|_| proxy.flow(bad.clone())).collect();
    let mut streams: Vec<_> = (0..8).map(|_| proxy.headers(bad.clone()).dial()).collect();
    for flow in &mut flows {
        flow.send(b"where to");
    }
    let mut flow = proxy.flow(address::at(echo.address));
    for _ in 0..50 {
        flow.expect_echo(b"meanwhile");
        proxy
            .headers(address::at(backend.address))
            .dial()
            .expect_echo(b"meanwhile");
    }
    // In the end each is told that there was no answer, by either name for it.
    for chained in &mut streams {
        let answer = chained.answer();
        assert!(
            matches!(answer.code, code::TIMEOUT | code::RESOLVE),
            "{answer:?}"
        );
    }
    for flow in flows {
        let said = flow.receive();
        let late = [code::TIMEOUT, code::RESOLVE];
        assert!(late.iter().any(|code| said == failed(*code)), "{said:?}");
    }
    drop(streams);
    proxy.server.stop();
});

fn failed(code: u8) -> crate::support::chain::datagram::Said {
    crate::support::chain::datagram::Said::Failed(1, code)
}

alone!(a_name_that_changes_its_address_never_leads_inside, {
    let public = echo_at(PUBLIC);
    let port = public.address.port();
    let inside = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let inside = TcpListener::bind(inside).unwrap();
    let inside = Backend::serve_on(inside, |peer, _| echo(peer));
    let asked = AtomicUsize::new(0);
    let _names = names::serve(move |_, wants_v4| {
        if !wants_v4 {
            return Say::Address(Ipv4Addr::UNSPECIFIED);
        }
        // Outside when it is checked, inside when somebody asks again.
        match asked.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => Say::Address(PUBLIC.parse().unwrap()),
            _ => Say::Address(Ipv4Addr::LOCALHOST),
        }
    });
    let proxy = Plan::new(Key::number(1)).start();
    let mut served = 0;
    for number in 0..40 {
        // A name of its own each time, so that nothing is remembered.
        let name = format!("rebinding{number}.example");
        let mut chained = proxy.headers(address::named(&name, port)).dial();
        match chained.answer().code {
            code::OK => served += 1,
            other => assert_eq!(other, code::FORBIDDEN),
        }
    }
    assert!(served > 0);
    // The hop says ok before the backend has counted the connection.
    until("all are accepted", || public.accepted() >= served);
    assert_eq!((inside.accepted(), public.accepted()), (0, served));
    proxy.server.stop();
});

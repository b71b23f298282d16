//! Several chains behind one listener: their weights, and one that is broken and comes back.

use std::net::{SocketAddr, TcpListener};

use crate::support::backend::{Backend, Refusing};
use crate::support::chain::fake::FakeHop;
use crate::support::chain::plan::{Row, access, access_address, serve, via};
use crate::support::chain::request::PROBE;
use crate::support::chain::{Hop, Key, code};
use crate::support::peer::Peer;
use crate::support::server::Server;
use crate::support::until;

/// A listener to `to` with these chains and their weights, each tried once in a second.
fn server_of(chains: &[(&[Hop], u32)], to: SocketAddr) -> Server {
    let chains = chains
        .iter()
        .map(|(hops, weight)| format!("{{ via = {}, weight = {weight} }}", via(hops)));
    let chains: Vec<String> = chains.collect();
    let lines = [
        format!("chains = [{}]", chains.join(", ")),
        format!("to = \"{to}\""),
        "probe_interval = \"1s\"".to_owned(),
    ];
    serve(&access("db", "tcp", &lines))
}

/// Whether one connection got through.
fn gets_through(server: &Server) -> bool {
    let mut peer = Peer::connect(access_address(server, "db"));
    // It may have been closed already.
    peer.try_send(b"hello");
    peer.try_finish();
    let (bytes, _) = peer.rest();
    assert!(bytes.is_empty() || bytes == b"hello");
    bytes == b"hello"
}

/// So many in a row get through, after some that need not.
fn expect_steady(server: &Server, count: usize) {
    until("every connection gets through", || {
        (0..count).all(|_| gets_through(server))
    });
}

#[test]
fn each_chain_is_used_by_its_weight() {
    let backend = Backend::echo();
    let ((light, light_witness), (heavy, heavy_witness)) = (
        FakeHop::honest(Key::number(1)),
        FakeHop::honest(Key::number(2)),
    );
    let chains = [(&[light.hop.clone()][..], 1), (&[heavy.hop.clone()][..], 4)];
    let server = server_of(&chains, backend.address);
    for _ in 0..200 {
        assert!(gets_through(&server));
    }
    let counts = [
        light_witness.requests().len(),
        heavy_witness.requests().len(),
    ];
    assert_eq!(counts.iter().sum::<usize>(), 200);
    // One in five is expected; chance gives neither none nor half.
    assert!(counts[0] > 0 && counts[0] < counts[1], "{counts:?}");
    server.stop();
}

#[test]
fn chains_are_probed() {
    let backend = Backend::echo();
    let (one, witness) = FakeHop::honest(Key::number(1));
    let (two, other) = FakeHop::honest(Key::number(2));
    let chains = [(&[one.hop.clone()][..], 1), (&[two.hop.clone()][..], 1)];
    let server = server_of(&chains, backend.address);
    until("both are probed again and again", || {
        witness.probes() > 2 && other.probes() > 2
    });
    assert_eq!(backend.accepted(), 0, "a probe reaches no destination");
    server.stop();
}

#[test]
fn a_broken_chain_is_left_out_and_comes_back() {
    let backend = Backend::echo();
    let refusing = Refusing::new();
    let broken = Hop {
        address: refusing.address,
        key: Key::number(1),
    };
    let (sound, _) = FakeHop::honest(Key::number(2));
    // The broken one is preferred by far.
    let chains = [(&[broken.clone()][..], 100), (&[sound.hop.clone()][..], 1)];
    let server = server_of(&chains, backend.address);
    expect_steady(&server, 30);
    // Numbered as `check` does it.
    let line = "access db chain 1 is left out for now: ";
    until("the log names it", || server.log().contains(line));
    let (_mended, witness) = FakeHop::honest_on(refusing.open(), broken.key);
    until("the mended chain is used again", || {
        assert!(gets_through(&server));
        !witness.requests().is_empty()
    });
    expect_steady(&server, 30);
    server.stop();
}

#[test]
fn a_chain_whose_last_hop_is_broken_is_left_out() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let mut strange = row.hops();
    strange[1].key = Key::number(60);
    let (sound, witness) = FakeHop::honest(Key::number(9));
    let chains = [(&strange[..], 50), (&[sound.hop.clone()][..], 1)];
    let server = server_of(&chains, backend.address);
    expect_steady(&server, 30);
    assert!(witness.requests().len() >= 30);
    server.stop();
    row.stop();
}

#[test]
fn a_destination_that_refuses_breaks_no_chain() {
    let backend = Backend::echo();
    let refusing = Refusing::new();
    let row = Row::new(2, &[backend.address, refusing.address]);
    let hops = row.hops();
    let chains = [(&hops[..], 1), (&hops[..1], 1)];
    let server = server_of(&chains, refusing.address);
    for _ in 0..20 {
        Peer::connect(access_address(&server, "db")).expect_end();
    }
    // From now on the destination takes connections; no chain has to be mended first.
    let _opened = Backend::serve_on(refusing.open(), |peer, _| {
        crate::support::backend::echo(peer);
    });
    for _ in 0..20 {
        assert!(gets_through(&server));
    }
    server.stop();
    row.stop();
}

#[test]
fn with_every_chain_broken_connections_end_and_none_hangs() {
    let [one, two] = [Refusing::new(), Refusing::new()];
    let hops = [&one, &two].map(|refusing| Hop {
        address: refusing.address,
        key: Key::number(1),
    });
    let chains = [(&hops[..1], 1), (&hops[1..], 1)];
    let backend = Backend::echo();
    let server = server_of(&chains, backend.address);
    for _ in 0..30 {
        Peer::connect(access_address(&server, "db")).expect_end();
    }
    server.stop();
}

#[test]
fn one_that_fails_probes_and_serves_connections_is_noticed() {
    let backend = Backend::echo();
    // It answers what is real, and cuts off what is a probe.
    let to = backend.address;
    let hop = FakeHop::on(
        TcpListener::bind("127.0.0.1:0").unwrap(),
        Key::number(1),
        move |mut peer, request, _| {
            if request.flags & PROBE == 0 {
                peer.try_send(&request.response(code::OK));
                crate::support::backend::echo(peer);
            }
        },
    );
    let (sound, witness) = FakeHop::honest(Key::number(2));
    let chains = [(&[hop.hop.clone()][..], 100), (&[sound.hop.clone()][..], 1)];
    let server = server_of(&chains, to);
    until("the one that answers probes is used", || {
        assert!(gets_through(&server));
        !witness.requests().is_empty()
    });
    server.stop();
}

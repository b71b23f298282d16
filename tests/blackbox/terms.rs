//! Who may come in at a role's listeners, how many and how fast.

use std::net::UdpSocket;

use crate::support::backend::Backend;
use crate::support::frame::Dialect;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::roles::{ROLES, address, all, connect, connect_from};
use crate::support::server::{Server, Setup};
use crate::support::until;

const WIDE: Dialect = Dialect::Stock;

fn refused(server: &Server, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    server.admin().metric("towpath_refused_total", &label)
}

/// One worker: it takes clients in the order in which they come.
fn start(backend: &Backend, lines: &str) -> Server {
    all(backend.address, lines)
        .top("workers = 1")
        .admin()
        .start()
}

#[test]
fn connections_of_one_address_are_counted_for_each_role() {
    let backend = Backend::echo();
    let server = start(&backend, "max_connections_per_ip = 2");
    let mut held = Vec::new();
    for role in ROLES {
        if role == "gateway-servers" {
            // The same door as the gateway's clients: it is full already.
            connect(&server, role).expect_closed();
            continue;
        }
        held.extend([connect(&server, role), connect(&server, role)]);
        connect(&server, role).expect_closed();
        // Another address is another count.
        held.push(connect_from("127.0.0.2", &server, role));
    }
    assert_eq!(refused(&server, "max_connections_per_ip"), 7.0);
    for told in [
        "refused: max_connections_per_ip of the role reached",
        "access db from=127.0.0.1:",
    ] {
        until("the log tells of it", || server.log().contains(told));
    }
    drop(held);
    until("the agent role has room again", || {
        let mut peer = server.connect();
        peer.try_send(&WIDE.sniff());
        matches!(peer.some(&mut [0; 256]), Ok(1..))
    });
    server.stop();
}

#[test]
fn new_connections_are_slowed_at_each_role() {
    let backend = Backend::echo();
    for key in ["connection_rate_per_ip", "connection_rate"] {
        let server = start(&backend, &format!("{key} = 1"));
        for role in ROLES {
            let before = refused(&server, key);
            let mut held = Vec::new();
            until("one comes too fast", || {
                held.push(connect(&server, role));
                refused(&server, key) > before
            });
        }
        server.stop();
    }
}

#[test]
fn the_server_s_own_rates_hold_everywhere() {
    let backend = Backend::echo();
    for key in ["connection_rate_per_ip", "connection_rate"] {
        let setup = all(backend.address, "").limit(&format!("{key} = 1"));
        let server = setup.admin().start();
        for role in ROLES {
            let before = refused(&server, key);
            let mut held = Vec::new();
            until("one comes too fast", || {
                held.push(connect(&server, role));
                refused(&server, key) > before
            });
        }
        server.stop();
    }
}

#[test]
fn networks_are_let_in_or_kept_out() {
    let backend = Backend::echo();
    let denied = start(&backend, "deny_from = ['127.0.0.1/32', '127.0.0.4/30']");
    let allowed = start(
        &backend,
        "allow_from = ['127.0.0.0/29']\ndeny_from = ['127.0.0.1']",
    );
    for server in [&denied, &allowed] {
        for role in ROLES {
            connect(server, role).expect_closed();
        }
        assert_eq!(refused(server, "denied"), 7.0);
    }
    for (server, source, is_in) in [
        (&denied, "127.0.0.2", true),
        (&denied, "127.0.0.6", false),
        (&allowed, "127.0.0.2", true),
        (&allowed, "127.0.0.9", false),
    ] {
        for role in ["agent", "access"] {
            let mut peer = connect_from(source, server, role);
            match (is_in, role) {
                (false, _) => {
                    peer.expect_closed();
                }
                (true, "agent") => {
                    peer.send(WIDE.sniff());
                    assert_eq!(peer.reply(WIDE).command, b"sniff");
                }
                (true, _) => {
                    peer.send(b"ping").expect(b"ping");
                }
            }
        }
    }
    denied.stop();
    allowed.stop();
}

#[test]
fn datagrams_of_a_network_that_is_kept_out_are_dropped() {
    let backend = Backend::echo();
    let server = start(&backend, "deny_from = ['127.0.0.1']");
    for role in ["node", "chain"] {
        let before = refused(&server, "denied");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        until("the datagram is counted", || {
            socket.send_to(b"hello", address(&server, role)).unwrap();
            refused(&server, "denied") > before
        });
    }
    server.stop();
}

#[test]
fn at_a_role_that_is_full_clients_wait_for_room() {
    let backend = Backend::echo();
    let server = start(&backend, "max_connections = 2");
    let mut held: Vec<Peer> = (0..2).map(|_| connect(&server, "access")).collect();
    for peer in &mut held {
        peer.send(b"held").expect(b"held");
    }
    let mut waiting = connect(&server, "access");
    waiting.send(b"ping");
    until("the listener rests", || {
        let admin = server.admin();
        admin.metric("towpath_accept_rests_total", "") > 0.0
    });
    let said = "access db accepts nobody for now: max_connections of the role reached";
    until("the log tells of it", || server.log().contains(said));
    // Other roles are not full.
    server.expect_alive();
    drop(held.pop());
    waiting.expect(b"ping");
    drop((held, waiting));
    server.stop();
}

#[test]
fn a_start_with_too_few_descriptors_says_how_many_it_needs() {
    let backend = Backend::echo();
    let wrapper = |limit: &str| {
        let limit = format!("--nofile={limit}:{limit}");
        all(backend.address, "")
            .top("workers = 2")
            .wrapper(&["prlimit", &limit, "--"])
    };
    let (code, said) = wrapper("30").fail();
    assert_eq!(code, 75, "{said}");
    // Nine listeners for each, and their poll, bell and reserve.
    let wanted = "2 workers with 9 listeners each need at least 38, and 30 may be open";
    assert!(said.contains(wanted), "{said}");
    let server = wrapper("64").start();
    until("the log tells how many there are", || {
        server.log().contains("descriptors: 64, of them")
    });
    server.expect_alive();
    server.stop();
}

#[test]
fn mistakes_are_told_where_they_stand() {
    let setup = Setup::new().agent("allow_from = ['10.0.0.0/33']");
    let (code, said) = setup.fail();
    assert_eq!(code, 78);
    assert!(
        said.contains("`allow_from`: the length of \"10.0.0.0/33\" is out of range: 0 to 32"),
        "{said}"
    );
    // An empty one is no network, and never stands for all of them.
    let (code, said) = Setup::new().agent("allow_from = ['']").fail();
    assert_eq!(code, 78);
    assert!(
        said.contains("`allow_from`: \"\" is not a network"),
        "{said}"
    );
    let (code, said) = Setup::new().flag("--agent-accept-proxy=10.0.0.1/8").fail();
    assert_eq!(code, 2, "a flag is a matter of usage");
    assert!(said.contains("write \"10.0.0.0/8\""), "{said}");
}

#[test]
fn slow_readers_hold_no_more_than_they_may() {
    kernel::raise_own_descriptor_limit();
    let lavish = Backend::serve(|mut peer, _| {
        let block = vec![b'x'; 64 * 1024];
        while peer.try_send(&block) {}
    });
    let server = Setup::to(lavish.address)
        .limit("max_buffer_memory = \"4M\"")
        .admin()
        .start();
    server.expect_alive();
    let before = kernel::resident_bytes(server.process());
    let readers: Vec<_> = (0..300).map(|_| server.open()).collect();
    let after = crate::support::window::standing_still("the memory stands still", || {
        kernel::resident_bytes(server.process())
    });
    // The budget, a block for each of them, and what the process itself takes.
    let growth = after.saturating_sub(before);
    let most = (4 << 20) + 300 * 2 * (16 << 10) + (8 << 20);
    assert!(growth < most, "{growth} bytes for 300 readers");
    server.expect_alive();
    drop(readers);
    server.stop();
}

//! Recorded scenarios played to the client library: a gateway that sends and wants the recorded bytes
//! of one connection, in their order, and a program that does what the recorded one did.

use std::net::{Shutdown, SocketAddr};

use towpath::gateway::{Client, Connection, Error, Options, Server};
use towpath::protocols::gateway::wire::{CHALLENGE, Command, Dialect, HEAD};

use crate::gateway_peer::{Peer, serve};
use crate::gateway_record::{Recorded, Scenario};

/// What a program knows of its scenario.
struct Play {
    address: SocketAddr,
    scenario: Scenario,
    role: &'static str,
}

/// Plays one side of a scenario.
fn replay(name: &str, role: &'static str, program: impl FnOnce(&Play)) {
    let scenario = Scenario::read(name);
    let script = Scenario::read(name);
    let (address, gateway) = serve(move |peer| play(peer, script.dialect, script.of(role)));
    program(&Play {
        address,
        scenario,
        role,
    });
    gateway.join().unwrap();
}

fn play(mut peer: Peer, dialect: Dialect, recorded: &Recorded) {
    for unit in &recorded.units {
        match (unit.from_gateway, unit.is_end) {
            (true, true) => return,
            (true, false) => peer.write(&unit.bytes),
            (false, true) => break,
            (false, false) => {
                let mut got = vec![0; unit.bytes.len()];
                std::io::Read::read_exact(&mut peer.stream, &mut got).unwrap();
                assert!(got == unit.bytes, "{}: {got:02x?}", unit.reading);
            }
        }
    }
    // A recorded program could end with connections open; this library closes them.
    peer.stream.shutdown(Shutdown::Write).unwrap();
    while let Some((conn, payload)) = peer.frame() {
        let command = dialect.decode(&payload);
        assert!(
            conn == 0 && matches!(command, Ok(Command::Close { .. })),
            "{conn} {command:?}"
        );
    }
}

impl Play {
    fn options(&self) -> Options {
        Options {
            dialect: self.scenario.dialect,
            ..Options::default()
        }
    }

    fn client(&self) -> Client {
        Client::connect(self.address, self.options()).unwrap()
    }

    fn server(&self) -> Server {
        let answer = &self.scenario.of(self.role).units[1].bytes;
        let id = u32::from_le_bytes(answer[16..].try_into().unwrap());
        Server::connect(self.address, id, &self.scenario.key, self.options()).unwrap()
    }

    /// The messages that this side sent or got, with their connections.
    fn messages(&self, from_gateway: bool) -> Vec<(u32, Vec<u8>)> {
        let units = &self.scenario.of(self.role).units;
        let data = units
            .iter()
            .filter(|unit| unit.reading.starts_with("data "));
        data.filter(|unit| unit.from_gateway == from_gateway)
            .map(|unit| {
                let conn = u32::from_le_bytes(unit.bytes[4..HEAD].try_into().unwrap());
                (conn, unit.bytes[HEAD..].to_vec())
            })
            .collect()
    }

    fn sends(&self, ends: &[&Connection]) {
        for (conn, message) in self.messages(false) {
            let end = ends.iter().find(|end| end.id() == conn).unwrap();
            end.send(&message).unwrap();
        }
    }

    fn gets(&self, ends: &[&Connection]) {
        for (conn, message) in self.messages(true) {
            let end = ends.iter().find(|end| end.id() == conn).unwrap();
            assert!(end.receive().unwrap() == Some(message));
        }
    }
}

fn is_over(end: &Connection) {
    assert_eq!(end.receive().unwrap(), None);
    assert!(matches!(end.send(b"late"), Err(Error::Closed)));
}

fn refuses(dialled: Result<Connection, Error>, words: &str) {
    let error = dialled.unwrap_err().to_string();
    assert!(error.starts_with(words), "{error}");
}

const ECHOES: [&str; 5] = [
    "document/dial_echo_close_by_client",
    "fastway/dial_echo_close_by_client",
    "fastway/empty_message",
    "fastway/large_at_limit",
    "fastway/auth_empty_key",
];

#[test]
fn a_client_dials_and_closes() {
    for name in ECHOES {
        replay(name, "client", |play| {
            let client = play.client();
            let server = if name.ends_with("empty_key") { 5 } else { 1 };
            let end = client.dial(server).unwrap();
            assert_eq!((end.id(), end.remote()), (1, server));
            play.sends(&[&end]);
            play.gets(&[&end]);
            end.close();
            end.close();
            is_over(&end);
            client.close();
        });
    }
}

#[test]
fn a_server_accepts_and_hears_the_close() {
    for name in ECHOES {
        replay(name, "server", |play| {
            let server = play.server();
            let end = server.accept().unwrap();
            assert_eq!((end.id(), end.remote()), (1, 1));
            play.gets(&[&end]);
            play.sends(&[&end]);
            is_over(&end);
            server.close();
        });
    }
}

#[test]
fn the_largest_message_of_the_document_passes() {
    let name = "document/large_at_limit";
    replay(name, "client", |play| {
        let end = play.client().dial(1).unwrap();
        play.sends(&[&end]);
    });
    replay(name, "server", |play| {
        let end = play.server().accept().unwrap();
        play.gets(&[&end]);
    });
}

#[test]
fn a_server_closes() {
    for name in ["document/close_by_server", "fastway/close_by_server"] {
        replay(name, "client", |play| {
            let client = play.client();
            let end = client.dial(1).unwrap();
            play.sends(&[&end]);
            is_over(&end);
            client.close();
        });
        replay(name, "server", |play| {
            let server = play.server();
            let end = server.accept().unwrap();
            play.gets(&[&end]);
            end.close();
            server.close();
        });
    }
}

#[test]
fn who_is_not_there_is_told_in_words() {
    replay("document/refuse_unknown_server", "client", |play| {
        refuses(play.client().dial(99), "server 99 is not there");
    });
    replay("document/refuse_unknown_server", "server", |play| {
        refuses(play.server().dial(4242), "client 4242 is not there");
    });
    replay("fastway/refuse_unknown_server", "client", |play| {
        let client = play.client();
        refuses(client.dial(99), "server 99 is not there");
        assert_eq!(client.dial(1).unwrap().id(), 1);
    });
    replay("fastway/refuse_unknown_server", "server", |play| {
        let server = play.server();
        let end = server.accept().unwrap();
        refuses(server.dial(4242), "client 4242 is not there");
        is_over(&end);
    });
}

#[test]
fn a_server_dials_a_client_that_dialled_it() {
    let name = "fastway/server_dials_client";
    replay(name, "client", |play| {
        let client = play.client();
        let dialled = client.dial(77).unwrap();
        let accepted = client.accept().unwrap();
        assert_eq!((accepted.id(), accepted.remote()), (2, 77));
        play.gets(&[&accepted]);
        play.sends(&[&dialled, &accepted]);
        is_over(&accepted);
        client.close();
    });
    replay(name, "server", |play| {
        let server = play.server();
        let accepted = server.accept().unwrap();
        let dialled = server.dial(accepted.remote()).unwrap();
        assert_eq!((dialled.id(), dialled.remote()), (2, 1));
        play.sends(&[&dialled]);
        play.gets(&[&dialled, &accepted]);
        dialled.close();
        is_over(&accepted);
        server.close();
    });
}

#[test]
fn two_connections_share_a_link() {
    let name = "fastway/two_conns_interleaved";
    replay(name, "client", |play| {
        let client = play.client();
        let (first, second) = (client.dial(1).unwrap(), client.dial(1).unwrap());
        play.sends(&[&first, &second]);
        play.gets(&[&first, &second]);
        second.close();
        is_over(&first);
        client.close();
    });
    replay(name, "server", |play| {
        let server = play.server();
        let (first, second) = (server.accept().unwrap(), server.accept().unwrap());
        play.gets(&[&first, &second]);
        play.sends(&[&first, &second]);
        is_over(&second);
        first.close();
        server.close();
    });
}

#[test]
fn a_close_is_not_overtaken_by_the_next_dial() {
    replay("fastway/limit_reached", "client", |play| {
        let client = play.client();
        let (first, second) = (client.dial(1).unwrap(), client.dial(1).unwrap());
        refuses(
            client.dial(1),
            "server 1 is not there, or there are as many",
        );
        first.close();
        let third = client.dial(1).unwrap();
        assert_eq!((second.id(), third.id()), (2, 4));
        client.close();
    });
}

#[test]
fn a_server_that_leaves_closes_all_it_has() {
    let name = "fastway/server_disconnects_lib";
    replay(name, "server", |play| {
        let server = play.server();
        let ends = [server.accept().unwrap(), server.accept().unwrap()];
        server.close();
        for end in &ends {
            assert!(matches!(end.receive(), Err(Error::Left)));
            assert!(matches!(end.send(b"late"), Err(Error::Left)));
        }
    });
    replay(name, "client", |play| {
        let client = play.client();
        let ends = [client.dial(1).unwrap(), client.dial(1).unwrap()];
        ends.iter().for_each(is_over);
        refuses(client.dial(1), "server 1 is not there");
        client.close();
    });
}

#[test]
fn a_gateway_that_stops_ends_all_calls() {
    replay("fastway/gateway_stop", "client", |play| {
        let client = play.client();
        let end = client.dial(1).unwrap();
        assert!(matches!(end.receive(), Err(Error::GatewayClosed)));
        assert!(matches!(client.accept(), Err(Error::GatewayClosed)));
        assert!(matches!(client.dial(1), Err(Error::GatewayClosed)));
    });
    replay("fastway/gateway_stop", "server", |play| {
        let server = play.server();
        let end = server.accept().unwrap();
        assert!(matches!(server.accept(), Err(Error::GatewayClosed)));
        is_over(&end);
    });
}

#[test]
fn pings_of_the_document_are_answered() {
    replay("document/ping", "client-lib (answers)", |play| {
        let client = play.client();
        assert!(matches!(client.accept(), Err(Error::GatewayClosed)));
    });
}

#[test]
fn a_wrong_key_is_told_as_one() {
    let recorded = Scenario::read("fastway/auth_failure");
    let (address, gateway) = serve(|mut peer| {
        peer.write(&[7; CHALLENGE]);
        peer.read::<20>().unwrap();
    });
    let options = Options {
        dialect: recorded.dialect,
        ..Options::default()
    };
    let server = Server::connect(address, 5, b"wrong", options).unwrap();
    let error = server.accept().unwrap_err();
    assert!(matches!(error, Error::Rejected), "{error:?}");
    gateway.join().unwrap();
}

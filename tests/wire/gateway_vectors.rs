//! Every recorded gateway connection: what the codec reads in it, and that it writes the same.

use towpath::protocols::gateway::wire::{
    ANSWER, CHALLENGE, Command, Dialect, HEAD, Head, MAX_PACKET, answer, length, verify,
};

use crate::gateway_record::{Recorded, Scenario, Unit};

#[test]
fn every_recorded_frame_is_read_and_written_again() {
    let (mut commands, mut messages) = (0, 0);
    for scenario in Scenario::all() {
        for connection in &scenario.connections {
            for unit in frames(connection) {
                let (head, payload) = unit.bytes.split_first_chunk::<HEAD>().unwrap();
                let head = Head::decode(head, MAX_PACKET).unwrap();
                let place = format!("{} {}: {}", scenario.name, connection.role, unit.reading);
                assert_eq!(head.frame_len(), unit.bytes.len(), "{place}");
                assert_eq!(head.payload_len(), payload.len(), "{place}");
                let again = Head::new(head.conn, payload.len()).unwrap();
                assert_eq!(again.encode()[..], unit.bytes[..HEAD], "{place}");
                if head.is_command() {
                    check_command(scenario.dialect, unit, payload, &place);
                    commands += 1;
                } else {
                    let words = format!("data conn={} payload={}B", head.conn, payload.len());
                    assert_eq!(unit.reading, words, "{place}");
                    messages += 1;
                }
            }
        }
    }
    assert!(commands > 150 && messages > 50, "{commands} {messages}");
}

fn check_command(dialect: Dialect, unit: &Unit, payload: &[u8], place: &str) {
    let command = match dialect.decode(payload) {
        Ok(command) => command,
        // The recorder says so too.
        Err(error) => panic!("{place}: {error}"),
    };
    assert!(
        unit.reading.starts_with(&words(dialect, command)),
        "{place}: {command:?}"
    );
    let sender_may = unit.from_gateway || command.is_from_endpoint(dialect);
    assert!(sender_may, "{place}: {command:?}");
    let again = dialect.frame(command);
    // Endpoints may send a few bytes more; they count in the length.
    let extra = unit.bytes.len() - again.as_ref().len();
    assert!(extra == 0 || !unit.from_gateway, "{place}");
    assert_eq!(
        unit.bytes[4..unit.bytes.len() - extra],
        again.as_ref()[4..],
        "{place}"
    );
}

/// A command in the recorder's words.
fn words(dialect: Dialect, command: Command) -> String {
    match command {
        Command::New => "New".to_owned(),
        Command::Open { conn } => format!("Open conn={conn}"),
        Command::Dial { conn, remote } if dialect == Dialect::Document => {
            format!("Dial conn={conn} remote={remote}")
        }
        Command::Dial { remote, .. } => format!("Dial remote={remote}"),
        Command::Refuse { conn, .. } if dialect == Dialect::Document => {
            format!("Refuse conn={conn}")
        }
        Command::Refuse { remote, .. } => format!("Refuse remote={remote}"),
        Command::Accept { conn, remote } => format!("Accept conn={conn} remote={remote}"),
        Command::Connect { conn, remote } => format!("Connect conn={conn} remote={remote}"),
        Command::Close { conn } => format!("Close conn={conn}"),
        Command::Ping => "Ping".to_owned(),
    }
}

#[test]
fn every_recorded_handshake_is_judged_as_it_was() {
    let mut proven = 0;
    for scenario in Scenario::all() {
        let servers = scenario.connections.iter().filter(|one| one.is_server());
        for server in servers {
            let challenge: &[u8; CHALLENGE] = server.units[0].bytes[..].try_into().unwrap();
            let Ok(shown) = <&[u8; ANSWER]>::try_from(&server.units[1].bytes[..]) else {
                // Silence, or not all of it.
                assert!(scenario.name.ends_with("auth_timeout"), "{}", scenario.name);
                continue;
            };
            let id = verify(challenge, &scenario.key, shown);
            if server.role.contains("bad-key") {
                assert_eq!(id, None, "{}", scenario.name);
                continue;
            }
            let id = id.unwrap();
            assert_eq!(
                server.units[1].reading,
                format!("auth md5(16) server_id={id}")
            );
            assert_eq!(answer(challenge, &scenario.key, id), *shown);
            proven += 1;
        }
    }
    assert!(proven > 20, "{proven}");
}

#[test]
fn a_recorded_clients_first_command_tells_its_dialect() {
    let mut told = 0;
    for scenario in Scenario::all() {
        for client in scenario.connections.iter().filter(|one| !one.is_server()) {
            let mut sent = frames(client).filter(|unit| !unit.from_gateway);
            let first = sent.find(|unit| unit.bytes[4..HEAD] == [0; 4]);
            let Some(first) = first else {
                continue;
            };
            let length = length(first.bytes.first_chunk().unwrap(), MAX_PACKET).unwrap();
            let found = Dialect::detect(length, &first.bytes[HEAD..]);
            // A client that answers pings only has said nothing of its own.
            assert_eq!(found, Some(scenario.dialect), "{}", scenario.name);
            told += 1;
        }
    }
    assert!(told > 20, "{told}");
}

#[test]
fn recorded_lengths_over_the_limit_are_refused_by_their_four_bytes() {
    let mut refused = 0;
    for scenario in Scenario::all() {
        if !scenario.name.contains("above_limit") {
            continue;
        }
        let units = scenario.connections.iter().flat_map(|one| &one.units);
        for unit in units.filter(|unit| unit.is_partial) {
            assert!(length(unit.bytes.first_chunk().unwrap(), MAX_PACKET).is_err());
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
}

/// The whole frames of a connection, without a server's handshake.
fn frames(connection: &Recorded) -> impl Iterator<Item = &Unit> {
    let handshake = if connection.is_server() { 2 } else { 0 };
    let units = connection.units.iter().skip(handshake);
    units.filter(|unit| !unit.is_end && !unit.is_partial)
}

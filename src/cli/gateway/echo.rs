//! `towpath gateway echo`: a server that sends every message back to where it came from, and that
//! registers again whenever the gateway is lost.

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};
use log::{debug, info, warn};

use super::super::backoff::Backoff;
use super::super::exit::Failure;
use super::super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage, Values};
use super::super::{Invocation, logging};
use super::{DIALECT, dialect, id, server, server_flag};
use crate::config::{Secret, plain};
use crate::gateway::{Connection, Dialect, Error, Options, Server};

/// What `gateway echo` is to do.
#[derive(Debug)]
pub(in super::super) struct Echo {
    gateway: String,
    id: u32,
    key: Option<Secret>,
    options: Options,
    log: Option<String>,
}

/// Understands the words behind `gateway echo`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    if let [word, ..] = values.arguments() {
        let word = plain(word);
        return Err(command.wrong(format!("takes no argument, but got {word}")));
    }
    let Some(text) = values.value("id") else {
        return Err(command.wrong("--id N is missing"));
    };
    let dialect = dialect(&command, &values)?;
    Ok(Invocation::Echo(Echo {
        gateway: server(&command, &values, GATEWAY)?,
        id: id(&command, "--id", &text)?,
        key: key(&command, &values)?,
        options: Options {
            dialect,
            // Only there are pings answered, so that silence means something.
            silence_timeout: (dialect == Dialect::Fastway).then_some(SILENCE),
            ..Options::default()
        },
        log: logging::level(&command, values.value("log"))?,
    }))
}

/// The key from the file that a flag names, or out of the environment.
fn key(command: &Command, values: &Values<'_>) -> Result<Option<Secret>, Usage> {
    if let Some(file) = values.value("key-file") {
        let secret = Secret::read(file.as_ref());
        return secret
            .map(Some)
            .map_err(|message| command.wrong(format!("--key-file: {message}")));
    }
    let value = values.environment("TOWPATH_KEY");
    Ok(value.and_then(|value| Secret::new(value.as_encoded_bytes())))
}

impl Echo {
    /// Runs until it is killed.
    pub(in super::super) fn run(self) -> Result<(), Failure> {
        let _logging = logging::start(self.log.as_deref());
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        loop {
            let began = Instant::now();
            let error = self.serve_once();
            // What held for a while begins anew; what failed at once, as by a wrong key, does not.
            if began.elapsed() > LONGEST_PAUSE {
                backoff.reset();
            }
            let pause = backoff.next();
            let gateway = plain(&self.gateway);
            warn!("gateway={gateway} not connected: {error}; again in {pause:.1?}");
            thread::sleep(pause);
        }
    }

    /// One connection to the gateway, from its beginning to its end.
    fn serve_once(&self) -> Error {
        let key = self.key.as_ref().map_or(&[][..], Secret::expose);
        let gateway = self.gateway.as_str();
        match Server::connect(gateway, self.id, key, self.options.clone()) {
            Ok(server) => {
                info!(
                    "gateway={} connected, registering as server {}",
                    plain(gateway),
                    self.id
                );
                accept_all(&server)
            }
            Err(error) => error,
        }
    }
}

/// Takes virtual connections until the gateway is lost. Beyond [`CONNECTIONS`] they wait in the
/// library's backlog, and beyond that they are closed.
fn accept_all(server: &Server) -> Error {
    let (permits, freed) = bounded(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let _ = permits.send(());
    }
    loop {
        let _ = freed.recv();
        let permit = Permit(permits.clone());
        let connection = match server.accept() {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        debug!(
            "client={} conn={} accepted",
            connection.remote(),
            connection.id()
        );
        let thread = thread::Builder::new().name("echo".to_owned());
        let started = thread
            .stack_size(STACK)
            .spawn(move || echo(&connection, permit));
        if let Err(error) = started {
            warn!("a connection closed: no thread: {error}");
        }
    }
}

/// One virtual connection from its beginning to its end.
fn echo(connection: &Connection, _permit: Permit) {
    let (mut messages, mut bytes) = (0_u64, 0_u64);
    let ended = loop {
        match connection.receive() {
            Ok(Some(message)) => {
                if let Err(error) = connection.send(&message) {
                    break Err(error);
                }
                messages += 1;
                bytes += message.len() as u64;
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    let (client, conn) = (connection.remote(), connection.id());
    let why = match ended {
        Ok(()) | Err(Error::Closed) => "closed by the client".to_owned(),
        Err(error) => error.to_string(),
    };
    info!("client={client} conn={conn} messages={messages} bytes={bytes} ended: {why}");
}

/// The right to one connection; goes back when it is dropped, also by a panic.
struct Permit(Sender<()>);

impl Drop for Permit {
    fn drop(&mut self) {
        // Never full: there are as many places as permits.
        let _ = self.0.try_send(());
    }
}

/// The face of `gateway echo`.
pub(in super::super) fn command() -> Command {
    let flags = vec![
        Flag::value("id", "N", "the server's id, under which clients dial it"),
        Flag::value(
            "key-file",
            "FILE",
            "file with the gateway's key for servers; or the key itself in TOWPATH_KEY",
        ),
        server_flag(GATEWAY),
        DIALECT,
        LOG,
        HELP,
    ];
    Command {
        name: "gateway echo",
        usage: "--id N [FLAGS]",
        about: "Registers with a gateway as a server that sends every message back. When the \
                gateway is lost, it is tried again, after longer and longer pauses.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath gateway echo --id 7",
            "towpath gateway echo --id 7 --dialect fastway --key-file secrets/gateway",
        ],
    }
}

/// The gateway that is registered with when none is named: its port for servers.
const GATEWAY: &str = "127.0.0.1:7501";

/// Virtual connections served at once.
const CONNECTIONS: usize = 4096;

/// The stack of a thread that serves one.
const STACK: usize = 128 << 10;

/// When a gateway that must answer pings is taken for gone.
const SILENCE: Duration = Duration::from_secs(60);

/// The bounds of the pauses between two attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::tests::answer;
    use super::*;
    use crate::protocols::gateway::wire;

    fn asked(line: &[&str], address: &str, environment: Environment<'_>) -> Echo {
        let words = line.iter().copied().chain(["--server", address]);
        let words: Vec<OsString> = words.map(OsString::from).collect();
        match parse(&words, environment) {
            Ok(Invocation::Echo(echo)) => echo,
            Ok(_) => panic!("another command"),
            Err(usage) => panic!("{usage}"),
        }
    }

    #[test]
    fn every_message_comes_back_until_the_gateway_is_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let key = |name: &str| (name == "TOWPATH_KEY").then(|| OsString::from("secret"));
        let line = ["--id", "7", "--dialect", "fastway"];
        let echo = asked(&line, &address, &key);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(SILENCE)).unwrap();
                stream.write_all(b"12345678").unwrap();
                let mut shown = [0; wire::ANSWER];
                stream.read_exact(&mut shown).unwrap();
                assert_eq!(wire::verify(b"12345678", b"secret", &shown), Some(7));
                for conn in [1, 2] {
                    let connect = wire::Command::Connect { conn, remote: 5 };
                    let frame = Dialect::Fastway.frame(connect);
                    stream.write_all(frame.as_ref()).unwrap();
                    let head = wire::Head::new(conn, 5).unwrap();
                    stream.write_all(&head.encode()).unwrap();
                    stream.write_all(b"hello").unwrap();
                    let back = (head, b"hello".to_vec());
                    assert_eq!(answer(&mut stream), Some(back));
                }
            });
            let error = echo.serve_once();
            assert!(matches!(error, Error::GatewayClosed), "{error:?}");
        });
    }

    #[test]
    fn a_wrong_key_is_told_in_words() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let echo = asked(&["--id", "7"], &address, &|_| None);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"12345678").unwrap();
                stream.read_exact(&mut [0; wire::ANSWER]).unwrap();
            });
            let error = echo.serve_once().to_string();
            assert!(error.ends_with("is the key right?"), "{error}");
        });
    }
}

//! `towpath route`: the traffic proxy's client. With `--listen`, every connection to a local port
//! goes through the route; without it, stdin and stdout do, as with netcat.
//!
//! ```text
//!   local connection or stdin  --bytes-->  server  -->  the service's host
//!                  or stdout   <--bytes--
//! ```
//!
//! How the bytes go, `pump` knows.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpStream};

use log::warn;

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage};
use super::{Invocation, agent, logging, pump};
use crate::agent::{Error, Options, route};
use crate::config::{Secret, address, plain};

/// What the command is to do.
#[derive(Debug)]
pub(super) struct Request {
    way: Way,
    listen: Option<SocketAddr>,
    log: Option<String>,
}

/// A route by name.
#[derive(Debug)]
struct Way {
    server: String,
    service: String,
    field: String,
    token: Option<Secret>,
}

/// Understands the words behind `route`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let [field] = values.arguments() else {
        let count = values.arguments().len();
        return Err(command.wrong(format!("takes one FIELD, but got {count} words")));
    };
    let Some(service) = values.value("service") else {
        return Err(command.wrong("--service NAME is missing"));
    };
    let listen = values.value("listen").map(|text| address(&text));
    let listen = listen.transpose();
    Ok(Invocation::Route(Request {
        way: Way {
            server: agent::server(&command, &values)?,
            service,
            field: field.clone(),
            token: agent::token(&command, &values)?,
        },
        listen: listen.map_err(|message| command.wrong(format!("--listen: {message}")))?,
        log: logging::level(&command, values.value("log"))?,
    }))
}

/// Runs until stdin and the server have ended; with `--listen`, until it is killed.
pub(super) fn run(request: Request) -> Result<(), Failure> {
    let _logging = logging::start(request.log.as_deref());
    match request.listen {
        Some(address) => pump::serve("route", address, move |local, from| {
            relay(local, from, &request.way);
        }),
        None => converse(&request.way),
    }
}

impl Way {
    /// Dials the server and asks for the route; the stream leads to the service's host.
    fn open(&self) -> Result<TcpStream, Error> {
        let token = self.token.as_ref().map_or(&[][..], Secret::expose);
        let (service, field) = (self.service.as_bytes(), self.field.as_bytes());
        let options = Options::default();
        route(self.server.as_str(), service, field, token, &options)
    }

    /// What a failed [`Way::open`] means, in one line.
    fn explain(&self, error: &Error) -> String {
        let [server, service, field] = [&self.server, &self.service, &self.field].map(|t| plain(t));
        format!("route {field} of {service} by {server}: {error}")
    }
}

/// Stdin and stdout through one route.
fn converse(way: &Way) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(FAILED, format!("towpath route: {what}"));
    let down = way.open().map_err(|error| failed(way.explain(&error)))?;
    pump::prepare(&down);
    let up = down
        .try_clone()
        .map_err(|error| failed(format!("no second handle of the connection: {error}")))?;
    pump::converse("route", down, up)
}

/// One local connection from its beginning to its end.
fn relay(local: &TcpStream, from: SocketAddr, way: &Way) {
    match way.open() {
        Ok(remote) => pump::join(local, from, &remote, &remote, &remote),
        Err(error) => warn!("from={from} closed: {}", way.explain(&error)),
    }
}

fn command() -> Command {
    let flags = vec![
        Flag::value(
            "service",
            "NAME",
            "the service, as the server's configuration names it",
        ),
        agent::token_flag("file with the service's token; or the token itself in TOWPATH_TOKEN"),
        Flag::value(
            "listen",
            "ADDR",
            "take connections there; port 0 is any free one; without it, stdin and stdout",
        )
        .short('l'),
        agent::SERVER_FLAG,
        LOG,
        HELP,
    ];
    Command {
        name: "route",
        usage: "FIELD --service NAME [FLAGS]",
        about: "Reaches what a server has under FIELD of a service, or under its field default.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath route github --service demo --listen 127.0.0.1:9000",
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | towpath route github --service demo",
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A server that reads one route request and does with the connection as it is told; beside
    /// it a local connection whose other end goes through the route.
    fn through(serve: impl FnOnce(TcpStream) + Send, local: impl FnOnce(TcpStream)) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let way = Way {
            server: server.local_addr().unwrap().to_string(),
            service: "demo".to_owned(),
            field: "github".to_owned(),
            token: None,
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = server.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut header = [0; 17];
                stream.read_exact(&mut header).unwrap();
                let length = usize::from(header[9]);
                stream.read_exact(&mut vec![0; length]).unwrap();
                serve(stream);
            });
            let near = TcpStream::connect(port.local_addr().unwrap()).unwrap();
            near.set_read_timeout(Some(PATIENCE)).unwrap();
            let (far, from) = port.accept().unwrap();
            let way = &way;
            scope.spawn(move || relay(&far, from, way));
            local(near);
        });
    }

    fn all(mut stream: &TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_local_side_may_end_first_and_still_hear_the_answer() {
        let question = vec![7; 300_000];
        let expected = question.clone();
        through(
            move |mut stream| {
                stream.write_all(b"ok").unwrap();
                assert_eq!(all(&stream), expected);
                stream.write_all(b"answer").unwrap();
            },
            |mut stream| {
                stream.write_all(&question).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(all(&stream), b"answer");
            },
        );
    }

    #[test]
    fn the_server_may_end_first_and_still_hear_the_rest() {
        through(
            |mut stream| {
                stream.write_all(b"okgreeting").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(all(&stream), b"late");
            },
            |mut stream| {
                assert_eq!(all(&stream), b"greeting");
                stream.write_all(b"late").unwrap();
            },
        );
    }

    #[test]
    fn a_refused_route_closes_the_local_connection() {
        through(drop, |stream| assert_eq!(all(&stream), b""));
    }

    const PATIENCE: Duration = Duration::from_secs(20);
}

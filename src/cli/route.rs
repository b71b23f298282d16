//! `towpath route`: the traffic proxy's client. With `--listen`, every connection to a local port
//! goes through the route; without it, stdin and stdout do, as with netcat.
//!
//! ```text
//!   local connection or stdin  --bytes-->  server  -->  the service's host
//!                  or stdout   <--bytes--
//! ```
//!
//! Each direction is a thread that copies until its end and then passes the end on, so either side
//! may finish first and still hear the other out.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use log::{debug, info, warn};
use socket2::{SockRef, TcpKeepalive};

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage};
use super::{Invocation, agent, logging, output};
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
        Some(address) => serve(address, Arc::new(request.way)),
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
    let failed = |what: &str, error: &io::Error| {
        Failure::new(FAILED, format!("towpath route: {what}: {error}"))
    };
    let stream = way
        .open()
        .map_err(|error| Failure::new(FAILED, format!("towpath route: {}", way.explain(&error))))?;
    prepare(&stream);
    let sending = stream
        .try_clone()
        .map_err(|error| failed("no second handle of the connection", &error))?;
    // Not joined: when the server has ended, nobody is left to hear what stdin still has to say.
    spawn("stdin", move || {
        let ended = copy(&mut io::stdin().lock(), &mut &sending);
        debug!("stdin ended: {ended:?}");
        // Fails only where the connection has ended already.
        let _ = sending.shutdown(Shutdown::Write);
    })
    .map_err(|error| failed("no thread for stdin", &error))?;
    match copy(&mut &stream, &mut io::stdout().lock()) {
        Err(Cut::Reading(error)) => Err(failed("the connection broke", &error)),
        Err(Cut::Writing(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed("stdout cannot be written", &error))
        }
        _ => Ok(()),
    }
}

/// Local connections, each through a route of its own.
fn serve(address: SocketAddr, way: Arc<Way>) -> Result<(), Failure> {
    let (listener, bound) = TcpListener::bind(address)
        .and_then(|listener| Ok((listener.local_addr()?, listener)))
        .map(|(bound, listener)| (listener, bound))
        .map_err(|error| {
            let line = format!("towpath route: cannot listen on {address}: {error}");
            Failure::of_socket(&error, line)
        })?;
    output::say(&format!("listening on {bound}"));
    // Each connection holds one of these permits; further ones wait in the kernel's queue.
    let (permits, freed) = bounded(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let _ = permits.send(());
    }
    let mut pause = SHORTEST_PAUSE;
    loop {
        let _ = freed.recv();
        let permit = Permit(permits.clone());
        match listener.accept() {
            Ok((local, from)) => {
                pause = SHORTEST_PAUSE;
                let way = Arc::clone(&way);
                let started = spawn("connection", move || relay(&local, from, &way, permit));
                if let Err(error) = started {
                    warn!("from={from} closed: no thread: {error}");
                }
            }
            Err(error) => {
                // Out of descriptors, or a connection that left while it waited.
                warn!("accept failed, again in {pause:?}: {error}");
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// One local connection from its beginning to its end.
fn relay(local: &TcpStream, from: SocketAddr, way: &Way, _permit: Permit) {
    let remote = match way.open() {
        Ok(remote) => remote,
        Err(error) => {
            warn!("from={from} closed: {}", way.explain(&error));
            return;
        }
    };
    for stream in [local, &remote] {
        prepare(stream);
    }
    let carried = thread::scope(|scope| {
        let up = thread::Builder::new().stack_size(STACK);
        let up = up.spawn_scoped(scope, || pass(local, &remote))?;
        let down = pass(&remote, local);
        Ok::<_, io::Error>((up.join().unwrap_or_default(), down))
    });
    match carried {
        Ok((up, down)) => info!("from={from} ended up={up} down={down}"),
        Err(error) => warn!("from={from} closed: no thread for its second direction: {error}"),
    }
}

/// Makes a stream quick with small writes, and lets it notice a peer that is gone without a word.
/// Where the system refuses either, the stream still carries every byte.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let probes = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// One direction: copies to the end and passes the end on. A direction that breaks ends both, as
/// nobody would know any more what the other one answers to. Returns the bytes carried.
fn pass(from: &TcpStream, to: &TcpStream) -> u64 {
    let mut carried = 0;
    let ended = copy_counting(&mut &*from, &mut &*to, &mut carried);
    let how = match ended {
        Ok(()) => to.shutdown(Shutdown::Write),
        Err(_) => from
            .shutdown(Shutdown::Both)
            .and(to.shutdown(Shutdown::Both)),
    };
    debug!("a direction ended: {ended:?} {how:?}");
    carried
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Cut {
    Reading(io::Error),
    Writing(io::Error),
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Cut> {
    copy_counting(from, to, &mut 0)
}

/// Copies until the end. Every block is flushed, so that a conversation by lines goes on.
fn copy_counting(from: &mut dyn Read, to: &mut dyn Write, carried: &mut u64) -> Result<(), Cut> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Cut::Reading(error)),
        };
        to.write_all(&block[..count])
            .and_then(|()| to.flush())
            .map_err(Cut::Writing)?;
        *carried += count as u64;
    }
}

/// The right to one connection; goes back when it is dropped, also by a panic.
struct Permit(Sender<()>);

impl Drop for Permit {
    fn drop(&mut self) {
        // Never full: there are as many places as permits.
        let _ = self.0.try_send(());
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.stack_size(STACK).spawn(body).map(drop)
}

/// The command's face.
pub(super) fn command() -> Command {
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

/// Local connections at once.
const CONNECTIONS: usize = 1024;

/// Bytes of one copy, on the heap: large enough that system calls do not dominate.
const BLOCK: usize = 64 << 10;

/// The stack of a thread that only copies.
const STACK: usize = 256 << 10;

/// When a silent connection is probed, and how often until it answers.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(10);

/// The pauses after failed accepts double between these two.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
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
        let (permits, freed) = bounded(1);
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
            scope.spawn(move || relay(&far, from, way, Permit(permits)));
            local(near);
        });
        assert_eq!(freed.try_recv(), Ok(()));
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

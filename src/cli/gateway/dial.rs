//! `towpath gateway dial`: one virtual connection between stdin and stdout.
//!
//! ```text
//!   stdin  -- a line or a chunk, a message each -->  gateway  -->  the server
//!   stdout <-- a message, a line or its bare bytes --  gateway  <--  the server
//! ```
//!
//! A virtual connection has no half-close. So when stdin has ended, the answers are awaited for as long
//! as they keep coming, and then the connection is closed.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use log::info;

use super::super::exit::{FAILED, Failure};
use super::super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage};
use super::super::{Invocation, logging, output};
use super::{DIALECT, dialect, id, server, server_flag};
use crate::config::{duration, plain};
use crate::gateway::{Client, Connection, Error, Options};

/// What `gateway dial` is to do.
#[derive(Debug)]
pub(in super::super) struct Dial {
    gateway: String,
    options: Options,
    server: u32,
    is_raw: bool,
    linger: Duration,
    log: Option<String>,
}

/// Understands the words behind `gateway dial`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let [callee] = values.arguments() else {
        let count = values.arguments().len();
        return Err(command.wrong(format!("takes one SERVER_ID, but got {count} words")));
    };
    let linger = match values.value("linger") {
        Some(text) => duration(&text).map_err(|m| command.wrong(format!("--linger: {m}")))?,
        None => LINGER,
    };
    Ok(Invocation::Dial(Dial {
        gateway: server(&command, &values, GATEWAY)?,
        options: Options {
            dialect: dialect(&command, &values)?,
            // Nobody would accept what a server dials.
            backlog: 0,
            ..Options::default()
        },
        server: id(&command, "SERVER_ID", callee)?,
        is_raw: values.is_on("raw"),
        linger,
        log: logging::level(&command, values.value("log"))?,
    }))
}

impl Dial {
    /// Runs until the server closes, or stdin has ended and nothing comes any more.
    pub(in super::super) fn run(self) -> Result<(), Failure> {
        let _logging = logging::start(self.log.as_deref());
        let gateway = plain(&self.gateway);
        let failed = |error: &Error| {
            let line = format!("towpath gateway dial: gateway {gateway}: {error}");
            Failure::new(FAILED, line)
        };
        let client = Client::connect(self.gateway.as_str(), self.options.clone());
        let client = client.map_err(|error| failed(&error))?;
        let connection = client.dial(self.server).map_err(|error| failed(&error))?;
        info!(
            "server={} conn={} joined by {gateway}",
            self.server,
            connection.id()
        );
        let print = |bytes: &[u8]| output::print(bytes);
        let done = converse(&self, Arc::new(connection), io::stdin(), print);
        client.close();
        done.map_err(|stop| match stop {
            Stop::Output(failure) => failure,
            Stop::Gateway(error) => failed(&error),
            Stop::Input(words) => {
                Failure::new(FAILED, format!("towpath gateway dial: stdin: {words}"))
            }
        })
    }
}

/// What the two threads of a conversation tell.
enum Event {
    Message(Vec<u8>),
    /// Stdin has ended, and all of it is sent.
    InputEnded,
    /// The server has closed the connection.
    ServerClosed,
    Failed(Stop),
}

/// Why a conversation failed.
#[derive(Debug)]
enum Stop {
    Input(String),
    Output(Failure),
    Gateway(Error),
}

/// Carries messages both ways until the server closes, or the input has ended and nothing comes.
///
/// Neither thread is joined: one may hang in a read of stdin, the other ends with the connection.
fn converse(
    dial: &Dial,
    connection: Arc<Connection>,
    input: impl Read + Send + 'static,
    mut print: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Stop> {
    let (events, coming) = bounded(AHEAD);
    let (is_raw, most) = (dial.is_raw, dial.options.longest_message());
    let (sending, telling) = (Arc::clone(&connection), events.clone());
    spawn("stdin", move || {
        let mut input = BufReader::with_capacity(CHUNK, input);
        let end = send_all(&sending, &mut input, is_raw, most);
        if let Some(event) = end {
            let _ = telling.send(event);
        }
    })?;
    spawn("messages", move || receive_all(&connection, &events))?;
    let mut patience = Duration::MAX;
    loop {
        let event = match coming.recv_timeout(patience) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        };
        match event {
            Event::Message(mut message) => {
                if !is_raw {
                    message.push(b'\n');
                }
                print(&message).map_err(Stop::Output)?;
            }
            Event::InputEnded => patience = dial.linger,
            Event::ServerClosed => {
                info!("server={} closed the connection", dial.server);
                return Ok(());
            }
            Event::Failed(stop) => return Err(stop),
        }
    }
}

/// Sends the input, a message for each line or chunk. Nothing is to be told where the connection ended
/// first: who receives on it knows better why.
fn send_all(
    connection: &Connection,
    input: &mut impl BufRead,
    is_raw: bool,
    most: usize,
) -> Option<Event> {
    let mut line = 0_u64;
    loop {
        line += 1;
        let message = match is_raw {
            true => chunk(input, most),
            false => self::line(input, most).map_err(|error| format!("line {line} {error}")),
        };
        match message {
            Ok(None) => return Some(Event::InputEnded),
            Ok(Some(message)) => match connection.send(&message) {
                Ok(()) => {}
                Err(Error::TimedOut) => return Some(Event::Failed(Stop::Gateway(Error::TimedOut))),
                Err(_) => return None,
            },
            Err(words) => return Some(Event::Failed(Stop::Input(words))),
        }
    }
}

/// The next line without its end; none behind the last.
fn line(input: &mut impl BufRead, most: usize) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    // One more for the line's end.
    let enough = (most as u64).saturating_add(1);
    let mut limited = input.take(enough);
    let read = limited.read_until(b'\n', &mut line);
    let count = read.map_err(|error| format!("cannot be read: {error}"))?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    match (count, line.len() > most) {
        (0, _) => Ok(None),
        (_, true) => Err(format!(
            "is longer than {most} bytes, the longest message; see --raw"
        )),
        (_, false) => Ok(Some(line)),
    }
}

/// What there is to read, as soon as there is something.
fn chunk(input: &mut impl BufRead, most: usize) -> Result<Option<Vec<u8>>, String> {
    loop {
        let chunk = match input.fill_buf() {
            Ok([]) => return Ok(None),
            Ok(bytes) => bytes.get(..most).unwrap_or(bytes).to_vec(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        input.consume(chunk.len());
        return Ok(Some(chunk));
    }
}

fn receive_all(connection: &Connection, events: &Sender<Event>) {
    loop {
        let event = match connection.receive() {
            Ok(Some(message)) => Event::Message(message),
            Ok(None) => Event::ServerClosed,
            Err(error) => Event::Failed(Stop::Gateway(error)),
        };
        let is_last = !matches!(event, Event::Message(_));
        if events.send(event).is_err() || is_last {
            return;
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Stop> {
    let thread = thread::Builder::new().name(name.to_owned());
    let started = thread.spawn(body).map(drop);
    started.map_err(|error| Stop::Gateway(Error::NoThread(error)))
}

/// The face of `gateway dial`.
pub(in super::super) fn command() -> Command {
    let flags = vec![
        server_flag(GATEWAY),
        DIALECT,
        Flag::switch(
            "raw",
            "send stdin as it comes, in messages of any length, and print messages bare",
        ),
        Flag::value(
            "linger",
            "TIME",
            "when stdin has ended, close once nothing has come for this long",
        )
        .default("1s"),
        LOG,
        HELP,
    ];
    Command {
        name: "gateway dial",
        usage: "SERVER_ID [FLAGS]",
        about: "Opens a virtual connection to a server of a gateway: each line of stdin is sent as \
                a message, each message that comes is printed as a line. Exits 1 when the server is \
                not there.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "echo hello | towpath gateway dial 7",
            "towpath gateway dial 7 --raw --linger 5s < request.bin > answer.bin",
        ],
    }
}

/// The gateway that is asked when none is named: its port for clients.
const GATEWAY: &str = "127.0.0.1:7500";

/// How long answers may stay away after stdin has ended, where no flag says it.
const LINGER: Duration = Duration::from_secs(1);

/// Messages received ahead of a slow stdout.
const AHEAD: usize = 16;

/// The longest message made of raw input.
const CHUNK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::super::tests::{answer, join};
    use super::*;
    use crate::protocols::gateway::wire::{self, Dialect, Head};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A command line, run against a gateway of one connection; what it printed, and how it ended.
    fn run(
        line: &[&str],
        input: impl Read + Send + 'static,
        gateway: impl FnOnce(TcpStream) + Send,
    ) -> (Vec<u8>, Result<(), Stop>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let words = line.iter().copied().chain(["--server", &address]);
        let words: Vec<OsString> = words.map(OsString::from).collect();
        let Ok(Invocation::Dial(dial)) = parse(&words, &|_| None) else {
            panic!("not understood: {line:?}");
        };
        thread::scope(|scope| {
            scope.spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                gateway(stream);
            });
            let mut printed = Vec::new();
            let client = Client::connect(dial.gateway.as_str(), dial.options.clone()).unwrap();
            let done = match client.dial(dial.server) {
                Ok(connection) => converse(&dial, Arc::new(connection), input, |bytes| {
                    printed.extend_from_slice(bytes);
                    Ok(())
                }),
                Err(error) => Err(Stop::Gateway(error)),
            };
            client.close();
            (printed, done)
        })
    }

    /// Sends so many messages back, then closes or not.
    fn echo(stream: TcpStream, dialect: Dialect, count: usize, closes: bool) {
        let mut stream = join(stream, dialect, 7);
        for _ in 0..count {
            let (head, message) = answer(&mut stream).unwrap();
            wire_message(&mut stream, head, &message);
        }
        if closes {
            let close = wire::Command::Close { conn: 1 };
            io::Write::write_all(&mut stream, dialect.frame(close).as_ref()).unwrap();
        }
        while answer(&mut stream).is_some() {}
    }

    fn wire_message(stream: &mut TcpStream, head: Head, message: &[u8]) {
        let bytes = [&head.encode(), message].concat();
        io::Write::write_all(stream, &bytes).unwrap();
    }

    /// Input that never ends, as a terminal's.
    struct Terminal;

    impl Read for Terminal {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            loop {
                thread::park();
            }
        }
    }

    #[test]
    fn lines_become_messages_and_messages_lines() {
        for (name, dialect) in [
            ("document", Dialect::Document),
            ("fastway", Dialect::Fastway),
        ] {
            let line = ["7", "--dialect", name, "--linger", "20s"];
            let input = &b"one\n\nthree"[..];
            let (printed, done) = run(&line, input, move |stream| echo(stream, dialect, 3, true));
            assert_eq!(printed, b"one\n\nthree\n");
            done.unwrap();
        }
    }

    #[test]
    fn raw_bytes_pass_as_they_are() {
        let input: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
        let want = input.clone();
        let chunks = input.len().div_ceil(CHUNK);
        let line = ["7", "--raw", "--linger", "20s"];
        let (printed, done) = run(&line, io::Cursor::new(input), move |stream| {
            echo(stream, Dialect::Document, chunks, true);
        });
        assert!(printed == want);
        done.unwrap();
    }

    #[test]
    fn an_input_that_has_ended_ends_it_when_nothing_comes() {
        let line = ["7", "--linger", "0s"];
        let (_, done) = run(&line, &b"hello\n"[..], |stream| {
            echo(stream, Dialect::Document, 0, false);
        });
        done.unwrap();
    }

    #[test]
    fn the_server_may_close_while_the_input_goes_on() {
        let (_, done) = run(&["7"], Terminal, |stream| {
            echo(stream, Dialect::Document, 0, true);
        });
        done.unwrap();
    }

    #[test]
    fn a_gateway_that_is_lost_is_a_failure() {
        let (_, done) = run(&["7"], Terminal, |stream| {
            drop(join(stream, Dialect::Document, 7));
        });
        let error = done.unwrap_err();
        assert!(
            matches!(error, Stop::Gateway(Error::GatewayClosed)),
            "{error:?}"
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_a_failure() {
        let (_, done) = run(&["7", "--dialect", "fastway"], Terminal, |mut stream| {
            answer(&mut stream).unwrap();
            let refuse = wire::Command::Refuse { conn: 0, remote: 7 };
            let frame = Dialect::Fastway.frame(refuse);
            io::Write::write_all(&mut stream, frame.as_ref()).unwrap();
            while answer(&mut stream).is_some() {}
        });
        let Err(Stop::Gateway(error)) = done else {
            panic!("{done:?}");
        };
        let error = error.to_string();
        assert!(error.starts_with("server 7 is not there"), "{error}");
    }

    #[test]
    fn a_line_too_long_for_a_message_is_a_failure() {
        let input = vec![b'x'; 600_000];
        let (_, done) = run(&["7"], io::Cursor::new(input), |stream| {
            echo(stream, Dialect::Document, 0, false);
        });
        let Err(Stop::Input(words)) = done else {
            panic!("{done:?}");
        };
        assert!(
            words.starts_with("line 1 is longer than 524284 bytes"),
            "{words}"
        );
    }

    #[test]
    fn lines_lose_their_end_and_nothing_else() {
        let mut input: &[u8] = b"one\n\n\xff\r\nlast";
        let mut lines = Vec::new();
        while let Some(line) = line(&mut input, 5).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, [&b"one"[..], b"", b"\xff\r", b"last"]);
    }

    #[test]
    fn a_line_may_be_as_long_as_a_message() {
        let mut input: &[u8] = b"12345\n123456\n";
        assert_eq!(line(&mut input, 5), Ok(Some(b"12345".to_vec())));
        let told = line(&mut input, 5).unwrap_err();
        assert!(told.starts_with("is longer than 5 bytes"), "{told}");
    }

    #[test]
    fn raw_input_is_cut_to_messages() {
        let mut input: &[u8] = b"a\nbcdefg";
        let mut chunks = Vec::new();
        while let Some(chunk) = chunk(&mut input, 3).unwrap() {
            chunks.push(chunk);
        }
        assert_eq!(chunks, [&b"a\nb"[..], b"cde", b"fg"]);
    }
}

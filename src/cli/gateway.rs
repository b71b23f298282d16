//! `towpath gateway echo` and `towpath gateway dial`: a server that sends every message back, and a
//! client that has stdin and stdout for its messages; for trying a gateway, and for scripts.

mod dial;
mod echo;

use std::ffi::OsString;

pub(super) use dial::{Dial, command as dial_command};
pub(super) use echo::{Echo, command as echo_command};

use super::flags::{Command, Environment, Flag, Usage, Values};
use super::{Invocation, agent, unknown};
use crate::config::plain;
use crate::gateway::Dialect;

/// Understands the words behind `gateway`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let wrong = |message: String| Usage {
        command: "gateway".to_owned(),
        message,
    };
    let Some((first, rest)) = words.split_first() else {
        return Err(wrong("echo or dial? write one of them".to_owned()));
    };
    match first.to_str() {
        Some("--help" | "-h") => Ok(Invocation::Print(format!(
            "{}\n{}",
            echo::command().help(),
            dial::command().help()
        ))),
        Some("echo") => echo::parse(rest, environment),
        Some("dial") => dial::parse(rest, environment),
        _ => Err(wrong(unknown(
            "command",
            first,
            &["echo", "dial", "--help"],
        ))),
    }
}

/// An id as it is written on the command line; `what` names where.
fn id(command: &Command, what: &str, text: &str) -> Result<u32, Usage> {
    text.parse().map_err(|_| {
        let text = plain(text);
        command.wrong(format!(
            "{what}: \"{text}\" is no id; an id is a number from 0 to {}",
            u32::MAX
        ))
    })
}

fn dialect(command: &Command, values: &Values<'_>) -> Result<Dialect, Usage> {
    match values.value("dialect").as_deref() {
        None | Some("document") => Ok(Dialect::Document),
        Some("fastway") => Ok(Dialect::Fastway),
        Some(other) => {
            let other = plain(other);
            Err(command.wrong(format!(
                "--dialect: \"{other}\" is none; the dialects are document and fastway"
            )))
        }
    }
}

/// The gateway's address: from the flag, its variable, or the command's own default.
fn server(command: &Command, values: &Values<'_>, default: &'static str) -> Result<String, Usage> {
    agent::server_or(command, values, default)
}

const DIALECT: Flag = Flag::value(
    "dialect",
    "NAME",
    "what the gateway speaks on this port: document or fastway",
)
.default("document")
.choices(&["document", "fastway"]);

const fn server_flag(default: &'static str) -> Flag {
    Flag::value("server", "ADDR", "the gateway, HOST:PORT")
        .short('s')
        .default(default)
        .environment()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::Dialect;
    use crate::protocols::gateway::wire::{Command, HEAD, Head};

    /// Takes the next frame as a gateway does; none at the end.
    pub(super) fn answer(stream: &mut TcpStream) -> Option<(Head, Vec<u8>)> {
        let mut head = [0; HEAD];
        if stream.read(&mut head[..1]).unwrap() == 0 {
            return None;
        }
        stream.read_exact(&mut head[1..]).unwrap();
        let head = Head::decode(&head, u32::MAX).unwrap();
        let mut payload = vec![0; head.payload_len()];
        stream.read_exact(&mut payload).unwrap();
        Some((head, payload))
    }

    /// Takes a client's dial and accepts it as connection 1.
    pub(super) fn join(mut stream: TcpStream, dialect: Dialect, server: u32) -> TcpStream {
        let mut conn = 0;
        if dialect == Dialect::Document {
            let (_, payload) = answer(&mut stream).unwrap();
            assert_eq!(dialect.decode(&payload), Ok(Command::New));
            conn = 1;
            let open = dialect.frame(Command::Open { conn });
            stream.write_all(open.as_ref()).unwrap();
        }
        let (_, payload) = answer(&mut stream).unwrap();
        let remote = server;
        assert_eq!(dialect.decode(&payload), Ok(Command::Dial { conn, remote }));
        let accept = dialect.frame(Command::Accept { conn: 1, remote });
        stream.write_all(accept.as_ref()).unwrap();
        stream
    }
}

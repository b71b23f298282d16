//! `towpath node send`: lines of stdin as messages to a peer's public address.

use std::ffi::OsString;
use std::io::{self, BufRead, Read};
use std::net::SocketAddr;

use super::{IDENTITY, Identity, NETWORK_ID, SIGN, options};
use crate::cli::Invocation;
use crate::cli::exit::{FAILED, Failure};
use crate::cli::flags::{Command, Environment, Flag, Group, HELP, Line, Usage};
use crate::config::{address, plain};
use crate::node::{Options, dial};

/// What `node send` is to do.
#[derive(Debug)]
pub(in crate::cli) struct Send {
    peer: SocketAddr,
    answer_to: Option<SocketAddr>,
    identity: Identity,
    options: Options,
}

pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let [peer] = values.arguments() else {
        let count = values.arguments().len();
        return Err(command.wrong(format!("takes one PUBLIC_ADDR, but got {count} words")));
    };
    let read = |place: &str, text: &str| {
        // As it stands in messages, too.
        let text = text.strip_prefix("tcp://").unwrap_or(text);
        address(text).map_err(|message| command.wrong(format!("{place}: {message}")))
    };
    let answer_to = values.value("answer-to");
    let answer_to = answer_to.map(|text| read("--answer-to", &text));
    Ok(Invocation::Send(Send {
        peer: read("PUBLIC_ADDR", peer)?,
        answer_to: answer_to.transpose()?,
        identity: Identity::of(&values),
        options: options(&command, &values)?,
    }))
}

/// Sends until stdin ends and the server has taken everything.
pub(in crate::cli) fn send(request: &Send) -> Result<(), Failure> {
    let failed = |what: &str| {
        let line = format!("towpath node send: {what}");
        Failure::new(FAILED, line)
    };
    let key = request.identity.key("node send")?;
    let peer = request.peer.to_string();
    let answer_to = request.answer_to.map(|address| address.to_string());
    let unsent = |error| failed(&format!("{}: {error}", plain(&peer)));
    let mut stream =
        dial(&peer, answer_to.as_deref(), key, request.options.clone()).map_err(unsent)?;
    let most = u64::from(request.options.max_frame);
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        // One byte over the longest frame is refused as too long, and the rest is not read.
        let count = stdin
            .by_ref()
            .take(most.saturating_add(1))
            .read_until(b'\n', &mut line);
        let count = count.map_err(|error| failed(&format!("stdin cannot be read: {error}")))?;
        if count == 0 {
            return stream.finish().map_err(unsent);
        }
        let data = line.strip_suffix(b"\n").unwrap_or(&line);
        stream.send(data).map_err(unsent)?;
    }
}

/// The face of `node send`.
pub(in crate::cli) fn command() -> Command {
    let flags = vec![
        Flag::value(
            "answer-to",
            "ADDR",
            "the public address that the peer's answers are to go to, such as that of a towpath node \
             running beside this",
        ),
        IDENTITY,
        SIGN,
        NETWORK_ID,
        HELP,
    ];
    Command {
        name: "node send",
        usage: "PUBLIC_ADDR [FLAGS]",
        about: "Sends every line of stdin as a message of data to a node's public address. It ends \
                when the server has taken all of them; whether the node has, only an answer tells.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &["echo hello | towpath node send 203.0.113.7:20001"],
    }
}

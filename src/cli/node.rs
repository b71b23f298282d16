//! `towpath node`: a public address for this program, and what peers send to it; `towpath node send`
//! sends to a peer's.
//!
//! ```text
//!   peer -> public address -> server -> node: a line on stdout for each message,
//!                                             or its data to one connection (forward)
//!                                       │
//!                                       └─ answers to the sender's public address (reply)
//! ```
//!
//! Stdout has the addresses and the messages, stderr one line for what happens to the connection.

mod forward;
mod message;
mod reply;
mod send;

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use forward::Forward;
use reply::Replies;
pub(super) use send::{Send, command as send_command, send};

use super::exit::{CONFIGURATION, DENIED, FAILED, Failure, TEMPORARY};
use super::flags::{Command, Environment, Flag, Group, HELP, Line, Usage, Values};
use super::{Invocation, agent, output};
use crate::config::{address, plain};
use crate::node::{Event, Frame, Key, Node, Options};

/// What `node` is to do.
#[derive(Debug)]
pub(super) struct Request {
    server: String,
    identity: Identity,
    options: Options,
    forward: Option<SocketAddr>,
    is_replying: bool,
    is_json: bool,
}

/// Understands the words behind `node`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    if let Some((first, rest)) = words.split_first()
        && first == "send"
    {
        return send::parse(rest, environment);
    }
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => {
            let text = format!("{text}\n{}", send::command().help());
            return Ok(Invocation::Print(text));
        }
        Line::Values(values) => values,
    };
    if let Some(word) = values.arguments().first() {
        let word = plain(word);
        let message = format!("unknown command {word}; known: send");
        return Err(command.wrong(message));
    }
    let forward = values.value("forward").map(|text| address(&text));
    let forward = forward.transpose();
    Ok(Invocation::Node(Request {
        server: agent::server_or(&command, &values, SERVER)?,
        identity: Identity::of(&values),
        options: options(&command, &values)?,
        forward: forward.map_err(|message| command.wrong(format!("--forward: {message}")))?,
        is_replying: values.is_on("reply"),
        is_json: values.is_on("json"),
    }))
}

/// Runs until it is killed.
pub(super) fn run(request: &Request) -> Result<(), Failure> {
    let key = request.identity.key("node")?;
    let _claim = request.identity.claim()?;
    let (server, is_json) = (plain(&request.server), request.is_json);
    let tell = {
        let server = server.clone();
        move |event: &Event<'_>| tell(event, &server, is_json)
    };
    let node = Node::connect(request.server.as_str(), key, request.options.clone(), tell);
    let node = node.map_err(|error| {
        let line = format!("towpath node: server {server}: {error}");
        Failure::new(FAILED, line)
    })?;
    let mut forward = request.forward.map(Forward::new);
    thread::scope(|scope| {
        let replies = match request.is_replying {
            true => Some(Replies::start(scope, &node).map_err(|error| {
                Failure::new(FAILED, format!("towpath node: no thread: {error}"))
            })?),
            false => None,
        };
        while let Some(frame) = node.receive() {
            take(&frame, forward.as_mut(), replies.as_ref(), is_json)?;
        }
        // Only its thread's failure closes a node that nobody here closes.
        let line = "towpath node: the connection's thread has failed";
        Err(Failure::new(FAILED, line))
    })
}

fn take(
    frame: &Frame,
    forward: Option<&mut Forward>,
    replies: Option<&Replies>,
    is_json: bool,
) -> Result<(), Failure> {
    let message = frame.message();
    if let (Some(replies), Some(message)) = (replies, &message) {
        replies.answer(message);
    }
    match (forward, message.as_ref().and_then(message::data)) {
        (Some(forward), Some(data)) => {
            forward.put(&data);
            Ok(())
        }
        _ => output::print(message::line(frame, message.as_ref(), is_json).as_bytes()),
    }
}

/// The address on stdout whenever it is a new one, and everything in words on stderr.
fn tell(event: &Event<'_>, server: &str, is_json: bool) {
    match event {
        Event::Connected { public, is_new } => {
            if *is_new {
                let line = match is_json {
                    true => format!("{}\n", serde_json::json!({ "public": public })),
                    false => format!("{public}\n"),
                };
                // A stdout that cannot be written fails the command with the first message.
                let _ = output::print(line.as_bytes());
            }
            output::say(&format!("connected to {server}, public address {public}"));
        }
        Event::Lost { why, pause } => {
            output::say(&format!("lost {server}: {why}; reconnecting in {pause:?}"));
        }
        Event::Failed { why, pause } => {
            output::say(&format!("no way to {server}: {why}; again in {pause:?}"));
        }
    }
}

/// Where the node's key is.
#[derive(Debug)]
enum Identity {
    File(PathBuf),
    /// No file is named, and there is no folder for one of our own.
    Homeless,
}

impl Identity {
    /// The file of the flag or the variable, else one of our own below the user's state folder.
    fn of(values: &Values<'_>) -> Identity {
        let state = || {
            let named = |name: &str| values.environment(name).map(PathBuf::from);
            // By the base directory specification, a relative path is not to be used.
            named("XDG_STATE_HOME")
                .filter(|path| path.is_absolute())
                .or_else(|| Some(named("HOME")?.join(".local/state")))
        };
        match values.value("identity") {
            Some(file) => Identity::File(file.into()),
            None => state().map_or(Identity::Homeless, |state| {
                Identity::File(state.join("towpath/node.key"))
            }),
        }
    }

    /// Reads the key; makes it where there is none.
    fn key(&self, command: &str) -> Result<Arc<Key>, Failure> {
        match self {
            Identity::File(path) => {
                let key = Key::at(path).map_err(|error| refused(command, path, &error))?;
                Ok(Arc::new(key))
            }
            Identity::Homeless => {
                let line = format!(
                    "towpath {command}: neither HOME nor XDG_STATE_HOME is set; name a file by \
                     --identity FILE"
                );
                Err(Failure::new(CONFIGURATION, line))
            }
        }
    }

    /// Keeps a second node from the same key: the server would let the newest have the address, and
    /// the two would take it from each other for ever. Held until the file is closed.
    fn claim(&self) -> Result<Option<File>, Failure> {
        let Identity::File(path) = self else {
            return Ok(None);
        };
        let Ok(file) = File::open(path) else {
            return Ok(None);
        };
        // Where the file system knows no locks, nobody is kept out.
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            let path = plain(&path.to_string_lossy());
            let line = format!(
                "towpath node: another towpath node uses the identity {path}; name a file of its \
                 own by --identity FILE"
            );
            return Err(Failure::new(TEMPORARY, line));
        }
        Ok(Some(file))
    }
}

fn refused(command: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => DENIED,
        io::ErrorKind::InvalidData => CONFIGURATION,
        _ => FAILED,
    };
    let path = plain(&path.to_string_lossy());
    let line = format!("towpath {command}: the identity {path} cannot be used: {error}");
    Failure::new(code, line)
}

/// What both commands have to say about frames.
fn options(command: &Command, values: &Values<'_>) -> Result<Options, Usage> {
    let mut options = Options {
        sign: values.is_on("sign"),
        ..Options::default()
    };
    if let Some(text) = values.value("network-id") {
        options.network = text.parse().map_err(|_| {
            let text = plain(&text);
            command.wrong(format!(
                "--network-id: \"{text}\" is no number from 0 to 4294967295"
            ))
        })?;
    }
    Ok(options)
}

/// The face of `node` itself.
pub(super) fn command() -> Command {
    let flags = vec![
        Flag::value("server", "ADDR", "the server, HOST:PORT")
            .short('s')
            .default(SERVER)
            .environment(),
        Flag::value(
            "forward",
            "ADDR",
            "write the data of messages to a connection to ADDR, in order, instead of printing it; \
             what ADDR says is dropped, and it is connected to again when it ends",
        ),
        Flag::switch(
            "reply",
            "answer a ping by a pong, a keepalive by its response and data by the same data, over a \
             connection to whatever address the sender names",
        ),
        Flag::switch(
            "json",
            "print addresses and messages as JSON, one object a line",
        ),
        IDENTITY,
        SIGN,
        NETWORK_ID,
        HELP,
    ];
    Command {
        name: "node",
        usage: "[FLAGS]",
        about: "Asks a server for a public address, prints it, keeps it alive and prints what peers \
                send there: one line for each message, its data with control characters escaped. The \
                address stays the same over reconnects and restarts of either side.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath node --server relay.example:7200",
            "towpath node --forward 127.0.0.1:9000",
        ],
    }
}

const IDENTITY: Flag = Flag::value(
    "identity",
    "FILE",
    "file with the key that the address belongs to, made on first use, one for each running node; \
     without it towpath/node.key below XDG_STATE_HOME, else below ~/.local/state",
)
.environment();

const SIGN: Flag = Flag::switch(
    "sign",
    "sign every message, for a server that has a list of keys",
);

const NETWORK_ID: Flag = Flag::value(
    "network-id",
    "N",
    "the network that server and peers are configured for",
)
.default("1564141146");

/// The server that is asked when none is named.
const SERVER: &str = "127.0.0.1:7200";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::node::wire;

    #[test]
    fn the_help_tells_the_network_that_holds_without_the_flag() {
        assert_eq!(NETWORK_ID.default, wire::NETWORK_ID.to_string());
    }

    #[test]
    fn the_identity_lies_where_the_environment_says() {
        let command = command();
        let of = |words: &[&str], variables: &[(&str, &str)]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let environment = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| OsString::from(value))
            };
            match command.parse(&words, &environment) {
                Ok(Line::Values(values)) => match Identity::of(&values) {
                    Identity::File(path) => path.to_string_lossy().into_owned(),
                    Identity::Homeless => String::new(),
                },
                _ => panic!("not understood"),
            }
        };
        let user = [("HOME", "/u"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(of(&[], &[]), "");
        assert_eq!(of(&[], &user[..1]), "/u/.local/state/towpath/node.key");
        assert_eq!(of(&[], &user), "/s/towpath/node.key");
        let relative = [("HOME", "/u"), ("XDG_STATE_HOME", "s")];
        assert_eq!(of(&[], &relative), "/u/.local/state/towpath/node.key");
        let named = [("TOWPATH_IDENTITY", "/i")];
        assert_eq!(of(&[], &named), "/i");
        assert_eq!(of(&["--identity", "f"], &named), "f");
    }

    #[test]
    fn an_identity_that_cannot_be_used_has_its_exit_code() {
        let code = |kind: io::ErrorKind| refused("node", Path::new("f"), &kind.into()).code;
        assert_eq!(code(io::ErrorKind::PermissionDenied), DENIED);
        assert_eq!(code(io::ErrorKind::InvalidData), CONFIGURATION);
        assert_eq!(code(io::ErrorKind::IsADirectory), FAILED);
        assert_eq!(
            Identity::Homeless.key("node").unwrap_err().code,
            CONFIGURATION
        );
    }
}

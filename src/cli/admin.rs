//! The operator's commands: `status`, `top`, `kick`, `drain`, `reload`. Each asks the admin address of a
//! running server and says what it was told.

mod http;
mod rows;
mod screen;
mod status;
mod top;

use std::ffi::OsString;

use serde_json::Value;

use self::http::Line as Server;
use super::exit::{CONFIGURATION, DENIED, FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, Line, Usage, Values};
use super::{Invocation, agent, output};
use crate::config::{Secret, plain};
use crate::reactor::Handle;

/// What an operator wants.
#[derive(Debug)]
pub(super) struct Request {
    server: Server,
    is_json: bool,
    wish: Wish,
}

#[derive(Debug)]
enum Wish {
    Status,
    Top(top::Options),
    Kick(Handle),
    Drain,
    Reload { dry_run: bool },
}

/// Understands the words behind one of the commands.
pub(super) fn parse(
    name: &'static str,
    words: &[OsString],
    environment: Environment<'_>,
) -> Result<Invocation, Usage> {
    let command = command(name);
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let wish = match name {
        "kick" => Wish::Kick(handle(&command, values.arguments())?),
        _ if !values.arguments().is_empty() => {
            let word = plain(&values.arguments()[0]);
            return Err(command.wrong(format!("takes no argument, but got {word}")));
        }
        "top" => Wish::Top(top::Options {
            sort: top::Sort::of(&command, values.value("sort"))?,
            once: values.is_on("once"),
        }),
        "drain" => Wish::Drain,
        "reload" => Wish::Reload {
            dry_run: values.is_on("dry-run"),
        },
        _ => Wish::Status,
    };
    Ok(Invocation::Operate(Request {
        server: Server {
            address: address(&command, &values)?,
            token: token(&command, &values)?,
        },
        is_json: values.is_on("json"),
        wish,
    }))
}

impl Request {
    /// Asks; what the server says is told as it says it, a refusal too, where JSON is wanted.
    fn ask(&self, command: &str, method: &str, path: &str) -> Result<Value, Failure> {
        let (status, body) = self.server.hear(command, method, path)?;
        if (200..=299).contains(&status) {
            return Ok(body);
        }
        if self.is_json {
            output::print(format!("{body}\n").as_bytes())?;
        }
        Err(refused(command, status, &body))
    }
}

/// Asks, and says what came of it.
pub(super) fn run(request: &Request) -> Result<(), Failure> {
    let (server, is_json) = (&request.server, request.is_json);
    match &request.wish {
        Wish::Status => {
            let status = request.ask("status", "GET", "/status")?;
            say(is_json, &status, || status::show(&status, &server.address))
        }
        Wish::Top(options) => top::run(server, options, is_json),
        Wish::Kick(handle) => {
            let path = format!("/sessions/{}", handle.to_string().replace('#', "%23"));
            let done = request.ask("kick", "DELETE", &path)?;
            say(is_json, &done, || format!("kicked {handle}\n"))
        }
        Wish::Drain => {
            let done = request.ask("drain", "POST", "/drain")?;
            say(is_json, &done, || {
                "draining: no new connections; it ends when what is open has ended\n".to_owned()
            })
        }
        Wish::Reload { dry_run } => {
            let path = if *dry_run {
                "/reload?dry_run=1"
            } else {
                "/reload"
            };
            let done = request.ask("reload", "POST", path)?;
            say(is_json, &done, || status::difference(&done))
        }
    }
}

fn say(is_json: bool, value: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
    match is_json {
        true => output::print(format!("{value}\n").as_bytes()),
        false => output::print(text().as_bytes()),
    }
}

/// What a refusal of the server means for the one who asked.
fn refused(command: &str, status: u16, body: &Value) -> Failure {
    let code = match status {
        401 | 403 => DENIED,
        422 => CONFIGURATION,
        _ => FAILED,
    };
    let why = body["error"].as_str().unwrap_or("the answer says nothing");
    let mut lines = vec![format!("towpath {command}: {}", plain(why))];
    let mistakes = body["mistakes"].as_array().into_iter().flatten();
    lines.extend(mistakes.filter_map(Value::as_str).map(plain));
    if status == 401 {
        lines.push("give the token by --token-file FILE or TOWPATH_ADMIN_TOKEN".to_owned());
    }
    Failure { code, lines }
}

fn handle(command: &Command, words: &[String]) -> Result<Handle, Usage> {
    let [word] = words else {
        let count = words.len();
        return Err(command.wrong(format!("takes one ID, but got {count} words")));
    };
    word.parse().map_err(|()| {
        let word = plain(word);
        command.wrong(format!(
            "{word} is no session; its ID is like w1#0.4, in quotes, as status, top and the log show it"
        ))
    })
}

fn address(command: &Command, values: &Values<'_>) -> Result<String, Usage> {
    let Some(text) = values.value("admin") else {
        return Ok(ADDRESS.to_owned());
    };
    let place = match values.given("admin") {
        Some(_) => "--admin",
        None => "TOWPATH_ADMIN",
    };
    // A server's variable may name several addresses, or every interface.
    let first = text.split(',').next().unwrap_or_default().trim();
    let first = match first.strip_prefix(':') {
        Some(port) => format!("127.0.0.1:{port}"),
        None => first.to_owned(),
    };
    match agent::server_of(&first, ADDRESS) {
        Ok(()) => Ok(first),
        Err(message) => Err(command.wrong(format!("{place}: {message}"))),
    }
}

fn token(command: &Command, values: &Values<'_>) -> Result<Option<Secret>, Usage> {
    if let Some(file) = values.value("token-file") {
        let secret = Secret::read(file.as_ref());
        return secret
            .map(Some)
            .map_err(|message| command.wrong(format!("--token-file: {message}")));
    }
    let value = values.environment("TOWPATH_ADMIN_TOKEN");
    Ok(value.and_then(|value| Secret::new(value.as_encoded_bytes())))
}

/// A command's face.
pub(super) fn command(name: &'static str) -> Command {
    let (usage, about, own, examples): (_, _, Vec<Flag>, &[&str]) = match name {
        "top" => ("[FLAGS]", TOP, vec![SORT, ONCE], TOP_EXAMPLES),
        "kick" => ("ID [FLAGS]", KICK, Vec::new(), KICK_EXAMPLES),
        "drain" => ("[FLAGS]", DRAIN, Vec::new(), &["towpath drain"]),
        "reload" => ("[FLAGS]", RELOAD, vec![DRY_RUN], RELOAD_EXAMPLES),
        _ => ("[FLAGS]", STATUS, Vec::new(), STATUS_EXAMPLES),
    };
    let mut flags = own;
    flags.extend([JSON, ADMIN, TOKEN, HELP]);
    Command {
        name,
        usage,
        about,
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples,
    }
}

const ADMIN: Flag = Flag::value("admin", "ADDR", "the server's admin address")
    .default(ADDRESS)
    .environment();

const TOKEN: Flag = Flag::value(
    "token-file",
    "FILE",
    "file with the token of the admin address; the token itself may stand in TOWPATH_ADMIN_TOKEN",
);

const JSON: Flag = Flag::switch(
    "json",
    "print JSON, as the server tells it, its refusals too",
);

const SORT: Flag =
    Flag::value("sort", "KEY", "what comes first: rate, bytes or age").default("rate");

const ONCE: Flag = Flag::switch("once", "print one table and exit");

const DRY_RUN: Flag = Flag::switch(
    "dry-run",
    "only say what would change, and for how many connections",
);

const STATUS: &str = "Says what a server is doing: its roles, listeners, cores, leases and store, from \
                      its admin address. Exits 1 when no server answers, 77 when it asks for a token.";

const STATUS_EXAMPLES: &[&str] = &[
    "towpath status",
    "towpath status --json --admin 127.0.0.1:7900",
];

const TOP: &str = "Shows the sessions of a server, anew each second: j and k or the arrows choose one, \
                   x ends it, r, b and a sort by rate, bytes or age, q leaves. Where stdout is no \
                   terminal it prints one table after the other. Rates are bytes per second.";

const TOP_EXAMPLES: &[&str] = &["towpath top", "towpath top --sort age --once"];

const KICK: &str = "Ends one session, that and no other: an ID is never used again. Its log line ends \
                    with the word kicked. The peers of a relay see a reset when bytes were under way, \
                    else an ordinary end.";

const KICK_EXAMPLES: &[&str] = &["towpath kick 'w1#0.4'"];

const DRAIN: &str =
    "Has a server take no new connections, finish what is open, and exit, as SIGTERM does.";

const RELOAD: &str = "Has a server read its configuration again, by the file, the flags and the environment of \
                      its start, and put in force what is different. Connections of what stays are not \
                      touched; those of what is removed drain. Prints what has changed, and what needs a \
                      restart. Exits 78 when the configuration has mistakes, each with its place; the \
                      server goes on with the old one then.";

const RELOAD_EXAMPLES: &[&str] = &["towpath reload --dry-run && towpath reload"];

/// Where a server's admin address is when none is named.
const ADDRESS: &str = "127.0.0.1:7900";

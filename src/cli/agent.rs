//! `towpath agent update` and `towpath agent query`: one value of a server's store, written from a
//! file or stdin, read to stdout.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, Line, Usage, Values};
use super::{Invocation, output, unknown};
use crate::agent::{Client, Error, Options};
use crate::config::{Secret, duration, plain};

/// What `agent update` is to do.
#[derive(Debug)]
pub(super) struct Update {
    target: Target,
    /// Where the value comes from; none removes the value there is.
    source: Option<Source>,
}

/// What `agent query` is to do.
#[derive(Debug)]
pub(super) struct Query {
    target: Target,
    wait: Duration,
}

/// Which value of which server.
#[derive(Debug)]
struct Target {
    server: String,
    token: Option<Secret>,
    id: String,
    section: String,
}

#[derive(Debug)]
enum Source {
    Stdin,
    File(String),
}

/// Understands the words behind `agent`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let wrong = |message: String| Usage {
        command: "agent".to_owned(),
        message,
    };
    let Some((first, rest)) = words.split_first() else {
        return Err(wrong("update or query? write one of them".to_owned()));
    };
    match first.to_str() {
        Some("--help" | "-h") => Ok(Invocation::Print(format!(
            "{}\n{}",
            update_command().help(),
            query_command().help()
        ))),
        Some("update") => parse_update(rest, environment),
        Some("query") => parse_query(rest, environment),
        Some(flag) if is_flag(flag) => {
            let flag = plain(flag);
            let right = "as in towpath agent query ID SECTION --server ADDR";
            Err(wrong(format!(
                "{flag} belongs behind update or query, {right}"
            )))
        }
        _ => Err(wrong(unknown(
            "command",
            first,
            &["update", "query", "--help"],
        ))),
    }
}

/// Whether this is a flag of `update` or `query`, with or without a value.
fn is_flag(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    let commands = [update_command(), query_command()];
    let mut flags = commands
        .iter()
        .flat_map(|command| &command.groups)
        .flat_map(|group| &group.flags);
    flags.any(|flag| match name.strip_prefix("--") {
        Some(long) => long == flag.long,
        None => flag.short.is_some_and(|short| name == format!("-{short}")),
    })
}

fn parse_update(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = update_command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let (id, section, file) = match values.arguments() {
        [id, section] => (id, section, None),
        [id, section, file] => (id, section, Some(file)),
        words => return Err(command.wrong(counted("ID SECTION [FILE]", words))),
    };
    let source = match (values.is_on("remove"), file) {
        (true, Some(file)) => {
            let file = plain(file);
            let message = format!("--remove takes no value, but got the file {file}");
            return Err(command.wrong(message));
        }
        (true, None) => None,
        (false, None) => Some(Source::Stdin),
        (false, Some(file)) if file == "-" => Some(Source::Stdin),
        (false, Some(file)) => Some(Source::File(file.clone())),
    };
    let target = target(&command, &values, id, section)?;
    Ok(Invocation::Update(Update { target, source }))
}

fn parse_query(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = query_command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let [id, section] = values.arguments() else {
        return Err(command.wrong(counted("ID SECTION", values.arguments())));
    };
    let wait = match values.value("wait") {
        Some(text) => duration(&text).map_err(|m| command.wrong(format!("--wait: {m}")))?,
        None => Duration::ZERO,
    };
    let target = target(&command, &values, id, section)?;
    Ok(Invocation::Query(Query { target, wait }))
}

fn target(
    command: &Command,
    values: &Values<'_>,
    id: &str,
    section: &str,
) -> Result<Target, Usage> {
    Ok(Target {
        server: server(command, values)?,
        token: token(command, values)?,
        id: id.to_owned(),
        section: section.to_owned(),
    })
}

/// A client's server: from its flag, its variable, or the default. Only its form is checked.
pub(super) fn server(command: &Command, values: &Values<'_>) -> Result<String, Usage> {
    server_or(command, values, SERVER)
}

/// As [`server`], of a role whose default is another one.
pub(super) fn server_or(
    command: &Command,
    values: &Values<'_>,
    default: &'static str,
) -> Result<String, Usage> {
    let Some(text) = values.value("server") else {
        return Ok(default.to_owned());
    };
    let place = match values.given("server") {
        Some(_) => "--server",
        None => "TOWPATH_SERVER",
    };
    match server_of(&text, default) {
        Ok(()) => Ok(text),
        Err(message) => Err(command.wrong(format!("{place}: {message}"))),
    }
}

/// Whether a text is a host and a port, and what would be right where it is not, after the example.
pub(super) fn server_of(text: &str, example: &str) -> Result<(), String> {
    let shown = plain(text);
    let example_port = example.rsplit(':').next().unwrap_or_default();
    let is_bare = |host: &str| host.contains(':') && !host.starts_with('[');
    let (host, port) = match text.rsplit_once(':') {
        Some((host, _)) if is_bare(host) => {
            let right = format!("write an IPv6 address like \"[::1]:{example_port}\"");
            return Err(format!("\"{shown}\" has no brackets; {right}"));
        }
        Some((host, port)) if !text.ends_with(']') => (host, port),
        _ => (text, ""),
    };
    if host.is_empty() {
        return Err(format!("\"{shown}\" has no host; write \"{example}\""));
    }
    if port.is_empty() {
        let host = plain(host);
        let right = format!("write \"{host}:{example_port}\"");
        return Err(format!("\"{shown}\" has no port; {right}"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!(
            "\"{shown}\" is no server; its port is a number from 1 to 65535"
        )),
    }
}

/// A client's token: from the file that a flag names, or out of the environment.
pub(super) fn token(command: &Command, values: &Values<'_>) -> Result<Option<Secret>, Usage> {
    if let Some(file) = values.value("token-file") {
        let secret = Secret::read(file.as_ref());
        return secret
            .map(Some)
            .map_err(|message| command.wrong(format!("--token-file: {message}")));
    }
    let value = values.environment("TOWPATH_TOKEN");
    Ok(value.and_then(|value| Secret::new(value.as_encoded_bytes())))
}

/// What to say about too few or too many words.
fn counted(wanted: &str, got: &[String]) -> String {
    match got.len() {
        0 => format!("{wanted} is missing"),
        1 => format!("takes {wanted}, but got 1 word"),
        count => format!("takes {wanted}, but got {count} words"),
    }
}

/// Writes or removes the value.
pub(super) fn update(update: &Update) -> Result<(), Failure> {
    let target = &update.target;
    let (id, section) = (target.id.as_bytes(), target.section.as_bytes());
    // The value is read first: the server's patience with an open connection is bounded.
    let most = Options::default().longest_value(id, section);
    let value = update.source.as_ref().map(|source| read(source, most));
    let value = value.transpose()?;
    let mut client = connect("update", target)?;
    let done = match value {
        Some(value) => client.update(id, section, &value),
        None => client.remove(id, section),
    };
    done.map_err(|error| failure("update", &target.server, &error))
}

/// Prints the value to stdout and its age to stderr.
pub(super) fn query(query: &Query) -> Result<(), Failure> {
    let target = &query.target;
    let (id, section) = (target.id.as_bytes(), target.section.as_bytes());
    let mut client = connect("query", target)?;
    let record = match query.wait {
        Duration::ZERO => client.query(id, section),
        wait => client.query_wait(id, section, wait),
    };
    match record.map_err(|error| failure("query", &target.server, &error))? {
        Some(record) => {
            output::print(&record.data)?;
            let timestamp = record.timestamp;
            output::say(&format!("timestamp {timestamp} {}", calendar(timestamp)));
            Ok(())
        }
        None => {
            let (id, section) = (plain(&target.id), plain(&target.section));
            let line = format!("towpath agent query: no value for {id} {section}");
            Err(Failure::new(FAILED, line))
        }
    }
}

fn connect(command: &str, target: &Target) -> Result<Client, Failure> {
    let options = Options {
        token: target.token.as_ref().map(|token| token.expose().to_vec()),
        ..Options::default()
    };
    Client::connect(target.server.as_str(), options)
        .map_err(|error| failure(command, &target.server, &error))
}

fn failure(command: &str, server: &str, error: &Error) -> Failure {
    let line = format!("towpath agent {command}: server {}: {error}", plain(server));
    Failure::new(FAILED, line)
}

/// Reads the value, which may have at most `most` bytes.
fn read(source: &Source, most: usize) -> Result<Vec<u8>, Failure> {
    let (name, value) = match source {
        Source::Stdin => ("stdin".to_owned(), bounded(&mut io::stdin().lock(), most)),
        Source::File(path) => {
            let value = File::open(path).and_then(|mut file| bounded(&mut file, most));
            (plain(path), value)
        }
    };
    let failed = |reason: String| {
        let line = format!("towpath agent update: {name} {reason}");
        Failure::new(FAILED, line)
    };
    let value = value.map_err(|error| failed(format!("cannot be read: {error}")))?;
    match value.len() > most {
        true => Err(failed(format!(
            "has more than {most} bytes, the longest value for this ID and SECTION"
        ))),
        false => Ok(value),
    }
}

/// Reads to the end, but never more than one byte over `most`.
fn bounded(source: &mut dyn Read, most: usize) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let enough = u64::try_from(most).map_or(u64::MAX, |most| most.saturating_add(1));
    source.take(enough).read_to_end(&mut value)?;
    Ok(value)
}

/// Unix seconds as a date and time of UTC: `2023-11-14T22:13:20Z`.
fn calendar(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0 in the Gregorian calendar; a year that begins in
    // March has its leap day last, so that month lengths follow one formula.
    let days = i128::from(days) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year + later;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The face of `agent update`.
pub(super) fn update_command() -> Command {
    let token = "file with the token that the server wants before an update; or the token itself \
                 in TOWPATH_TOKEN";
    let mut flags = vec![SERVER_FLAG, token_flag(token)];
    flags.push(Flag::switch(
        "remove",
        "remove the value instead of writing one",
    ));
    flags.push(HELP);
    Command {
        name: "agent update",
        usage: "ID SECTION [FILE] [FLAGS]",
        about: "Writes a value to a server's store, from FILE or from stdin: at most 512K less 54 \
                bytes, ID and SECTION, which share a frame with it. When it returns without an error, the value is on the server's disk.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "echo hello | towpath agent update dev1 status",
            "towpath agent update dev1 config config.json --token-file secrets/agent",
            "towpath agent update dev1 status --remove",
        ],
    }
}

/// The face of `agent query`.
pub(super) fn query_command() -> Command {
    let token = "taken as agent update takes it, as TOWPATH_TOKEN is, but a query needs none";
    let mut flags = vec![SERVER_FLAG, token_flag(token)];
    let wait = "wait this long for a value that is not there yet; the server has a bound too";
    flags.push(Flag::value("wait", "TIME", wait).default("0s"));
    flags.push(HELP);
    Command {
        name: "agent query",
        usage: "ID SECTION [FLAGS]",
        about: "Prints a value of a server's store to stdout as it is, and when it was written to \
                stderr. Exits 1 when there is none.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath agent query dev1 status",
            "towpath agent query dev1 status --wait 30s > status.txt",
        ],
    }
}

/// Where every client finds its server.
pub(super) const SERVER_FLAG: Flag = Flag::value("server", "ADDR", "the server, HOST:PORT")
    .short('s')
    .default(SERVER)
    .environment();

/// Where every client finds its token; `help` says whose it is.
pub(super) fn token_flag(help: &'static str) -> Flag {
    Flag::value("token-file", "FILE", help)
}

/// The server that is asked when none is named.
pub(super) const SERVER: &str = "127.0.0.1:7100";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_799, "2000-02-29T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(calendar(seconds), want);
        }
        calendar(i64::MAX);
        calendar(i64::MIN);
    }

    #[test]
    fn a_value_is_read_no_further_than_it_may_be_long() {
        assert_eq!(bounded(&mut io::repeat(1), 70_000).unwrap().len(), 70_001);
        assert_eq!(bounded(&mut b"x".as_slice(), 1).unwrap(), b"x");
    }

    #[test]
    fn the_help_tells_what_a_frame_leaves_for_the_value() {
        let longest = Options::default().longest_value(b"id", b"section");
        assert_eq!(longest, (512 << 10) - 54 - "id".len() - "section".len());
        let help = update_command().help();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            help.contains("512K less 54 bytes, ID and SECTION"),
            "{help}"
        );
    }

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for right in ["127.0.0.1:7100", "[::1]:7100", "relay.example:7100"] {
            assert_eq!(server_of(right, SERVER), Ok(()), "{right}");
        }
        for (wrong, hint) in [
            ("127.0.0.1", "has no port; write \"127.0.0.1:7100\""),
            (
                "relay.example:",
                "has no port; write \"relay.example:7100\"",
            ),
            ("[::1]", "has no port; write \"[::1]:7100\""),
            ("::1", "write an IPv6 address like \"[::1]:7100\""),
            (":7100", "has no host; write \"127.0.0.1:7100\""),
            ("a:http", "port is a number from 1 to 65535"),
            ("a:0", "port is a number from 1 to 65535"),
            ("a:70000", "port is a number from 1 to 65535"),
        ] {
            let told = server_of(wrong, SERVER).unwrap_err();
            assert!(told.contains(hint), "{told}");
        }
    }
}

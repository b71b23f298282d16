//! `towpath chain`: the proxy client, which builds its chain itself. With `--listen`, every connection to
//! a local port goes through a chain of its own; without it, stdin and stdout do, as with netcat.
//! `towpath chain test` tells how far a chain reaches.
//!
//! ```text
//!   local connection or stdin  --bytes-->  hop 1 --> hop 2 --> ... -->  destination
//!                  or stdout   <--bytes--
//! ```

mod datagrams;
mod keys;
mod trial;

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use log::warn;
pub(super) use trial::{Trial, command as test_command};

use super::exit::{FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage, Values};
use super::{Invocation, logging, pump};
use crate::chain::{Address, Error, Hop, MAX_HOPS, Options, PORT, PUBLIC_KEY, Stream};
use crate::config::{address, duration, plain};

/// What the command is to do.
#[derive(Debug)]
pub(super) struct Request {
    way: Way,
    is_udp: bool,
    listen: Option<SocketAddr>,
    log: Option<String>,
}

/// A chain as the command line has it: the keys are not read yet.
#[derive(Debug)]
struct Way {
    destination: String,
    via: Vec<String>,
    key_files: Vec<String>,
    payload_key_file: Option<String>,
    is_early: bool,
    connect_timeout: Option<Duration>,
}

/// A chain that can be connected.
#[derive(Debug)]
struct Chain {
    destination: String,
    hops: Vec<Hop>,
    options: Options,
}

/// Understands the words behind `chain`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    if let Some((first, rest)) = words.split_first()
        && first == "test"
    {
        return trial::parse(rest, environment);
    }
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => {
            let text = format!("{text}\n{}", trial::command().help());
            return Ok(Invocation::Print(text));
        }
        Line::Values(values) => values,
    };
    let listen = values.value("listen").map(|text| address(&text));
    let listen = listen.transpose();
    let request = Request {
        way: Way {
            payload_key_file: values.value("payload-key-file"),
            is_early: values.is_on("early"),
            ..Way::of(&command, &values)?
        },
        is_udp: values.is_on("udp"),
        listen: listen.map_err(|message| command.wrong(format!("--listen: {message}")))?,
        log: logging::level(&command, values.value("log"))?,
    };
    if request.way.payload_key_file.is_some() && request.way.via.is_empty() {
        let message = "--payload-key-file is the last hop's; --via HOP names it";
        return Err(command.wrong(message));
    }
    if request.way.is_early && request.is_udp {
        let message = "--early and --udp exclude each other: a datagram never waits for the hops";
        return Err(command.wrong(message));
    }
    if request.way.is_early && request.way.payload_key_file.is_some() {
        let message = "--early and --payload-key-file exclude each other: the payload's seal needs the \
                       last hop's answer";
        return Err(command.wrong(message));
    }
    Ok(Invocation::Chain(request))
}

/// Runs until stdin and the destination have ended; with `--listen`, until it is killed.
pub(super) fn run(request: &Request) -> Result<(), Failure> {
    let chain = request.way.build("chain")?;
    let _logging = logging::start(request.log.as_deref());
    match (request.listen, request.is_udp) {
        (None, false) => converse(&chain),
        (None, true) => datagrams::converse(&chain),
        (Some(address), true) => datagrams::serve(&chain, address),
        (Some(address), false) => pump::serve("chain", address, move |local, from| {
            relay(local, from, &chain);
        }),
    }
}

impl Way {
    /// What both commands have to say about a chain.
    fn of(command: &Command, values: &Values<'_>) -> Result<Way, Usage> {
        let [destination] = values.arguments() else {
            let count = values.arguments().len();
            return Err(command.wrong(format!("takes one DESTINATION, but got {count} words")));
        };
        let told = |place: &str, text: &str, error| {
            command.wrong(format!("{place}: \"{}\": {error}", plain(text)))
        };
        let checked = destination.parse::<Address>();
        checked.map_err(|error| told("DESTINATION", destination, error))?;
        let (via, place) = match values.given("via") {
            Some(lists) => (lists, "--via"),
            None => (values.value("via").into_iter().collect(), "TOWPATH_VIA"),
        };
        let via: Vec<String> = via.iter().flat_map(|list| split(list)).collect();
        if via.len() > MAX_HOPS {
            let count = via.len();
            let message =
                format!("{place}: {count} hops are too many; a chain has at most {MAX_HOPS}");
            return Err(command.wrong(message));
        }
        let mut is_here = true;
        for hop in &via {
            let checked = Address::parse_or(hop, PORT);
            let address = checked.map_err(|error| told(place, hop, error))?;
            is_here &= address.is_loopback();
        }
        let key_files = key_files(command, values, via.len(), is_here)?;
        let timeout = values.value("connect-timeout").map(|text| duration(&text));
        let timeout = timeout.transpose();
        Ok(Way {
            destination: destination.clone(),
            via,
            key_files,
            payload_key_file: None,
            is_early: false,
            connect_timeout: timeout
                .map_err(|message| command.wrong(format!("--connect-timeout: {message}")))?,
        })
    }

    /// Reads the keys.
    fn build(&self, command: &str) -> Result<Chain, Failure> {
        let read = |flag: &'static str| move |file: &String| keys::read(command, flag, file);
        let keys = self.key_files.iter().map(read("--key-file"));
        let mut keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            keys.push(PUBLIC_KEY);
        }
        // One for each hop, or the only one for all.
        let hops = self.via.iter().zip(keys.iter().cycle());
        let payload_key = self.payload_key_file.as_ref();
        let defaults = Options::default();
        Ok(Chain {
            destination: self.destination.clone(),
            hops: hops.map(|(hop, key)| Hop::new(hop, key.clone())).collect(),
            options: Options {
                early: self.is_early,
                payload_key: payload_key.map(read("--payload-key-file")).transpose()?,
                connect_timeout: self.connect_timeout.unwrap_or(defaults.connect_timeout),
                ..defaults
            },
        })
    }
}

/// The key files of so many hops: one for each, or one for all. A hop without a key can be had on loopback
/// alone, and a hop with one says nothing to us.
fn key_files(
    command: &Command,
    values: &Values<'_>,
    hops: usize,
    is_here: bool,
) -> Result<Vec<String>, Usage> {
    let (files, is_variable) = match values.given("key-file") {
        Some(files) => (files, false),
        // Who has it set for other chains may reach a destination directly all the same.
        None if hops == 0 => (Vec::new(), true),
        None => {
            let list = values.value("key-file").unwrap_or_default();
            let named = split(&list).filter(|file| !file.is_empty());
            (named.collect(), true)
        }
    };
    match (hops, files.len()) {
        (0, 0) => {}
        (_, 0) if is_here => {}
        (_, 0) => {
            let message = "--key-file FILE is missing; write it once for each hop, or once for all";
            return Err(command.wrong(message));
        }
        (0, _) => return Err(command.wrong("--key-file is for hops; --via HOP names them")),
        (hops, count) if count == 1 || count == hops => {}
        (hops, count) if is_variable => {
            return Err(command.wrong(format!(
                "TOWPATH_KEY_FILE: {count} key files for {hops} hops; name one for each hop, or one for all"
            )));
        }
        (hops, count) => {
            return Err(command.wrong(format!(
                "{count} key files for {hops} hops; write --key-file once for each hop, or once for all"
            )));
        }
    }
    Ok(files)
}

/// The parts of a list with commas.
fn split(list: &str) -> impl Iterator<Item = String> + '_ {
    list.split(',').map(|part| part.trim().to_owned())
}

impl Chain {
    /// Connects. With early data, what `first` says first leaves with the headers, so that it is waited
    /// for.
    fn open(&self, first: &mut dyn Read) -> Result<Stream, Error> {
        let mut early = Vec::new();
        if self.options.early {
            early.resize(pump::BLOCK, 0);
            // What cannot be read now cannot be read later either, where it is told.
            let count = first.read(&mut early).unwrap_or_default();
            early.truncate(count);
        }
        Stream::connect_with(&self.destination, &self.hops, &self.options, &early)
    }
}

/// Stdin and stdout through one chain.
fn converse(chain: &Chain) -> Result<(), Failure> {
    let stream = chain
        .open(&mut io::stdin().lock())
        .map_err(|error| Failure::new(FAILED, format!("towpath chain: {error}")))?;
    pump::prepare(stream.tcp());
    let (down, up) = stream.split();
    pump::converse("chain", down, up)
}

/// One local connection from its beginning to its end.
fn relay(local: &TcpStream, from: SocketAddr, chain: &Chain) {
    let stream = match chain.open(&mut &*local) {
        Ok(stream) => stream,
        Err(error) => {
            warn!("from={from} closed: {error}");
            return;
        }
    };
    let (down, up) = stream.split();
    match down.tcp().try_clone() {
        Ok(remote) => pump::join(local, from, down, up, &remote),
        Err(error) => warn!("from={from} closed: no second handle of the connection: {error}"),
    }
}

impl pump::Outlet for crate::chain::WriteHalf {
    fn finish(&mut self) -> io::Result<()> {
        crate::chain::WriteHalf::finish(self)
    }
}

/// The face of `chain` itself.
pub(super) fn command() -> Command {
    let flags = vec![
        via(),
        key_file(),
        Flag::value(
            "payload-key-file",
            "FILE",
            "file with the payload key of the last hop; what is sent is then sealed as far as there, \
             and no other hop can read it",
        ),
        Flag::switch(
            "early",
            "send the first bytes before the hops have answered; it saves a round trip, and waits for \
             these bytes, so it is for protocols whose client speaks first",
        ),
        Flag::value(
            "listen",
            "ADDR",
            "take connections there, or datagrams; port 0 is any free one; without it, stdin and stdout",
        )
        .short('l'),
        Flag::switch(
            "udp",
            "carry datagrams; of stdin each read is one, of at most 65507 bytes",
        )
        .short('u'),
        CONNECT_TIMEOUT,
        LOG,
        HELP,
    ];
    Command {
        name: "chain",
        usage: "DESTINATION --via HOP[,HOP...] [--key-file FILE...] [FLAGS]",
        about: "Reaches a destination through proxy servers of your choice, one behind the other. \
                Without --via it is dialled directly.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath chain db.internal:5432 --via fra.example,nyc.example:7301 \\",
            "  --key-file fra.key --key-file nyc.key --listen 127.0.0.1:5432",
        ],
    }
}

fn via() -> Flag {
    let help = "the proxy servers in their order, at most 64, HOST:PORT; the port may be left out where it \
                is 7300";
    let mut flag = Flag::value("via", "HOP[,HOP...]", help).environment();
    flag.repeats = true;
    flag
}

fn key_file() -> Flag {
    let help = "file with a hop's key; once for each hop in their order, or once for all of them (in the \
                variable with commas between them); may be left out where all hops are on loopback and have \
                no key";
    let mut flag = Flag::value("key-file", "FILE", help).environment();
    flag.repeats = true;
    flag
}

const CONNECT_TIMEOUT: Flag = Flag::value(
    "connect-timeout",
    "TIME",
    "the most that connecting to one address of the first hop may take",
)
.default("5s");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_tells_the_defaults_that_hold_without_the_flags() {
        let timeout = duration(CONNECT_TIMEOUT.default).unwrap();
        assert_eq!(timeout, Options::default().connect_timeout);
        assert!(via().help.ends_with(&PORT.to_string()));
        assert!(via().help.contains(&format!("at most {MAX_HOPS},")));
        let help = command().help();
        for variable in ["TOWPATH_VIA", "TOWPATH_KEY_FILE"] {
            assert!(help.contains(variable), "{help}");
        }
    }

    fn way(line: &str, environment: &[(&str, &str)]) -> Result<Way, Usage> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let look_up = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let command = command();
        match command.parse(&words, &look_up)? {
            Line::Values(values) => Way::of(&command, &values),
            Line::Help(_) => panic!("no help was asked for"),
        }
    }

    #[test]
    fn the_environment_stands_in_for_the_hops_and_their_keys() {
        let environment = [
            ("TOWPATH_VIA", "fra.example, nyc.example:7301"),
            ("TOWPATH_KEY_FILE", "fra.key,nyc.key"),
        ];
        let found = way("db:1", &environment).unwrap();
        assert_eq!(found.via, ["fra.example", "nyc.example:7301"]);
        assert_eq!(found.key_files, ["fra.key", "nyc.key"]);
        let line = "db:1 --via one.example --key-file a,b";
        let found = way(line, &environment).unwrap();
        assert_eq!(found.via, ["one.example"], "a flag beats it");
        assert_eq!(found.key_files, ["a,b"], "of a flag it is one name");
        let wrong = way("db:1 --via a.example,b.example,c.example", &environment).unwrap_err();
        assert!(
            wrong.message.contains("TOWPATH_KEY_FILE: 2 key files"),
            "{wrong}"
        );
        let wrong = way("db:1", &[("TOWPATH_VIA", "a:b:c")]).unwrap_err();
        assert!(wrong.message.starts_with("TOWPATH_VIA: "), "{wrong}");
        let direct = way("db:1", &environment[1..]).unwrap();
        assert!(direct.via.is_empty() && direct.key_files.is_empty());
        assert!(way("db:1 --key-file x", &[]).is_err());
    }

    #[test]
    fn a_chain_has_no_more_hops_than_it_may() {
        let via = |count| vec!["127.0.0.1:1"; count].join(",");
        assert!(way(&format!("db:1 --via {}", via(MAX_HOPS)), &[]).is_ok());
        let wrong = way(&format!("db:1 --via {}", via(MAX_HOPS + 1)), &[]).unwrap_err();
        assert_eq!(
            wrong.message,
            "--via: 65 hops are too many; a chain has at most 64"
        );
    }
}

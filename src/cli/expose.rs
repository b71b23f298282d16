//! `towpath expose`: public ports for services of this host.
//!
//! ```text
//!   visitor -> public port of the server ==> this program -> LOCAL
//! ```
//!
//! Stdout has the public addresses: at first when every service has one, and again when one changes.
//! Stderr has one line for whatever else happens.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit::{CONFIGURATION, DENIED, FAILED, Failure};
use super::flags::{Command, Environment, Flag, Group, HELP, Line, Usage, Values};
use super::{Invocation, agent, logging, output};
use crate::config::{Secret, plain};
use crate::server::Watch;
use crate::tunnel::{Event, Expose, Exposure, Name, Options, ProxyProtocol, target};

/// What `expose` is to do.
#[derive(Debug)]
pub(super) struct Request {
    server: String,
    token: Option<Secret>,
    /// None where nothing says where it lies.
    identity: Option<PathBuf>,
    services: Vec<Exposure>,
    workers: usize,
    is_json: bool,
    log: Option<String>,
}

/// Understands the words behind `expose`.
pub(super) fn parse(words: &[OsString], environment: Environment<'_>) -> Result<Invocation, Usage> {
    let command = command();
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Invocation::Print(text)),
        Line::Values(values) => values,
    };
    let workers = match values.value("workers") {
        None => 1,
        Some(text) => text
            .parse()
            .ok()
            .filter(|count| *count <= 256)
            .ok_or_else(|| {
                let text = plain(&text);
                command.wrong(format!("--workers: \"{text}\" is no number from 0 to 256"))
            })?,
    };
    Ok(Invocation::Expose(Request {
        server: agent::server_or(&command, &values, SERVER)?,
        token: agent::token(&command, &values)?,
        identity: identity(&values),
        services: services(&command, &values)?,
        workers,
        is_json: values.is_on("json"),
        log: logging::level(&command, values.value("log"))?,
    }))
}

/// The file of the flag or the variable, else one below the user's state folder.
fn identity(values: &Values<'_>) -> Option<PathBuf> {
    let named = |name: &str| values.environment(name).map(PathBuf::from);
    let state = || {
        // By the base directory specification, a relative path is not to be used.
        named("XDG_STATE_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(named("HOME")?.join(".local/state")))
    };
    let given = values.value("identity").map(PathBuf::from);
    given.or_else(|| Some(state()?.join("towpath/expose.id")))
}

fn services(command: &Command, values: &Values<'_>) -> Result<Vec<Exposure>, Usage> {
    let words = values.arguments();
    if words.is_empty() {
        return Err(command.wrong("LOCAL is missing; write the inside service as HOST:PORT"));
    }
    let (name, port) = (values.value("name"), values.value("port"));
    for (flag, value) in [("--name", &name), ("--port", &port)] {
        if words.len() > 1 && value.is_some() {
            let count = words.len();
            let message = format!("{flag} is for one service, and there are {count}");
            return Err(command.wrong(message));
        }
    }
    let wrong = |flag: &str, text: &str, right: &str| {
        let text = plain(text);
        command.wrong(format!("{flag}: \"{text}\" is no {right}"))
    };
    let port = match &port {
        None => None,
        Some(text) => {
            let number = text.parse::<u16>();
            let number = number.map_err(|_| wrong("--port", text, "number from 0 to 65535"))?;
            (number > 0).then_some(number)
        }
    };
    let proxy = values.value("proxy-protocol");
    let proxy = match &proxy {
        None => None,
        Some(text) => Some(
            ProxyProtocol::from_name(text)
                .ok_or_else(|| wrong("--proxy-protocol", text, "version; it is v1 or v2"))?,
        ),
    };
    let (udp, mux) = (values.is_on("udp"), values.is_on("mux"));
    let direct = values.is_on("direct");
    if mux && direct {
        return Err(command.wrong("--mux and --direct do not go together; write one of them"));
    }
    if udp && proxy == Some(ProxyProtocol::V1) {
        return Err(command.wrong("--proxy-protocol v1 is for streams only; with --udp it is v2"));
    }
    let mut services: Vec<Exposure> = Vec::new();
    for word in words {
        let mut service = service(command, word, name.as_deref(), udp)?;
        (service.port, service.proxy_protocol) = (port, proxy);
        (service.mux, service.direct) = (mux, direct);
        if services.iter().any(|known| known.name == service.name) {
            let name = &service.name;
            let message = format!("two services are named {name}; write NAME=LOCAL");
            return Err(command.wrong(message));
        }
        services.push(service);
    }
    Ok(services)
}

/// The service of one word: `[NAME=]HOST:PORT`, or a port of this host.
fn service(
    command: &Command,
    word: &str,
    name: Option<&str>,
    udp: bool,
) -> Result<Exposure, Usage> {
    let (prefix, local) = match word.split_once('=') {
        Some((prefix, local)) => (Some(prefix), local),
        None => (None, word),
    };
    if let (Some(prefix), Some(name)) = (prefix, name) {
        let (prefix, name) = (plain(prefix), plain(name));
        let message = format!("the service has two names, {prefix} and --name {name}; write one");
        return Err(command.wrong(message));
    }
    let full = match local.strip_prefix(':').unwrap_or(local) {
        port if port.parse::<u16>().is_ok() => format!("127.0.0.1:{port}"),
        _ => local.to_owned(),
    };
    let Some(local) = target(&full) else {
        let word = plain(word);
        let message = format!("\"{word}\" is no service; write it as [NAME=]HOST:PORT");
        return Err(command.wrong(message));
    };
    let named = prefix.or(name).map(str::to_owned);
    let name = named.unwrap_or_else(|| {
        let transport = if udp { "udp" } else { "tcp" };
        let here = ["127.0.0.1", "::1", "localhost"].contains(&&*local.host);
        let host = if here { transport } else { &*local.host };
        format!("{}-{}", host.replace(':', "."), local.port)
    });
    let Some(name) = Name::new(name.as_bytes()) else {
        let name = plain(&name);
        let message =
            format!("\"{name}\" is no name; it has 1 to 64 letters, digits, \".\", \"_\" or \"-\"");
        return Err(command.wrong(message));
    };
    Ok(Exposure {
        name,
        local,
        port: None,
        udp,
        mux: false,
        direct: false,
        proxy_protocol: None,
    })
}

/// Runs until it is stopped, or nothing is left to do.
pub(super) fn run(request: Request) -> Result<(), Failure> {
    let failed = |code, message: String| Failure::new(code, format!("towpath expose: {message}"));
    let Some(identity) = request.identity else {
        let message = "neither HOME nor XDG_STATE_HOME is set; name a file by --identity FILE";
        return Err(failed(CONFIGURATION, message.to_owned()));
    };
    crate::protocols::tunnel::identity::at(&identity).map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::PermissionDenied => DENIED,
            std::io::ErrorKind::InvalidData => CONFIGURATION,
            _ => FAILED,
        };
        let path = plain(&identity.to_string_lossy());
        failed(code, format!("the identity {path} cannot be used: {error}"))
    })?;
    let level = request
        .log
        .as_deref()
        .or(match std::env::var_os("RUST_LOG") {
            Some(_) => None,
            None => Some("error"),
        });
    let _logging = logging::start(level);
    let server = plain(&request.server);
    let options = Options::new(&request.server, identity, request.services.clone());
    let Some(mut options) = options else {
        return Err(failed(FAILED, format!("{server} is no server")));
    };
    options.expose.token = request.token;
    options.workers = request.workers;
    let start_failed =
        |error: crate::server::StartError| failed(error.exit_code(), error.to_string());
    let expose = Expose::start(options).map_err(start_failed)?;
    let watch = Watch::start(expose.stopper())
        .map_err(|error| failed(FAILED, format!("cannot watch signals: {error}")))?;
    let mut board = Board::new(&request.services, request.is_json);
    let mut code = None;
    let mut outcome = Ok(());
    // It ends with the client's threads, which hold the other end.
    for event in expose.events() {
        match &event {
            Event::Denied { .. } => code = Some(DENIED),
            Event::Ended => {
                code.get_or_insert(FAILED);
                break;
            }
            Event::Exposed { name, public } => outcome = board.note(name, *public),
            Event::Refused {
                name, pause: None, ..
            }
            | Event::Superseded { name, .. } => outcome = board.forget(name),
            _ => {}
        }
        output::say(&format!("{server}: {event}"));
        if outcome.is_err() {
            break;
        }
    }
    expose.stop().map_err(start_failed)?;
    watch.close();
    outcome?;
    match code {
        None => Ok(()),
        Some(code) => Err(Failure {
            code,
            lines: Vec::new(),
        }),
    }
}

/// What stdout shows.
struct Board {
    services: Vec<(Name, String)>,
    public: BTreeMap<Name, SocketAddr>,
    shown: String,
    is_json: bool,
}

impl Board {
    fn new(services: &[Exposure], is_json: bool) -> Self {
        let row = |service: &Exposure| (service.name.clone(), service.local.to_string());
        Self {
            services: services.iter().map(row).collect(),
            public: BTreeMap::new(),
            shown: String::new(),
            is_json,
        }
    }

    fn note(&mut self, name: &Name, public: SocketAddr) -> Result<(), Failure> {
        self.public.insert(name.clone(), public);
        self.show()
    }

    /// A service has ended for good, and is not waited for.
    fn forget(&mut self, name: &Name) -> Result<(), Failure> {
        self.public.remove(name);
        self.services.retain(|(known, _)| known != name);
        self.show()
    }

    /// Prints the addresses when there are all of them and they are others than before.
    fn show(&mut self) -> Result<(), Failure> {
        let Some(text) = self.text() else {
            return Ok(());
        };
        if text != self.shown {
            output::print(text.as_bytes())?;
            self.shown = text;
        }
        Ok(())
    }

    fn text(&self) -> Option<String> {
        let mut rows = Vec::new();
        for (name, local) in &self.services {
            rows.push((name, local, self.public.get(name)?));
        }
        let first = rows.first()?.2;
        Some(match (self.is_json, rows.as_slice()) {
            (true, _) => {
                let service = |(name, local, public): &(&Name, &String, &SocketAddr)| serde_json::json!({ "name": name.as_str(), "local": local, "public": public });
                let services: Vec<_> = rows.iter().map(service).collect();
                let all = serde_json::json!({ "public": first, "services": services });
                format!("{all}\n")
            }
            (false, [(_, _, public)]) => format!("{public}\n"),
            (false, rows) => {
                let line = |(name, _, public): &(&Name, &String, &SocketAddr)| {
                    format!("{name} {public}\n")
                };
                rows.iter().map(line).collect()
            }
        })
    }
}

pub(super) fn command() -> Command {
    let token = "file with the server's token; or the token itself is in TOWPATH_TOKEN";
    let flags = vec![
        Flag::value("server", "ADDR", "the server, HOST:PORT")
            .short('s')
            .default(SERVER)
            .environment(),
        agent::token_flag(token),
        Flag::value(
            "name",
            "N",
            "the service's name, for which the port is remembered; without it tcp-PORT, udp-PORT or \
             HOST-PORT",
        ),
        Flag::value("port", "P", "the wanted public port").default("0, which is any"),
        Flag::switch("udp", "the services speak by datagrams"),
        Flag::switch(
            "mux",
            "all visitors of a service share two connections, whatever they carry",
        ),
        Flag::switch(
            "direct",
            "each visitor has a connection of its own from the start, not only when it carries much",
        ),
        Flag::value(
            "proxy-protocol",
            "VERSION",
            "tell the service each visitor's address by a PROXY protocol header: v1 or v2",
        ),
        Flag::value(
            "identity",
            "FILE",
            "whose the ports are, made on first use; without it towpath/expose.id below \
             XDG_STATE_HOME, else below ~/.local/state",
        )
        .environment(),
        Flag::switch("json", "print the addresses as one JSON object a line"),
        Flag::value("workers", "N", "threads; 0 is one per core").default("1"),
        Flag::value("log", "LEVEL", "what to log besides, as serve does").default("error"),
        HELP,
    ];
    Command {
        name: "expose",
        usage: "[NAME=]LOCAL... [FLAGS]",
        about: "Gives services of this host a public port of a server, and prints its address: one \
                line, or with several services a line for each with its name. LOCAL is HOST:PORT, or a \
                port of this host. The port stays the same over reconnects and restarts of either side. \
                Of two programs with one identity the newest has a service, and the other ends. Exits 1 \
                when every service was refused or taken over, 77 when the token is wrong.",
        groups: vec![Group {
            title: "Flags",
            flags,
        }],
        examples: &[
            "towpath expose 127.0.0.1:8080 --server tunnel.example:7400",
            "towpath expose web=127.0.0.1:8080 ssh=22 --token-file secrets/tunnel",
            "towpath expose 53 --udp --port 30053",
        ],
    }
}

/// The server that is asked when none is named.
const SERVER: &str = "127.0.0.1:7400";

//! From the layers of the configuration to the plan of a server: what `serve` runs and `check`
//! shows. Opens no socket and changes nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::flags::{Command, Environment, Flag, Group, HELP, LOG, Line, Usage, Values};
use super::logging;
use crate::config::{ADMIN_KEYS, Core, KEYS, Key, Kind, Mistake, Settings, plain};
use crate::server::{Plan, protocols};

/// What the command line says about a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// The configuration file; none for the default one, where it exists.
    pub(super) config: Option<PathBuf>,
    /// Where the bound addresses are to be written.
    pub(super) address_file: Option<PathBuf>,
    /// What to log.
    pub(super) log: Option<String>,
    /// Keys of the tables with the values that their flags were given.
    pub(super) keys: Vec<(&'static str, Vec<String>)>,
}

/// A plan without mistakes.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) plan: Plan,
    /// What is allowed but hardly meant.
    pub(super) warnings: Vec<String>,
    /// The file that was read.
    pub(super) file: Option<PathBuf>,
}

/// What the words behind `serve` or `check` ask for.
pub(super) enum Asked {
    /// The help text.
    Help(String),
    /// The plan.
    Plan(Request),
}

/// Reads every layer; every mistake of all of them comes back at once.
pub(super) fn read(
    request: &Request,
    environment: Environment<'_>,
) -> Result<Reading, Vec<Mistake>> {
    let mut settings = Settings::new(&tables());
    let file = match &request.config {
        Some(path) => Some(path.clone()),
        // A default file that cannot even be asked for is read, so that the mistake is told.
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.try_exists().unwrap_or(true)),
    };
    if let Some(path) = &file {
        settings.read_file(path);
    }
    settings.read_environment(environment);
    for (path, words) in &request.keys {
        settings.set_flag(path, words.clone());
    }
    let core = Core::read(&mut settings);
    let roles: Vec<_> = protocols()
        .iter()
        .map(|protocol| protocol.read(&mut settings))
        .collect();
    if roles.iter().all(|role| !role.is_on()) && settings.is_clean() {
        blame(&mut settings, NOTHING_ON.to_owned());
    }
    let told = settings.told();
    let warnings = settings.finish()?;
    let address_file = request.address_file.clone();
    Ok(Reading {
        plan: Plan {
            core,
            roles,
            told,
            address_file,
        },
        warnings,
        file,
    })
}

/// Notes that nothing listens, at the first key that could have said where: the one who turned it
/// off is told so.
fn blame(settings: &mut Settings, message: String) {
    let is_addresses = |key: &&Key| matches!(key.kind, Kind::Addresses) && key.table() != "admin";
    match all_keys().find(is_addresses) {
        Some(key) => settings.mistake_of(key.path, message),
        None => settings.mistake_in_whole(message),
    }
}

/// Understands the words behind `serve` or `check`.
pub(super) fn ask(
    command: &Command,
    words: &[OsString],
    environment: Environment<'_>,
) -> Result<Asked, Usage> {
    let values = match command.parse(words, environment)? {
        Line::Help(text) => return Ok(Asked::Help(text)),
        Line::Values(values) => values,
    };
    if let Some(word) = values.arguments().first() {
        let word = plain(word);
        return Err(command.wrong(format!(
            "takes no argument, but got {word}; a configuration is named by --config FILE"
        )));
    }
    let path = |long| values.value(long).map(PathBuf::from);
    Ok(Asked::Plan(Request {
        config: path("config"),
        address_file: path("address-file"),
        log: logging::level(command, values.value("log"))?,
        keys: keys(&values),
    }))
}

fn keys(values: &Values<'_>) -> Vec<(&'static str, Vec<String>)> {
    all_keys()
        .filter_map(|key| Some((key.path, values.given(key.flag?)?)))
        .collect()
}

/// The flags of `serve` and `check`, one for every key that has one.
pub(super) fn groups() -> Vec<Group> {
    let mut general = vec![
        Flag::value("config", "FILE", "configuration file")
            .short('c')
            .default("conf/towpath.toml where it exists, else built-in defaults on loopback")
            .environment(),
        Flag::value(
            "address-file",
            "FILE",
            "write the bound addresses there as JSON, once every listener is bound",
        )
        .environment(),
        LOG,
        HELP,
    ];
    general.splice(1..1, flags(""));
    let mut groups = vec![Group {
        title: "Server",
        flags: general,
    }];
    let roles = protocols().iter().map(|role| (role.name(), role.title()));
    let own = [("limits", "Limits"), ("admin", "Admin address")];
    for (table, title) in own.into_iter().chain(roles) {
        let flags = flags(table);
        if !flags.is_empty() {
            groups.push(Group { title, flags });
        }
    }
    groups
}

fn flags(table: &str) -> Vec<Flag> {
    all_keys()
        .filter(|key| key.table() == table)
        .filter_map(|key| {
            Some(Flag {
                long: key.flag?,
                short: key.short,
                value: key.kind.placeholder(),
                choices: match key.kind {
                    Kind::Choice(words) => words,
                    _ => &[],
                },
                repeats: matches!(key.kind, Kind::Addresses | Kind::Texts),
                in_environment: false,
                default: match key.kind {
                    Kind::Switch => "",
                    _ => key.default,
                },
                help: key.help,
            })
        })
        .collect()
}

fn all_keys() -> impl Iterator<Item = &'static Key> {
    tables().into_iter().flatten()
}

/// The keys of the core and of every role.
fn tables() -> Vec<&'static [Key]> {
    let roles = protocols().iter().map(|protocol| protocol.keys());
    [KEYS, ADMIN_KEYS].into_iter().chain(roles).collect()
}

/// True where a default configuration would be read.
pub(super) fn default_file() -> &'static Path {
    Path::new(DEFAULT_FILE)
}

const DEFAULT_FILE: &str = "conf/towpath.toml";

const NOTHING_ON: &str = "no role is on; give one an address, such as `listen = [\"127.0.0.1:7100\"]` \
                          below `[agent]`, or --agent 127.0.0.1:7100";

#[cfg(test)]
mod tests;

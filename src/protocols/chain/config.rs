//! The chain role's keys, and its access listeners. Reading only: what a listener does is told in
//! the role's own room.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use crate::config::{Item, Key, Kind, Position, Settings, Value, plain};
use crate::upstream::Target;

/// The chain role's part of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The access listeners, in the order of the file; none means that the role is off.
    pub access: Vec<Access>,
}

/// A plain listener whose every connection goes to one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// What the log and the address file call it; no two have the same.
    pub name: Box<str>,
    /// Where it listens; never empty in a configuration without mistakes.
    pub listen: Vec<SocketAddr>,
    /// Where its connections go, in turn; never empty in a configuration without mistakes.
    pub to: Vec<Target>,
}

impl Config {
    /// Reads the role's keys; mistakes are left in `settings`.
    pub fn read(settings: &mut Settings) -> Config {
        let mut access: Vec<Access> = Vec::new();
        for item in settings.table_list(ACCESS) {
            let Some((at, found)) = read_access(&item, settings) else {
                continue;
            };
            if access.iter().any(|known| known.name == found.name) {
                let message = format!(
                    "`name`: an access listener above is \"{}\", too",
                    found.name
                );
                settings.mistake(at, message);
            }
            access.push(found);
        }
        Config { access }
    }
}

/// One listener and where its name stands; none where nothing can be said about it any more.
fn read_access(item: &Item, settings: &mut Settings) -> Option<(Position, Access)> {
    let names = ["name", "listen", "via", "protocol", "to"];
    let [name, listen, via, protocol, to] = settings.fields(item, names, EXAMPLE)?;
    for (key, field) in [("name", &name), ("listen", &listen), ("to", &to)] {
        if field.is_none() {
            let message = format!("no `{key}`; an access listener is {EXAMPLE}");
            settings.mistake(item.at, message);
        }
    }
    if let Some(via) = via {
        check_via(&via, settings);
    }
    if let Some(protocol) = protocol {
        check_protocol(&protocol, settings);
    }
    let at = name.as_ref().map_or(item.at, |name| name.at);
    // All are read before any is missed, so that the mistakes of all are told.
    let name = name.and_then(|name| read_name(&name, settings));
    let listen = listen.map(|item| settings.addresses_of(&item, "listen", ACCESS));
    let listen = listen.unwrap_or_default();
    let to = to.map(|item| targets(&item, &listen, settings));
    let access = Access {
        name: name?,
        listen,
        to: to.unwrap_or_default(),
    };
    Some((at, access))
}

/// A name goes into log lines and into scripts, so it is one plain word.
fn read_name(item: &Item, settings: &mut Settings) -> Option<Box<str>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match &item.value {
        Value::Text(name)
            if (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_plain) =>
        {
            Some(name.as_str().into())
        }
        other => {
            let message = format!(
                "`name`: wants 1 to {LONGEST_NAME} letters, digits, \".\", \"_\" or \"-\", such as \"db\"; \
                 found {}",
                other.describe()
            );
            settings.mistake(item.at, message);
            None
        }
    }
}

fn check_via(item: &Item, settings: &mut Settings) {
    let message = match &item.value {
        Value::List(hops) if hops.is_empty() => return,
        Value::List(_) => "chains of hops are not available yet; write `via = []`, \
                           which leads straight to the destination"
            .to_owned(),
        other => format!(
            "wants a list, so far an empty one: []; found {}",
            other.describe()
        ),
    };
    settings.mistake(item.at, format!("`via`: {message}"));
}

fn check_protocol(item: &Item, settings: &mut Settings) {
    if item.value != Value::Text("tcp".to_owned()) {
        let found = item.value.describe();
        let message = format!("`protocol`: wants one of: \"tcp\"; found {found}");
        settings.mistake(item.at, message);
    }
}

/// One destination, or a list of them that are used in turn.
fn targets(item: &Item, listen: &[SocketAddr], settings: &mut Settings) -> Vec<Target> {
    let items = match &item.value {
        Value::List(items) if items.is_empty() => {
            let message = "`to`: an empty list; name at least one destination, such as \
                           \"example.com:80\"";
            settings.mistake(item.at, message.to_owned());
            return Vec::new();
        }
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(item),
    };
    let mut targets = Vec::with_capacity(items.len());
    for item in items {
        let Some((host, port)) = settings.destination_of(item, "to") else {
            continue;
        };
        let host = host.into();
        let target = Target { host, port };
        if targets.contains(&target) {
            settings.mistake(item.at, format!("`to`: {target} is twice in this list"));
        } else if leads_back(&target, listen) {
            let message = format!("`to`: {target} is this very listener; it would dial itself");
            settings.mistake(item.at, message);
        } else {
            targets.push(target);
        }
    }
    targets
}

/// A listener that dials itself would do so until no descriptor is left. A longer way round is not
/// looked for.
fn leads_back(target: &Target, listen: &[SocketAddr]) -> bool {
    let Ok(ip) = target.host.parse::<IpAddr>() else {
        return false;
    };
    listen.iter().any(|at| {
        let is_all = at.ip().is_unspecified() && (ip.is_loopback() || ip.is_unspecified());
        at.port() == target.port && (at.ip() == ip || is_all)
    })
}

/// Says what the role would do, in lines for an operator.
pub(super) fn show(config: &Config, out: &mut String) {
    // Writing to a string fails only where memory ends.
    let _ = try_show(config, out);
}

fn try_show(config: &Config, out: &mut String) -> fmt::Result {
    for access in &config.access {
        let listen: Vec<String> = access.listen.iter().map(ToString::to_string).collect();
        let to: Vec<String> = access.to.iter().map(ToString::to_string).collect();
        let (name, listen) = (plain(&access.name), listen.join(", "));
        writeln!(out, "access {name}: listens on {listen}")?;
        writeln!(out, "  tcp -> {}", plain(&to.join(", ")))?;
    }
    Ok(())
}

/// The chain role's keys.
pub const KEYS: &[Key] = &[Key::new(
    ACCESS,
    Kind::TableList,
    "",
    "plain listeners, each with its destination",
)];

const ACCESS: &str = "chain.access";

const LONGEST_NAME: usize = 64;

/// What an access listener looks like, for the one who wrote another thing.
const EXAMPLE: &str =
    r#"{ name = "db", listen = "127.0.0.1:7310", via = [], to = "db.example:5432" }"#;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> (Config, Result<Vec<String>, Vec<String>>) {
        let mut settings = Settings::new(&[crate::config::KEYS, KEYS]);
        settings.read_text(Path::new("t.toml"), text);
        let config = Config::read(&mut settings);
        let told = settings
            .finish()
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect());
        (config, told)
    }

    #[track_caller]
    fn refuses(text: &str, want: &[&str]) {
        assert_eq!(read(text).1.unwrap_err(), want, "{text}");
    }

    #[test]
    fn a_listener_has_one_address_and_destination_or_lists_of_them() {
        let (config, told) = read(
            "[[chain.access]]\nname = 'db'\nlisten = '127.0.0.1:7310'\nto = 'db.internal:5432'\n\
             [[chain.access]]\nname = 'web-1.b_2'\nlisten = ['127.0.0.1:7311', '[::1]:0', '[::1]:0']\n\
             via = []\nprotocol = 'tcp'\nto = ['10.0.0.1:http', '[2001:db8::1]:8080', 'a:1', 'a:2']\n",
        );
        assert_eq!(told, Ok(vec![]));
        let mut shown = String::new();
        show(&config, &mut shown);
        assert_eq!(
            shown,
            "access db: listens on 127.0.0.1:7310\n  tcp -> db.internal:5432\n\
             access web-1.b_2: listens on 127.0.0.1:7311, [::1]:0, [::1]:0\n  \
             tcp -> 10.0.0.1:80, [2001:db8::1]:8080, a:1, a:2\n"
        );
    }

    #[test]
    fn without_a_listener_the_role_is_off() {
        for text in ["", "[chain]\n", "chain.access = []\n"] {
            assert_eq!(read(text), (Config::default(), Ok(vec![])), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_tables_is_told_how_to_write_one() {
        refuses(
            "[chain.access]\nname = 'db'\n",
            &["t.toml:1:1: error: write `[[chain.access]]` for each of them; found a table"],
        );
        refuses(
            "chain.access = 5\n",
            &["t.toml:1:16: error: write `[[chain.access]]` for each of them; found the number 5"],
        );
        refuses(
            "chain.access = ['db']\n",
            &[
                "t.toml:1:17: error: write { name = \"db\", listen = \"127.0.0.1:7310\", via = [], \
               to = \"db.example:5432\" }; found the text \"db\"",
            ],
        );
        refuses(
            "[[chain.acess]]\nname = 'db'\n",
            &["t.toml:1:9: error: unknown key `acess`; the nearest known one is `access`"],
        );
    }

    #[test]
    fn what_is_missing_and_what_is_unknown_is_told() {
        let example = "an access listener is { name = \"db\", listen = \"127.0.0.1:7310\", \
                       via = [], to = \"db.example:5432\" }";
        refuses(
            "\n[[chain.access]]\nnmae = 'db'\n",
            &[
                &format!("t.toml:2:1: error: no `listen`; {example}"),
                &format!("t.toml:2:1: error: no `name`; {example}"),
                &format!("t.toml:2:1: error: no `to`; {example}"),
                "t.toml:3:1: error: unknown key `nmae`; the nearest known one is `name`",
            ],
        );
    }

    #[test]
    fn names_are_plain_words_and_differ() {
        let wants = "`name`: wants 1 to 64 letters, digits, \".\", \"_\" or \"-\", such as \"db\"";
        let long = "x".repeat(65);
        for (name, found) in [
            ("''", "the text \"\"".to_owned()),
            ("'a b'", "the text \"a b\"".to_owned()),
            ("'ä'", "the text \"ä\"".to_owned()),
            ("7", "the number 7".to_owned()),
            (
                &format!("'{long}'"),
                format!("the text \"{}...\"", &long[..40]),
            ),
        ] {
            refuses(
                &format!("[[chain.access]]\nname = {name}\nlisten = ':0'\nto = 'a:1'\n"),
                &[&format!("t.toml:2:8: error: {wants}; found {found}")],
            );
        }
        let db = "[[chain.access]]\nname = 'db'\nlisten = ':0'\nto = 'a:1'\n";
        refuses(
            &format!("{db}{db}"),
            &["t.toml:6:8: error: `name`: an access listener above is \"db\", too"],
        );
    }

    /// A listener of which one line is the one to be tried.
    fn with(line: &str) -> String {
        let mut text = "[[chain.access]]\n".to_owned() + line + "\n";
        for (key, good) in [
            ("name", "'db'"),
            ("listen", "'127.0.0.1:9'"),
            ("to", "'a:1'"),
        ] {
            if !line.starts_with(key) {
                text += &format!("{key} = {good}\n");
            }
        }
        text
    }

    #[test]
    fn each_value_is_refused_where_it_stands() {
        let destination =
            "write a host and a port, like \"example.com:http\", \"10.0.0.1:80\" or \"[::1]:80\"";
        let wrong = |text: &str| format!("`to`: \"{text}\" is not a destination; {destination}");
        for (line, want) in [
            ("listen = []", "10: error: `listen`: wants a list of addresses, such as [\"127.0.0.1:7000\"]; found none".into()),
            ("listen = 7310", "10: error: `listen`: wants an address, such as \"127.0.0.1:7000\"; found the number 7310".into()),
            ("listen = ['127.0.0.1:1', '127.0.0.1']", "26: error: `listen`: \"127.0.0.1\" has no port; write for example \"127.0.0.1:7000\"".into()),
            ("listen = ['127.0.0.1:1', '127.0.0.1:1']", "26: error: `listen`: 127.0.0.1:1 is named twice; `chain.access` has it already".into()),
            ("via = [{ address = 'hop:7300', key = 'x' }]", "7: error: `via`: chains of hops are not available yet; write `via = []`, which leads straight to the destination".into()),
            ("via = 'hop:7300'", "7: error: `via`: wants a list, so far an empty one: []; found the text \"hop:7300\"".into()),
            ("protocol = 'udp'", "12: error: `protocol`: wants one of: \"tcp\"; found the text \"udp\"".into()),
            ("protocol = true", "12: error: `protocol`: wants one of: \"tcp\"; found true".into()),
            ("to = []", "6: error: `to`: an empty list; name at least one destination, such as \"example.com:80\"".into()),
            ("to = 5432", "6: error: `to`: wants a destination, such as \"example.com:80\"; found the number 5432".into()),
            ("to = ['a:1', 'b:2', 'a:1']", "21: error: `to`: a:1 is twice in this list".into()),
            ("to = 'db'", format!("6: error: {}", wrong("db"))),
            ("to = ''", format!("6: error: {}", wrong(""))),
            ("to = ':80'", format!("6: error: {}", wrong(":80"))),
            ("to = 'db:'", format!("6: error: {}", wrong("db:"))),
            ("to = '::1'", format!("6: error: {}", wrong("::1"))),
            ("to = '::1:80'", format!("6: error: {}", wrong("::1:80"))),
            ("to = '[::1]'", format!("6: error: {}", wrong("[::1]"))),
            ("to = '[db]:80'", format!("6: error: {}", wrong("[db]:80"))),
            ("to = 'a b:80'", "6: error: `to`: \"a b\" is neither a host's name nor an address, such as \"example.com\"".into()),
            ("to = 'db:0'", "6: error: `to`: a port is from 1 to 65535; found 0".into()),
            ("to = 'db:65536'", "6: error: `to`: a port is from 1 to 65535; found 65536".into()),
            ("to = 'db:htpt'", "6: error: `to`: \"htpt\" is neither a port nor a known service; the nearest is \"http\"".into()),
        ] {
            refuses(&with(line), &[&format!("t.toml:2:{want}")]);
        }
    }

    #[test]
    fn a_listener_that_would_dial_itself_is_a_mistake() {
        for (listen, to) in [
            ("127.0.0.1:9", "127.0.0.1:9"),
            (":9", "[::1]:9"),
            (":9", "127.0.0.1:9"),
            ("0.0.0.0:9", "0.0.0.0:9"),
        ] {
            let text = format!("[[chain.access]]\nname = 'db'\nlisten = '{listen}'\nto = '{to}'\n");
            let want = format!(
                "t.toml:4:6: error: `to`: {to} is this very listener; it would dial itself"
            );
            refuses(&text, &[&want]);
        }
        for to in ["127.0.0.1:8", "127.0.0.2:9"] {
            let (_, told) = read(&with(&format!("to = '{to}'")));
            assert_eq!(told, Ok(vec![]));
        }
    }
}

//! The role's keys: what is read, what is shown, and every mistake with its place.

use std::path::Path;

use super::*;

fn read(text: &str) -> (Config, Result<Vec<String>, Vec<String>>) {
    let mut settings = Settings::new(&[crate::config::KEYS, KEYS]);
    settings.read_text(Path::new("t.toml"), text);
    finish(settings)
}

fn finish(mut settings: Settings) -> (Config, Result<Vec<String>, Vec<String>>) {
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

fn shown(config: &Config) -> String {
    let mut out = String::new();
    show(config, &mut out);
    out
}

/// The role's part of the shipped file: every key with its default and one comment.
fn section() -> &'static str {
    let shipped = include_str!("../../../../conf/towpath.toml");
    let from = &shipped[shipped.find("[tunnel]").unwrap()..];
    &from[..from.find("\n[gateway]").unwrap()]
}

#[test]
fn the_section_has_every_key_with_its_default_and_one_comment() {
    for key in KEYS {
        let Some(default) = key.default_in_file() else {
            continue;
        };
        let start = format!("{} = {default} ", key.name());
        let lines = section().lines().filter(|line| line.starts_with(&start));
        let comments: Vec<usize> = lines.map(|line| line.matches(" # ").count()).collect();
        assert_eq!(comments, [1], "`{}` with {default}", key.path);
    }
    let (config, told) = read(section());
    assert_eq!(told, Ok(vec![]));
    let (defaults, told) = finish(Settings::new(&[crate::config::KEYS, KEYS]));
    assert_eq!(told, Ok(vec![]));
    assert_eq!(config, defaults);
    assert_eq!(
        shown(&config),
        "tunnel: on 127.0.0.1:7400; clients need no token\n  \
         bind_ip                 127.0.0.1\n  \
         public_ip               127.0.0.1\n  \
         ports                   30000-39999\n  \
         lease                   3h\n  \
         max_clients             1024\n  \
         max_unproved            1024\n  \
         max_services            64\n  \
         max_visitors            1024\n  \
         max_waiting             1024\n  \
         visitor_timeout         10s\n  \
         pool                    8\n  \
         udp_idle_timeout        1m\n  \
         bandwidth_per_service   no limit\n"
    );
}

#[test]
fn the_example_in_the_section_is_right_too() {
    let lines = section().lines();
    let text: String = lines
        .map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line)))
        .collect();
    let (config, told) = read(&text);
    assert_eq!(told, Ok(vec![]));
    let mut out = String::new();
    expose::show(&config.expose, &mut out).unwrap();
    assert_eq!(
        out,
        "expose on tunnel.example:7400: with a token\n  \
         web -> 127.0.0.1:8080: tcp, direct, port 30080, proxy protocol v2\n  \
         dns -> 127.0.0.1:53: udp, mux\n"
    );
    let [expose] = &config.expose[..] else {
        panic!("{:?}", config.expose);
    };
    assert_eq!(
        expose.identity.as_deref(),
        Some(Path::new("data/expose.id"))
    );
    assert_eq!(expose.services[1].port, None);
}

#[test]
fn without_an_address_the_role_is_off() {
    for text in ["", "[tunnel]\nlease = '5m'\n", "[tunnel]\nlisten = []\n"] {
        let (config, told) = read(text);
        assert_eq!(told, Ok(vec![]));
        assert_eq!(shown(&config), "tunnel: off\n", "{text}");
    }
}

#[test]
fn an_open_listener_needs_a_token_and_a_strong_one() {
    let open = |token: &str| {
        read(&format!(
            "[tunnel]\nlisten = [':7400']\nbind_ip = '::'\npublic_ip = '192.0.2.1'\ntoken = '{token}'\n"
        ))
        .1
    };
    assert_eq!(
        open("").unwrap_err(),
        [
            "t.toml:2:10: error: [::]:7400 is not loopback, and there is no token: whoever reaches it could \
             open ports here; make one by `towpath gen token` and set `tunnel.token`"
        ]
    );
    assert_eq!(
        open("0123456789abcde").unwrap(),
        [
            "tunnel listens on [::]:7400 with a token of 15 bytes: it can be guessed from one recorded \
             handshake; use 16 or more, such as of `towpath gen token`"
        ]
    );
    assert_eq!(open("0123456789abcdef"), Ok(vec![]));
    // By a flag it is the flag's mistake.
    let mut settings = Settings::new(&[crate::config::KEYS, KEYS]);
    settings.set_flag("tunnel.listen", vec!["10.0.0.1:7400".into()]);
    let told = finish(settings).1.unwrap_err();
    assert!(
        told[0].starts_with("--tunnel: error: 10.0.0.1:7400 is not"),
        "{told:?}"
    );
}

#[test]
fn what_clients_are_told_is_the_bind_ip_unless_it_is_said() {
    let (config, told) = read("[tunnel]\nbind_ip = '192.0.2.1'\npublic_ip = ''\n");
    assert_eq!((told, config.public_ip), (Ok(vec![]), config.bind_ip));
    let (config, _) = read("[tunnel]\nbind_ip = '0.0.0.0'\npublic_ip = '192.0.2.2'\n");
    assert_eq!(config.public_ip.to_string(), "192.0.2.2");
    refuses(
        "[tunnel]\nbind_ip = '0.0.0.0'\n",
        &[
            "t.toml:2:11: error: no visitor can reach 0.0.0.0; set `tunnel.public_ip` to what clients are \
           to be told",
        ],
    );
    refuses(
        "[tunnel]\npublic_ip = '::'\n",
        &["t.toml:2:13: error: no visitor can reach ::"],
    );
    refuses(
        "[tunnel]\nbind_ip = ''\n",
        &[
            "t.toml:2:11: error: `bind_ip`: wants an IP address, such as \"192.0.2.1\"; found the text \"\"",
        ],
    );
}

#[test]
fn an_open_listener_with_ports_on_loopback_is_warned_of() {
    let (_, told) = read("[tunnel]\nlisten = ['10.0.0.1:7400']\ntoken = '0123456789abcdef'\n");
    assert_eq!(
        told.unwrap(),
        [
            "tunnel listens on 10.0.0.1:7400, but its services get addresses that only this host reaches; \
          set `tunnel.bind_ip` and `tunnel.public_ip`"
        ]
    );
}

#[test]
fn bounds_are_kept() {
    for (line, want) in [
        (
            "max_services = 65536",
            "16: error: `max_services`: must be from 1 to 65535; found 65536",
        ),
        (
            "max_waiting = 0",
            "15: error: `max_waiting`: must be from 1 to 1000000; found 0",
        ),
        (
            "pool = 257",
            "8: error: `pool`: must be from 0 to 256; found 257",
        ),
        (
            "visitor_timeout = 10",
            "19: error: `visitor_timeout`: the duration 10 has no unit; write \"10s\" or \"10000ms\"",
        ),
        (
            "lease = '0s'",
            "9: error: `lease`: must be from 1s to 8784h; found 0s",
        ),
        (
            "lese = '1s'",
            "1: error: unknown key `lese`; the nearest known one is `lease`",
        ),
    ] {
        refuses(
            &format!("[tunnel]\n{line}\n"),
            &[&format!("t.toml:2:{want}")],
        );
    }
}

#[test]
fn what_is_no_client_is_told_how_to_write_one() {
    refuses(
        "[expose]\nserver = 'a:1'\n",
        &["t.toml:1:1: error: write `[[expose]]` for each of them; found a table"],
    );
    let example = "write { server = \"tunnel.example:7400\", services = [{ name = \"web\", \
                   local = \"127.0.0.1:8080\" }] }";
    refuses(
        "\n[[expose]]\nservr = 'a:1'\n",
        &[
            &format!("t.toml:2:1: error: no `server`; {example}"),
            &format!("t.toml:2:1: error: no `services`; {example}"),
            "t.toml:3:1: error: unknown key `servr`; the nearest known one is `server`",
        ],
    );
}

/// A client with one service of which one line is the one to be tried.
fn with(line: &str) -> String {
    let mut text = "[[expose]]\nserver = 'a:1'\n[[expose.services]]\n".to_owned() + line + "\n";
    for (key, good) in [("name", "'web'"), ("local", "'127.0.0.1:80'")] {
        if !line.starts_with(key) {
            text += &format!("{key} = {good}\n");
        }
    }
    text
}

#[test]
fn each_value_of_a_service_is_refused_where_it_stands() {
    let name = "`name`: wants 1 to 64 letters, digits, \".\", \"_\" or \"-\", such as \"web\"";
    let port = "`port`: wants a number from 1 to 65535, or 0 for any";
    for (line, want) in [
        ("name = 'a b'", format!("8: error: {name}; found the text \"a b\"")),
        ("name = 7", format!("8: error: {name}; found the number 7")),
        ("local = 80", "9: error: `local`: wants a destination, such as \"example.com:80\"; found the number 80".into()),
        ("port = 65536", format!("8: error: {port}; found the number 65536")),
        ("port = '80'", format!("8: error: {port}; found the text \"80\"")),
        ("udp = 1", "7: error: `udp`: wants true or false; found the number 1".into()),
        ("mux = 'yes'", "7: error: `mux`: wants true or false; found the text \"yes\"".into()),
        ("direct = 1", "10: error: `direct`: wants true or false; found the number 1".into()),
        ("proxy_protocol = 'v3'", "18: error: `proxy_protocol`: wants one of: \"v1\", \"v2\"; found the text \"v3\"".into()),
        ("prt = 1", "1: error: unknown key `prt`; the nearest known one is `port`".into()),
    ] {
        refuses(&with(line), &[&format!("t.toml:4:{want}")]);
    }
    let both = with("proxy_protocol = 'v1'\nudp = true");
    refuses(
        &both,
        &[
            "t.toml:4:18: error: `proxy_protocol`: \"v1\" is for streams only; with udp it is \"v2\"",
        ],
    );
    assert_eq!(read(&with("port = 0")).0.expose[0].services[0].port, None);
}

#[test]
fn a_client_has_services_and_no_two_of_one_name() {
    let one = "{ name = 'web', local = 'a:1' }";
    let of = |services: &str| format!("[[expose]]\nserver = 'a:1'\nservices = {services}\n");
    assert_eq!(read(&of(&format!("[{one}]"))).1, Ok(vec![]));
    refuses(
        &of(&format!("[{one}, {one}]")),
        &["t.toml:3:55: error: `name`: a service above is \"web\", too"],
    );
    let wants = "`services`: wants a list such as [{ name = \"web\", local = \"127.0.0.1:8080\" }]";
    for (services, found) in [("[]", "none"), ("{}", "a table"), ("5", "the number 5")] {
        refuses(
            &of(services),
            &[&format!("t.toml:3:12: error: {wants}; found {found}")],
        );
    }
    refuses(
        &(of(&format!("[{one}]")) + "identity = ''\ntoken = 5\n"),
        &[
            "t.toml:4:12: error: `identity`: wants a path, such as \"expose.id\"; found the text \"\"",
            "t.toml:5:9: error: write `token` as a text, or a file such as { file = \"secrets/token\" }; \
             found the number 5",
        ],
    );
}

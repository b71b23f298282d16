//! The role's keys and listeners as they are read, with the exact text of every mistake.

mod access;
mod hops;

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

fn shown(config: &Config) -> String {
    let mut shown = String::new();
    show(config, &mut shown);
    shown
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
fn without_an_address_the_role_is_off() {
    let Config {
        listen,
        access,
        key,
        ..
    } = read("").0;
    assert_eq!((listen, access, key), (vec![], vec![], None));
    for text in [
        "",
        "[chain]\n",
        "chain.access = []\n",
        "[chain]\nlisten = []\nkey = ''\n",
    ] {
        assert_eq!(read(text), (read("").0, Ok(vec![])), "{text}");
    }
    assert_eq!(shown(&read("").0), "chain: off\n");
}

#[test]
fn without_any_file_the_hop_is_on_loopback_with_the_key_that_everybody_knows() {
    let mut settings = Settings::new(&[crate::config::KEYS, KEYS]);
    let config = Config::read(&mut settings);
    assert_eq!(settings.finish(), Ok(vec![]));
    assert_eq!(
        shown(&config),
        "chain: a hop on 127.0.0.1:7300; the key that everybody knows
  allow                   *:*
  deny                    nothing
  payload_key             none
  header_timeout          10s
  dial_timeout            10s
  idle_timeout            5m
  half_closed_timeout     1m
  udp_idle_timeout        1m
  max_flows               4096
  replay_memory           256M
  max_silent              1024
  bandwidth               no limit
"
    );
}

#[test]
fn a_hop_takes_tcp_and_udp_and_stands_before_the_access_listeners() {
    use crate::session::{Role, Transport::*};

    let text = "[chain]\nlisten = ['127.0.0.1:1', '[::1]:1']\n";
    let udp = with("listen = ['127.0.0.1:9', '127.0.0.1:10']") + "protocol = 'udp'\n";
    let listen = read(&format!("{text}{udp}{}", with("name = 'tcp'")))
        .0
        .listen();
    let listen: Vec<_> = listen
        .iter()
        .map(|at| (at.to_string(), at.transport))
        .collect();
    let want = [
        ("chain", Stream),
        ("chain", Datagram),
        ("chain", Stream),
        ("chain", Datagram),
        ("access db", Datagram),
        ("access db", Datagram),
        ("access tcp", Stream),
    ];
    assert_eq!(
        listen,
        want.map(|(name, transport)| (name.to_owned(), transport))
    );
}

#[test]
fn a_hop_off_loopback_has_a_key_of_its_own() {
    let told = "a hop on [::]:7300 needs `chain.key`, or everybody may use it; make one: \
                towpath gen key > hop.key, and write key = { file = \"hop.key\" }";
    for text in ["", "key = ''"] {
        let text = format!("[chain]\nlisten = ['127.0.0.1:7300', ':7300']\n{text}");
        refuses(&text, &[&format!("t.toml:2:10: error: {told}")]);
    }
    let with_key =
        |key: &str| format!("[chain]\nlisten = ':7300'\nkey = {key}\npayload_key = {key}\n");
    let (config, told) = read(&with_key(&format!("'{KEY_TEXT}'")));
    assert_eq!(told, Ok(vec![]));
    assert_eq!(config.key, Some(Key::from_base64(KEY_TEXT).unwrap()));
    assert_eq!(config.payload_key, config.key);
    let all = format!("{config:?}{}", shown(&config));
    assert!(all.contains("key set") && all.contains("(secret)") && !all.contains(KEY_TEXT));
    let wants = "wants 32 bytes in base64, such as towpath gen key makes; it";
    for (key, why) in [
        ("'x y'", format!("{wants}s character 2 is not base64")),
        (
            "'AAAA'",
            format!("{wants} is base64 of 3 bytes; a key has 32"),
        ),
        (
            "'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'",
            "is the key that everybody knows; towpath gen key makes another".to_owned(),
        ),
    ] {
        refuses(
            &with_key(key),
            &[
                &format!("t.toml:3:7: error: {why}"),
                &format!("t.toml:4:15: error: {why}"),
            ],
        );
    }
}

#[test]
fn rules_are_read_where_they_stand() {
    let (config, told) =
        read("[chain]\nallow = ['10.0.0.0/8:*', '*.a.example:443']\ndeny = '*:25'\n");
    assert_eq!(told, Ok(vec![]));
    assert_eq!((config.allow.len(), config.deny.len()), (2, 1));
    assert_eq!(read("[chain]\nallow = []\n").0.allow, []);
    assert_eq!(read("[chain]\n").0.allow, ["*:*".parse().unwrap()]);
    refuses(
        "[chain]\nallow = ['*:*', '10.0.0.0/8']\ndeny = ['::1:5',\n 5]\n",
        &[
            "t.toml:2:17: error: `allow`: \"10.0.0.0/8\" has no port; write \"10.0.0.0/8:*\" for all of them",
            "t.toml:3:9: error: `deny`: the IPv6 address of \"::1:5\" needs brackets; write \"[::1:5]:*\"",
            "t.toml:4:2: error: `deny`: wants a list of texts; found the number 5",
        ],
    );
    let mut settings = Settings::new(&[crate::config::KEYS, KEYS]);
    settings.set_flag(
        "chain.allow",
        vec!["*:80,[fd00::/8]:*".into(), "a.example:1-9".into()],
    );
    let config = Config::read(&mut settings);
    let allow: Vec<_> = config.allow.iter().map(ToString::to_string).collect();
    assert_eq!(allow, ["*:80", "[fd00::/8]:*", "a.example:1-9"]);
}

/// 32 bytes, from 0 to 31.
const KEY_TEXT: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

//! The configuration as a whole: every mistake with its exact text, the order of the layers, and
//! the shipped files.

use std::time::Duration;

use super::*;
use crate::protocols::{agent, chain};

/// What a reading gave: the values, and the warnings or mistakes as text.
struct Read {
    core: Core,
    agent: agent::Config,
    chain: chain::Config,
    told: Result<Vec<String>, Vec<String>>,
}

fn finish(mut settings: Settings) -> Read {
    let core = Core::read(&mut settings);
    let agent = agent::Config::read(&mut settings);
    let chain = chain::Config::read(&mut settings);
    let told = settings
        .finish()
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect());
    Read {
        core,
        agent,
        chain,
        told,
    }
}

fn read(text: &str) -> Read {
    let mut settings = Settings::new(&tables());
    settings.read_text(Path::new("t.toml"), text);
    finish(settings)
}

#[track_caller]
fn refuses(text: &str, want: &[&str]) {
    assert_eq!(read(text).told.unwrap_err(), want, "{text}");
}

fn environment(pairs: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
    move |name| {
        let mut pairs = pairs.iter();
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| OsString::from(value))
    }
}

#[test]
fn without_any_layer_the_agent_serves_on_loopback() {
    let reading = finish(Settings::new(&tables()));
    assert_eq!(reading.told, Ok(vec![]));
    assert_eq!(reading.agent.listen, ["127.0.0.1:7100".parse().unwrap()]);
    assert_eq!(reading.agent.max_payload, 524_288);
    assert_eq!(reading.agent.store.max_bytes, 1 << 30);
    assert_eq!(reading.core.data_dir, Path::new("data"));
    assert_eq!(reading.core.limits.idle_timeout, Duration::from_secs(600));
    assert_eq!(reading.core.limits.max_buffer_memory, 256 << 20);
}

#[test]
fn with_a_file_a_role_is_on_only_where_it_listens() {
    assert_eq!(read("").agent.listen, []);
    assert_eq!(read("[agent]\nmax_wait = '5s'").agent.listen, []);
    assert_eq!(read("[agent]\nlisten = []").agent.listen, []);
    let reading = read("[agent]\nlisten = ['127.0.0.1:1', '[::1]:0', '[::1]:0']");
    assert_eq!(reading.agent.listen.len(), 3);
    assert_eq!(reading.told, Ok(vec![]));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
    let path = Path::new("t.toml");
    let mut settings = Settings::new(&tables());
    settings.read_text(
        path,
        "workers = 2\n[limits]\nidle_timeout = '2m'\nconnect_timeout = '2s'",
    );
    settings.read_environment(&environment(&[
        ("TOWPATH_WORKERS", "3"),
        ("TOWPATH_IDLE_TIMEOUT", "3m"),
        ("TOWPATH_PIN", ""),
        ("TOWPATH_TOKEN", "from the environment"),
    ]));
    settings.set_flag("workers", vec!["4".into()]);
    let reading = finish(settings);
    assert_eq!(reading.told, Ok(vec![]));
    assert_eq!(reading.core.workers, 4);
    assert_eq!(reading.core.limits.idle_timeout, Duration::from_secs(180));
    assert_eq!(reading.core.limits.connect_timeout, Duration::from_secs(2));
    assert_eq!(reading.core.limits.drain_timeout, Duration::from_secs(30));
    assert!(!reading.core.pin);
    assert_eq!(
        reading.agent.token.unwrap().expose(),
        b"from the environment"
    );
}

#[test]
fn a_list_flag_may_be_repeated_or_parted_by_commas_and_turned_off() {
    let listen = |words: &[&str]| {
        let mut settings = Settings::new(&tables());
        settings.read_text(Path::new("t.toml"), "[agent]\nlisten = ['10.0.0.1:1']");
        settings.set_flag("agent.listen", words.iter().map(|&w| w.into()).collect());
        let reading = finish(settings);
        (reading.agent.listen.len(), reading.told)
    };
    let off = vec![];
    assert_eq!(
        listen(&["127.0.0.1:1, [::1]:2", "127.0.0.2:3"]),
        (3, Ok(off))
    );
    assert_eq!(listen(&["off"]), (0, Ok(vec![])));
    let (_, told) = listen(&["off", "127.0.0.1:1"]);
    assert_eq!(
        told.unwrap_err(),
        [r#"--agent: error: "off" stands alone; leave it out or the addresses"#]
    );
    let (_, told) = listen(&["127.0.0.1:1,127.0.0.1:1"]);
    assert_eq!(
        told.unwrap_err(),
        ["--agent: error: 127.0.0.1:1 is named twice; `agent.listen` has it already"]
    );
}

#[test]
fn mistakes_of_flags_and_environment_name_them() {
    let mut settings = Settings::new(&tables());
    settings.read_environment(&environment(&[("TOWPATH_PIN", "maybe")]));
    settings.set_flag("limits.idle_timeout", vec!["5".into()]);
    settings.set_flag("workers", vec!["many".into()]);
    settings.set_flag("agent.token", vec!["/nowhere/token".into()]);
    assert_eq!(
        finish(settings).told.unwrap_err(),
        [
            r#"--idle-timeout: error: the duration 5 has no unit; write "5s" or "5000ms""#,
            "--token-file: error: the secret file /nowhere/token cannot be read: \
             No such file or directory (os error 2)",
            r#"--workers: error: wants a whole number, such as 0; found "many""#,
            r#"TOWPATH_PIN: error: wants true or false; found "maybe""#,
        ]
    );
}

#[test]
fn every_mistake_is_told_at_once_in_the_order_of_the_file() {
    refuses(
        "worker = 1\npin = 3\n[limits]\nidle_timeout = 600\n[nothing]\nlisten = ['x']\n[agent]\ntokn = ''\n",
        &[
            "t.toml:1:1: error: unknown key `worker`; the nearest known one is `workers`",
            "t.toml:2:7: error: `pin`: wants true or false; found the number 3",
            "t.toml:4:16: error: `idle_timeout`: the duration 600 has no unit; \
             write \"600s\" or \"600000ms\"",
            "t.toml:5:2: error: unknown table `nothing`; known here: `limits`, `admin`, `agent`, `routes`, `chain`, `node`, `tunnel`, `expose`, `gateway`",
            "t.toml:8:1: error: unknown key `tokn`; the nearest known one is `token`",
        ],
    );
}

#[test]
fn a_key_in_the_wrong_table_is_sent_to_the_right_one() {
    refuses(
        "idle_timeout = '5s'\n[agent]\nworkers = 1\n",
        &[
            "t.toml:1:1: error: unknown key `idle_timeout` here; its place is the table `[limits]`",
            "t.toml:3:1: error: unknown key `workers` here; \
             its place is the top of the file, before the first table",
        ],
    );
}

#[test]
fn a_key_that_each_role_has_for_itself_sends_nobody_to_another_role() {
    refuses(
        "[gateway]\nlisten = ':7500'\n[chian]\n",
        &[
            "t.toml:2:1: error: unknown key `listen`; known here: `clients`, `servers`, `dialect`, \
             `server_dialect`, `auth_key`, `max_packet`, `max_conns_per_client`, `client_idle_timeout`, \
             `server_idle_timeout`, `slow_receiver_timeout`, `max_queue_memory`, `accept_proxy`, \
             `allow_from`, `deny_from`, `max_connections`, `max_connections_per_ip`, \
             `connection_rate`, `connection_rate_per_ip`",
            "t.toml:3:2: error: unknown table `chian`; the nearest known name is `chain`",
        ],
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_position() {
    refuses("a", &["t.toml:1:2: error: key with no value, expected `=`"]);
    refuses(
        "workers = 1\nworkers = 2\n",
        &["t.toml:2:1: error: duplicate key"],
    );
    refuses("[agent]\n[agent]\n", &["t.toml:2:2: error: duplicate key"]);
    let quoted = "error: string values must be quoted, expected literal string";
    refuses(
        "workers = \npin = 3\n",
        &[
            &format!("t.toml:1:11: {quoted}"),
            "t.toml:2:7: error: `pin`: wants true or false; found the number 3",
        ],
    );
}

#[test]
fn a_line_that_is_no_toml_is_told_once() {
    let told = read("workers = many\ndata_dir = \"x\npin = true\n")
        .told
        .unwrap_err();
    let places: Vec<_> = told
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(places, ["t.toml:1:11:", "t.toml:2:14:"], "{told:?}");
}

#[test]
fn each_kind_refuses_the_other_kinds() {
    for (line, want) in [
        (
            "workers = 'x'",
            r#"9: error: `workers`: wants a whole number, such as 0; found the text "x""#,
        ),
        (
            "workers = '4'",
            r#"9: error: `workers`: wants a whole number, such as 0; found the text "4""#,
        ),
        (
            "workers = 1.5",
            "9: error: `workers`: wants a whole number, such as 0; found a number with a fraction",
        ),
        (
            "workers = [1]",
            "9: error: `workers`: wants a whole number, such as 0; found a list",
        ),
        (
            "workers = {}",
            "9: error: `workers`: wants a whole number, such as 0; found a table",
        ),
        (
            "pin = 1979-05-27",
            "9: error: `pin`: wants true or false; found a date",
        ),
        (
            "data_dir = ''",
            r#"9: error: `data_dir`: wants a path, such as "data"; found the text """#,
        ),
        (
            "data_dir = true",
            r#"9: error: `data_dir`: wants a path, such as "data"; found true"#,
        ),
        (
            "store = 'redis://x'",
            r#"9: error: `store`: wants one of: "embedded"; found the text "redis://x""#,
        ),
        (
            "agent = 5",
            "9: error: `agent` is a table; write `[agent]` and its keys below it; found the number 5",
        ),
        (
            "routes = 5",
            "9: error: `routes` is a table; write `[routes.NAME]`; found the number 5",
        ),
        (
            "limits.idle_timeout = true",
            r#"9: error: `idle_timeout`: wants a duration, such as "5s"; found true"#,
        ),
        (
            "agent.max_payload = []",
            r#"9: error: `max_payload`: wants a size, such as "16K" or 16384; found a list"#,
        ),
        (
            "agent.listen = 7100",
            r#"9: error: `listen`: wants a list of addresses, such as ["127.0.0.1:7000"]; found the number 7100"#,
        ),
        (
            "agent.token = 7",
            r#"9: error: write `token` as a text, or a file such as { file = "secrets/token" }; found the number 7"#,
        ),
    ] {
        let column = line.find('=').unwrap() + 3;
        let want = want.replacen('9', &format!("t.toml:1:{column}"), 1);
        refuses(line, &[&want]);
    }
}

#[test]
fn what_is_out_of_range_is_told_the_range() {
    for (line, want) in [
        (
            "workers = 257",
            "11: error: `workers`: must be from 0 to 256; found 257",
        ),
        (
            "workers = -1",
            "11: error: `workers`: must be from 0 to 256; found -1",
        ),
        (
            "limits.connect_timeout = '9ms'",
            "26: error: `connect_timeout`: must be from 10ms to 168h; found 9ms",
        ),
        (
            "agent.max_payload = '513K'",
            "21: error: `max_payload`: must be from 64 to 512K; found 525312",
        ),
        (
            "agent.max_payload = 1",
            "21: error: `max_payload`: must be from 64 to 512K; found 1",
        ),
    ] {
        refuses(line, &[&format!("t.toml:1:{want}")]);
    }
}

#[test]
fn each_address_of_a_list_is_told_where_it_stands() {
    refuses(
        "[agent]\nlisten = ['127.0.0.1:1', 'localhost:1',\n  3, '127.0.0.1:1']",
        &[
            "t.toml:2:26: error: `listen`: \"localhost:1\" is not an address; write an IP address \
             and a port, like \"127.0.0.1:7000\", \"[::1]:7000\" or \":7000\"",
            "t.toml:3:3: error: `listen`: wants a list of addresses, such as \
             [\"127.0.0.1:7000\"]; found the number 3",
            "t.toml:3:6: error: `listen`: 127.0.0.1:1 is named twice; `agent.listen` has it already",
        ],
    );
}

#[test]
fn an_open_listener_without_a_token_is_warned_of() {
    let reading = read("[agent]\nlisten = [':7100']");
    assert_eq!(
        reading.told.unwrap(),
        [
            "agent listens on [::]:7100 without a token: whoever reaches it may update; \
          set `agent.token`"
        ]
    );
    assert_eq!(
        read("[agent]\nlisten = [':7100']\ntoken = 'x'").told,
        Ok(vec![])
    );
}

#[test]
fn a_secret_is_text_or_a_file_beside_the_configuration() {
    let folder = std::env::temp_dir().join(format!("towpath-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("t.toml");
    std::fs::write(folder.join("good"), "from a file\r\n").unwrap();
    std::fs::write(folder.join("empty"), "\n").unwrap();
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut settings = Settings::new(&tables());
        settings.read_file(&path);
        finish(settings)
    };
    let token = |text: &str| {
        read(text)
            .agent
            .token
            .map(|secret| secret.expose().to_vec())
    };
    assert_eq!(token("agent.token = 'a b'"), Some(b"a b".to_vec()));
    assert_eq!(token("agent.token = ''"), None);
    assert_eq!(
        token("agent.token = { file = 'good' }"),
        Some(b"from a file".to_vec())
    );
    let told = |text: &str| read(text).told.unwrap_err()[0].replace(folder.to_str().unwrap(), "F");
    assert_eq!(
        told("agent.token = { file = 'none' }"),
        "F/t.toml:1:24: error: `token`: the secret file F/none cannot be read: \
         No such file or directory (os error 2)"
    );
    assert_eq!(
        told("agent.token = { file = 'empty' }"),
        "F/t.toml:1:24: error: `token`: the secret file F/empty is empty"
    );
    assert_eq!(
        told("agent.token = { fil = 'good' }"),
        "F/t.toml:1:15: error: write `token` as a text, or a file such as \
         { file = \"secrets/token\" }; found no `file`"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let mut settings = Settings::new(&tables());
    settings.read_file(Path::new("/nowhere/t.toml"));
    assert_eq!(
        finish(settings).told.unwrap_err(),
        ["/nowhere/t.toml: error: cannot be read: No such file or directory (os error 2)"]
    );
}

#[test]
fn routes_take_one_host_or_a_list_for_each_field() {
    let reading = read(
        "[routes.test_http]\ntoken = 'test_http_token'\n[routes.test_http.hosts]\n\
         github = { host = 'github.com', service = 'http' }\n\
         baidu = { host = 'www.baidu.com', service = '80' }\n\
         default = [{ host = '::1', service = 8080 }, { host = '[::1]', service = 8081 }]\n\
         [routes.\"a b\".hosts.x]\nhost = 'h'\nservice = 'https'\n",
    );
    assert_eq!(reading.told, Ok(vec![]));
    let shown: Vec<String> = reading
        .agent
        .routes
        .iter()
        .flat_map(|route| {
            let fields = route.fields.iter();
            fields.map(move |(field, targets)| {
                let targets: Vec<String> = targets.iter().map(ToString::to_string).collect();
                format!("{} {field} {}", route.name, targets.join(","))
            })
        })
        .collect();
    assert_eq!(
        shown,
        [
            "test_http github github.com:80",
            "test_http baidu www.baidu.com:80",
            "test_http default [::1]:8080,[::1]:8081",
            "a b x h:443",
        ]
    );
    let token = reading.agent.routes[0].token.as_ref().unwrap();
    assert_eq!(token.expose(), b"test_http_token");
    assert_eq!(reading.agent.routes[1].token, None);
}

#[test]
fn mistakes_of_routes_are_told_where_they_stand() {
    let host = r#"a host, such as { host = "example.com", service = "http" }"#;
    for (hosts, want) in [
        ("x = 5", format!("5: error: write {host}; found the number 5")),
        ("x = []", format!("5: error: an empty list of hosts; write {host}")),
        ("x = { host = 'h' }", format!("5: error: no `service`; write {host}")),
        ("x = { service = 1 }", format!("5: error: no `host`; write {host}")),
        ("x = { host = 'h', service = 1, prt = 2 }", "32: error: unknown key `prt`; known here: `host`, `service`".into()),
        ("x = { host = 'h', service = 0 }", "29: error: `service`: a port is from 1 to 65535; found 0".into()),
        ("x = { host = 'h', service = '65536' }", "29: error: `service`: a port is from 1 to 65535; found 65536".into()),
        ("x = { host = 'h', service = -1 }", "29: error: `service`: a port is from 1 to 65535; found -1".into()),
        ("x = { host = 'h', service = 'htpt' }", "29: error: `service`: \"htpt\" is neither a port nor a known service; the nearest is \"http\"".into()),
        ("x = { host = 'h', service = true }", "29: error: `service`: wants a port or a service's name, such as 80 or \"http\"; found true".into()),
        ("x = { host = 'h:80', service = 80 }", "14: error: `host`: \"h:80\" has more than a host; the port belongs in `service`".into()),
        ("x = { host = 'a b', service = 80 }", "14: error: `host`: \"a b\" is neither a host's name nor an address, such as \"example.com\"".into()),
        ("x = { host = '', service = 80 }", "14: error: `host`: \"\" is neither a host's name nor an address, such as \"example.com\"".into()),
        ("x = { host = 7, service = 80 }", "14: error: `host`: wants a name or an address, such as \"example.com\"; found the number 7".into()),
        ("x = [{host='h',service=1},{host='h',service=1}]", "27: error: h:1 is twice in this list".into()),
    ] {
        let text = format!("[routes.r.hosts]\n{hosts}\n");
        refuses(&text, &[&format!("t.toml:2:{want}")]);
    }
}

#[test]
fn a_route_without_hosts_is_a_mistake() {
    let want =
        "`hosts` as a table, such as { default = { host = \"example.com\", service = \"http\" } }";
    for (text, place) in [
        ("[routes.r]\n", "1:9"),
        ("[routes.r.hosts]\n", "1:1"),
        ("[routes.r]\nhosts = 5\n", "2:9"),
    ] {
        refuses(
            text,
            &[&format!(
                "t.toml:{place}: error: a route without hosts; write {want}"
            )],
        );
    }
    refuses(
        "routes.r = 5",
        &[&format!(
            "t.toml:1:12: error: write {want}; found the number 5"
        )],
    );
}

#[test]
fn the_shipped_file_has_every_key_with_its_default_and_one_comment() {
    let text = include_str!("../../../conf/towpath.toml");
    for key in all_keys() {
        let Some(default) = key.default_in_file() else {
            continue;
        };
        let mut table = "";
        let lines = text.lines().filter(|line| {
            if let Some(name) = line.strip_prefix('[') {
                table = name.split(']').next().unwrap();
            }
            let start = format!("{} = {default} ", key.name());
            table == key.table() && line.starts_with(&start)
        });
        let comments: Vec<usize> = lines.map(|line| line.matches(" # ").count()).collect();
        assert_eq!(comments, [1], "`{}` with {default}", key.path);
    }
    let reading = read(text);
    let defaults = finish(Settings::new(&tables()));
    assert_eq!(reading.told, Ok(vec![]));
    assert_eq!(reading.core, defaults.core);
    assert_eq!(reading.agent.routes[0].name, "demo");
    let routes = vec![];
    assert_eq!(
        agent::Config {
            routes,
            ..reading.agent
        },
        defaults.agent
    );
}

#[test]
fn the_example_in_the_shipped_file_is_right_too() {
    let text = include_str!("../../../conf/towpath.toml");
    let text: String = text
        .lines()
        .map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line)))
        .collect();
    let reading = read(&text);
    assert_eq!(reading.told, Ok(vec![]));
    let names: Vec<_> = reading.agent.routes.iter().map(|r| &*r.name).collect();
    assert_eq!(names, ["demo", "test_http"]);
    let [db, socks] = &reading.chain.access[..] else {
        panic!("{:?}", reading.chain);
    };
    assert_eq!((&*db.name, db.listen.len()), ("db", 1));
    assert_eq!(db.to[0].to_string(), "db.example:5432");
    let chains: Vec<_> = db.chains.iter().map(|chain| chain.hops.len()).collect();
    assert_eq!(chains, [2]);
    assert_eq!((&*socks.name, socks.users.len()), ("socks", 1));
    let weights: Vec<_> = socks.chains.iter().map(|chain| chain.weight).collect();
    assert_eq!(weights, [3, 1]);
}

#[test]
fn the_short_shipped_file_is_right() {
    let reading = read(include_str!("../../../conf/minimal.toml"));
    assert_eq!(reading.told, Ok(vec![]));
    assert!(!reading.agent.listen.is_empty());
}

#[test]
fn no_flag_and_no_key_is_there_twice() {
    let keys: Vec<&Key> = all_keys().collect();
    for (index, key) in keys.iter().enumerate() {
        for other in &keys[..index] {
            assert_ne!(key.path, other.path);
            assert!(key.flag.is_none() || key.flag != other.flag, "{}", key.path);
            assert!(key.short.is_none() || key.short != other.short);
        }
    }
}

#[test]
fn the_readme_names_every_key_that_needs_a_restart() {
    let readme = include_str!("../../../README.md");
    let reload = readme.split("### Reload").nth(1).unwrap();
    let reload = reload.split("\n## ").next().unwrap();
    for key in all_keys() {
        let named = reload.contains(&format!("`{}`", key.path));
        assert_eq!(named, key.is_fixed, "{}", key.path);
    }
}

#[test]
fn a_file_that_is_no_text_is_told_with_its_place() {
    let file = std::env::temp_dir().join(format!("towpath-text-{}.toml", std::process::id()));
    std::fs::write(&file, b"[agent]\n# \xc3\xa4 \xff\n").unwrap();
    let mut settings = Settings::new(&tables());
    settings.read_file(&file);
    let told = finish(settings).told.unwrap_err()[0].replace(file.to_str().unwrap(), "F");
    assert_eq!(told, "F:2:5: error: this is not UTF-8 text");
    std::fs::remove_file(&file).unwrap();
}

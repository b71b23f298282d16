//! Command lines: what they are understood as, what is said about the wrong ones, and the help.

use super::*;

fn parse(line: &[&str]) -> Result<Invocation, String> {
    let words: Vec<OsString> = line.iter().map(OsString::from).collect();
    Invocation::parse(&words, &|_| None).map_err(|usage| usage.to_string())
}

#[track_caller]
fn refuses(line: &[&str], want: &str) {
    match parse(line) {
        Ok(_) => panic!("{line:?} was understood"),
        Err(told) => assert_eq!(told, want),
    }
}

#[track_caller]
fn prints(line: &[&str]) -> String {
    match parse(line) {
        Ok(Invocation::Print(text)) => text,
        _ => panic!("{line:?} prints nothing"),
    }
}

const HELPS: &[&[&str]] = &[
    &["--help"],
    &["serve", "--help"],
    &["check", "-h"],
    &["agent", "--help"],
    &["agent", "update", "--help"],
    &["agent", "query", "--help"],
    &["route", "--help"],
    &["gateway", "--help"],
    &["gateway", "echo", "--help"],
    &["gateway", "dial", "--help"],
    &["node", "--help"],
    &["node", "send", "--help"],
];

#[test]
fn every_help_fits_a_terminal_and_ends_its_line() {
    for line in HELPS {
        let text = prints(line);
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{line:?}");
        for row in text.lines() {
            assert!(row.chars().count() <= 80, "{line:?}: {row}");
            assert_eq!(row, row.trim_end(), "{line:?}");
        }
    }
}

#[test]
fn the_help_of_serve_names_every_flag_with_its_default() {
    let text = prints(&["serve", "--help"]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for key in crate::config::KEYS
        .iter()
        .chain(crate::protocols::agent::config::KEYS)
    {
        let Some(flag) = key.flag else {
            continue;
        };
        let value = key.kind.placeholder().unwrap_or_default();
        let start = format!("--{flag} {value}");
        assert!(text.contains(start.trim()), "{start}");
        assert!(text.contains(key.help), "{}", key.help);
    }
    assert!(text.contains("for one attempt to connect to one address [default: 5s]"));
    assert!(text.contains("names no address [default: 127.0.0.1:7100]"));
}

#[test]
fn the_version_is_one_line() {
    assert_eq!(prints(&["--version"]), VERSION);
    assert_eq!(prints(&["-V"]).lines().count(), 1);
}

#[test]
fn wrong_command_lines_are_told_what_would_be_right() {
    for (line, want) in [
        (&[][..], "towpath: no command given (see towpath --help)"),
        (
            &["serv"],
            "towpath: unknown command serv; the nearest is serve (see towpath --help)",
        ),
        (
            &["--versoin"],
            "towpath: unknown flag --versoin; the nearest is --version (see towpath --help)",
        ),
        (
            &["serve", "--workes", "2"],
            "towpath serve: unknown flag --workes; the nearest is --workers (see towpath serve --help)",
        ),
        (
            &["serve", "-x"],
            "towpath serve: unknown flag -x (see towpath serve --help)",
        ),
        (
            &["serve", "--workers"],
            "towpath serve: --workers needs a value; write --workers N (see towpath serve --help)",
        ),
        (
            &["serve", "-w"],
            "towpath serve: -w needs a value; write -w N (see towpath serve --help)",
        ),
        (
            &["serve", "-w", "1", "-w", "2"],
            "towpath serve: --workers is given twice; once is enough (see towpath serve --help)",
        ),
        (
            &["serve", "x.toml"],
            "towpath serve: takes no argument, but got x.toml; a configuration is named by --config FILE (see towpath serve --help)",
        ),
        (
            &["serve", "--log", "verbose"],
            "towpath serve: --log verbose is no level; levels are off, error, warn, info, debug, trace (see towpath serve --help)",
        ),
        (
            &["serve", "--log", "inf"],
            "towpath serve: --log inf is no level; the nearest is info, all are off, error, warn, info, debug, trace (see towpath serve --help)",
        ),
        (
            &["start"],
            "towpath: unknown command start; known: serve, check, agent, route, gateway, node, expose, --help, --version (see towpath --help)",
        ),
    ] {
        refuses(line, want);
    }
}

#[test]
fn wrong_command_lines_of_clients_are_told_what_would_be_right() {
    for (line, want) in [
        (
            &["agent"][..],
            "towpath agent: update or query? write one of them (see towpath agent --help)",
        ),
        (
            &["agent", "updat"],
            "towpath agent: unknown command updat; the nearest is update (see towpath agent --help)",
        ),
        (
            &["agent", "update"],
            "towpath agent update: ID SECTION [FILE] is missing (see towpath agent update --help)",
        ),
        (
            &["agent", "query", "a"],
            "towpath agent query: takes ID SECTION, but got 1 word (see towpath agent query --help)",
        ),
        (
            &["agent", "query", "a", "b", "c"],
            "towpath agent query: takes ID SECTION, but got 3 words (see towpath agent query --help)",
        ),
        (
            &["agent", "query", "a", "b", "--wait", "5"],
            "towpath agent query: --wait: the duration 5 has no unit; write \"5s\" or \"5000ms\" (see towpath agent query --help)",
        ),
        (
            &["agent", "update", "a", "b", "c", "--remove"],
            "towpath agent update: --remove takes no value, but got the file c (see towpath agent update --help)",
        ),
        (
            &["agent", "--server", "127.0.0.1:7100", "query", "a", "b"],
            "towpath agent: --server belongs behind update or query, as in towpath agent query ID SECTION --server ADDR (see towpath agent --help)",
        ),
        (
            &["agent", "query", "a", "b", "--server", "127.0.0.1"],
            "towpath agent query: --server: \"127.0.0.1\" has no port; write \"127.0.0.1:7100\" (see towpath agent query --help)",
        ),
        (
            &["route", "f", "--service", "s", "-s", "relay.example"],
            "towpath route: --server: \"relay.example\" has no port; write \"relay.example:7100\" (see towpath route --help)",
        ),
        (
            &["route", "f", "--service", "s", "-l", "127.0.0.1"],
            "towpath route: --listen: \"127.0.0.1\" has no port; write for example \"127.0.0.1:7000\" (see towpath route --help)",
        ),
        (
            &["route", "--service", "s"],
            "towpath route: takes one FIELD, but got 0 words (see towpath route --help)",
        ),
        (
            &["route", "f"],
            "towpath route: --service NAME is missing (see towpath route --help)",
        ),
        (
            &["route", "f", "--service", "s", "--listen", "9000"],
            "towpath route: --listen: \"9000\" is a port alone; write \":9000\" for every interface or \"127.0.0.1:9000\" for this host (see towpath route --help)",
        ),
        (
            &["route", "f", "--service", "s", "--token-file", "/nowhere/t"],
            "towpath route: --token-file: the secret file /nowhere/t cannot be read: No such file or directory (os error 2) (see towpath route --help)",
        ),
    ] {
        refuses(line, want);
    }
}

#[test]
fn wrong_command_lines_of_the_gateways_clients_are_told_what_would_be_right() {
    for (line, want) in [
        (
            &["gateway"][..],
            "towpath gateway: echo or dial? write one of them (see towpath gateway --help)",
        ),
        (
            &["gateway", "dail", "7"],
            "towpath gateway: unknown command dail; the nearest is dial (see towpath gateway --help)",
        ),
        (
            &["gateway", "echo"],
            "towpath gateway echo: --id N is missing (see towpath gateway echo --help)",
        ),
        (
            &["gateway", "echo", "--id", "4294967296"],
            "towpath gateway echo: --id: \"4294967296\" is no id; an id is a number from 0 to 4294967295 (see towpath gateway echo --help)",
        ),
        (
            &["gateway", "echo", "7"],
            "towpath gateway echo: takes no argument, but got 7 (see towpath gateway echo --help)",
        ),
        (
            &["gateway", "echo", "--id", "7", "--keyfile", "secret"],
            "towpath gateway echo: unknown flag --keyfile; the nearest is --key-file (see towpath gateway echo --help)",
        ),
        (
            &["gateway", "echo", "--id", "7", "-s", "relay.example"],
            "towpath gateway echo: --server: \"relay.example\" has no port; write \"relay.example:7501\" (see towpath gateway echo --help)",
        ),
        (
            &["gateway", "dial"],
            "towpath gateway dial: takes one SERVER_ID, but got 0 words (see towpath gateway dial --help)",
        ),
        (
            &["gateway", "dial", "seven"],
            "towpath gateway dial: SERVER_ID: \"seven\" is no id; an id is a number from 0 to 4294967295 (see towpath gateway dial --help)",
        ),
        (
            &["gateway", "dial", "7", "--dialect", "auto"],
            "towpath gateway dial: --dialect: \"auto\" is none; the dialects are document and fastway (see towpath gateway dial --help)",
        ),
        (
            &["gateway", "dial", "7", "--linger", "5"],
            "towpath gateway dial: --linger: the duration 5 has no unit; write \"5s\" or \"5000ms\" (see towpath gateway dial --help)",
        ),
    ] {
        refuses(line, want);
    }
}

#[test]
fn wrong_command_lines_of_node_are_told_what_would_be_right() {
    for (line, want) in [
        (
            &["node", "sedn"][..],
            "towpath node: unknown command sedn; known: send (see towpath node --help)",
        ),
        (
            &["node", "-s", "relay.example"],
            "towpath node: --server: \"relay.example\" has no port; write \"relay.example:7200\" (see towpath node --help)",
        ),
        (
            &["node", "--network-id", "x"],
            "towpath node: --network-id: \"x\" is no number from 0 to 4294967295 (see towpath node --help)",
        ),
        (
            &["node", "--forward", "9000"],
            "towpath node: --forward: \"9000\" is a port alone; write \":9000\" for every interface or \"127.0.0.1:9000\" for this host (see towpath node --help)",
        ),
        (
            &["node", "send"],
            "towpath node send: takes one PUBLIC_ADDR, but got 0 words (see towpath node send --help)",
        ),
        (
            &["node", "send", "relay.example"],
            "towpath node send: PUBLIC_ADDR: \"relay.example\" is not an address; write an IP address and a port, like \"127.0.0.1:7000\", \"[::1]:7000\" or \":7000\" (see towpath node send --help)",
        ),
    ] {
        refuses(line, want);
    }
}

#[test]
fn the_flags_of_serve_reach_the_plan() {
    let line = [
        "serve",
        "-w",
        "3",
        "--pin",
        "--agent",
        "[::1]:0",
        "--agent",
        "127.0.0.1:0",
        "--idle-timeout=1h",
        "--config",
        "conf/towpath.toml",
        "--address-file",
        "a.json",
    ];
    let Ok(Invocation::Serve(request)) = parse(&line) else {
        panic!("not understood");
    };
    let reading = plan::read(&request, &|_| None).unwrap();
    assert_eq!(
        (reading.plan.core.workers, reading.plan.core.pin),
        (3, true)
    );
    assert_eq!(reading.plan.roles[0].listen().len(), 2);
    assert_eq!(reading.plan.core.limits.idle_timeout.as_secs(), 3600);
    assert_eq!(
        reading.plan.address_file.as_deref(),
        Some("a.json".as_ref())
    );
    let mut shown = String::new();
    reading.plan.roles[0].show(&mut shown);
    assert!(shown.contains("route demo:"), "{shown}");
}

#[test]
fn a_switch_of_the_file_can_be_turned_off() {
    let Ok(Invocation::Check(request)) = parse(&["check", "--pin=false", "--workers=2"]) else {
        panic!("not understood");
    };
    assert_eq!(
        request.keys,
        [
            ("workers", vec!["2".to_owned()]),
            ("pin", vec!["false".to_owned()]),
        ]
    );
}

#[test]
fn a_server_without_any_role_is_a_mistake() {
    let off = [
        "agent",
        "node",
        "tunnel",
        "gateway-clients",
        "gateway-servers",
    ];
    let flags: Vec<String> = off.iter().map(|role| format!("--{role}=off")).collect();
    let words: Vec<&str> = ["check"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .collect();
    let Ok(Invocation::Check(request)) = parse(&words) else {
        panic!("not understood");
    };
    let mistakes = plan::read(&request, &|_| None).unwrap_err();
    assert_eq!(
        mistakes[0].to_string(),
        "--agent: error: no role is on; give one an address, such as \
         `listen = [\"127.0.0.1:7100\"]` below `[agent]`, or --agent 127.0.0.1:7100"
    );
    assert_eq!(Failure::of_mistakes("check", &mistakes).code, exit::USAGE);
    let Ok(Invocation::Check(request)) = parse(&["check"]) else {
        panic!("not understood");
    };
    let names = [
        "TOWPATH_AGENT",
        "TOWPATH_NODE",
        "TOWPATH_TUNNEL",
        "TOWPATH_GATEWAY_CLIENTS",
        "TOWPATH_GATEWAY_SERVERS",
    ];
    let off = |name: &str| names.contains(&name).then(|| OsString::from("off"));
    let mistakes = plan::read(&request, &off).unwrap_err();
    let told = mistakes[0].to_string();
    assert!(
        told.starts_with("TOWPATH_AGENT: error: no role is on; "),
        "{told}"
    );
    assert_eq!(
        Failure::of_mistakes("check", &mistakes).code,
        exit::CONFIGURATION
    );
}

#[test]
fn flags_alone_are_a_usage_error() {
    let Ok(Invocation::Check(request)) = parse(&["check", "--workers", "x"]) else {
        panic!("not understood");
    };
    let mistakes = plan::read(&request, &|_| None).unwrap_err();
    let failure = Failure::of_mistakes("check", &mistakes);
    assert_eq!(failure.code, exit::USAGE);
    assert_eq!(
        failure.lines,
        [
            "--workers: error: wants a whole number, such as 0; found \"x\"",
            "see towpath check --help",
        ]
    );
}

#[test]
fn a_server_of_the_environment_is_checked_as_its_flag_is() {
    let words: Vec<OsString> = ["agent", "query", "a", "b"].map(OsString::from).into();
    let environment = |name: &str| (name == "TOWPATH_SERVER").then(|| OsString::from("::1"));
    let told = Invocation::parse(&words, &environment).map(|_| ());
    assert_eq!(
        told.unwrap_err().to_string(),
        "towpath agent query: TOWPATH_SERVER: \"::1\" has no brackets; write an IPv6 address like \
         \"[::1]:7100\" (see towpath agent query --help)"
    );
}

#[test]
fn every_command_that_takes_a_token_tells_what_for() {
    // A gateway and a node show a key, not a token.
    let takes_one = |line: &&&[&str]| line.len() > 1 && !["gateway", "node"].contains(&line[0]);
    for line in HELPS.iter().filter(takes_one) {
        let text = prints(line);
        assert!(text.contains("TOWPATH_TOKEN"), "{line:?}");
    }
}

#[test]
fn the_environment_stands_in_for_flags_and_a_flag_beats_it() {
    let environment = |name: &str| match name {
        "TOWPATH_CONFIG" => Some(OsString::from("other.toml")),
        "TOWPATH_LOG" => Some(OsString::from("nonsense")),
        _ => None,
    };
    let parse = |line: &[&str]| {
        let words: Vec<OsString> = line.iter().map(OsString::from).collect();
        match Invocation::parse(&words, &environment) {
            Ok(Invocation::Check(request)) => request.config,
            _ => None,
        }
    };
    assert_eq!(parse(&["check"]), Some("other.toml".into()));
    assert_eq!(parse(&["check", "-c", "x.toml"]), Some("x.toml".into()));
}

#[test]
fn wrong_command_lines_of_expose_are_told_what_would_be_right() {
    let see = "(see towpath expose --help)";
    for (line, want) in [
        (
            &["expose"][..],
            "LOCAL is missing; write the inside service as HOST:PORT",
        ),
        (
            &["expose", "localhost"],
            "\"localhost\" is no service; write it as [NAME=]HOST:PORT",
        ),
        (
            &["expose", "a b=1"],
            "\"a b\" is no name; it has 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
        ),
        (
            &["expose", "80", "127.0.0.1:80"],
            "two services are named tcp-80; write NAME=LOCAL",
        ),
        (
            &["expose", "80", "81", "--port", "1"],
            "--port is for one service, and there are 2",
        ),
        (
            &["expose", "80", "--port", "x"],
            "--port: \"x\" is no number from 0 to 65535",
        ),
        (
            &["expose", "80", "--proxy-protocol", "v3"],
            "--proxy-protocol: \"v3\" is no version; it is v1 or v2",
        ),
        (
            &["expose", "80", "--udp", "--proxy-protocol", "v1"],
            "--proxy-protocol v1 is for streams only; with --udp it is v2",
        ),
        (
            &["expose", "80", "--server", "a"],
            "--server: \"a\" has no port; write \"a:7400\"",
        ),
    ] {
        refuses(line, &format!("towpath expose: {want} {see}"));
    }
}

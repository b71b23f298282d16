//! What an installation has besides the program: the unit, the man page, the shells' completions,
//! each judged by the tool that reads it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::command::{TOWPATH, towpath};
use crate::support::folder::Folder;

/// Runs a tool to its end and gives its stdout; fails unless it ends well and finds no fault.
fn quiet(program: &str, arguments: &[&str]) -> String {
    let folder = Folder::new();
    let output = Command::new(program)
        .args(arguments)
        .env("HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env("XDG_DATA_HOME", folder.path())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; .ci/run installs it"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{program}: {said}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn generated(folder: &Folder, what: &[&str]) -> String {
    let arguments = [&["gen"], what].concat();
    let text = towpath(&arguments, &[], b"").expect(0).text();
    assert!(text.ends_with('\n'));
    let path = folder.write(what.last().unwrap(), text);
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_man_page_is_without_fault() {
    let folder = Folder::new();
    let page = generated(&folder, &["man"]);
    let shown = quiet("groff", &["-man", "-Tascii", "-P-cbou", "-ww", &page]);
    for text in [
        "NAME",
        "towpath - relay server for Linux, and its clients",
        "towpath serve [FLAGS]",
        "-c, --config FILE",
        "TOWPATH_IDLE_TIMEOUT",
        "/etc/towpath/towpath.toml",
        "SIGTERM, SIGINT",
        "EXIT STATUS",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(!shown.contains("\\f") && !shown.contains("\\-"), "{shown}");
}

/// What bash offers for the last of these words.
fn offered(script: &str, words: &[&str]) -> Vec<String> {
    let ask = "source \"$1\"; shift; COMP_WORDS=(towpath \"$@\"); COMP_CWORD=$#; _towpath; \
               printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut arguments = vec!["--norc", "-c", ask, "bash", script];
    arguments.extend(words);
    let lines = quiet("bash", &arguments);
    lines.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = Folder::new();
    let script = generated(&folder, &["completions", "bash"]);
    let file = folder.write("some file.toml", "");
    let file = file.to_str().unwrap();
    let start = &file[..file.len() - 5];
    for (words, want) in [
        (&["se"][..], &["serve"][..]),
        (&["agent", ""], &["update", "query", "--help", "-h"]),
        (&["node", "se"], &["send"]),
        (&["agent", "update", "--to"], &["--token-file"]),
        (&["agent", "update", "x", "y", start], &[file]),
        (&["serve", "--relay", ""], &["auto", "copy", "splice"]),
        (
            &["serve", "--log", "="],
            &["off", "error", "warn", "info", "debug", "trace"],
        ),
        (&["serve", "--log", "=", "in"], &["info"]),
        (&["serve", "-c", start], &[file]),
        (&["serve", "-w", ""], &[""]),
        (&["serve", "--data-dir", start], &[""]),
        (&["check", "--agent-max-v"], &["--agent-max-value"]),
        (&["gateway", "dial", "--dialect", "f"], &["fastway"]),
        (&["gen", "completions", "z"], &["zsh"]),
        (&["--v"], &["--version"]),
    ] {
        assert_eq!(offered(&script, words), want, "{words:?}");
    }
}

#[test]
fn fish_completes_the_same() {
    let folder = Folder::new();
    let script = generated(&folder, &["completions", "fish"]);
    quiet("fish", &["--no-config", "--no-execute", &script]);
    for (line, want) in [
        (
            "se",
            "serve\trun every role that has an address to listen on\n",
        ),
        ("serve --log in", "info\t"),
        ("node se", "send\tsend lines to a node\n"),
        (
            "agent update --rem",
            "--remove\tremove the value instead of writing one\n",
        ),
        ("gen completions z", "zsh\n"),
        ("serve --workers ", ""),
    ] {
        let ask = format!("source {script}; complete -C 'towpath {line}'");
        let offered = quiet("fish", &["--no-config", "-c", &ask]);
        assert!(offered.starts_with(want), "{line}: {offered}");
        assert!(offered.lines().count() <= 1, "{line}: {offered}");
    }
}

#[test]
fn zsh_reads_its_completions() {
    let folder = Folder::new();
    let script = generated(&folder, &["completions", "zsh"]);
    quiet("zsh", &["-f", "-n", &script]);
    let text = std::fs::read_to_string(script).unwrap();
    assert!(text.starts_with("#compdef towpath\n"));
    for spec in [
        "'--log=[what to log",
        ":one of them:(auto copy splice)'",
        "'(-c --config)'{-c,--config=}'[configuration file]:FILE:_files'",
    ] {
        assert!(text.contains(spec), "{spec}");
    }
}

fn install(folder: &Folder, target: &str) {
    let root = folder.path().to_str().unwrap();
    let top = env!("CARGO_MANIFEST_DIR");
    let (binary, root) = (format!("BINARY={TOWPATH}"), format!("DESTDIR={root}"));
    let words = ["-s", "-C", top, target, &binary, &root, "PREFIX=/usr"];
    quiet("make", &words);
}

fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => {
                    let inside = path.strip_prefix(folder).unwrap();
                    found.insert(inside.to_str().unwrap().to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn an_installation_has_everything_and_goes_without_the_configuration() {
    let folder = Folder::new();
    install(&folder, "install");
    let configuration = folder.path().join("etc/towpath/towpath.toml");
    std::fs::write(&configuration, "# mine\n").unwrap();
    install(&folder, "install");
    assert_eq!(std::fs::read(&configuration).unwrap(), b"# mine\n");
    let want = [
        "etc/towpath/towpath.toml",
        "usr/bin/towpath",
        "usr/lib/systemd/system/towpath.service",
        "usr/share/bash-completion/completions/towpath",
        "usr/share/fish/vendor_completions.d/towpath.fish",
        "usr/share/man/man1/towpath.1",
        "usr/share/zsh/site-functions/_towpath",
    ];
    assert_eq!(files_below(folder.path()), want.map(str::to_owned).into());
    let unit = folder.path().join(want[2]);
    let unit = std::fs::read_to_string(unit).unwrap();
    let start = "ExecStart=/usr/bin/towpath serve --config /etc/towpath/towpath.toml ";
    assert!(unit.contains(start));
    let page = folder.path().join(want[5]);
    let page = std::fs::read(page).unwrap();
    assert_eq!(page, towpath(&["gen", "man"], &[], b"").expect(0).output);
    install(&folder, "uninstall");
    assert_eq!(files_below(folder.path()), [want[0].to_owned()].into());
}

#[test]
fn systemd_finds_no_fault_with_the_units() {
    let folder = Folder::new();
    let top = env!("CARGO_MANIFEST_DIR");
    let mut paths = Vec::new();
    for name in ["towpath.service", "towpath.socket"] {
        let unit = std::fs::read_to_string(format!("{top}/conf/{name}")).unwrap();
        paths.push(folder.write(name, unit.replace("/usr/bin/towpath", TOWPATH)));
    }
    for path in &paths {
        // Of a fault that it can pass over it tells, and ends well.
        quiet(
            "systemd-analyze",
            &["verify", "--man=no", path.to_str().unwrap()],
        );
    }
}

/// The system calls of a set, those of the sets within it among them.
fn calls(set: &str) -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    let mut open = vec![set.to_owned()];
    while let Some(set) = open.pop() {
        let text = quiet("systemd-analyze", &["syscall-filter", &set]);
        let members = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('#'));
        for member in members.filter(|member| *member != set && !member.is_empty()) {
            match member.starts_with('@') {
                true => open.push(member.to_owned()),
                false => {
                    calls.insert(member.to_owned());
                }
            }
        }
    }
    calls
}

#[test]
fn the_unit_allows_the_calls_that_relaying_needs() {
    let unit = format!("{}/conf/towpath.service", env!("CARGO_MANIFEST_DIR"));
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("\nSystemCallFilter=@system-service\n"));
    let calls = calls("@system-service");
    for call in [
        "splice",
        "pipe2",
        "fcntl",
        "recvmmsg",
        "sendmmsg",
        "sendmsg",
        "epoll_create1",
        "epoll_ctl",
        "epoll_wait",
        "eventfd2",
        "accept4",
        "setsockopt",
        "ioctl",
        "prlimit64",
        "sched_setaffinity",
        "getrandom",
        "fdatasync",
        "madvise",
    ] {
        assert!(calls.contains(call), "{call}");
    }
}

/// After how long systemd kills a server that drains, in seconds.
#[test]
fn the_unit_waits_for_a_whole_drain() {
    let top = env!("CARGO_MANIFEST_DIR");
    let read = |name: &str| std::fs::read_to_string(format!("{top}/conf/{name}")).unwrap();
    let (unit, configuration) = (read("towpath.service"), read("towpath.toml"));
    let value = |text: &str, name: &str| -> u64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        let digits = line.chars().skip(name.len()).filter(char::is_ascii_digit);
        digits.collect::<String>().parse().unwrap()
    };
    let drain = value(&configuration, "drain_timeout");
    assert!(value(&unit, "TimeoutStopSec=") > drain);
}

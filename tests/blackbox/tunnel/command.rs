//! `towpath expose` from its user's side: what it prints, what it refuses, whom it keeps trying.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::backend::Backend;
use crate::support::command::towpath;
use crate::support::folder::Folder;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::{Program, answer, expect_echoing};
use crate::support::tunnel::wire::TOKEN;
use crate::support::until;

fn identity(folder: &Folder) -> PathBuf {
    folder.path().join("expose.id")
}

#[test]
fn the_public_address_is_printed() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let local = backend.address.to_string();
    let program = Program::spawn(tunnel.address, &identity(&folder), &[&local]);
    let line = program.lines(1).remove(0);
    let address = line.split_whitespace().find_map(|word| word.parse().ok());
    let public = address.unwrap_or_else(|| panic!("{line:?}"));
    expect_echoing(public);
    assert_eq!(public.port(), *tunnel.ports.start());
    // What it does, it says elsewhere, and a line is enough.
    assert_eq!(program.lines(1).len(), 1);
    assert!(program.said().lines().count() <= 3, "{}", program.said());
    program.stop();
    tunnel.stop();
}

#[test]
fn scripts_read_all_services_from_one_line() {
    let (tunnel, folder) = (Tunnel::new(3), Folder::new());
    let [web, ssh] = ["I am web", "I am ssh"].map(Backend::banner);
    let [web_local, ssh_local] = [&web, &ssh].map(|backend| backend.address.to_string());
    let words = [format!("web={web_local}"), format!("ssh={ssh_local}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let program = Program::start(tunnel.address, &identity(&folder), &words);
    let line = program.lines(1).remove(0);
    let object: serde_json::Value = serde_json::from_str(&line).unwrap();
    let services = object["services"].as_array().unwrap();
    assert_eq!(services.len(), 2, "{line}");
    assert_eq!(object["public"], services[0]["public"], "{line}");
    for (service, (name, local)) in services
        .iter()
        .zip([("web", &web_local), ("ssh", &ssh_local)])
    {
        assert_eq!(
            (&service["name"], &service["local"]),
            (&name.into(), &local.as_str().into())
        );
        let said = answer(program.public_of(name), b"").unwrap();
        assert_eq!(said, format!("I am {name}").as_bytes());
    }
    program.stop();
    tunnel.stop();
}

#[test]
fn names_and_a_wanted_port_are_told_to_the_server() {
    let (plan, folder, backend) = (Plan::new(4), Folder::new(), Backend::echo());
    let tunnel = plan.start();
    let local = backend.address.to_string();
    let wanted = tunnel.ports.end().to_string();
    let words = ["--name", "echo", "--port", &wanted, &local];
    let program = Program::start(tunnel.address, &identity(&folder), &words);
    assert_eq!(program.public().port(), *tunnel.ports.end());
    assert_eq!(program.public_of("echo"), program.public());
    expect_echoing(program.public());
    program.stop();
}

#[test]
fn an_identity_is_made_once_and_in_private() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let path = folder.path().join("deep/down/expose.id");
    let local = backend.address.to_string();
    let program = Program::start(tunnel.address, &path, &[&local]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let made = std::fs::read(&path).unwrap();
    let public = program.public();
    program.stop();
    let program = Program::start(tunnel.address, &path, &[&local]);
    assert_eq!(program.public(), public);
    assert_eq!(std::fs::read(&path).unwrap(), made);
    program.stop();
}

#[test]
fn an_identity_without_a_flag_has_a_place_of_its_own() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let state = folder.path().to_str().unwrap().to_owned();
    let server = tunnel.address.to_string();
    let local = backend.address.to_string();
    let mut child = std::process::Command::new(crate::support::command::TOWPATH)
        .args(["expose", "--json", &local])
        .env("XDG_STATE_HOME", &state)
        .env("TOWPATH_SERVER", &server)
        .env("TOWPATH_TOKEN", TOKEN)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let made = || {
        let files = std::fs::read_dir(folder.path().join("towpath"));
        files.is_ok_and(|mut files| files.next().is_some())
    };
    until("an identity is made", made);
    child.kill().unwrap();
    child.wait().unwrap();
    for file in std::fs::read_dir(folder.path().join("towpath")).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[test]
fn a_token_may_come_from_a_file() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let file = folder.write("token", format!("{TOKEN}\n"));
    let words = [
        "--token-file",
        file.to_str().unwrap(),
        "--json",
        &backend.address.to_string(),
    ];
    // A flag beats the environment.
    let path = identity(&folder);
    let program = Program::spawn_with(tunnel.address, &path, &words, "another");
    expect_echoing(program.public());
}

#[test]
fn a_wrong_token_is_told_in_one_line() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let words = [backend.address.to_string()];
    let path = identity(&folder);
    let program = Program::spawn_with(tunnel.address, &path, &[&words[0]], "a wrong token");
    let (code, said) = program.finish();
    assert!(matches!(code, Some(1 | 77)), "{code:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("token"), "{said}");
    assert!(!said.contains("a wrong token"), "the token itself: {said}");
    tunnel.stop();
}

#[test]
fn a_refused_port_is_told_in_one_line() {
    let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
    let local = backend.address.to_string();
    let program = Program::spawn(tunnel.address, &identity(&folder), &["--port", "1", &local]);
    let (code, said) = program.finish();
    assert!(matches!(code, Some(1..)), "{code:?}: {said}");
    assert!(said.contains("range"), "{said}");
    assert!(said.lines().count() <= 2, "{said}");
}

#[test]
fn a_usage_error_says_what_is_wrong() {
    for (words, part) in [
        (&["expose"][..], "LOCAL"),
        (&["expose", "nonsense"], "nonsense"),
        (&["expose", "127.0.0.1"], "127.0.0.1"),
        (&["expose", "a b=127.0.0.1:1"], "a b"),
        (&["expose", "web=127.0.0.1:1", "web=127.0.0.1:2"], "web"),
        (
            &["expose", "n1=127.0.0.1:1", "--name", "n2"],
            "two names, n1 and --name n2",
        ),
        (&["expose", "--port", "70000", "127.0.0.1:1"], "70000"),
        (&["expose", "--proxy-protocol", "v3", "127.0.0.1:1"], "v3"),
        (
            &["expose", "--udp", "--proxy-protocol", "v1", "127.0.0.1:1"],
            "v1",
        ),
        (&["expose", "--mux", "--direct", "127.0.0.1:1"], "--direct"),
        (&["expose", "--nonsense", "127.0.0.1:1"], "nonsense"),
    ] {
        let finished = towpath(words, &[("TOWPATH_SERVER", "127.0.0.1:1")], b"").expect(2);
        assert!(
            finished.error.contains(part),
            "{words:?}: {}",
            finished.error
        );
        assert!(finished.error.contains("--help"), "{}", finished.error);
        assert_eq!(finished.text(), "");
    }
    let help = towpath(&["expose", "--help"], &[], b"").expect(0);
    for flag in [
        "--identity",
        "--proxy-protocol",
        "--mux",
        "--direct",
        "--udp",
        "--port",
        "--json",
    ] {
        assert!(help.text().contains(flag), "{flag}");
    }
}

#[test]
fn a_server_that_is_not_there_is_tried_again() {
    let (plan, folder, backend) = (Plan::fixed(1), Folder::new(), Backend::echo());
    let tunnel = plan.start();
    let address = tunnel.address;
    tunnel.stop();
    let local = backend.address.to_string();
    let program = Program::spawn(address, &identity(&folder), &["--json", &local]);
    program.expect_said(&address.to_string());
    // A line for each try, and each says where and why.
    let said = program.said();
    let is_clear = |line: &str| line.contains(&address.to_string()) && line.contains("refused");
    assert!(said.lines().all(is_clear), "{said}");
    let _tunnel = plan.start();
    expect_echoing(program.public());
    program.stop();
}

#[test]
fn a_server_that_speaks_another_protocol_is_told() {
    let folder = Folder::new();
    let backend =
        Backend::banner("SSH-2.0-OpenSSH_9.2 and something that is no challenge at all\r\n");
    let local = "127.0.0.1:9";
    let program = Program::spawn(backend.address, &identity(&folder), &[local]);
    program.expect_said(&backend.address.to_string());
    assert!(!program.said().contains("panicked"), "{}", program.said());
}

#[test]
fn a_server_that_does_not_know_the_token_is_not_believed() {
    use std::io::{Read, Write};

    // It welcomes everybody, with a proof of nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = Folder::new();
    let _program = Program::spawn(address, &identity(&folder), &["127.0.0.1:9"]);
    let (mut stream, _) = listener.accept().unwrap();
    stream
        .set_read_timeout(Some(crate::support::DEADLINE))
        .unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"TWP1C");
    stream.write_all(&[7; 32]).unwrap();
    let mut proof = [0; 80];
    stream.read_exact(&mut proof).unwrap();
    // Welcome behind it, and a ping that nobody shall answer.
    let welcome = crate::support::tunnel::wire::frame(12, &[1; 16]);
    let ping = crate::support::tunnel::wire::ping(1);
    stream
        .write_all(&[&[0; 33][..], &welcome, &ping].concat())
        .unwrap();
    let mut rest = Vec::new();
    // Closed, by FIN or by RST, and without a wish.
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty(), "{rest:02x?}");
}

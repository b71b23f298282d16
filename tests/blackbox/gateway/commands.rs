//! `towpath gateway echo` and `towpath gateway dial`, against the real program and raw endpoints.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use crate::support::command::{Finished, Log, TOWPATH, towpath, wait};
use crate::support::folder::Folder;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, KEY, Plan};
use crate::support::until;

const ID: u32 = 7;

/// A running `towpath gateway echo`.
struct EchoCommand {
    child: Child,
    log: Log,
    _folder: Folder,
}

impl EchoCommand {
    /// Starts it and waits until it can be dialled.
    fn start(gateway: &Gateway, dialect: Dialect) -> Self {
        let folder = Folder::new();
        let key = folder.write("key", format!("{KEY}\n"));
        let mut child = Command::new(TOWPATH)
            .args(["gateway", "echo", "--id", &ID.to_string()])
            .args(["--server", &gateway.servers.to_string()])
            .args(["--dialect", dialect.name()])
            .arg("--key-file")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let echo = Self {
            child,
            log,
            _folder: folder,
        };
        let mut client = gateway.client(Dialect::Fastway);
        until("the echo server can be dialled", || {
            client.try_dial(ID).is_some()
        });
        echo
    }
}

impl Drop for EchoCommand {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the echo server\n{}---", self.log.text());
        }
    }
}

fn dial(gateway: &Gateway, dialect: Dialect, id: u32, input: &[u8]) -> Finished {
    let (address, id) = (gateway.clients.to_string(), id.to_string());
    let arguments = [
        "gateway",
        "dial",
        &id,
        "--server",
        &address,
        "--dialect",
        dialect.name(),
        // How long the last answer may be in coming.
        "--linger",
        "5s",
    ];
    towpath(&arguments, &[], input)
}

#[test]
fn lines_come_back_from_an_echo_server() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let _echo = EchoCommand::start(&gateway, of_server);
        // Both at a time, as each waits for more to come.
        std::thread::scope(|scope| {
            for of_client in DIALECTS {
                let gateway = &gateway;
                scope.spawn(move || {
                    let input = b"one\ntwo\n\nand the last\n";
                    let finished = dial(gateway, of_client, ID, input).expect(0);
                    assert_eq!(finished.text().as_bytes(), input);
                });
            }
        });
    }
}

#[test]
fn an_echo_server_serves_raw_clients() {
    for of_server in DIALECTS {
        let gateway = Gateway::new(of_server);
        let _echo = EchoCommand::start(&gateway, of_server);
        for of_client in DIALECTS {
            let mut client = gateway.client(of_client);
            let conns = [client.dial(ID), client.dial(ID)];
            for size in [0, 1, 64, 100_000] {
                for conn in conns {
                    client.data(conn, &vec![3; size]);
                    client.expect(Got::Data(conn, vec![3; size]));
                }
            }
            client
                .close(conns[0])
                .expect(Got::Close(conns[0]))
                .expect_quiet();
            client
                .data(conns[1], b"still")
                .expect(Got::Data(conns[1], b"still".into()));
        }
    }
}

#[test]
fn an_echo_server_outlives_its_pings() {
    for of_server in DIALECTS {
        let plan = Plan::new(of_server).text("server_idle_timeout", "15s");
        let gateway = plan.start();
        let mut echo = EchoCommand::start(&gateway, of_server);
        dial(&gateway, of_server, ID, b"alive\n").expect(0);
        assert!(
            echo.child.try_wait().unwrap().is_none(),
            "{}",
            echo.log.text()
        );
    }
}

#[test]
fn a_dial_shows_each_line_as_it_comes() {
    let gateway = Gateway::new(Dialect::Fastway);
    let mut server = gateway.server(ID);
    let mut child = Command::new(TOWPATH)
        .args(["gateway", "dial", &ID.to_string(), "--dialect", "fastway"])
        .args(["--server", &gateway.clients.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let (conn, _) = server.joined();
    for line in ["first\n", "second\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let Got::Data(on, payload) = server.got() else {
            panic!("no data");
        };
        assert_eq!(on, conn);
        assert_eq!(payload.trim_ascii_end(), line.trim_end().as_bytes());
        server.data(conn, &payload);
        let mut shown = String::new();
        output.read_line(&mut shown).unwrap();
        assert_eq!(shown, line);
    }
    // The other side's end is the command's end, whatever its stdin does.
    server.close(conn);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    assert_eq!(wait(&mut child).code(), Some(0));
}

#[test]
fn a_dial_that_is_refused_fails_and_says_so() {
    let gateway = Gateway::new(Dialect::Fastway);
    for dialect in DIALECTS {
        let finished = dial(&gateway, dialect, 99, b"input\n").expect(1);
        assert_eq!(finished.text(), "");
        assert!(finished.error.contains("99"), "{}", finished.error);
    }
}

#[test]
fn a_gateway_that_is_not_there_is_a_failure_that_names_it() {
    let refusing = crate::support::backend::Refusing::new();
    let address = refusing.address.to_string();
    let finished = towpath(&["gateway", "dial", "7", "--server", &address], &[], b"");
    assert!(matches!(finished.code, Some(1 | 75)), "{finished:?}");
    assert!(finished.error.contains(&address), "{}", finished.error);
}

#[test]
fn usage_errors_say_what_would_be_right() {
    let wrong: [&[&str]; 6] = [
        &["gateway"],
        &["gateway", "echo"],
        &["gateway", "dial"],
        &["gateway", "dial", "seven"],
        &["gateway", "dial", "4294967296"],
        &["gateway", "dial", "7", "--dialect", "auto"],
    ];
    for arguments in wrong {
        let finished = towpath(arguments, &[], b"").expect(2);
        assert_eq!(finished.text(), "", "{arguments:?}");
        assert!(
            finished.error.contains("--help"),
            "{arguments:?}: {}",
            finished.error
        );
    }
    for command in ["echo", "dial"] {
        let help = towpath(&["gateway", command, "--help"], &[], b"").expect(0);
        assert!(help.text().contains("--dialect"), "{}", help.text());
    }
}

#[test]
fn a_wrong_key_is_never_registered_and_never_shown() {
    let gateway = Gateway::new(Dialect::Fastway);
    let folder = Folder::new();
    let key = folder.write("key", "not the right key\n");
    let mut child = Command::new(TOWPATH)
        .args(["gateway", "echo", "--id", "7", "--dialect", "fastway"])
        .args(["--server", &gateway.servers.to_string(), "--key-file"])
        .arg(key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Log::follow(child.stderr.take().unwrap());
    until("the command says that it is not wanted", || {
        !log.text().is_empty() || child.try_wait().unwrap().is_some()
    });
    gateway.client(Dialect::Fastway).expect_refused(ID);
    let _ = child.kill();
    child.wait().unwrap();
    assert!(!log.finish().contains("right key"));
}

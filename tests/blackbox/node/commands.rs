//! `towpath node` against the real server: its address over restarts, take-overs, what it prints.

use std::io::Read;
use std::net::TcpListener;
use std::sync::Arc;

use serde_json::Value;

use crate::support::DEADLINE;
use crate::support::folder::Folder;
use crate::support::node::message::{Message, Sender, field, frame, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::node::program::{Program, send};
use crate::support::peer::Peer;
use crate::support::until;

#[test]
fn the_first_line_is_the_address() {
    let proxy = Proxy::new(2);
    let folder = Folder::new();
    let plain = Program::start(proxy.address, &folder.path().join("one"), &[]);
    let public = plain.public();
    assert_eq!(plain.shown(), [public.to_string()]);
    let json = Program::start(proxy.address, &folder.path().join("two"), &["--json"]);
    let line = json.lines(1).remove(0);
    let object: Value = serde_json::from_str(&line).unwrap();
    let other = json.public();
    assert_eq!(object, serde_json::json!({ "public": other.to_string() }));
    assert_ne!(public, other);
    for public in [public, other] {
        assert!(proxy.ports.contains(&public.port()));
    }
}

#[test]
fn it_comes_back_to_its_address_by_itself() {
    let folder = Arc::new(Folder::new());
    let plan = Plan::fixed(8).folder(&folder);
    let mut proxy = plan.start();
    let keys: Vec<_> = (0..3)
        .map(|number| folder.path().join(format!("key{number}")))
        .collect();
    let programs: Vec<Program> = keys
        .iter()
        .map(|key| Program::start(proxy.address, key, &[]))
        .collect();
    let publics: Vec<_> = programs.iter().map(Program::public).collect();
    for round in 0..3 {
        match round % 2 {
            0 => proxy.server.kill(),
            _ => proxy.server.stop(),
        }
        proxy = plan.start();
        for (number, (program, public)) in programs.iter().zip(&publics).enumerate() {
            let line = format!("round {round}, node {number}\n");
            // It may have come to the former server once more while that was ending, so that how
            // often it says that it is back does not tell that it is.
            until("the node is back", || {
                send(*public, &keys[number], &[], line.as_bytes()).code == Some(0)
            });
            until("it says so", || {
                program.said().matches("connected to").count() >= round + 2
            });
            // Only what is new is printed: the address is not.
            let shown = program.lines(round + 2);
            assert_eq!(shown.last().unwrap(), line.trim_end());
            assert_eq!(shown.len(), round + 2, "{shown:?}");
        }
    }
}

#[test]
fn messages_are_one_line_each() {
    let proxy = Proxy::new(2);
    let folder = Folder::new();
    let program = Program::start(proxy.address, &folder.path().join("key"), &["--json"]);
    let mut peer = Peer::connect(program.public());
    let sender = Sender::number(9);
    let text = Message::new(opcode::BYTES, &sender).message(&field(1, b"one\ntwo"));
    let other = Message::new(1000, &sender).message(b"anything");
    peer.send([text.frame(), other.frame(), frame(b"\xff\xfe no message")].concat());
    let lines = program.lines(4);
    let objects: Vec<Value> = lines[1..]
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(objects[0]["data"], "one\ntwo");
    assert_eq!(objects[0]["from"], "tcp://10.0.0.1:9");
    assert_eq!(objects[1]["opcode"], 1000);
    assert_eq!(objects[1]["data"], "anything");
    assert!(
        objects[2]["hex"].as_str().unwrap().starts_with("fffe"),
        "{lines:?}"
    );
}

#[test]
fn data_is_forwarded_in_order() {
    let proxy = Proxy::new(2);
    let folder = Folder::new();
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap().to_string();
    let key = folder.path().join("key");
    let program = Program::start(proxy.address, &key, &["--forward", &to]);
    let input: String = (0..3000).map(|number| format!("{number};\n")).collect();
    send(program.public(), &key, &[], input.as_bytes()).expect(0);
    let (mut stream, _) = target.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let want = input.replace('\n', "");
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), want);
}

#[test]
fn a_frozen_program_is_taken_over_by_a_second_one() {
    let proxy = Proxy::new(2);
    let folder = Folder::new();
    let key = folder.path().join("key");
    let first = Program::start(proxy.address, &key, &[]);
    let public = first.public();
    let copy = folder.write("copy", std::fs::read(&key).unwrap());
    owner_only(&copy);
    first.signal("STOP");
    let second = Program::start(proxy.address, &copy, &[]);
    assert_eq!(second.public(), public);
    send(public, &copy, &[], b"to the second\n").expect(0);
    assert_eq!(second.lines(2)[1], "to the second");
    first.signal("CONT");
    drop(first);
    send(public, &copy, &[], b"still to the second\n").expect(0);
    assert_eq!(second.lines(3)[2], "still to the second");
}

fn owner_only(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn signed_programs_are_served_where_keys_are_listed() {
    let folder = Folder::new();
    let key = folder.path().join("key");
    // Its public key is in what it sends.
    let open = Proxy::new(1);
    let program = Program::start(open.address, &key, &[]);
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    drop(program);
    let to = target.local_addr().unwrap();
    let listening = std::thread::spawn(move || {
        let (mut stream, _) = target.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    send(to, &key, &[], b"hello\n").expect(0);
    let bytes = listening.join().unwrap();
    let public_key = Message::of_frame(&bytes).sender.net_key;
    let hex: String = public_key
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let strict = Plan::new(2)
        .key("allow_keys", &format!("[{hex:?}]"))
        .start();
    let signed = Program::start(strict.address, &key, &["--sign"]);
    send(signed.public(), &key, &[], b"in\n").expect(0);
    assert_eq!(signed.lines(2)[1], "in");
    // Another key is not served: the command fails, or says so and tries again.
    let mut other = std::process::Command::new(crate::support::command::TOWPATH);
    let other = other
        .args([
            "node",
            "--server",
            &strict.address.to_string(),
            "--sign",
            "--identity",
        ])
        .arg(folder.path().join("other"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = other.spawn().unwrap();
    let log = crate::support::command::Log::follow(child.stderr.take().unwrap());
    until("it says that it is not wanted", || {
        !log.text().is_empty() || child.try_wait().unwrap().is_some()
    });
    let _ = child.kill();
    child.wait().unwrap();
    let mut shown = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut shown)
        .unwrap();
    assert_eq!(shown, "");
}

//! `towpath node` and `towpath node send` from their user's side, with a relay of a few lines in the
//! server's place, which knows the protocol's frames and nothing of the program.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use serde_json::Value;

use crate::support::backend::Refusing;
use crate::support::command::{Finished, Log, TOWPATH, towpath};
use crate::support::folder::Folder;
use crate::support::{DEADLINE, until};

const NETWORK_ID: u32 = 1_564_141_146;
const HEAD: usize = 10;

/// Reads one frame; none at the end.
fn frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    stream.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes(frame[6..].try_into().unwrap());
    assert_eq!(frame[..4], NETWORK_ID.to_be_bytes());
    frame.resize(HEAD + length as usize, 0);
    stream.read_exact(&mut frame[HEAD..]).ok()?;
    Some(frame)
}

/// A field of bytes, shorter than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let head = [number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
    [&head[..], bytes].concat()
}

/// What gives a node its address.
fn response(public: SocketAddr) -> Vec<u8> {
    let sender = [
        field(1, b"PORTER_TCP_NETKEY"),
        field(2, b"tcp://127.0.0.1:7200"),
    ];
    let body = [
        field(1, &field(2, public.to_string().as_bytes())),
        field(2, &sender.concat()),
        // Nonce 1, opcode 9, the network.
        vec![0x28, 1, 0x38, 9, 0x40, 0xda, 0xcc, 0xeb, 0xe9, 0x05],
    ];
    let body = body.concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&NETWORK_ID.to_be_bytes()[..], &[0, 1], &length, &body].concat()
}

/// A relay: the first frame of a connection asks, everything that comes to the node's port goes to
/// its connection.
struct Relay {
    address: SocketAddr,
    /// The requests, in order, each with its connection.
    nodes: Receiver<(Vec<u8>, TcpStream)>,
}

impl Relay {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, nodes) = channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let tell = tell.clone();
                thread::spawn(move || serve(stream.unwrap(), &tell));
            }
        });
        Self { address, nodes }
    }

    fn next(&self) -> (Vec<u8>, TcpStream) {
        self.nodes.recv_timeout(DEADLINE).unwrap()
    }
}

fn serve(mut main: TcpStream, tell: &Sender<(Vec<u8>, TcpStream)>) {
    let Some(request) = frame(&mut main) else {
        return;
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    main.write_all(&response(port.local_addr().unwrap()))
        .unwrap();
    // The test may have ended.
    let _ = tell.send((request, main.try_clone().unwrap()));
    for peer in port.incoming() {
        let (mut peer, mut main) = (peer.unwrap(), main.try_clone().unwrap());
        thread::spawn(move || {
            while let Some(frame) = frame(&mut peer) {
                if main.write_all(&frame).is_err() {
                    return;
                }
            }
        });
    }
}

/// A running `towpath node`.
struct Node {
    child: Child,
    out: Log,
    error: Log,
}

impl Node {
    fn start(relay: &Relay, identity: &Path, flags: &[&str]) -> Self {
        let mut command = Command::new(TOWPATH);
        command
            .args(["node", "--server", &relay.address.to_string()])
            .arg("--identity")
            .arg(identity)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = Log::follow(child.stdout.take().unwrap());
        let error = Log::follow(child.stderr.take().unwrap());
        let node = Self { child, out, error };
        node.wait_for("an address", 1);
        node
    }

    /// The lines of stdout, once there are so many.
    fn wait_for(&self, what: &str, count: usize) -> Vec<String> {
        until(what, || self.out.text().lines().count() >= count);
        self.out.text().lines().map(str::to_owned).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(to: &str, answer_to: &str, identity: &Path, input: &[u8]) -> Finished {
    let identity = identity.to_str().unwrap();
    let words = ["node", "send", to, "--answer-to", answer_to];
    let words = [&words[..], &["--identity", identity]].concat();
    towpath(&words, &[], input)
}

#[test]
fn two_nodes_reach_each_other_by_their_public_addresses() {
    let (relay, folder) = (Relay::start(), Folder::new());
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let first = Node::start(&relay, &one, &[]);
    let second = Node::start(&relay, &two, &["--reply", "--json"]);
    let first_address = first.wait_for("an address", 1).remove(0);
    let object: Value = serde_json::from_str(&second.wait_for("an address", 1)[0]).unwrap();
    let second_address = object["public"].as_str().unwrap();

    let input = b"hello\n\x1b[2J and \xff\nlast";
    let sent = send(second_address, &first_address, &one, input).expect(0);
    assert_eq!((sent.text().as_str(), sent.error.as_str()), ("", ""));

    let lines = second.wait_for("three messages", 4);
    let from = format!("tcp://{first_address}");
    let want = [
        ("data", "hello"),
        ("hex", "1b5b324a20616e6420ff"),
        ("data", "last"),
    ];
    for (line, (key, value)) in lines[1..].iter().zip(want) {
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["opcode"], 1);
        assert_eq!(
            (&object[key], &object["from"]),
            (&value.into(), &from.as_str().into())
        );
    }
    // The replies have come back over the first node's address, and cannot clear the screen.
    let lines = first.wait_for("three replies", 4);
    assert_eq!(lines[1..], ["hello", "\\u{1b}[2J and \u{fffd}", "last"]);
    let want = format!(
        "connected to {}, public address {first_address}\n",
        relay.address
    );
    until("the way is told", || first.error.text().lines().count() > 0);
    assert_eq!(first.error.text(), want);
}

#[test]
fn data_is_handed_to_a_connection_in_order() {
    let (relay, folder) = (Relay::start(), Folder::new());
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap().to_string();
    let identity = folder.path().join("key");
    let node = Node::start(&relay, &identity, &["--forward", &to]);
    let address = node.wait_for("an address", 1).remove(0);
    let input: String = (0..500).map(|number| format!("{number};\n")).collect();
    send(&address, &address, &identity, input.as_bytes()).expect(0);
    let (mut stream, _) = target.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let want = input.replace('\n', "");
    let mut got = vec![0; want.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), want);
    assert_eq!(node.out.text().lines().count(), 1);
}

#[test]
fn a_lost_server_is_found_again_under_the_same_identity() {
    let (relay, folder) = (Relay::start(), Folder::new());
    let identity = folder.path().join("key");
    let node = Node::start(&relay, &identity, &[]);
    let (first_request, main) = relay.next();
    main.shutdown(std::net::Shutdown::Both).unwrap();
    let (request, _main) = relay.next();
    assert_eq!(request, first_request);
    // This relay forgets, so that the address is another one.
    let lines = node.wait_for("another address", 2);
    assert_ne!(lines[0], lines[1]);
    until("the way is told", || node.error.text().lines().count() >= 3);
    let told = node.error.text();
    let lines: Vec<&str> = told.lines().collect();
    let start = format!("lost {}: ", relay.address);
    assert!(lines[1].starts_with(&start) && lines[1].contains("; reconnecting in "));
    assert!(lines[2].starts_with("connected to "), "{told}");
}

#[test]
fn an_identity_is_kept_in_private_and_used_by_one_node() {
    use std::os::unix::fs::PermissionsExt;

    let (relay, folder) = (Relay::start(), Folder::new());
    let server = relay.address.to_string();
    let state = folder.path().to_str().unwrap();
    let path = folder.path().join("towpath/node.key");
    let _node = Node::start(&relay, &path, &[]);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Its own place, without a flag; taken.
    let environment = [("XDG_STATE_HOME", state), ("TOWPATH_SERVER", &server)];
    let second = towpath(&["node"], &environment, b"").expect(75);
    assert!(
        second.error.contains("another towpath node"),
        "{}",
        second.error
    );
    let broken = folder.write("broken", "no key");
    let environment = [("TOWPATH_IDENTITY", broken.to_str().unwrap())];
    let refused = towpath(&["node", "--server", &server], &environment, b"").expect(78);
    assert_eq!(refused.error.lines().count(), 1, "{}", refused.error);
}

#[test]
fn a_server_that_is_not_there_is_a_failure() {
    let folder = Folder::new();
    let identity = folder.path().join("key");
    let refusing = Refusing::new();
    let gone = refusing.address.to_string();
    let environment = [("TOWPATH_IDENTITY", identity.to_str().unwrap())];
    let finished = towpath(&["node", "--server", &gone], &environment, b"").expect(1);
    assert!(finished.error.contains(&gone), "{}", finished.error);
    let finished = towpath(&["node", "send", &gone], &environment, b"x\n").expect(1);
    assert!(finished.error.contains(&gone), "{}", finished.error);
}

//! The node's blocking client against servers of a few lines each, which play the recorded
//! conversations or speak by the codec.
//!
//! Every server plays a script and ends; its thread is joined, so that a script not played to its end
//! fails the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use prost::Message as _;
use towpath::node::{self, Error, Event, Key, Node, Options, SEED};
use towpath::protocols::node::wire::{
    Bytes, Demand, HEAD, Head, MAX_FRAME, Message, NETWORK_ID, Speaker, Transport, append_frame,
    control_message, opcode, verify,
};

use crate::vectors::{self, unhex};

const PATIENCE: Duration = Duration::from_secs(20);

/// A keepalive that a test waits for. Three of them are the silence after which a server counts as
/// dead, so that scripts have that long between two words, on a busy machine too.
const SOON: Duration = Duration::from_secs(1);

/// Runs `script` on a thread with a listener on a port of its own.
fn serve(script: impl FnOnce(&TcpListener) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, thread::spawn(move || script(&listener)))
}

/// The server's end of one connection.
struct Far(TcpStream);

impl Far {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Reads one frame, whole.
    fn frame(&mut self) -> Vec<u8> {
        let mut frame = vec![0; HEAD];
        self.0.read_exact(&mut frame).unwrap();
        let head = Head::decode(&frame, NETWORK_ID, MAX_FRAME);
        frame.resize(head.unwrap().unwrap().frame_len(), 0);
        self.0.read_exact(&mut frame[HEAD..]).unwrap();
        frame
    }

    /// Reads one message, which must be one that a server takes, and checks its opcode and nonce.
    fn expect(&mut self, opcode: u32, nonce: u64) -> Vec<u8> {
        let frame = self.frame();
        let demand = control_message(&frame[HEAD..], Some(NETWORK_ID)).unwrap();
        assert_eq!((demand.opcode, demand.nonce), (opcode, nonce));
        frame
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Takes the request and gives an address.
    fn lease(listener: &TcpListener, lease: &str) -> Self {
        let mut far = Self::accept(listener);
        far.expect(opcode::PROXY_REQUEST, 1);
        far.send(&address(lease));
        far
    }

    fn expect_end(mut self) {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:02x?}");
    }
}

fn speaker() -> Speaker {
    let public = "127.0.0.1:6008".parse().unwrap();
    Speaker::new(Transport::Tcp, NETWORK_ID, public)
}

/// The frame that gives an address.
fn address(lease: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let lease: SocketAddr = lease.parse().unwrap();
    speaker().response(&mut out, 1, &Demand::default(), lease);
    out
}

fn alive() -> Vec<u8> {
    let mut out = Vec::new();
    speaker().keepalive_response(&mut out, 2);
    out
}

/// What a peer sends.
fn data(text: &[u8]) -> Vec<u8> {
    let data = text.to_vec();
    let message = Message {
        message: Bytes { data }.encode_to_vec(),
        opcode: opcode::BYTES,
        net_id: NETWORK_ID,
        ..Message::default()
    };
    let mut out = Vec::new();
    append_frame(&mut out, NETWORK_ID, &message);
    out
}

/// The node whose conversations were recorded.
fn recorded_key() -> Arc<Key> {
    let mut seed = [0; SEED];
    seed[SEED - 1] = 1;
    Arc::new(Key::from_seed(&seed).unwrap())
}

fn options() -> Options {
    Options {
        origin: "tcp://127.0.0.1:7001".to_owned(),
        ..Options::default()
    }
}

fn connect(server: &str, options: Options) -> Result<Node, Error> {
    Node::connect(server, recorded_key(), options, |_| ())
}

/// A node whose events come as words.
fn observed(server: &str, options: Options) -> (Node, Receiver<String>) {
    let (say, said) = unbounded();
    let observe = move |event: &Event<'_>| {
        let word = match event {
            Event::Connected { public, is_new } => format!("{public} {is_new}"),
            Event::Lost { why, .. } => format!("lost: {why}"),
            Event::Failed { why, .. } => format!("failed: {why}"),
            other => format!("{other:?}"),
        };
        // The test may have heard enough.
        let _ = say.send(word);
    };
    let node = Node::connect(server, recorded_key(), options, observe).unwrap();
    (node, said)
}

fn next(said: &Receiver<String>) -> String {
    said.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn nodes_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Node>();
    crosses::<Error>();
}

#[test]
fn a_node_says_what_recorded_nodes_said() {
    // Equal but for the head's compression, which recorded nodes write as "gzip, off".
    fn same(ours: &[u8], recorded: &[u8]) {
        assert_eq!(recorded[4..6], [0, 2]);
        assert_eq!(ours[4..6], [0, 1]);
        assert_eq!(ours[..4], recorded[..4]);
        assert_eq!(ours[6..], recorded[6..]);
    }
    let (server, script) = serve(|listener| {
        let lines = vectors::lines("node/request_response");
        let mut far = Far::accept(listener);
        for line in &lines {
            match line.is_sent {
                true => same(&far.frame(), &line.bytes),
                false => far.send(&line.bytes),
            }
        }
        // The nonces go on.
        far.expect(opcode::KEEPALIVE, 3);
    });
    let keepalive = SOON;
    let node = connect(
        &server,
        Options {
            keepalive,
            ..options()
        },
    )
    .unwrap();
    assert_eq!(node.public_address(), "127.0.0.1:20920");
    script.join().unwrap();
}

#[test]
fn what_peers_send_arrives_verbatim_and_the_servers_words_do_not() {
    let relayed = |line: &vectors::Line| !line.note.contains("opcode") && !line.bytes.is_empty();
    let lines: Vec<_> = vectors::lines("node/peer_to_node")
        .into_iter()
        .filter(|line| line.role == "node1-main" && !line.is_sent)
        .filter(relayed)
        .map(|line| line.bytes)
        .collect();
    let want = lines[1..].to_vec();
    assert!(want.len() > 8);
    let (server, script) = serve(move |listener| {
        let mut far = Far::accept(listener);
        far.expect(opcode::PROXY_REQUEST, 1);
        for (number, frame) in lines.iter().enumerate() {
            // In parts, and with words of the server's own between them; none behind the last, with which
            // the node leaves: what it has not read would make a reset of its end.
            if number > 0 {
                far.send(&alive());
            }
            for part in frame.chunks(7) {
                far.send(part);
            }
        }
        far.expect_end();
    });
    let node = connect(&server, options()).unwrap();
    for frame in want {
        assert_eq!(node.receive_timeout(PATIENCE).unwrap().bytes(), frame);
    }
    assert!(node.receive_timeout(Duration::ZERO).is_none());
    drop(node);
    script.join().unwrap();
}

#[test]
fn a_dead_server_is_noticed_and_the_node_comes_back() {
    let (server, script) = serve(|listener| {
        let mut mute = Far::lease(listener, "127.0.0.1:20001");
        mute.expect(opcode::KEEPALIVE, 2);
        // Says nothing more; the next connection is held while it is still open.
        let far = Far::lease(listener, "127.0.0.1:20001");
        // Ends, and gives another address afterwards. It is not closed yet: a keepalive that nobody has
        // read would make a reset of the end.
        far.0.shutdown(Shutdown::Write).unwrap();
        let _ended = (mute, far);
        let mut far = Far::lease(listener, "127.0.0.1:20002");
        far.send(&data(b"hello"));
        // Whatever keepalives come before the node leaves.
        far.0.read_to_end(&mut Vec::new()).unwrap();
    });
    let keepalive = SOON;
    let (node, said) = observed(
        &server,
        Options {
            keepalive,
            ..options()
        },
    );
    assert_eq!(next(&said), "127.0.0.1:20001 true");
    assert_eq!(next(&said), "lost: the server was silent for 3s");
    assert_eq!(next(&said), "127.0.0.1:20001 false");
    assert_eq!(next(&said), "lost: the other side closed the connection");
    assert_eq!(next(&said), "127.0.0.1:20002 true");
    assert_eq!(node.public_address(), "127.0.0.1:20002");
    let message = node.receive().unwrap().message().unwrap();
    assert_eq!(message.opcode, opcode::BYTES);
    drop(node);
    script.join().unwrap();
}

#[test]
fn a_first_failure_is_an_error() {
    let (server, script) = serve(|listener| {
        Far::accept(listener).expect(opcode::PROXY_REQUEST, 1);
        let mut far = Far::accept(listener);
        far.expect(opcode::PROXY_REQUEST, 1);
        far.send(b"HTTP/1.1 400 Bad Request\r\n");
        far.expect_end();
        let mut far = Far::accept(listener);
        far.expect(opcode::PROXY_REQUEST, 1);
        // Not an address; the node waits for one that is.
        let mut bad = address("127.0.0.1:20001");
        let at = bad.windows(5).position(|part| part == b"20001").unwrap();
        bad[at..at + 5].copy_from_slice(b"\x1b[2J!");
        far.send(&bad);
        far.expect_end();
    });
    let connect = |io_timeout| {
        connect(
            &server,
            Options {
                io_timeout,
                ..options()
            },
        )
    };
    assert!(matches!(connect(PATIENCE), Err(Error::Refused)));
    assert!(matches!(connect(PATIENCE), Err(Error::Malformed(_))));
    let late = connect(Duration::from_secs(1));
    assert!(matches!(late, Err(Error::NoAnswer(_))), "{late:?}");
    script.join().unwrap();
    // Bound, so that nobody else listens there; connections are refused.
    let refusing =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    refusing.bind(&any.into()).unwrap();
    let nobody = refusing.local_addr().unwrap().as_socket().unwrap();
    let gone = self::connect(&nobody.to_string(), options());
    assert!(matches!(gone, Err(Error::Connect { .. })), "{gone:?}");
}

#[test]
fn a_node_that_does_not_receive_stays_alive_and_loses_nothing() {
    const FRAMES: u32 = 2000;
    let (go, may_receive) = unbounded();
    let (server, script) = serve(move |listener| {
        let far = Far::lease(listener, "127.0.0.1:20001");
        let mut writer = Far(far.0.try_clone().unwrap());
        let flood = thread::spawn(move || {
            for number in 0..FRAMES {
                writer.send(&data(&[&number.to_be_bytes()[..], &[0; 16 << 10]].concat()));
            }
        });
        let mut far = far;
        // More silence than a dead server is given, and keepalives all the while.
        for nonce in 2..7 {
            far.expect(opcode::KEEPALIVE, nonce);
        }
        assert!(!flood.is_finished(), "32 MB went into a queue of 64 KiB");
        // Now the node receives.
        go.send(()).unwrap();
        flood.join().unwrap();
        far.0.read_to_end(&mut Vec::new()).unwrap();
    });
    let (node, said) = observed(
        &server,
        Options {
            keepalive: SOON,
            queue_bytes: 64 << 10,
            ..options()
        },
    );
    assert_eq!(next(&said), "127.0.0.1:20001 true");
    may_receive.recv_timeout(PATIENCE).unwrap();
    for number in 0..FRAMES {
        let message = node.receive().unwrap().message().unwrap();
        let bytes = Bytes::decode(&message.message[..]).unwrap();
        assert_eq!(bytes.data[..4], number.to_be_bytes());
    }
    assert!(said.is_empty(), "{said:?}");
    drop(node);
    script.join().unwrap();
}

#[test]
fn a_peer_gets_messages_that_name_where_to_answer() {
    let (server, script) = serve(|listener| {
        Far::lease(listener, "127.0.0.1:20001").expect_end();
    });
    let (peer, other) = serve(|listener| {
        let mut far = Far::accept(listener);
        let frame = far.expect(opcode::BYTES, 1);
        let demand = control_message(&frame[HEAD..], Some(NETWORK_ID)).unwrap();
        assert_eq!(demand.address, b"tcp://127.0.0.1:20001");
        assert_eq!(verify(&demand), Ok(()));
        // The id under which the server knows the node: that of its origin.
        let text = "d34fc8789bdd6c42e0c795cd16aa96b7a4c9627daccc1b07e8f7a264aa40dfa9";
        assert_eq!(demand.connection_id, unhex(text));
        assert_eq!(
            demand.message,
            Bytes {
                data: b"hi".to_vec()
            }
            .encode_to_vec()
        );
        let frame = far.expect(opcode::PONG, 2);
        assert!(Message::decode(&frame[HEAD..]).unwrap().reply_flag);
        far.expect(opcode::APPLICATION, 3);
        far.expect_end();
        let frame = Far::accept(listener).expect(opcode::BYTES, 1);
        let demand = control_message(&frame[HEAD..], None).unwrap();
        assert_eq!(demand.address, b"tcp://192.0.2.1:5");
    });
    let sign = true;
    let max_frame = 100_000;
    let node = connect(
        &server,
        Options {
            sign,
            max_frame,
            ..options()
        },
    )
    .unwrap();
    let mut there = node.dial(&format!("tcp://{peer}")).unwrap();
    there.send(b"hi").unwrap();
    there.reply(opcode::PONG, b"").unwrap();
    // One that is too long is not sent and does not count.
    let error = there.send(&[0; 100_000]).unwrap_err();
    assert!(matches!(error, Error::TooLong { most: 100_000, .. }));
    there.send_message(opcode::APPLICATION, b"x").unwrap();
    drop((there, node));
    let mut alone = node::dial(&peer, Some("192.0.2.1:5"), recorded_key(), options()).unwrap();
    alone.send(b"hi").unwrap();
    alone.finish().unwrap();
    script.join().unwrap();
    other.join().unwrap();
}

#[test]
fn a_closed_node_wakes_its_receiver_and_ends_its_connection() {
    let (server, script) = serve(|listener| {
        Far::lease(listener, "127.0.0.1:20001").expect_end();
    });
    let node = connect(&server, options()).unwrap();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| node.receive());
        node.close();
        assert!(receiving.join().unwrap().is_none());
    });
    script.join().unwrap();
}

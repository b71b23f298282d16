//! The blocking client against servers of a few lines each, which speak by the codec.
//!
//! Every server plays a script and ends; its thread is joined, so that a script not played to its end
//! fails the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use towpath::agent::{self, Client, Dialect, Error, Options, Record};
use towpath::protocols::agent::wire::{
    AgentRequest, MAX_PAYLOAD, REMOVE, Reply, Request, SET, decode, encode_reply,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `script` on a thread with a listener on a port of its own.
fn serve(script: impl FnOnce(&TcpListener) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, thread::spawn(move || script(&listener)))
}

/// The server's end of one connection.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    dialect: Dialect,
}

impl Peer {
    fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            input: Vec::new(),
            dialect: Dialect::Stock,
        }
    }

    /// Waits for a whole request and lets `check` look at it.
    fn expect(&mut self, check: impl FnOnce(Request<'_>)) {
        let mut scratch = Vec::new();
        let mut room = [0; 4096];
        loop {
            if let Some(frame) = decode(&self.input, MAX_PAYLOAD, &mut scratch).unwrap() {
                self.dialect = frame.dialect;
                check(frame.request);
                self.input.drain(..frame.consumed);
                return;
            }
            let count = self.stream.read(&mut room).unwrap();
            assert_ne!(count, 0, "the client left in the middle of a request");
            self.input.extend_from_slice(&room[..count]);
        }
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        let mut out = Vec::new();
        encode_reply(&mut out, self.dialect, [1, 2, 3, 4], reply);
        self.stream.write_all(&out).unwrap();
    }

    /// Asserts that nothing more comes before the client leaves.
    fn expect_end(mut self) {
        assert!(self.input.is_empty());
        assert_eq!(self.stream.read(&mut [0; 16]).unwrap(), 0);
    }
}

fn is_query(request: Request<'_>) {
    let Request::Agent(AgentRequest::Query {
        id: b"dev1",
        section: b"status",
        wait: 0,
    }) = request
    else {
        panic!("{request:?}");
    };
}

fn is_update(request: Request<'_>, want_data: &[u8], want_op: u32) {
    let Request::Agent(AgentRequest::Update {
        id: b"dev1",
        section: b"status",
        data,
        op,
    }) = request
    else {
        panic!("{request:?}");
    };
    assert_eq!((data, op), (want_data, want_op));
}

fn is_auth(request: Request<'_>) {
    let Request::Agent(AgentRequest::Auth { token: b"secret" }) = request else {
        panic!("{request:?}");
    };
}

fn with_token() -> Options {
    Options {
        token: Some(b"secret".to_vec()),
        ..Options::default()
    }
}

fn document() -> Options {
    Options {
        dialect: Dialect::Document,
        ..Options::default()
    }
}

#[test]
fn clients_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Client>();
    crosses::<Error>();
}

#[test]
fn a_stock_client_takes_a_connection_for_each_request() {
    let (address, server) = serve(|listener| {
        let replies: [(fn(Request<'_>), Reply<'_>); 5] = [
            (|request| is_update(request, b"hello", SET), Reply::Updated),
            (
                is_query,
                Reply::Found {
                    timestamp: 7,
                    data: b"hello",
                },
            ),
            (|request| is_update(request, b"", REMOVE), Reply::Updated),
            (is_query, Reply::Missing),
            (
                |request| assert_eq!(request, Request::Agent(AgentRequest::Sniff)),
                Reply::Sniffed { host: b"10.0.0.9" },
            ),
        ];
        for (check, reply) in replies {
            let mut peer = Peer::accept(listener);
            peer.expect(check);
            assert_eq!(peer.dialect, Dialect::Stock);
            peer.reply(&reply);
            peer.stream.shutdown(Shutdown::Write).unwrap();
            peer.expect_end();
        }
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    client.update(b"dev1", b"status", b"hello").unwrap();
    let record = Record {
        timestamp: 7,
        data: b"hello".to_vec(),
    };
    assert_eq!(client.query(b"dev1", b"status").unwrap(), Some(record));
    client.remove(b"dev1", b"status").unwrap();
    assert_eq!(client.query(b"dev1", b"status").unwrap(), None);
    assert_eq!(client.sniff().unwrap(), "10.0.0.9");
    server.join().unwrap();
}

#[test]
fn a_document_client_keeps_its_connection_and_its_authorisation() {
    let (address, server) = serve(|listener| {
        let mut peer = Peer::accept(listener);
        peer.expect(is_query);
        assert_eq!(peer.dialect, Dialect::Document);
        peer.reply(&Reply::Missing);
        peer.expect(is_auth);
        peer.expect(|request| is_update(request, b"a", SET));
        peer.reply(&Reply::Authorised);
        peer.reply(&Reply::Updated);
        peer.expect(|request| is_update(request, b"b", SET));
        peer.reply(&Reply::Updated);
        peer.expect_end();
    });
    let options = Options {
        dialect: Dialect::Document,
        ..with_token()
    };
    let mut client = Client::connect(address, options).unwrap();
    assert_eq!(client.query(b"dev1", b"status").unwrap(), None);
    client.update(b"dev1", b"status", b"a").unwrap();
    client.update(b"dev1", b"status", b"b").unwrap();
    drop(client);
    server.join().unwrap();
}

#[test]
fn authorisation_and_update_travel_in_one_write() {
    let (address, server) = serve(|listener| {
        for _ in 0..2 {
            let mut peer = Peer::accept(listener);
            peer.expect(is_auth);
            // Nothing is answered until both are here, as a client that waited would never send.
            peer.expect(|request| is_update(request, b"x", SET));
            peer.reply(&Reply::Authorised);
            peer.reply(&Reply::Updated);
        }
        let mut peer = Peer::accept(listener);
        peer.expect(is_auth);
        // Taken too, or the close would reset the connection under the reply.
        peer.expect(|request| is_update(request, b"x", SET));
        let (command, message) = (&b"auth"[..], &b"wrong token"[..]);
        peer.reply(&Reply::Failed { command, message });
    });
    let mut client = Client::connect(address, with_token()).unwrap();
    client.update(b"dev1", b"status", b"x").unwrap();
    client.update(b"dev1", b"status", b"x").unwrap();
    let error = client.update(b"dev1", b"status", b"x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server refused the auth: wrong token"
    );
    server.join().unwrap();
}

#[test]
fn a_connection_closed_while_idle_is_opened_again_once() {
    let (address, server) = serve(|listener| {
        // The connection made at the start goes away unused, the one after it serves.
        drop(Peer::accept(listener));
        let mut peer = Peer::accept(listener);
        peer.expect(is_query);
        peer.reply(&Reply::Missing);
        drop(peer);
        // The kept one is dead again, and so is its replacement: then it is an error.
        drop(Peer::accept(listener));
    });
    let mut client = Client::connect(address, document()).unwrap();
    assert_eq!(client.query(b"dev1", b"status").unwrap(), None);
    let error = client.query(b"dev1", b"status").unwrap_err();
    assert!(matches!(error, Error::Closed { received: 0 }), "{error:?}");
    server.join().unwrap();
}

#[test]
fn a_refusal_carries_the_servers_words() {
    let (address, server) = serve(|listener| {
        let mut peer = Peer::accept(listener);
        peer.expect(|request| is_update(request, b"x", SET));
        let (command, message) = (&b"update"[..], &b"the disk is full"[..]);
        peer.reply(&Reply::Failed { command, message });
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    let error = client.update(b"dev1", b"status", b"x").unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server refused the update: the disk is full"
    );
    server.join().unwrap();
}

#[test]
fn broken_replies_are_told_apart() {
    let (address, server) = serve(|listener| {
        let mut reply = Vec::new();
        encode_reply(&mut reply, Dialect::Stock, [0; 4], &Reply::Missing);
        let mut endless = reply[..9].to_vec();
        endless.extend(u64::MAX.to_le_bytes());
        let mut other = Vec::new();
        encode_reply(&mut other, Dialect::Stock, [0; 4], &Reply::Updated);
        for bytes in [
            &b"HTTP/1.1 400 Bad Request"[..],
            &endless,
            &reply[..20],
            &other,
        ] {
            let mut peer = Peer::accept(listener);
            peer.expect(is_query);
            peer.stream.write_all(bytes).unwrap();
        }
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    let mut failure = || client.query(b"dev1", b"status").unwrap_err();
    assert!(matches!(failure(), Error::Malformed(_)));
    assert!(matches!(failure(), Error::Malformed(_)));
    assert!(matches!(failure(), Error::Closed { received: 20 }));
    assert!(matches!(failure(), Error::Unexpected { .. }));
    server.join().unwrap();
}

#[test]
fn a_large_record_comes_back_and_one_too_large_is_not_sent() {
    let data: Vec<u8> = (0..MAX_PAYLOAD - 64).map(|at| at as u8).collect();
    let sent = data.clone();
    let (address, server) = serve(move |listener| {
        let mut peer = Peer::accept(listener);
        peer.expect(|request| is_update(request, &sent, SET));
        peer.reply(&Reply::Updated);
        let mut peer = Peer::accept(listener);
        peer.expect(is_query);
        let timestamp = 1;
        peer.reply(&Reply::Found {
            timestamp,
            data: &sent,
        });
        Peer::accept(listener).expect_end();
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    // 54 bytes of fields, 10 of key: this is the largest payload, to the byte.
    client.update(b"dev1", b"status", &data).unwrap();
    let record = client.query(b"dev1", b"status").unwrap().unwrap();
    assert!(record.data == data);
    let larger = [&data[..], b"x"].concat();
    let error = client.update(b"dev1", b"status", &larger).unwrap_err();
    assert!(matches!(
        error,
        Error::TooLong {
            length: 524_289,
            most: MAX_PAYLOAD,
            longest_value: Some(524_224),
        }
    ));
    server.join().unwrap();
}

#[test]
fn a_wait_is_asked_again_for_what_is_left_of_it() {
    let (address, server) = serve(|listener| {
        let mut waits = Vec::new();
        for answer in [
            Reply::Missing,
            Reply::Found {
                timestamp: 9,
                data: b"x",
            },
        ] {
            let mut peer = Peer::accept(listener);
            peer.expect(|request| match request {
                Request::Agent(AgentRequest::Query { wait, .. }) => waits.push(wait),
                other => panic!("{other:?}"),
            });
            // The cap of this server is six tenths of a second.
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(600) {
                thread::park_timeout(Duration::from_millis(50));
            }
            peer.reply(&answer);
        }
        assert_eq!(waits[0], 100);
        assert!((90..=100).contains(&waits[1]), "{waits:?}");
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    let wait = Duration::from_millis(99_500);
    let record = client.query_wait(b"dev1", b"status", wait).unwrap();
    assert_eq!(record.unwrap().timestamp, 9);
    server.join().unwrap();
}

#[test]
fn a_server_that_does_not_wait_is_asked_once() {
    let (told, count) = channel();
    let (address, server) = serve(move |listener| {
        let mut count = 0;
        loop {
            let mut peer = Peer::accept(listener);
            // Who says nothing is the test, which is through.
            if peer.stream.peek(&mut [0]).unwrap() == 0 {
                break;
            }
            peer.expect(|_| ());
            peer.reply(&Reply::Missing);
            count += 1;
        }
        told.send(count).unwrap();
    });
    let mut client = Client::connect(address, Options::default()).unwrap();
    let began = Instant::now();
    let record = client.query_wait(b"dev1", b"status", PATIENCE).unwrap();
    let took = began.elapsed().as_millis();
    assert_eq!(record, None);
    drop(client);
    drop(TcpStream::connect(address).unwrap());
    // On a busy machine an answer may take as long as a wait, of half a second, and is taken for one.
    let asked: u128 = count.recv_timeout(PATIENCE).unwrap();
    assert!(asked <= 1 + took / 500, "{asked} times in {took} ms");
    server.join().unwrap();
}

#[test]
fn silence_ends_at_the_deadline() {
    let (address, server) = serve(|listener| {
        // Whether the request still came in time is not the point.
        let mut peer = Peer::accept(listener);
        peer.stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let options = Options {
        io_timeout: Duration::from_millis(50),
        ..Options::default()
    };
    let mut client = Client::connect(address, options).unwrap();
    let error = client.query(b"dev1", b"status").unwrap_err();
    assert!(matches!(error, Error::TimedOut), "{error:?}");
    server.join().unwrap();
}

fn is_route(request: Request<'_>, want_leading: bool) {
    let Request::Traffic {
        service: b"demo",
        field: b"github",
        token: b"t",
        leading_operation,
    } = request
    else {
        panic!("{request:?}");
    };
    assert_eq!(leading_operation, want_leading);
}

#[test]
fn a_route_begins_behind_the_ok() {
    let (address, server) = serve(|listener| {
        let mut peer = Peer::accept(listener);
        peer.expect(|request| is_route(request, false));
        // The word comes in parts, and the backend's banner right behind it.
        peer.stream.write_all(b"o").unwrap();
        peer.stream.write_all(b"kbanner").unwrap();
        let mut got = [0; 4];
        peer.stream.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
    });
    let options = Options::default();
    let mut route = agent::route(address, b"demo", b"github", b"t", &options).unwrap();
    assert_eq!(route.read_timeout().unwrap(), None);
    route.write_all(b"ping").unwrap();
    let mut got = String::new();
    route.read_to_string(&mut got).unwrap();
    assert_eq!(got, "banner");
    server.join().unwrap();
}

#[test]
fn a_document_route_begins_at_once() {
    let (address, server) = serve(|listener| {
        let mut peer = Peer::accept(listener);
        peer.expect(|request| is_route(request, true));
        assert_eq!(peer.dialect, Dialect::Document);
        peer.stream.write_all(b"banner").unwrap();
    });
    let mut route = agent::route(address, b"demo", b"github", b"t", &document()).unwrap();
    let mut got = String::new();
    route.read_to_string(&mut got).unwrap();
    assert_eq!(got, "banner");
    server.join().unwrap();
}

#[test]
fn a_route_that_does_not_come_about_says_so() {
    let (address, server) = serve(|listener| {
        for answer in [&b""[..], b"o", b"HTTP"] {
            let mut peer = Peer::accept(listener);
            peer.expect(|request| is_route(request, false));
            peer.stream.write_all(answer).unwrap();
        }
    });
    let failure = || agent::route(address, b"demo", b"github", b"t", &Options::default());
    assert!(matches!(failure(), Err(Error::NoRoute)));
    assert!(matches!(failure(), Err(Error::NoRoute)));
    assert!(matches!(failure(), Err(Error::Unexpected { .. })));
    server.join().unwrap();
}

#[test]
fn a_refused_connection_names_the_address_and_others_are_tried() {
    // Bound, so that nobody else listens there; connections are refused.
    let refusing =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    refusing.bind(&any.into()).unwrap();
    let closed = refusing.local_addr().unwrap().as_socket().unwrap();
    let error = Client::connect(closed, Options::default()).unwrap_err();
    assert!(error.to_string().contains(&closed.to_string()), "{error}");

    let (open, server) = serve(|listener| drop(Peer::accept(listener)));
    Client::connect(&[closed, open][..], Options::default()).unwrap();
    server.join().unwrap();
    let nowhere: &[SocketAddr] = &[];
    let error = Client::connect(nowhere, Options::default()).unwrap_err();
    assert!(matches!(error, Error::Resolve(_)));
}

#[test]
fn a_token_is_not_shown() {
    let shown = format!("{:?}", with_token());
    assert!(
        !shown.contains("secret\"") && !shown.contains("115, 101"),
        "{shown}"
    );
}

//! The chain's blocking client through hops of a few lines each, made of the codec.
//!
//! Every hop plays its part for one connection and ends; its thread is joined, so that a part not played
//! to its end fails the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use towpath::chain::{Code, Error, Hop, Key, Options, Reason, Stream, probe, test};
use towpath::protocols::chain::wire::{
    Address, HEAD, Nonce, Opened, Opener, Request, Response, Sealer, Side, Transport, frame_len,
    open_request, record_len, records, seal_response,
};

const PATIENCE: Duration = Duration::from_secs(20);

const RESPONSE_NONCE: Nonce = [9; 24];

fn key(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

/// Runs `part` on a thread with a listener on a port of its own.
fn serve(part: impl FnOnce(TcpListener) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, thread::spawn(move || part(listener)))
}

/// An address where nobody listens, nor will: its port stays bound as long as the tests run.
fn nobody() -> String {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let _for_good = socket.into_raw_fd();
    address.to_string()
}

fn accept(listener: TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one frame, whole, and not a byte more.
fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut frame = vec![0; HEAD];
    stream.read_exact(&mut frame).unwrap();
    let length = frame_len(&frame).unwrap().unwrap();
    frame.resize(length, 0);
    stream.read_exact(&mut frame[HEAD..]).unwrap();
    frame
}

fn request(stream: &mut TcpStream, key: &Key) -> (Nonce, Request) {
    open_request(key, Transport::Tcp, &frame(stream)).unwrap()
}

fn answer(stream: &mut TcpStream, key: &Key, request: &Nonce, code: Code) {
    let mut out = Vec::new();
    let response = Response { code, dial: 7 };
    let nonce = RESPONSE_NONCE;
    seal_response(&mut out, key, Transport::Tcp, &nonce, request, &response);
    stream.write_all(&out).unwrap();
}

fn all(mut stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A hop as it should be: connects, answers, carries. Whom it does not know it lets go without a word.
fn hop(key: Key) -> (Hop, JoinHandle<()>) {
    let shared = key.clone();
    let (address, part) = serve(move |listener| {
        let mut down = accept(listener);
        let Ok((nonce, request)) = open_request(&key, Transport::Tcp, &frame(&mut down)) else {
            down.shutdown(Shutdown::Write).unwrap();
            all(&down);
            return;
        };
        if request.flags.probe {
            answer(&mut down, &key, &nonce, Code::Ok);
            return;
        }
        let Address::Socket(to) = request.address else {
            answer(&mut down, &key, &nonce, Code::Resolve);
            return;
        };
        match TcpStream::connect(to) {
            Ok(up) => {
                answer(&mut down, &key, &nonce, Code::Ok);
                carry(&down, &up);
            }
            Err(_) => {
                answer(&mut down, &key, &nonce, Code::Refused);
                down.shutdown(Shutdown::Write).unwrap();
                all(&down);
            }
        }
    });
    (Hop::new(address, shared), part)
}

fn carry(down: &TcpStream, up: &TcpStream) {
    let pass = |mut from: &TcpStream, mut to: &TcpStream| {
        io::copy(&mut from, &mut to).unwrap();
        // The other side may have gone.
        let _ = to.shutdown(Shutdown::Write);
    };
    thread::scope(|scope| {
        scope.spawn(|| pass(down, up));
        pass(up, down);
    });
}

/// Reads to the end, then sends it back with a word of its own.
fn parrot() -> (String, JoinHandle<()>) {
    serve(|listener| {
        let mut stream = accept(listener);
        let mut heard = all(&stream);
        heard.extend_from_slice(b" it said");
        stream.write_all(&heard).unwrap();
    })
}

#[track_caller]
fn fails(destination: &str, hops: &[Hop], options: &Options) -> Error {
    Stream::connect(destination, hops, options).unwrap_err()
}

#[test]
fn streams_cross_threads() {
    fn crosses<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    crosses::<Stream>();
    is_shared::<towpath::chain::Socket>();
    is_shared::<Error>();
}

#[test]
fn bytes_and_both_ends_go_through_any_number_of_hops() {
    let said: Vec<u8> = (0..300_000_u32).map(|at| at as u8).collect();
    for count in 0..4 {
        let (destination, parrot) = parrot();
        let (hops, parts): (Vec<Hop>, Vec<_>) = (0..count).map(|number| hop(key(number))).unzip();
        let mut stream = Stream::connect(&destination, &hops, &Options::default()).unwrap();
        stream.write_all(&said).unwrap();
        stream.finish().unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, [&said[..], b" it said"].concat(), "{count} hops");
        parrot.join().unwrap();
        parts.into_iter().for_each(|part| part.join().unwrap());
    }
}

#[test]
fn the_error_names_the_hop_and_what_it_said() {
    let destination = nobody();
    let (hops, parts): (Vec<Hop>, Vec<_>) = (1..3).map(|number| hop(key(number))).unzip();
    let error = fails(&destination, &hops, &Options::default());
    let last = &hops[1].address;
    let want = format!("hop 2 ({last}): destination refused the connection");
    assert_eq!(error.to_string(), want);
    assert_eq!((error.hop(), error.code()), (Some(2), Some(Code::Refused)));
    parts.into_iter().for_each(|part| part.join().unwrap());

    // A hop that the hop before it cannot reach.
    let (first, part) = hop(key(1));
    let want = format!("hop 1 ({}): next hop refused the connection", first.address);
    let hops = [first, Hop::new(nobody(), key(2))];
    assert_eq!(
        fails(&destination, &hops, &Options::default()).to_string(),
        want
    );
    part.join().unwrap();

    // The client's own connections.
    let alone = Hop::new(nobody(), key(1));
    let error = fails(
        &destination,
        std::slice::from_ref(&alone),
        &Options::default(),
    );
    let address = &alone.address;
    let want = format!("hop 1 ({address}): cannot connect to {address}: ");
    assert!(error.to_string().starts_with(&want), "{error}");
    let error = fails(&destination, &[], &Options::default());
    let want = format!("destination ({destination}): cannot connect to {destination}: ");
    assert!(error.to_string().starts_with(&want), "{error}");
}

#[test]
fn a_wrong_key_is_asked_about() {
    let destination = nobody();
    for wrong in 0..2 {
        let (mut hops, parts): (Vec<Hop>, Vec<_>) = (1..3).map(|number| hop(key(number))).unzip();
        hops[wrong].key = key(7);
        let error = fails(&destination, &hops, &Options::default());
        let (index, address) = (wrong + 1, &hops[wrong].address);
        let question = "closed the connection without a word; is the key right?";
        assert_eq!(
            error.to_string(),
            format!("hop {index} ({address}): {question}")
        );
        // The second was never asked where the first hung up.
        for part in parts.into_iter().take(index) {
            part.join().unwrap();
        }
    }
}

#[test]
fn what_is_no_hop_is_told_from_one() {
    let hops = |address: &str| [Hop::new(address, key(1))];
    let (address, part) = serve(|listener| {
        let mut stream = accept(listener);
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n")
            .unwrap();
        all(&stream);
    });
    let error = fails("a:1", &hops(&address), &Options::default());
    assert!(matches!(error.reason, Reason::Forged), "{error}");
    part.join().unwrap();

    // An answer to another request.
    let (address, part) = serve(|listener| {
        let mut stream = accept(listener);
        request(&mut stream, &key(1));
        answer(&mut stream, &key(1), &[0; 24], Code::Ok);
        all(&stream);
    });
    let error = fails("a:1", &hops(&address), &Options::default());
    assert!(matches!(error.reason, Reason::Forged), "{error}");
    part.join().unwrap();

    // None at all.
    let (address, part) = serve(|listener| {
        let mut stream = accept(listener);
        request(&mut stream, &key(1));
        all(&stream);
    });
    let handshake_timeout = Duration::from_millis(300);
    let options = Options {
        handshake_timeout,
        ..Options::default()
    };
    let error = fails("a:1", &hops(&address), &options);
    assert_eq!(
        error.to_string(),
        format!("hop 1 ({address}): did not answer within 300ms")
    );
    part.join().unwrap();
}

#[test]
fn what_cannot_be_tried_is_told_before_anything_is_dialled() {
    let told =
        |destination: &str, hops: &[Hop]| fails(destination, hops, &Options::default()).to_string();
    let good = Hop::new("127.0.0.1:1", key(1));
    assert_eq!(
        told("a", &[]),
        "destination (a): it has no port; write HOST:PORT"
    );
    assert_eq!(
        told("a:1", &[good.clone(), Hop::new("b c", key(1))]),
        "hop 2 (b c): its host has a character that is no letter, digit, - . or _"
    );
    assert_eq!(told("a:1", &vec![good; 65]), "65 hops are more than 64");
    let payload_key = Some(key(2));
    let options = Options {
        payload_key,
        ..Options::default()
    };
    assert_eq!(
        fails("a:1", &[], &options).to_string(),
        "the chain has no hop"
    );
}

#[test]
fn payload_waits_for_all_hops_unless_it_is_early() {
    for early in [false, true] {
        let (address, part) = serve(move |listener| {
            let mut stream = accept(listener);
            let (nonce, first) = request(&mut stream, &key(1));
            let (second_nonce, second) = request(&mut stream, &key(2));
            assert_eq!((first.flags.early, second.flags.early), (early, early));
            assert_eq!(second.address.to_string(), "db.internal:5432");
            let mut payload = [0; 5];
            if early {
                stream.read_exact(&mut payload).unwrap();
            } else {
                // It would have come in the same write.
                stream.set_nonblocking(true).unwrap();
                let nothing = stream.peek(&mut payload).unwrap_err();
                assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
                stream.set_nonblocking(false).unwrap();
            }
            answer(&mut stream, &key(1), &nonce, Code::Ok);
            answer(&mut stream, &key(2), &second_nonce, Code::Ok);
            // Payload right behind the responses is the stream's.
            stream.write_all(b"banner").unwrap();
            if !early {
                stream.read_exact(&mut payload).unwrap();
            }
            assert_eq!(&payload, b"first");
            assert_eq!(all(&stream), b"");
        });
        let hops = [Hop::new(address, key(1)), Hop::new("inner.example", key(2))];
        let options = Options {
            early,
            ..Options::default()
        };
        let stream = Stream::connect_with("db.internal:5432", &hops, &options, b"first");
        let mut stream = stream.unwrap();
        let mut banner = [0; 6];
        stream.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"banner");
        drop(stream);
        part.join().unwrap();
    }
}

/// The last hop's end of a sealed payload, and the stream that it goes over.
struct Far {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

impl Far {
    /// Takes the only header and answers it.
    fn accept(listener: TcpListener, payload_key: &Key) -> Self {
        let mut stream = accept(listener);
        let (nonce, request) = request(&mut stream, &key(1));
        assert!(request.flags.sealed && !request.flags.early);
        answer(&mut stream, &key(1), &nonce, Code::Ok);
        let (sealer, opener) = records(payload_key, Side::Hop, &nonce, &RESPONSE_NONCE);
        Self {
            stream,
            sealer,
            opener,
        }
    }

    /// Reads to the record that ends it, and to the end of the stream.
    fn all(&mut self) -> Vec<u8> {
        let mut wire = all(&self.stream);
        let mut payload = Vec::new();
        let mut rest = &mut wire[..];
        while let Some(length) = record_len(rest).unwrap() {
            let (record, behind) = rest.split_at_mut(length);
            if let Opened::Payload(part) = self.opener.open(record).unwrap() {
                payload.extend_from_slice(part);
            }
            rest = behind;
        }
        assert!(self.opener.is_closed() && rest.is_empty());
        payload
    }

    fn sealed(&mut self, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.sealer.seal(&mut out, payload);
        out
    }
}

/// A stream to a last hop with the payload key 5.
fn sealed(part: impl FnOnce(Far) + Send + 'static) -> (Stream, JoinHandle<()>) {
    let (address, part) = serve(move |listener| part(Far::accept(listener, &key(5))));
    let payload_key = Some(key(5));
    // Early data is not sealed, so that there is none.
    let options = Options {
        payload_key,
        early: true,
        ..Options::default()
    };
    let hops = [Hop::new(address, key(1))];
    let stream = Stream::connect_with("db.internal:5432", &hops, &options, b"first ");
    (stream.unwrap(), part)
}

#[test]
fn a_sealed_payload_comes_back_in_both_directions_at_once() {
    let said: Vec<u8> = (0..200_000_u32).map(|at| (at >> 3) as u8).collect();
    let expected = [b"first ", &said[..]].concat();
    let back = said.clone();
    let (stream, part) = sealed(move |mut far| {
        let mut answer = far.sealed(&back);
        far.sealer.close(&mut answer);
        let mut other = far.stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                // In parts that have nothing to do with the records.
                for part in answer.chunks(7_001) {
                    other.write_all(part).unwrap();
                }
            });
            assert_eq!(far.all(), expected);
        });
    });
    let (mut reading, mut writing) = stream.split();
    thread::scope(|scope| {
        scope.spawn(|| {
            writing.write_all(&said).unwrap();
            writing.finish().unwrap();
            assert!(writing.write(b"more").is_err());
        });
        let mut heard = Vec::new();
        reading.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, said);
        // The end is the end.
        assert_eq!(reading.read(&mut [0; 9]).unwrap(), 0);
    });
    part.join().unwrap();
}

#[test]
fn a_sealed_payload_cut_short_or_altered_is_an_error() {
    let kind = |alter: fn(Vec<u8>) -> Vec<u8>| {
        let (mut stream, part) = sealed(move |mut far| {
            let wire = [far.sealed(b"one"), far.sealed(b"two")].concat();
            far.stream.write_all(&alter(wire)).unwrap();
            far.stream.shutdown(Shutdown::Write).unwrap();
            all(&far.stream);
        });
        let mut heard = Vec::new();
        let error = stream.read_to_end(&mut heard).unwrap_err();
        assert!(b"onetwo".starts_with(&heard[..]));
        drop(stream);
        part.join().unwrap();
        (error.kind(), heard.len())
    };
    // Whole records, and no end.
    assert_eq!(kind(|wire| wire), (io::ErrorKind::UnexpectedEof, 6));
    assert_eq!(
        kind(|wire| wire[..30].to_vec()),
        (io::ErrorKind::UnexpectedEof, 3)
    );
    let flipped = |mut wire: Vec<u8>| {
        wire[25] ^= 1;
        wire
    };
    assert_eq!(kind(flipped), (io::ErrorKind::InvalidData, 3));
    let longest = |mut wire: Vec<u8>| {
        wire[0] = 0xff;
        wire
    };
    assert_eq!(kind(longest), (io::ErrorKind::InvalidData, 0));
}

#[test]
fn a_read_that_times_out_in_a_record_goes_on_where_it_was() {
    let (go, going) = crossbeam_channel::bounded(1);
    let (mut stream, part) = sealed(move |mut far| {
        let wire = far.sealed(b"whole");
        far.stream.write_all(&wire[..9]).unwrap();
        going.recv_timeout(PATIENCE).unwrap();
        far.stream.write_all(&wire[9..]).unwrap();
        all(&far.stream);
    });
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    go.send(()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = [0; 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"whole");
    drop(stream);
    part.join().unwrap();
}

#[test]
fn a_trial_tells_how_far_a_chain_reaches() {
    // To the destination.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let destination = listener.local_addr().unwrap().to_string();
    let (hops, parts): (Vec<Hop>, Vec<_>) = (1..3).map(|number| hop(key(number))).unzip();
    let report = test(&destination, &hops, &Options::default()).unwrap();
    assert!(report.failure.is_none(), "{report:?}");
    let second = &report.hops[1];
    assert_eq!(second.address, hops[1].address);
    assert_eq!(second.connect, Some(Duration::from_millis(7)));
    assert!(second.header >= report.hops[0].header && report.hops[0].connect.is_some());
    assert_eq!(report.destination.unwrap().connect, second.connect);
    drop(listener.accept().unwrap());
    parts.into_iter().for_each(|part| part.join().unwrap());

    // As far as the first hop.
    let (first, part) = hop(key(1));
    let hops = [first, Hop::new(nobody(), key(2))];
    let report = test(&destination, &hops, &Options::default()).unwrap();
    assert_eq!(report.failure.unwrap().hop(), Some(1));
    assert!(report.hops[0].connect.is_some() && report.hops[1].connect.is_none());
    assert_eq!(report.destination.unwrap().connect, None);
    part.join().unwrap();

    // A probe asks the last hop only for itself.
    let (hops, parts): (Vec<Hop>, Vec<_>) = (1..3).map(|number| hop(key(number))).unzip();
    let report = probe(&hops, &Options::default()).unwrap();
    assert!(
        report.failure.is_none() && report.destination.is_none(),
        "{report:?}"
    );
    assert!(report.hops.iter().all(|step| step.header.is_some()));
    parts.into_iter().for_each(|part| part.join().unwrap());

    let alone: SocketAddr = nobody().parse().unwrap();
    let report = test(&alone.to_string(), &[], &Options::default()).unwrap();
    assert!(report.failure.is_some() && report.hops.is_empty());
}

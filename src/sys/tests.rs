//! The wrappers against the running system.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;

use super::*;

#[test]
fn bytes_pass_through_a_pipe_between_two_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut source = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (from, _) = listener.accept().unwrap();
    let to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut sink, _) = listener.accept().unwrap();
    let (reading, writing) = pipe().unwrap();
    source.write_all(b"through").unwrap();
    drop(source);
    let taken = splice(from.as_fd(), writing.as_fd(), 1 << 20, false).unwrap();
    assert_eq!(taken, 7);
    assert_eq!(splice(reading.as_fd(), to.as_fd(), taken, true).unwrap(), 7);
    assert_eq!(splice(from.as_fd(), writing.as_fd(), 16, false).unwrap(), 0);
    let empty = splice(reading.as_fd(), to.as_fd(), 16, false).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    drop(to);
    let mut got = String::new();
    sink.read_to_string(&mut got).unwrap();
    assert_eq!(got, "through");
}

#[test]
fn a_pipe_takes_the_size_asked_for() {
    let (reading, _writing) = pipe().unwrap();
    assert_eq!(
        set_pipe_capacity(reading.as_fd(), 256 << 10).unwrap(),
        256 << 10
    );
}

#[test]
fn the_loopback_interface_is_among_the_addresses() {
    let found = interface_addresses().unwrap();
    assert!(found.iter().any(|(_, ip)| ip.is_loopback()), "{found:?}");
}

#[test]
fn pinning_beyond_the_processors_is_refused() {
    let refused = std::thread::spawn(|| pin_thread(4096)).join().unwrap();
    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(std::thread::spawn(|| pin_thread(0)).join().unwrap().is_ok());
}

const NONE: Arrival = Arrival {
    from: None,
    len: 0,
    segment: 0,
    truncated: false,
};

fn departure(to: Option<SocketAddr>, payload: &[u8], segment: usize) -> Departure<'_> {
    Departure {
        to,
        payload,
        segment,
    }
}

/// Takes what waits, each with its bytes.
fn take(socket: &UdpSocket, places: usize, place: usize) -> Vec<(Arrival, Vec<u8>)> {
    let mut room = vec![0; places * place];
    let mut arrivals = [NONE; DATAGRAMS];
    let count = match receive_datagrams(socket.as_fd(), &mut room, place, &mut arrivals) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        outcome => outcome.unwrap(),
    };
    let bytes = room.chunks_exact(place).zip(&arrivals[..count]);
    bytes
        .map(|(bytes, arrival)| (*arrival, bytes[..arrival.len].to_vec()))
        .collect()
}

fn sockets(at: &str) -> [UdpSocket; 2] {
    [at, at].map(|at| UdpSocket::bind(at).unwrap())
}

#[test]
fn a_batch_carries_empty_and_longest_datagrams_whole() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let [from, to] = sockets(at);
        let payloads = [
            vec![],
            vec![7; 65_507],
            b"x".to_vec(),
            vec![],
            vec![9; 1200],
        ];
        let address = Some(to.local_addr().unwrap());
        let batch = payloads.iter().map(|bytes| departure(address, bytes, 0));
        assert_eq!(send_datagrams(from.as_fd(), batch).unwrap(), 5);
        let first = take(&to, 4, 65_536);
        let rest = take(&to, 4, 65_536);
        assert_eq!(
            (first.len(), rest.len()),
            (4, 1),
            "as many as there are places"
        );
        for ((arrival, bytes), payload) in first.iter().chain(&rest).zip(&payloads) {
            assert_eq!(arrival.from, Some(from.local_addr().unwrap()));
            assert!(!arrival.truncated && arrival.segment == 0);
            assert!(
                bytes == payload,
                "{} bytes of {}",
                bytes.len(),
                payload.len()
            );
        }
        assert!(take(&to, 4, 65_536).is_empty());
    }
}

#[test]
fn a_datagram_longer_than_its_place_is_noticed() {
    let [from, to] = sockets("127.0.0.1:0");
    from.send_to(&[5; 101], to.local_addr().unwrap()).unwrap();
    from.send_to(&[6; 100], to.local_addr().unwrap()).unwrap();
    let got = take(&to, 8, 100);
    let cut: Vec<_> = got.iter().map(|(a, _)| (a.len, a.truncated)).collect();
    assert_eq!(cut, [(100, true), (100, false)]);
}

#[test]
fn a_train_arrives_as_separate_datagrams() {
    let [from, to] = sockets("127.0.0.1:0");
    from.connect(to.local_addr().unwrap()).unwrap();
    let payload: Vec<u8> = (0..2_500u32).map(|n| n as u8).collect();
    let train = [departure(None, &payload, 1_000)];
    assert_eq!(send_datagrams(from.as_fd(), train).unwrap(), 1);
    let got = take(&to, 8, 65_536);
    let lengths: Vec<_> = got.iter().map(|(arrival, _)| arrival.len).collect();
    assert_eq!(lengths, [1_000, 1_000, 500]);
    let joined: Vec<u8> = got.into_iter().flat_map(|(_, bytes)| bytes).collect();
    assert!(joined == payload);
}

#[test]
fn a_train_arrives_as_one_where_that_is_asked_for() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let [from, to] = sockets(at);
        join_datagrams(to.as_fd()).unwrap();
        let address = Some(to.local_addr().unwrap());
        let payload = vec![3; 40_100];
        let batch = [
            departure(address, &payload, 1_200),
            departure(address, b"", 0),
        ];
        assert_eq!(send_datagrams(from.as_fd(), batch).unwrap(), 2);
        let got = take(&to, 8, 65_536);
        let told: Vec<_> = got.iter().map(|(a, _)| (a.len, a.segment)).collect();
        assert_eq!(told, [(40_100, 1_200), (0, 0)]);
    }
}

#[test]
fn an_ipv4_sender_is_one_on_an_ipv6_socket_too() {
    let to = UdpSocket::bind("[::]:0").unwrap();
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = to.local_addr().unwrap().port();
    from.send_to(b"v4", ("127.0.0.1", port)).unwrap();
    let got = take(&to, 1, 100);
    assert_eq!(got[0].0.from, Some(from.local_addr().unwrap()));
}

#[test]
fn an_unreachable_port_is_told_by_the_next_call() {
    let from = UdpSocket::bind("127.0.0.1:0").unwrap();
    // A port below those that the system gives out: no other test comes to be there.
    let free = |port: u16| UdpSocket::bind(("127.0.0.1", port)).ok();
    let gone = (20_000..30_000).rev().find_map(free).unwrap();
    from.connect(gone.local_addr().unwrap()).unwrap();
    drop(gone);
    let say = || send_datagrams(from.as_fd(), [departure(None, b"anybody", 0)]);
    assert_eq!(say().unwrap(), 1);
    let refused = say().unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(say().unwrap(), 1, "told once");
}

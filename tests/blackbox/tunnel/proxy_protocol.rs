//! How the inside service learns who came: PROXY protocol headers in front of a visitor's bytes.

use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use crate::support::DEADLINE;
use crate::support::backend::{Backend, echo};
use crate::support::folder::Folder;
use crate::support::peer::Peer;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::Program;
use crate::support::tunnel::proxy_header::{DATAGRAM, Header, read_v1, read_v2, split_v2};

/// How a header is read.
type Read = fn(&mut Peer) -> Header;

/// An echo behind a header, and the headers.
fn backend(read: Read) -> (Backend, Receiver<Header>) {
    let (tell, headers) = channel();
    let backend = Backend::serve(move |mut peer, _| {
        let _ = tell.send(read(&mut peer));
        echo(peer);
    });
    (backend, headers)
}

fn start(tunnel: &Tunnel, folder: &Folder, words: &[&str]) -> Program {
    let identity: PathBuf = folder.path().join("expose.id");
    Program::start(tunnel.address, &identity, words)
}

/// The header tells of this visitor, and the bytes behind it are the visitor's.
fn expect_header(public: SocketAddr, headers: &Receiver<Header>) {
    let mut visitor = Peer::connect(public);
    visitor.send(b"the first bytes").expect(b"the first bytes");
    let header = headers.recv_timeout(DEADLINE).unwrap();
    let expected = Header {
        source: visitor.local(),
        destination: public,
    };
    assert_eq!(header, expected);
    visitor.finish().expect_end();
}

#[test]
fn a_header_tells_the_visitor_and_the_public_address() {
    let readers: [(&str, Read); 2] = [("v1", read_v1), ("v2", read_v2)];
    for (version, read) in readers {
        for mode in [&[][..], &["--direct"], &["--mux"]] {
            for pool in ["0", "8"] {
                let (folder, (backend, headers)) = (Folder::new(), backend(read));
                let tunnel = Plan::new(1).key("pool", pool).start();
                let local = backend.address.to_string();
                let words = [&["--proxy-protocol", version], mode, &[&local]].concat();
                let program = start(&tunnel, &folder, &words);
                for _ in 0..20 {
                    expect_header(program.public(), &headers);
                }
            }
        }
    }
}

#[test]
fn the_header_comes_even_where_the_visitor_says_nothing() {
    let (folder, (backend, headers)) = (Folder::new(), backend(read_v1));
    let tunnel = Tunnel::new(1);
    let local = backend.address.to_string();
    let program = start(&tunnel, &folder, &["--proxy-protocol", "v1", &local]);
    let mut visitor = Peer::connect(program.public());
    let header = headers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(header.source, visitor.local());
    visitor.finish().expect_end();
}

#[test]
fn what_looks_like_a_header_of_the_visitor_is_its_payload() {
    let (folder, (backend, headers)) = (Folder::new(), backend(read_v1));
    let tunnel = Tunnel::new(1);
    let local = backend.address.to_string();
    let program = start(&tunnel, &folder, &["--proxy-protocol", "v1", &local]);
    let mut visitor = Peer::connect(program.public());
    let forged = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";
    visitor.send(forged).expect(forged);
    let header = headers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(header.source, visitor.local());
}

#[test]
fn the_destination_is_the_address_that_is_told() {
    let (folder, (backend, headers)) = (Folder::new(), backend(read_v2));
    let tunnel = Plan::new(1).text("public_ip", "192.0.2.7").start();
    let local = backend.address.to_string();
    let program = start(&tunnel, &folder, &["--proxy-protocol", "v2", &local]);
    let public = program.public();
    assert_eq!(public.ip().to_string(), "192.0.2.7");
    let mut visitor = Peer::connect(SocketAddr::new([127, 0, 0, 1].into(), public.port()));
    let header = headers.recv_timeout(DEADLINE).unwrap();
    assert_eq!(
        (header.source, header.destination),
        (visitor.local(), public)
    );
    visitor.finish().expect_end();
}

#[test]
fn a_first_datagram_without_room_for_it_leaves_it_to_the_next() {
    let folder = Folder::new();
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    service.set_read_timeout(Some(DEADLINE)).unwrap();
    let local = service.local_addr().unwrap().to_string();
    let tunnel = Tunnel::new(1);
    let program = start(
        &tunnel,
        &folder,
        &["--udp", "--proxy-protocol", "v2", &local],
    );
    let visitor = UdpSocket::bind("127.0.0.1:0").unwrap();
    visitor.connect(program.public()).unwrap();
    // The longest that there is, and then the longest that has room for a header of IPv4.
    for length in [65_507, 65_507 - 28] {
        visitor.send(&vec![7; length]).unwrap();
    }
    let mut buffer = vec![0; 1 << 16];
    let (length, _) = service.recv_from(&mut buffer).unwrap();
    let (header, bytes) = split_v2(&buffer[..length], DATAGRAM);
    assert_eq!(header.source, visitor.local_addr().unwrap());
    assert_eq!(bytes.len(), 65_507 - 28);
    visitor.send(b"and without").unwrap();
    let (length, _) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"and without");
    let said = program.said();
    assert!(!said.contains("cannot be reached"), "{said}");
    program.stop();
}

#[test]
fn the_first_datagram_of_a_flow_has_one() {
    for mode in [&[][..], &["--direct"], &["--mux"]] {
        let folder = Folder::new();
        let service = UdpSocket::bind("127.0.0.1:0").unwrap();
        service.set_read_timeout(Some(DEADLINE)).unwrap();
        let local = service.local_addr().unwrap().to_string();
        let tunnel = Tunnel::new(1);
        let words = [&["--udp", "--proxy-protocol", "v2"], mode, &[&local]].concat();
        let program = start(&tunnel, &folder, &words);
        for _ in 0..5 {
            let visitor = UdpSocket::bind("127.0.0.1:0").unwrap();
            visitor.connect(program.public()).unwrap();
            visitor.set_read_timeout(Some(DEADLINE)).unwrap();
            let mut buffer = [0; 2000];
            for number in 0..3_u8 {
                visitor.send(&[number; 40]).unwrap();
                let (length, from) = service.recv_from(&mut buffer).unwrap();
                let mut bytes = &buffer[..length];
                if number == 0 {
                    let header;
                    (header, bytes) = split_v2(bytes, DATAGRAM);
                    assert_eq!(header.source, visitor.local_addr().unwrap());
                    assert_eq!(header.destination, program.public());
                }
                assert_eq!(bytes, [number; 40]);
                service.send_to(&[number; 7], from).unwrap();
                let length = visitor.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..length], [number; 7]);
            }
        }
    }
}

//! What `towpath expose` carries: long streams both ways, many visitors, datagrams.

use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::thread;

use crate::support::DEADLINE;
use crate::support::backend::Backend;
use crate::support::bulk;
use crate::support::folder::Folder;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::{Program, expect_echoing};

/// Modes and sizes of the pool.
const WAYS: [(&[&str], &str); 4] = [
    (&[], "0"),
    (&["--direct"], "0"),
    (&["--direct"], "8"),
    (&["--mux"], "0"),
];

fn start(tunnel: &Tunnel, folder: &Folder, mode: &[&str], local: &str) -> Program {
    let identity: PathBuf = folder.path().join("expose.id");
    Program::start(tunnel.address, &identity, &[mode, &[local]].concat())
}

#[test]
fn long_streams_arrive_whole_and_end_one_after_the_other() {
    const TOTAL: usize = 64 << 20;
    for (mode, pool) in WAYS {
        let (tell, told) = channel();
        let folder = Folder::new();
        let backend = Backend::serve(move |mut peer, _| {
            let received = bulk::receive(&mut peer);
            // Its own direction is open still.
            tell.send((received, bulk::send(&mut peer, 2, TOTAL)))
                .unwrap();
        });
        let tunnel = Plan::new(1).workers(2).key("pool", pool).start();
        let program = start(&tunnel, &folder, mode, &backend.address.to_string());
        let mut visitor = Peer::connect(program.public());
        let sent = bulk::send(&mut visitor, 1, TOTAL);
        let received = bulk::receive(&mut visitor);
        let (there, back) = told.recv_timeout(DEADLINE).unwrap();
        assert!(there == (TOTAL, sent), "{mode:?}, pool of {pool}");
        assert!(received == (TOTAL, back), "{mode:?}, pool of {pool}");
        drop(visitor);
        program.stop();
        tunnel.stop();
    }
}

#[test]
fn streams_go_both_ways_at_once() {
    const TOTAL: usize = 16 << 20;
    for (mode, pool) in WAYS {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let tunnel = Plan::new(1).workers(2).key("pool", pool).start();
        let program = start(&tunnel, &folder, mode, &backend.address.to_string());
        let pairs: Vec<_> = (0..8)
            .map(|seed| {
                let mut visitor = Peer::connect(program.public());
                let mut writer = visitor.twin();
                let sending = thread::spawn(move || bulk::send(&mut writer, seed, TOTAL));
                let receiving = thread::spawn(move || bulk::receive(&mut visitor));
                (sending, receiving)
            })
            .collect();
        for (sending, receiving) in pairs {
            let sent = sending.join().unwrap();
            assert!(receiving.join().unwrap() == (TOTAL, sent), "{mode:?}");
        }
        program.stop();
        tunnel.stop();
    }
}

#[test]
fn two_hundred_visitors_at_once_are_served() {
    kernel::raise_own_descriptor_limit();
    for (mode, pool) in WAYS {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let tunnel = Plan::new(1).workers(2).key("pool", pool).start();
        let program = start(&tunnel, &folder, mode, &backend.address.to_string());
        let barrier = Arc::new(Barrier::new(200));
        thread::scope(|scope| {
            for number in 0..200_usize {
                let (barrier, public) = (Arc::clone(&barrier), program.public());
                scope.spawn(move || {
                    let block = vec![number.to_le_bytes()[0]; 1000 + number];
                    let mut visitor = Peer::connect(public);
                    visitor.send(&block).expect(&block);
                    barrier.wait();
                    visitor.send(&block).expect(&block);
                    barrier.wait();
                    visitor.finish().expect_end();
                });
            }
        });
        expect_echoing(program.public());
        program.stop();
        tunnel.stop();
    }
}

#[test]
fn the_service_may_speak_first() {
    for (mode, pool) in WAYS {
        let (folder, backend) = (Folder::new(), Backend::banner("220 ready\r\n"));
        let tunnel = Plan::new(1).key("pool", pool).start();
        let program = start(&tunnel, &folder, mode, &backend.address.to_string());
        for _ in 0..20 {
            let mut visitor = Peer::connect(program.public());
            visitor.expect(b"220 ready\r\n").send(b"QUIT").finish();
            visitor.expect(b"QUIT").expect_end();
        }
    }
}

/// Gives every datagram back until one says that it is the last.
fn udp_echo() -> (String, thread::JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
            if buffer[..length] == *b"the last" {
                return;
            }
        }
    });
    (address, thread)
}

#[test]
fn datagrams_go_both_ways() {
    for mode in [&["--udp"][..], &["--udp", "--mux"]] {
        let (folder, (local, echo)) = (Folder::new(), udp_echo());
        let tunnel = Plan::new(1).workers(2).start();
        let program = start(&tunnel, &folder, mode, &local);
        let visitors: Vec<UdpSocket> = (0..10)
            .map(|_| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                socket.connect(program.public()).unwrap();
                socket
            })
            .collect();
        let mut buffer = vec![0; 1 << 16];
        for length in [1, 0, 1000, 1473, 30_000, 65_507] {
            for (number, visitor) in visitors.iter().enumerate() {
                let sent = vec![number.to_le_bytes()[0]; length];
                visitor.send(&sent).unwrap();
                let got = visitor.recv(&mut buffer).unwrap();
                assert!(buffer[..got] == sent, "{mode:?}: {got} of {length} bytes");
            }
        }
        visitors[0].send(b"the last").unwrap();
        let got = visitors[0].recv(&mut buffer).unwrap();
        assert_eq!(buffer[..got], *b"the last");
        echo.join().unwrap();
        program.stop();
    }
}

//! Many connections at once, and what is left when they are gone; and what an idle server costs.

use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::thread;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::tunnel::plan::Plan;
use crate::support::tunnel::program::Program;
use crate::support::window::expect_calm;
use crate::support::{DEADLINE, kernel, until};

/// Where so many threads wait for each other, and not for ever: one that has failed never comes.
struct Gate {
    threads: usize,
    came: Mutex<usize>,
    all: Condvar,
}

impl Gate {
    fn new(threads: usize) -> Self {
        Self {
            threads,
            came: Mutex::new(0),
            all: Condvar::new(),
        }
    }

    /// Waits until all have come so many times.
    fn wait(&self, times: usize) {
        let mut came = self.came.lock().unwrap();
        *came += 1;
        if came.is_multiple_of(self.threads) {
            self.all.notify_all();
        }
        let some_lack = |came: &mut usize| *came < times * self.threads;
        let (came, wait) = self
            .all
            .wait_timeout_while(came, DEADLINE, some_lack)
            .unwrap();
        drop(came);
        assert!(!wait.timed_out(), "not all threads have come");
    }
}

/// Fails unless three waves come and go without a process of these growing by more than 2 MiB. The first
/// waves pay for what is kept: pools, stacks, tables, of which a busy machine may need more in a later
/// wave. What leaks grows with every three.
fn expect_steady(what: &str, processes: &[u32], wave: impl Fn()) {
    let resident = || -> Vec<u64> {
        let sizes = processes.iter().copied().map(kernel::resident_bytes);
        sizes.collect()
    };
    wave();
    let mut before = resident();
    let mut told = Vec::new();
    for _ in 0..4 {
        for _ in 0..3 {
            wave();
        }
        let after = resident();
        let pairs = after.iter().zip(&before);
        let growth: Vec<u64> = pairs.map(|(now, old)| now.saturating_sub(*old)).collect();
        if growth.iter().all(|more| *more <= 2 << 20) {
            return;
        }
        told.push(growth);
        before = after;
    }
    panic!("{what}: {told:?} bytes more after three more waves each");
}

/// Opens `count` relays, has all of them open at the same time, and echoes through each.
fn wave(server: &Server, count: usize) {
    let gate = &Gate::new(count);
    thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                let block = vec![number.to_le_bytes()[0]; 1000 + number];
                let mut peer = server.open();
                peer.send(&block).expect(&block);
                gate.wait(1);
                peer.send(&block).expect(&block);
                gate.wait(2);
                peer.finish().expect_end();
            });
        }
    });
}

#[test]
fn three_hundred_relays_at_once_are_served_and_leave_nothing_behind() {
    kernel::raise_own_descriptor_limit();
    let backend = Backend::echo();
    // Of so many threads one may be kept from its request for a while.
    let server = Setup::to(backend.address)
        .limit("handshake_timeout = \"60s\"")
        .start();
    expect_steady("relays", &[server.process()], || {
        wave(&server, 300);
        server.expect_open(0);
    });
    server.stop();
}

#[test]
fn three_hundred_store_clients_at_once_are_served() {
    kernel::raise_own_descriptor_limit();
    let server = Setup::new().limit("handshake_timeout = \"60s\"").start();
    let narrow = Dialect::Document;
    let mut peers: Vec<_> = (0..300).map(|_| server.connect()).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let id = number.to_le_bytes();
        peer.send([narrow.update(&id, b"s", &id), narrow.query(&id, b"s")].concat());
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.reply(narrow).expect_done(b"update");
        assert_eq!(peer.reply(narrow).record(narrow).1, number.to_le_bytes());
    }
    drop(peers);
    server.expect_open(0);
    server.stop();
}

#[test]
fn a_length_without_its_bytes_costs_no_memory() {
    kernel::raise_own_descriptor_limit();
    let server = Setup::new().limit("handshake_timeout = \"60s\"").start();
    server.expect_alive();
    let before = kernel::resident_bytes(server.process());
    let mut held = Vec::new();
    for number in 0..400 {
        let dialect = crate::support::frame::DIALECTS[number % 2];
        let mut frame = dialect.frame(0, b"");
        frame.truncate(9);
        frame.extend(dialect.length(crate::support::frame::MOST as u64));
        frame.extend(b"a few bytes");
        let mut peer = server.connect();
        peer.send(frame).settle();
        held.push(peer);
    }
    let growth = kernel::resident_bytes(server.process()).saturating_sub(before);
    // The lengths promise 200 MiB.
    assert!(
        growth < 16 * 1024 * 1024,
        "{growth} bytes for {} promises",
        held.len()
    );
    server.expect_alive();
}

#[test]
fn an_idle_server_uses_no_processor_time() {
    let backend = Backend::silent();
    let server = Setup::to(backend.address).start();
    let relays: Vec<_> = (0..50).map(|_| server.open()).collect();
    server.expect_alive();
    expect_calm(server.process(), 3);
    drop(relays);
    server.stop();
}

#[test]
fn relays_that_come_and_go_quickly_leave_nothing_behind() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..250_usize {
                    let mut peer = server.open();
                    match round % 4 {
                        0 => drop(peer),
                        1 => peer.reset(),
                        2 => {
                            peer.send(b"ping").expect(b"ping");
                        }
                        _ => {
                            peer.send(b"ping").finish().expect(b"ping").expect_end();
                        }
                    }
                }
            });
        }
    });
    server.expect_open(0);
    server.expect_alive();
    server.stop();
}

/// Opens `count` visitors of a tunnel, has all of them open at the same time, and echoes through each.
fn visitor_wave(public: SocketAddr, count: usize) {
    let gate = &Gate::new(count);
    thread::scope(|scope| {
        for number in 0..count {
            scope.spawn(move || {
                let block = vec![number.to_le_bytes()[0]; 1000 + number];
                let mut visitor = Peer::connect(public);
                visitor.send(&block).expect(&block);
                gate.wait(1);
                visitor.send(&block).expect(&block);
                gate.wait(2);
                visitor.finish().expect_end();
            });
        }
    });
}

#[test]
fn waves_of_visitors_leave_nothing_behind_at_either_end() {
    kernel::raise_own_descriptor_limit();
    for mode in [&[][..], &["--direct"], &["--mux"]] {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let tunnel = Plan::new(1).workers(2).start();
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let identity = folder.path().join("expose.id");
        let program = Program::start(tunnel.address, &identity, &words);
        let ends = [tunnel.process(), program.process()];
        expect_steady(&format!("{mode:?}"), &ends, || {
            visitor_wave(program.public(), 200);
            until("the wave is gone", || {
                kernel::descriptors(ends[1]) <= AT_REST
            });
        });
        program.stop();
        tunnel.stop();
    }
}

/// More descriptors than a client without visitors has.
const AT_REST: usize = 64;

#[test]
fn an_idle_tunnel_uses_no_processor_time_at_either_end() {
    for mode in [&[][..], &["--direct"], &["--mux"]] {
        let (folder, backend) = (Folder::new(), Backend::silent());
        let tunnel = Plan::new(1).key("pool", "8").start();
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let identity = folder.path().join("expose.id");
        let program = Program::start(tunnel.address, &identity, &words);
        let visitors: Vec<Peer> = (0..50).map(|_| Peer::connect(program.public())).collect();
        until("all visitors are served", || backend.accepted() >= 50);
        // Signs of life and connections that are renewed cost next to nothing.
        expect_calm(tunnel.process(), 3);
        expect_calm(program.process(), 3);
        drop(visitors);
        program.stop();
        tunnel.stop();
    }
}

//! What clients of the agent role and an operator see of it: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::frame::Dialect;
use crate::support::notify::Notify;
use crate::support::peer::Peer;
use crate::support::server::{Server, Setup};
use crate::support::{kernel, until};

/// A server of two workers that waits for whatever is open.
fn patient(backend: &Backend) -> Setup {
    let setup = Setup::to(backend.address).top("workers = 2");
    let setup = setup.limit("drain_timeout = \"5m\"");
    setup.limit("handshake_timeout = \"1m\"")
}

/// One connection through the route, from its first byte to its last.
fn pass(server: &Server, bytes: &[u8]) {
    let mut peer = server.open();
    peer.send(bytes).expect(bytes);
    peer.finish().expect_end();
}

#[test]
fn nobody_is_refused_and_what_is_open_goes_on_where_it_is() {
    let backend = Backend::echo();
    let mut server = patient(&backend).admin().start();
    let first = server.process();
    let mut relay = server.open();
    // It has said nothing before, and is served whoever has let it in.
    let mut quiet: Vec<Peer> = (0..8).map(|_| server.connect()).collect();
    let (over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let heirs: Vec<u32> = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    pass(&server, b"in the midst of it");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let heirs = (0..3).map(|_| {
            let heir = server.hand_over();
            let so_far = served.load(Ordering::Relaxed);
            until("clients come", || {
                served.load(Ordering::Relaxed) > so_far + 20
            });
            heir
        });
        let heirs = heirs.collect();
        over.store(true, Ordering::Relaxed);
        heirs
    });
    assert!(!heirs.contains(&first) && heirs[0] != heirs[1] && heirs[1] != heirs[2]);
    for peer in &mut quiet {
        peer.send(Dialect::Stock.traffic(b"svc", b"x", b""));
        peer.expect(Dialect::Stock.greeting());
    }
    // The first process has the relay, and nothing else is left there in the end.
    relay.send(b"still there").expect(b"still there");
    for mut peer in quiet {
        peer.send(b"late").expect(b"late");
        peer.finish().expect_end();
    }
    until("the second one ends", || !kernel::is_running(heirs[0]));
    assert!(server.is_running());
    relay.send(b"still there").expect(b"still there");
    relay.finish().expect_end();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    // The admin address is the newest one's.
    assert_eq!(server.admin().metric("towpath_draining", ""), 0.0);
    pass(&server, b"after it");
    server.stop_heir();
}

#[test]
fn a_proxy_that_has_not_said_for_whom_it_comes_may_still_do_so() {
    let backend = Backend::echo();
    let mut server = patient(&backend)
        .agent("accept_proxy = ['127.0.0.1']")
        .start();
    let mut peers: Vec<Peer> = (0..4).map(|_| server.connect()).collect();
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    for peer in &mut peers {
        peer.send(&line[..9]).settle();
    }
    let heir = server.hand_over();
    for mut peer in peers {
        peer.send(&line[9..]);
        peer.send(Dialect::Stock.traffic(b"svc", b"x", b""));
        peer.expect(Dialect::Stock.greeting());
        peer.send(b"late").expect(b"late");
        peer.finish().expect_end();
    }
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    assert!(kernel::is_running(heir));
    server.stop_heir();
}

#[test]
fn updates_are_there_afterwards_and_go_on() {
    let folder = Arc::new(Folder::new());
    let mut server = Setup::new().top("workers = 2").folder(&folder).start();
    server.store(b"before", b"s", b"1");
    server.hand_over();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    assert_eq!(server.stored(b"before", b"s"), Some(b"1".to_vec()));
    server.store(b"between", b"s", b"2");
    server.hand_over();
    until("two have ended", || {
        server.log().matches("stopped: accepted=").count() == 2
    });
    assert_eq!(server.stored(b"between", b"s"), Some(b"2".to_vec()));
    server.store(b"after", b"s", b"3");
    server.stop_heir();
    let again = Setup::new().folder(&folder).start();
    for (id, value) in [(&b"before"[..], b"1"), (b"between", b"2"), (b"after", b"3")] {
        assert_eq!(again.stored(id, b"s"), Some(value.to_vec()));
    }
}

/// Stores a value, or learns that it is to come again; whether it is stored.
fn try_store(server: &Server, id: &[u8]) -> bool {
    let wide = Dialect::Stock;
    let reply = server.connect().ask(wide, &wide.update(id, b"s", id));
    match reply.code {
        0 => reply.expect_done(b"update"),
        _ => {
            let why = reply.expect_refused(b"update");
            assert!(why.contains("a newer process of this server"), "{why}");
        }
    }
    reply.code == 0
}

#[test]
fn an_update_that_is_acknowledged_is_kept_whoever_has_taken_it() {
    let server = Setup::new().top("workers = 2").start();
    let (over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let stored: Vec<Vec<u8>> = thread::scope(|scope| {
        let storing = |worker: u32| {
            let (server, over, done) = (&server, &over, &done);
            move || {
                let mut stored = Vec::new();
                for number in 0_u32.. {
                    let id = [worker.to_be_bytes(), number.to_be_bytes()].concat();
                    if try_store(server, &id) {
                        stored.push(id);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                }
                stored
            }
        };
        let threads: Vec<_> = (0..3).map(|worker| scope.spawn(storing(worker))).collect();
        for _ in 0..3 {
            let so_far = done.load(Ordering::Relaxed);
            until("updates go on", || {
                done.load(Ordering::Relaxed) > so_far + 50
            });
            server.hand_over();
        }
        let so_far = done.load(Ordering::Relaxed);
        until("updates go on", || {
            done.load(Ordering::Relaxed) > so_far + 50
        });
        over.store(true, Ordering::Relaxed);
        let stored = threads.into_iter().map(|thread| thread.join().unwrap());
        stored.flatten().collect()
    });
    for id in &stored {
        assert_eq!(server.stored(id, b"s").as_ref(), Some(id));
    }
    server.stop_heir();
}

#[test]
fn the_service_manager_is_told_who_serves_and_keeps_the_sockets() {
    let notify = Notify::new();
    let setup = Setup::new().top("workers = 2");
    let mut server = setup
        .environment("NOTIFY_SOCKET", &notify.path())
        .environment("WATCHDOG_USEC", "20000000")
        .start();
    notify.expect("READY");
    let kept = ["agent-0", "agent-1"];
    for name in kept {
        assert_eq!(notify.expect("FDSTORE").value("FDNAME"), Some(name));
    }
    let heir = server.hand_over();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    let main = notify.expect("MAINPID");
    assert_eq!(main.value("MAINPID"), Some(&*heir.to_string()));
    for name in kept {
        let stored = notify.expect("FDSTORE");
        assert_eq!(stored.value("FDNAME"), Some(name));
        assert_eq!(stored.descriptors.len(), 1);
    }
    // It is fed at once, since the time of its last food counts on.
    notify.expect("WATCHDOG");
    notify.expect("READY");
    for name in ["STOPPING", "FDSTOREREMOVE"] {
        assert!(!notify.has_heard(name), "the older one takes nothing away");
    }
    server.expect_alive();
    server.stop_heir();
    notify.expect("STOPPING");
    for name in kept {
        let removed = notify.expect("FDSTOREREMOVE");
        assert_eq!(removed.value("FDNAME"), Some(name));
    }
}

#[test]
fn a_server_that_drains_hands_nothing_over() {
    let backend = Backend::echo();
    let mut server = patient(&backend).start();
    let mut relay = server.open();
    server.signal("TERM");
    until("it drains", || server.log().contains("draining: "));
    server.signal("USR2");
    until("it says so", || {
        server.log().contains("SIGUSR2: the server is ending")
    });
    relay.finish().expect_end();
    assert_eq!(server.ended(), Some(0), "{}", server.log());
    assert!(server.heirs().is_empty());
}

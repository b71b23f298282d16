//! `towpath expose` whose inside service is down, closes, hangs or comes back.

use std::path::PathBuf;

use crate::support::backend::{Backend, BlackHole, Refusing, echo};
use crate::support::folder::Folder;
use crate::support::kernel;
use crate::support::peer::{End, Peer};
use crate::support::tunnel::expect_turned_away;
use crate::support::tunnel::plan::{Plan, Tunnel};
use crate::support::tunnel::program::{Program, expect_echoing};

const MODES: [&[&str]; 3] = [&[], &["--direct"], &["--mux"]];

fn identity(folder: &Folder) -> PathBuf {
    folder.path().join("expose.id")
}

#[test]
fn a_service_that_is_down_ends_its_visitors_and_comes_back() {
    for mode in MODES {
        let (tunnel, folder, refusing) = (Tunnel::new(1), Folder::new(), Refusing::new());
        let local = refusing.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity(&folder), &words);
        for _ in 0..20 {
            expect_turned_away(program.public());
        }
        // It is told, and not for every visitor of a crowd.
        program.expect_said("cannot be reached");
        let said = program.said();
        assert!(said.lines().count() <= 25, "{said}");
        let _backend = Backend::serve_on(refusing.open(), |peer, _| echo(peer));
        expect_echoing(program.public());
        program.stop();
        tunnel.stop();
    }
}

#[test]
fn a_service_that_closes_at_once_closes_its_visitors() {
    for mode in MODES {
        let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::closes());
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity(&folder), &words);
        for _ in 0..50 {
            expect_turned_away(program.public());
        }
        program.stop();
    }
}

#[test]
fn a_service_that_cannot_be_reached_holds_up_no_other() {
    for mode in MODES {
        let tunnel = Plan::new(2).limit("connect_timeout = \"1s\"").start();
        let (folder, backend, hole) = (Folder::new(), Backend::echo(), BlackHole::new());
        let words = [
            format!("web={}", backend.address),
            format!("hole={}", hole.address),
        ];
        let words = [mode, &[&words[0], &words[1]]].concat();
        let program = Program::start(tunnel.address, &identity(&folder), &words);
        let mut lost: Vec<Peer> = (0..20)
            .map(|_| Peer::connect(program.public_of("hole")))
            .collect();
        for _ in 0..10 {
            expect_echoing(program.public_of("web"));
        }
        for visitor in &mut lost {
            visitor.expect_closed();
        }
        expect_echoing(program.public_of("web"));
    }
}

#[test]
fn a_reset_goes_through() {
    for mode in MODES {
        let (tunnel, folder) = (Tunnel::new(1), Folder::new());
        let backend = Backend::serve(|mut peer, number| {
            peer.take(4);
            match number % 2 {
                0 => peer.reset(),
                _ => {
                    peer.send(b"your turn");
                    peer.expect_reset();
                }
            }
        });
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity(&folder), &words);
        for _ in 0..5 {
            let mut visitor = Peer::connect(program.public());
            visitor.send(b"ping");
            assert_eq!(visitor.rest().1, End::Reset);
            let mut visitor = Peer::connect(program.public());
            visitor.send(b"ping").expect(b"your turn");
            visitor.reset();
        }
        program.stop();
    }
}

#[test]
fn nothing_is_left_of_visitors_at_either_end() {
    for mode in MODES {
        let (tunnel, folder, backend) = (Tunnel::new(1), Folder::new(), Backend::echo());
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity(&folder), &words);
        expect_echoing(program.public());
        let at_rest = kernel::descriptors(program.process());
        for round in 0..200 {
            let mut visitor = Peer::connect(program.public());
            match round % 4 {
                0 => drop(visitor),
                1 => visitor.reset(),
                2 => {
                    visitor.send(b"ping").expect(b"ping");
                }
                _ => {
                    visitor.send(b"ping").finish().expect(b"ping").expect_end();
                }
            }
        }
        // A pool may have grown meanwhile, and no further than it may.
        crate::support::until("the client's connections are gone", || {
            kernel::descriptors(program.process()) <= at_rest + 8
        });
        program.stop();
        tunnel.stop();
    }
}

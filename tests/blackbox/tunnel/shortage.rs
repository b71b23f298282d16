//! Visitors that want more descriptors than there are: they are turned away, the tunnel lives on.

use std::net::TcpStream;

use crate::support::DEADLINE;
use crate::support::backend::Backend;
use crate::support::folder::Folder;
use crate::support::kernel;
use crate::support::peer::Peer;
use crate::support::tunnel::plan::Plan;
use crate::support::tunnel::program::{Program, expect_echoing};
use crate::support::window::expect_calm;

const MODES: [(&[&str], &str); 4] = [
    (&[], "0"),
    (&["--direct"], "0"),
    (&["--direct"], "8"),
    (&["--mux"], "0"),
];

/// Two hundred visitors who want to be echoed; those that are not served are closed, some of them
/// before they know that they are connected.
fn crowd(program: &Program) -> Vec<Peer> {
    let public = program.public();
    (0..200)
        .filter_map(|number: u8| {
            let stream = TcpStream::connect_timeout(&public, DEADLINE).ok()?;
            let mut visitor = Peer::new(stream);
            visitor.try_send(&[number; 100]);
            Some(visitor)
        })
        .collect()
}

#[test]
fn a_server_that_may_open_little_serves_again_when_the_crowd_has_left() {
    kernel::raise_own_descriptor_limit();
    for (mode, pool) in MODES {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let plan = Plan::new(2).workers(1).key("pool", pool);
        let plan = plan.text("visitor_timeout", "2s");
        let tunnel = plan.wrapper(&["prlimit", "--nofile=64:64", "--"]).start();
        let identity = folder.path().join("expose.id");
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity, &words);
        expect_echoing(program.public());
        for resets in [false, true] {
            let mut visitors = crowd(&program);
            // Somebody is served meanwhile, and the server does not spin.
            let served = |peer: &mut Peer| matches!(peer.some(&mut [0; 100]), Ok(1..));
            assert!(visitors.iter_mut().take(5).any(served), "{mode:?}");
            expect_calm(tunnel.process(), 20);
            match resets {
                true => visitors.into_iter().for_each(Peer::reset),
                false => drop(visitors),
            }
            expect_echoing(program.public());
        }
        // The control connection was never lost.
        let said = program.said();
        assert!(!said.contains("lost"), "{said}");
        program.stop();
        tunnel.server.expect_open(0);
        tunnel.server.stop();
    }
}

#[test]
fn a_client_that_may_open_little_serves_again_as_well() {
    kernel::raise_own_descriptor_limit();
    for (mode, pool) in MODES {
        let (folder, backend) = (Folder::new(), Backend::echo());
        let plan = Plan::new(1).workers(1).key("pool", pool);
        let tunnel = plan.text("visitor_timeout", "2s").start();
        let identity = folder.path().join("expose.id");
        let local = backend.address.to_string();
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity, &words);
        kernel::set_limit(program.process(), "--nofile=40:40");
        let mut visitors = crowd(&program);
        // All get an answer or an end.
        for visitor in &mut visitors {
            let _ = visitor.some(&mut [0; 100]);
        }
        drop(visitors);
        expect_echoing(program.public());
        program.stop();
    }
}

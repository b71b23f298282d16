//! The operator is answered when everybody else is not.

use crate::support::backend::Backend;
use crate::support::server::Setup;
use crate::support::{kernel, until};

#[test]
fn status_is_told_while_clients_use_all_that_there_is() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address)
        .admin()
        .wrapper(&["prlimit", "--nofile=64:64", "--"])
        .start();
    let clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let admin = server.admin();
    until("it rests for want of places", || {
        admin.metric("towpath_accept_rests_total", "") > 0.0
    });
    for _ in 0..20 {
        assert_eq!(admin.get("/status")["phase"], "serving");
    }
    drop(clients);
    // While they are still being forgotten, somebody may be turned away.
    server.expect_served_again();
    server.expect_open(0);
    server.stop();
}

#[test]
fn status_is_told_while_no_descriptor_is_left() {
    let backend = Backend::echo();
    let server = Setup::to(backend.address).admin().start();
    // From here on there is room for nobody, not even for what is held in reserve.
    let now = kernel::descriptors(server.process());
    kernel::set_limit(server.process(), &format!("--nofile={now}:{now}"));
    let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let admin = server.admin();
    until("it rests for want of descriptors", || {
        admin.metric("towpath_accept_rests_total", "") > 0.0
    });
    for _ in 0..20 {
        assert_eq!(admin.get("/status")["phase"], "serving");
    }
    drop(clients);
    server.stop();
}

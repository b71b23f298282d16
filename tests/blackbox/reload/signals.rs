//! SIGHUP: many are few reloads, and the admin address need not be on.

use std::time::Instant;

use crate::support::backend::Backend;
use crate::support::route::Route;
use crate::support::server::Setup;
use crate::support::until;

#[test]
fn a_hundred_signals_in_a_second_are_two_reloads() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address);
    let server = setup.start();
    let mut relay = server.open();
    let begun = Instant::now();
    for _ in 0..100 {
        server.signal("HUP");
    }
    let count = || server.log().matches("reload: nothing has changed").count();
    until("the signals have led to a reload", || count() > 0);
    // They are sent in less than a second on an idle machine; on a busy one each further second may
    // have one more.
    let most = 2 + begun.elapsed().as_secs() as usize;
    assert!(count() <= most, "{}", server.log());
    // The last of them is not lost: what is written behind it is read.
    let other = Route::new("other").host("default", backend.address);
    server.rewrite(&setup.route(other));
    server.signal("HUP");
    until("the last signal is heard", || {
        server.log().contains("route added: other default")
    });
    relay.send("still").expect("still").finish().expect_end();
    server.stop();
}

#[test]
fn a_broken_file_by_signal_leaves_everything_as_it_was() {
    let backend = Backend::echo();
    let setup = Setup::to(backend.address);
    let server = setup.start();
    let mut relay = server.open();
    server.rewrite(&setup.clone().limit("idle_timeout = 5"));
    server.signal("HUP");
    until("the mistake is in the log", || {
        let log = server.log();
        log.contains("towpath.toml:3:16: error: ") && log.contains("stays in force")
    });
    relay.send("still").expect("still");
    server.open().send("new").expect("new");
    server.rewrite(&setup.limit("idle_timeout = \"7m\""));
    server.signal("HUP");
    until("the mended file is in force", || {
        server.log().contains("limits.idle_timeout: 10m -> 7m")
    });
    relay.send("still").expect("still").finish().expect_end();
    server.stop();
}

//! Bandwidth limits from outside: the rate of a route both ways, by splice, while another is untouched;
//! of one source address; and what is said of limits that are none.
//!
//! A machine that is busy may be late, and then a transfer takes longer than it would: so the least time
//! is a hard bound, and the most leaves slack. The engine's own accuracy is shown in virtual time by the
//! simulation.

use std::time::{Duration, Instant};

use super::support::backend::Backend;
use super::support::bulk;
use super::support::chain::{Key, plan as chain};
use super::support::folder::Folder;
use super::support::frame::Dialect;
use super::support::peer::Peer;
use super::support::route::Route;
use super::support::server::{Server, Setup};
use super::support::tunnel::plan as tunnel;
use super::support::tunnel::program::Program;
use super::support::until;

/// The ends of kernel pipes that the server has.
fn pipes(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.process());
    let entries = std::fs::read_dir(folder).unwrap();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let is_pipe = |target: &std::path::PathBuf| target.to_string_lossy().starts_with("pipe:");
    targets.filter(is_pipe).count()
}

/// 20 MiB a second, as the configuration writes it.
const RATE: f64 = (20 << 20) as f64;

/// Reads all, and then answers with as many bytes as it is told.
fn answering(total: usize) -> Backend {
    Backend::serve(move |mut peer, _| {
        let (_, _) = bulk::receive(&mut peer);
        bulk::send(&mut peer, 7, total);
    })
}

/// Sends `total` bytes through a relay and reads as many back; how long each took.
fn transfer(mut relay: Peer, total: usize) -> [Duration; 2] {
    let start = Instant::now();
    bulk::send(&mut relay, 5, total);
    // The backend answers when it has all.
    let first = relay.take(1);
    let there = start.elapsed();
    assert_eq!(first.len(), 1);
    let (more, _) = bulk::receive(&mut relay);
    assert_eq!(more + 1, total);
    [there, start.elapsed() - there]
}

/// What part of the time each way took that the limit gives it.
fn ratios(took: [Duration; 2], total: usize) -> [f64; 2] {
    took.map(|took| took.as_secs_f64() * RATE / total as f64)
}

fn open(server: &Server, service: &str) -> Peer {
    server.relay(Dialect::Stock, service, "default", "")
}

fn two_routes(backend: &Backend) -> Setup {
    let route = |name| Route::new(name).host("default", backend.address);
    Setup::new()
        .route(route("slow").bandwidth("20M"))
        .route(route("fast"))
        .admin()
}

#[test]
fn a_limited_route_keeps_its_rate_by_splice_and_another_is_untouched() {
    let total = 100_000_000;
    let backend = answering(total);
    let server = two_routes(&backend).start();
    let before = pipes(&server);
    let relay = open(&server, "slow");
    let transferring = std::thread::spawn(move || transfer(relay, total));
    until("bytes pass by a kernel pipe", || pipes(&server) > before);
    let mut shares = ratios(transferring.join().unwrap(), total);
    // A machine that was busy may have been late: then once more.
    for _ in 0..4 {
        // What the bucket and the sockets hold at once goes off the time, no more.
        assert!(shares.iter().all(|share| *share >= 0.95), "{shares:?}");
        if shares.iter().all(|share| *share < 1.6) {
            break;
        }
        shares = ratios(transfer(open(&server, "slow"), total), total);
    }
    assert!(shares.iter().all(|share| *share < 1.6), "{shares:?}");
    let admin = server.admin();
    let waits = admin.metric("towpath_bandwidth_waits_total", "");
    assert!(waits > 100.0, "{waits} waits");
    // However busy the machine is, one that is limited never passes in half of its time.
    until("a transfer takes less than the limit's time", || {
        let took = transfer(open(&server, "fast"), total);
        ratios(took, total).iter().all(|share| *share < 0.5)
    });
    let after = admin.metric("towpath_bandwidth_waits_total", "");
    assert!(after == waits, "who is not limited does not wait");
    server.stop();
}

#[test]
fn relays_of_one_source_share_its_limit_over_all_routes_and_cores() {
    let total = 10_000_000;
    let backend = answering(total);
    let server = two_routes(&backend)
        .top("workers = 2")
        .limit("bandwidth_per_ip = \"10M\"")
        .start();
    let start = Instant::now();
    let relays = ["fast", "fast", "slow", "fast"].map(|service| open(&server, service));
    let threads = relays.map(|relay| std::thread::spawn(move || transfer(relay, total)));
    for thread in threads {
        thread.join().unwrap();
    }
    // Four times as many there, and then back, as far as one way waits for the other.
    let least = 4.0 * total as f64 / (RATE / 2.0);
    let took = start.elapsed().as_secs_f64();
    assert!(took > 0.95 * least, "{took} s instead of {least}");
    server.stop();
}

/// Passes 3 MB through an echo at 2 MiB a second, and fails if that took less than it must.
fn expect_slow(what: &str, peer: &mut Peer) {
    let total = 3_000_000;
    let start = Instant::now();
    let mut up = peer.twin();
    let sending = std::thread::spawn(move || bulk::send(&mut up, 5, total));
    assert!(
        bulk::receive(peer) == (total, sending.join().unwrap()),
        "{what}"
    );
    let (took, least) = (start.elapsed().as_secs_f64(), 3.0 / 2.1);
    // What the bucket holds at the beginning goes off.
    assert!(took > least * 0.9, "{what}: {took} s");
    assert!(took < least * 10.0, "{what}: {took} s");
}

#[test]
fn access_listeners_and_hops_keep_theirs_sealed_or_not() {
    let backend = Backend::echo();
    let key = Key::number(200).text();
    for (sealed, hop_rate, access_rate) in [
        (false, "2M", "0"),
        (false, "0", "2M"),
        (true, "2M", "0"),
        (true, "0", "2M"),
    ] {
        let plan = chain::Plan::allowing(Key::number(9), &[backend.address]);
        let hop = plan
            .text("payload_key", &key)
            .text("bandwidth", hop_rate)
            .start();
        let mut lines = vec![
            format!("via = {}", chain::via(&hop.hops)),
            format!("to = \"{}\"", backend.address),
            format!("bandwidth = {access_rate:?}"),
        ];
        lines.extend(sealed.then(|| format!("payload_key = {key:?}")));
        let server = chain::serve(&chain::access("db", "tcp", &lines));
        let mut peer = server.access("db");
        let what = format!("sealed {sealed}, hop {hop_rate}, access {access_rate}");
        expect_slow(&what, &mut peer);
        server.stop();
        hop.stop();
    }
}

#[test]
fn the_visitors_of_a_tunnels_service_keep_theirs_in_both_modes() {
    let backend = Backend::echo();
    let folder = Folder::new();
    let plan = tunnel::Plan::new(4).text("bandwidth_per_service", "2M");
    let tunnel = plan.start();
    let local = format!("web={}", backend.address);
    for mode in [&["--mux"][..], &[]] {
        let identity = folder.path().join(format!("identity-{}", mode.len()));
        let words = [mode, &[&local]].concat();
        let program = Program::start(tunnel.address, &identity, &words);
        let mut visitor = Peer::connect(program.public());
        expect_slow(&format!("{mode:?}"), &mut visitor);
    }
}

#[test]
fn what_visitors_get_of_a_tunnel_keeps_to_either_limit_in_every_mode() {
    let total = 4_000_000;
    let backend = Backend::serve(move |mut peer, _| {
        bulk::send(&mut peer, 7, total);
    });
    let folder = Folder::new();
    let local = format!("web={}", backend.address);
    let plan = || tunnel::Plan::new(4);
    let plans = [
        plan().text("bandwidth_per_service", "2M"),
        plan().limit("bandwidth_per_ip = \"2M\""),
    ];
    for (number, plan) in plans.iter().enumerate() {
        let tunnel = plan.start();
        for mode in [&["--mux"][..], &["--direct"], &[]] {
            let identity = folder.path().join(format!("{number}-{mode:?}"));
            let words = [mode, &[&local]].concat();
            let program = Program::start(tunnel.address, &identity, &words);
            let mut visitor = Peer::connect(program.public());
            let start = Instant::now();
            assert_eq!(bulk::receive(&mut visitor).0, total);
            let (took, least) = (start.elapsed().as_secs_f64(), 4.0 / 2.1);
            // What the bucket and a read hold at once goes off the time, no more.
            assert!(took > least * 0.9, "{number}, {mode:?}: {took} s");
            assert!(took < least * 10.0, "{number}, {mode:?}: {took} s");
        }
    }
}

#[test]
fn what_is_no_bandwidth_is_refused_with_its_place() {
    let backend = Backend::silent();
    let route = Route::new("svc").host("default", backend.address);
    let (code, said) = Setup::new().route(route.bandwidth("fast")).fail();
    assert_eq!(code, 78);
    assert!(
        said.contains("`bandwidth`: \"fast\" is not a size"),
        "{said}"
    );
}

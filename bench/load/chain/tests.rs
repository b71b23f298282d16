//! Each load of the chain, briefly, against a server in this process; and the command line.

use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::seals::Seals;
use crate::args::{Invocation, parse};
use crate::report::Report;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A hop with a payload key, which may dial itself, and a listener for datagrams that leads straight to
/// an address. It lives as long as the process.
struct Server {
    hop: SocketAddr,
    straight: SocketAddr,
    echo: SocketAddr,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let (hop, straight, echo) = (free(), free(), free());
        let folder = std::env::temp_dir().join(format!("load-chain-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("towpath.toml");
        let text = format!(
            "[chain]\nlisten = [\"{hop}\"]\nkey = \"{KEY}\"\npayload_key = \"{KEY}\"\n\
             allow = [\"127.0.0.0/8:*\", \"{hop}\"]\n\
             [[chain.access]]\nname = \"straight\"\nlisten = \"{straight}\"\nprotocol = \"udp\"\n\
             to = \"{echo}\"\nvia = []\n"
        );
        std::fs::write(&file, text).unwrap();
        let words = ["serve", "--workers", "1", "--log", "off", "--config"];
        let mut words: Vec<OsString> = words.map(OsString::from).to_vec();
        let data = folder.join("data");
        words.extend([file.into(), "--data-dir".into(), data.into()]);
        std::thread::spawn(move || towpath::cli::run(&words));
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(hop).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::yield_now();
        }
        Server {
            hop,
            straight,
            echo,
        }
    })
}

/// An address that nobody listens on.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn run(words: &str) -> Report {
    let own = std::process::id();
    let words = format!("chain {words} --seconds 0.2 --warmup 0 -p {own} --verify");
    let words: Vec<String> = words.split_whitespace().map(String::from).collect();
    match parse(&words).unwrap() {
        Invocation::Run(plan) => crate::lab::run(&plan).unwrap(),
        Invocation::Chain(plan) => super::run(&plan).unwrap(),
        _ => panic!("another mode"),
    }
}

/// The figure of that name.
fn figure(report: &Report, name: &str) -> f64 {
    let line = report.line();
    let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
    let value = fields.find(|(field, _)| *field == name);
    value.unwrap_or_else(|| panic!("{line}")).1.parse().unwrap()
}

/// Through one hop and through two, with clients of every kind.
#[test]
fn every_load_of_connections_passes_through_hops() {
    let hop = server().hop;
    for chain in [String::new(), format!("--further {hop}")] {
        for (load, moved) in [
            ("bulk -c 2", "gb_per_s"),
            ("bulk -c 1 --payload-key KEY", "gb_per_s"),
            ("pingpong -c 3", "per_s"),
            ("pingpong -c 3 --payload-key KEY", "per_s"),
            ("pingpong -c 2 -s 100000 --payload-key KEY", "per_s"),
            ("connect -c 2", "per_s"),
            ("connect -c 2 --hang-up --after 20", "per_s"),
            ("idle -c 5", "per_s"),
        ] {
            let load = load.replace("KEY", KEY);
            let backend = free();
            let words = format!("{load} -t {hop} {chain} -b {backend} --hop-key {KEY}");
            let report = run(&words);
            assert_eq!(figure(&report, "errors"), 0.0, "{words}");
            if !load.starts_with("idle") {
                assert!(figure(&report, moved) > 0.0, "{words}: {}", report.line());
            }
        }
    }
}

#[test]
fn datagrams_pass_through_hops_and_straight() {
    let server = server();
    let hop = server.hop;
    for chain in [
        format!("-t {hop} --hop-key {KEY}"),
        format!("-t {hop} --further {hop} --hop-key {KEY}"),
        format!("-t {} --straight", server.straight),
    ] {
        for load in ["-c 3 --burst 1", "-s 1200 --burst 20 --trains"] {
            let words = format!("datagrams {load} {chain} -b {}", server.echo);
            let report = run(&words);
            assert!(figure(&report, "echoes_per_s") > 0.0, "{words}");
            assert_eq!(figure(&report, "errors"), 0.0, "{words}");
        }
    }
}

#[test]
fn a_chain_that_fails_is_told_by_its_hop() {
    let hop = server().hop;
    let nobody = free();
    let words = format!(
        "chain pingpong -c 1 -t {hop} --further {nobody} -b {} --hop-key {KEY} -d 0.1",
        free()
    );
    let words: Vec<String> = words.split_whitespace().map(String::from).collect();
    let Ok(Invocation::Run(plan)) = parse(&words) else {
        panic!("{words:?}");
    };
    let error = crate::lab::run(&plan).err().unwrap().to_string();
    assert!(error.contains("hop 1: "), "{error}");
}

#[test]
fn each_mistake_is_named() {
    for (line, part) in [
        ("", "one of bulk"),
        ("fair", "one of bulk"),
        ("bulk", "--target"),
        ("bulk -t 127.0.0.1:1", "--backend"),
        ("bulk -t 127.0.0.1:1 -b 127.0.0.1:2", "--hop-key"),
        (
            "bulk -t 127.0.0.1:1 -b 127.0.0.1:2 --hop-key AAAA",
            "a key has 32",
        ),
        (
            "bulk -t 127.0.0.1:1 -b 127.0.0.1:2 --straight --further 127.0.0.1:3",
            "no hop",
        ),
        ("bulk -t 127.0.0.1:1 --further here", "--backend"),
        ("bulk -t 127.0.0.1:1 -b 127.0.0.1:2 --further here", "ADDR"),
        ("bulk -t 127.0.0.1:1 --burst 2", "chain datagrams"),
        (
            "pingpong -t 127.0.0.1:1 -b 127.0.0.1:2 --straight --after 9",
            "chain connect",
        ),
        ("idle --payload-key AAAA", "bulk and pingpong"),
        (
            "datagrams -t 127.0.0.1:1 -b 127.0.0.1:2 --hang-up",
            "no meaning",
        ),
        (
            "datagrams -t 127.0.0.1:1 -b 127.0.0.1:2 --straight --burst 1000",
            "at most",
        ),
        ("bulk --nodes 2", "belongs to node"),
        ("bulk --both", "--both"),
    ] {
        let words = format!("chain {line}");
        let words: Vec<String> = words.split_whitespace().map(String::from).collect();
        let mistake = parse(&words).err().unwrap();
        assert!(mistake.contains(part), "`{line}` gave `{mistake}`");
    }
}

#[test]
fn a_seal_passes_what_it_is_given_in_any_pieces() {
    use towpath::protocols::chain::wire::{Key, Side, records};
    let key = Key::from_base64(KEY).unwrap();
    let ends = [Side::Client, Side::Hop].map(|side| records(&key, side, &[1; 24], &[2; 24]));
    let [mut client, mut hop] = ends.map(Seals::new);
    let payload: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
    let (mut sent, mut came) = (0, Vec::new());
    let mut block = [0; 999];
    while sent < payload.len() {
        sent += client.seal(&payload[sent..]);
        while !client.pending().is_empty() {
            let part = client.pending().len().min(5000);
            hop.feed(&client.pending()[..part]).unwrap();
            client.written(part);
        }
        while let Some(count) = hop.take(&mut block) {
            came.extend_from_slice(&block[..count]);
        }
    }
    assert_eq!(came, payload);
    assert!(hop.feed(&[0; 100]).is_err());
}

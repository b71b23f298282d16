//! `towpath chain`, `towpath chain test` and `towpath gen` as their users have them.

use crate::support::backend::{Backend, BlackHole, Refusing};
use crate::support::bulk;
use crate::support::chain::destination::Datagrams;
use crate::support::chain::plan::Row;
use crate::support::chain::program::{Keys, Listening, run, run_words, test, via, words};
use crate::support::chain::socks::socket;
use crate::support::chain::{Hop, Key, address};
use crate::support::command::towpath;
use crate::support::peer::{Peer, text};

#[test]
fn stdin_and_stdout_go_through_the_chain() {
    let backend = Backend::echo();
    let destination = backend.address.to_string();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        for size in [0, 5, 3 << 20] {
            let input = bulk::Numbers::new(2).bytes(size);
            let finished = run(&destination, &row.hops(), &[], &input).expect(0);
            assert!(finished.output == input, "{size} bytes over {count} hops");
        }
        row.stop();
    }
}

#[test]
fn one_key_file_may_be_for_all_hops() {
    let backend = Backend::echo();
    let allow = ["127.0.0.0/8:*"];
    let hop = || crate::support::chain::plan::Plan::allowing(Key::number(1), &allow).start();
    let proxies = [hop(), hop()];
    let hops = proxies.each_ref().map(|proxy| proxy.hop());
    let keys = Keys::of(&hops[..1]);
    let destination = backend.address.to_string();
    let finished = run_words(&words(&destination, &hops, &keys, &[]), b"one for all");
    assert_eq!(finished.expect(0).output, b"one for all");
    proxies
        .into_iter()
        .for_each(crate::support::chain::plan::Proxy::stop);
}

#[test]
fn a_destination_and_a_hop_may_be_names() {
    let backend = Backend::echo();
    let port = backend.address.port();
    let row = Row::new(1, &[format!("localhost:{port}")]);
    let hops = row.hops();
    let keys = Keys::of(&hops);
    let mut words = words(&format!("localhost:{port}"), &hops, &keys, &[]);
    let at = words.iter().position(|word| word == "--via").unwrap() + 1;
    words[at] = format!("localhost:{}", hops[0].address.port());
    assert_eq!(run_words(&words, b"names").expect(0).output, b"names");
    row.stop();
}

#[test]
fn an_error_names_the_hop_its_address_and_the_reason() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let hops = row.hops();
    for count in 1..=3 {
        let to = refusing.address.to_string();
        let finished = run(&to, &hops[..count], &[], b"unheard").expect(1);
        let last = hops[count - 1].address;
        let line = format!("hop {count} ({last}): destination refused the connection");
        assert!(finished.error.contains(&line), "{}", finished.error);
        assert!(finished.output.is_empty());
        assert_eq!(finished.error.lines().count(), 1, "{}", finished.error);
    }
    row.stop();
}

#[test]
fn every_kind_of_error_names_its_hop() {
    let hole = BlackHole::new();
    let allow = [hole.address.to_string(), "*:*".to_owned()];
    let row = Row::with(2, &allow, |plan| plan.text("dial_timeout", "500ms"));
    let hops = row.hops();
    let second = format!("hop 2 ({}): ", hops[1].address);
    for to in [
        hole.address.to_string(),
        "127.0.0.1:1".into(),
        format!("{}:80", address::NO_NAME),
    ] {
        let finished = run(&to, &hops, &[], b"").expect(1);
        assert!(finished.error.contains(&second), "{to}: {}", finished.error);
    }
    // The hop before cannot reach the next one.
    let mut gone = hops.clone();
    gone[1].address = "127.0.0.1:1".parse().unwrap();
    let finished = run("127.0.0.1:2", &gone, &[], b"").expect(1);
    let first = format!("hop 1 ({}): ", hops[0].address);
    assert!(finished.error.contains(&first), "{}", finished.error);
    // A hop that does not know the key says nothing; it is named nevertheless.
    let mut strange = hops.clone();
    strange[1].key = Key::number(40);
    let finished = run(&hole.address.to_string(), &strange, &[], b"").expect(1);
    assert!(finished.error.contains(&second), "{}", finished.error);
    // Nobody at all at the first.
    let refusing = Refusing::new();
    let nobody = Hop {
        address: refusing.address,
        key: Key::number(1),
    };
    let finished = run("127.0.0.1:2", &[nobody], &[], b"").expect(1);
    let line = format!("hop 1 ({}): ", refusing.address);
    assert!(finished.error.contains(&line), "{}", finished.error);
    row.stop();
}

#[test]
fn listening_takes_many_connections() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let listening = Listening::start(&backend.address.to_string(), &row.hops(), &[]);
    std::thread::scope(|scope| {
        for number in 0..20_u8 {
            let at = listening.address;
            scope.spawn(move || {
                for _ in 0..5 {
                    let payload = vec![number; 10_000];
                    let mut peer = Peer::connect(at);
                    peer.send(&payload).finish();
                    assert!(peer.rest().0 == payload);
                }
            });
        }
    });
    drop(listening);
    row.stop();
}

#[test]
fn listening_says_which_hop_failed_and_goes_on() {
    let refusing = Refusing::new();
    let row = Row::new(2, &[refusing.address]);
    let listening = Listening::start(&refusing.address.to_string(), &row.hops(), &[]);
    for _ in 0..3 {
        let (bytes, _) = Peer::connect(listening.address).rest();
        assert_eq!(text(&bytes), "");
    }
    let line = format!(
        "hop 2 ({}): destination refused the connection",
        row.hops()[1].address
    );
    crate::support::until("it says so", || listening.said().contains(&line));
    let _opened = Backend::serve_on(refusing.open(), |peer, _| {
        crate::support::backend::echo(peer);
    });
    Peer::connect(listening.address)
        .send(b"now")
        .expect(b"now")
        .finish()
        .expect_end();
    drop(listening);
    row.stop();
}

#[test]
fn datagrams_go_through_a_local_port() {
    let echo = Datagrams::echo();
    let row = Row::new(2, &[echo.address]);
    let listening = Listening::start(&echo.address.to_string(), &row.hops(), &["--udp"]);
    let sockets = [socket(), socket()];
    for (round, size) in [0, 1, 1200, 40_000].into_iter().enumerate() {
        for (socket, byte) in sockets.iter().zip(1..) {
            socket
                .send_to(&vec![byte; size], listening.address)
                .unwrap();
            let mut buffer = vec![0; 1 << 16];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!((length, from), (size, listening.address), "round {round}");
            assert!(buffer[..length].iter().all(|got| *got == byte));
        }
    }
    drop(listening);
    row.stop_with_flows();
}

#[test]
fn a_test_of_a_sound_chain_has_a_line_for_each_hop() {
    let backend = Backend::echo();
    for count in 1..=3 {
        let row = Row::new(count, &[backend.address]);
        let finished = test(&backend.address.to_string(), &row.hops()).expect(0);
        let out = finished.text();
        for (number, hop) in row.hops().iter().enumerate() {
            let start = format!("hop {} {} ", number + 1, hop.address);
            let lines: Vec<&str> = out
                .lines()
                .filter(|line| line.starts_with(&start))
                .collect();
            assert_eq!(lines.len(), 1, "{out}");
            assert!(lines[0].contains("ms") && lines[0].ends_with("ok"), "{out}");
        }
        row.stop();
    }
}

#[test]
fn a_test_of_a_broken_chain_says_where() {
    let refusing = Refusing::new();
    let row = Row::new(3, &[refusing.address]);
    let hops = row.hops();
    let mut broken = hops.clone();
    broken[1].key = Key::number(44);
    let finished = test(&refusing.address.to_string(), &hops).expect(1);
    let said = finished.text() + &finished.error;
    let line = format!(
        "hop 3 ({}): destination refused the connection",
        hops[2].address
    );
    assert!(said.contains(&line), "{said}");
    let finished = test(&refusing.address.to_string(), &broken).expect(1);
    let said = finished.text() + &finished.error;
    assert!(
        said.contains(&format!("hop 2 ({}): ", hops[1].address)),
        "{said}"
    );
    row.stop();
}

#[test]
fn a_test_is_told_as_json_too() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let hops = row.hops();
    let keys = Keys::of(&hops);
    for (to, ok) in [
        (backend.address.to_string(), true),
        ("127.0.0.1:1".to_owned(), false),
    ] {
        let mut words = words(&to, &hops, &keys, &["--json"]);
        words.insert(1, "test".to_owned());
        let finished = run_words(&words, b"");
        assert_eq!(finished.code, Some(if ok { 0 } else { 1 }));
        let object: serde_json::Value = serde_json::from_slice(&finished.output).unwrap();
        assert_eq!(object["ok"], ok, "{object}");
        let told = object["hops"].as_array().unwrap();
        assert_eq!(told.len(), 2, "{object}");
        assert_eq!(told[0]["ok"], true, "{object}");
        assert_eq!(told[1]["ok"], ok, "{object}");
        assert_eq!(told[1]["address"], hops[1].address.to_string());
    }
    row.stop();
}

#[test]
fn wrong_usage_is_told_of() {
    let keys = Keys::new(&[Key::number(1), Key::number(2), Key::number(3)]);
    let file = &keys.flags()[1];
    let cases: [&[&str]; 9] = [
        &["chain"],
        &["chain", "--via", "127.0.0.1:1", "--key-file", file],
        &[
            "chain",
            "localhost",
            "--via",
            "127.0.0.1:1",
            "--key-file",
            file,
        ],
        &["chain", "localhost:1", "--via", "", "--key-file", file],
        &[
            "chain",
            "localhost:1",
            "more",
            "--via",
            "127.0.0.1:1",
            "--key-file",
            file,
        ],
        &[
            "chain",
            "localhost:1",
            "--via",
            "127.0.0.1:1,,",
            "--key-file",
            file,
        ],
        &[
            "chain",
            "localhost:1",
            "--via",
            "127.0.0.1:1",
            "--key",
            file,
        ],
        &[
            "chain",
            "localhost:1",
            "--via",
            "127.0.0.1:1",
            "--listen",
            "nowhere",
            "--key-file",
            file,
        ],
        &["chain", "test"],
    ];
    for case in cases {
        let finished = towpath(case, &[], b"").expect(2);
        assert!(
            finished.error.contains("--help"),
            "{case:?}: {}",
            finished.error
        );
        assert!(finished.output.is_empty(), "{case:?}");
    }
    // Three files for two hops belong to nobody.
    let hops = [1, 2].map(|number| Hop {
        address: "127.0.0.1:1".parse().unwrap(),
        key: Key::number(number),
    });
    run_words(&words("localhost:1", &hops, &keys, &[]), b"").expect(2);
}

#[test]
fn a_key_file_that_holds_no_key_is_a_bad_configuration() {
    let keys = Keys::new(&[]);
    let long = Key::number(1).text() + &Key::number(2).text();
    for (name, content) in [
        ("empty", ""),
        ("short", "c2hvcnQ="),
        ("long", &long),
        ("letters", "this is no base64, is it? this is no base64!"),
    ] {
        let file = keys.file(name, content);
        let via = via(&[Hop {
            address: "127.0.0.1:1".parse().unwrap(),
            key: Key::number(1),
        }]);
        let words = ["chain", "localhost:1", "--via", &via, "--key-file", &file];
        let finished = towpath(&words, &[], b"").expect(78);
        assert!(finished.error.contains(&file), "{}", finished.error);
        if !content.is_empty() {
            assert!(!finished.error.contains(content), "{}", finished.error);
        }
    }
    // One that is not there is a slip of the command line, as everywhere.
    let missing = keys.file("x", "") + "-is-not-there";
    let words = [
        "chain",
        "localhost:1",
        "--via",
        "127.0.0.1:1",
        "--key-file",
        &missing,
    ];
    let finished = towpath(&words, &[], b"").expect(2);
    let more = "(see towpath chain --help)";
    assert!(finished.error.contains(more), "{}", finished.error);
}

#[test]
fn the_environment_names_hops_and_keys() {
    let backend = Backend::echo();
    let row = Row::new(2, &[backend.address]);
    let keys = Keys::of(&row.hops());
    let files: Vec<String> = keys.flags().into_iter().skip(1).step_by(2).collect();
    let (via, files) = (via(&row.hops()), files.join(","));
    let environment = [("TOWPATH_VIA", &*via), ("TOWPATH_KEY_FILE", &*files)];
    let to = backend.address.to_string();
    let finished = towpath(&["chain", &to], &environment, b"by variables").expect(0);
    assert_eq!(finished.output, b"by variables");
    let finished = towpath(&["chain", "test", &to], &environment, b"").expect(0);
    assert_eq!(finished.text().lines().count(), 3, "{}", finished.text());
    row.stop();
}

#[test]
fn the_keys_that_are_made_are_32_bytes_and_never_the_same() {
    let mut seen = std::collections::HashSet::new();
    for what in ["key", "token"] {
        for _ in 0..5 {
            let finished = towpath(&["gen", what], &[], b"").expect(0);
            let text = finished.text();
            let line = text.strip_suffix('\n').expect("a line");
            assert_eq!((line.len(), line.ends_with('=')), (44, true), "{line:?}");
            assert!(seen.insert(line.to_owned()));
        }
    }
    towpath(&["gen"], &[], b"").expect(2);
    towpath(&["gen", "nonsense"], &[], b"").expect(2);
}

#[test]
fn a_key_that_was_made_works_in_a_configuration_and_as_a_file() {
    let backend = Backend::echo();
    let made = towpath(&["gen", "key"], &[], b"").expect(0).text();
    let keys = Keys::new(&[]);
    let file = keys.file("made", &made);
    let plan = crate::support::chain::plan::Plan::allowing(Key::number(1), &[backend.address]);
    let proxy = plan.line("key", &format!("{{ file = {file:?} }}")).start();
    let via = proxy.hop().address.to_string();
    let to = backend.address.to_string();
    let words = ["chain", &to, "--via", &via, "--key-file", &file];
    assert_eq!(towpath(&words, &[], b"made").expect(0).output, b"made");
    proxy.stop();
}

#[test]
fn help_is_there() {
    for words in [
        &["chain", "--help"][..],
        &["chain", "test", "--help"],
        &["gen", "--help"],
    ] {
        let finished = towpath(words, &[], b"").expect(0);
        assert!(finished.text().contains("towpath"), "{}", finished.text());
    }
}

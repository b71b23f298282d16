//! The seven steps of the document's data transfer, with raw nodes and with `towpath node`.

use serde_json::Value;

use crate::support::folder::Folder;
use crate::support::node::message::{Message, opcode};
use crate::support::node::plan::Proxy;
use crate::support::node::program::{Program, send};
use crate::support::peer::Peer;

#[test]
fn two_nodes_reach_each_other_by_their_public_addresses() {
    for workers in [1, 2, 4] {
        let proxy = crate::support::node::plan::Plan::new(4)
            .workers(workers)
            .start();
        // 1, 2: both have main connections and addresses.
        let (mut one, one_public) = proxy.registered(1);
        let (mut two, two_public) = proxy.registered(2);
        // 3: node 1 connects to node 2's address and sends.
        let mut third = Peer::connect(two_public);
        let ping = Message::new(opcode::PING, &one.sender).nonce(1).frame();
        third.send(&ping);
        // 4: node 2 hears it on its main connection, and who it is from.
        two.expect(&ping);
        let from = Message::of_frame(&ping).sender.address;
        assert_eq!(from, format!("tcp://{one_public}").into_bytes());
        // 5, 6: node 2 connects to node 1's address and answers.
        let mut fourth = Peer::connect(one_public);
        let pong = Message::new(opcode::PONG, &two.sender).nonce(1).frame();
        fourth.send(&pong);
        // 7: node 1 hears it on its main connection.
        one.expect(&pong);
        for number in 2..50_u64 {
            let data = Message::new(1000, &one.sender)
                .nonce(number)
                .message(b"there");
            third.send(data.frame());
            two.expect(&data.frame());
            let back = Message::new(1000, &two.sender)
                .nonce(number)
                .message(b"back");
            fourth.send(back.frame());
            one.expect(&back.frame());
        }
        // What a node sends on its main connection goes nowhere.
        one.say(1000).say(opcode::PING).expect_quiet();
        two.expect_quiet();
        third.finish().expect_end();
        fourth.finish().expect_end();
        one.expect_quiet();
        two.expect_quiet();
    }
}

#[test]
fn two_programs_reach_each_other_by_their_public_addresses() {
    let proxy = Proxy::new(4);
    let folder = Folder::new();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let first = Program::start(proxy.address, &one, &[]);
    let second = Program::start(proxy.address, &two, &["--reply", "--json"]);
    let [first_public, second_public] = [&first, &second].map(Program::public);
    assert_ne!(first_public, second_public);
    for public in [first_public, second_public] {
        assert!(proxy.ports.contains(&public.port()), "{public}");
    }
    let answer_to = ["--answer-to", &first_public.to_string()];
    let sent = send(second_public, &one, &answer_to, b"hello\nnode two\n").expect(0);
    assert_eq!((sent.text().as_str(), sent.error.as_str()), ("", ""));
    let lines = second.lines(3);
    for (line, data) in lines[1..].iter().zip(["hello", "node two"]) {
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!(object["data"], data);
        assert_eq!(object["from"], format!("tcp://{first_public}"));
    }
    // And back over the first one's address.
    assert_eq!(first.lines(3)[1..], ["hello", "node two"]);
}

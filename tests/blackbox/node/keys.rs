//! The list of allowed keys: who is on it and signs is served.

use crate::support::node::Node;
use crate::support::node::bystander::Bystander;
use crate::support::node::message::{Message, Sender, key, opcode};
use crate::support::node::plan::{Plan, Proxy};
use crate::support::peer::Peer;

/// A server that serves the nodes 1 and 2.
fn strict(workers: usize) -> Proxy {
    let listed = [1, 2].map(|number| {
        let hex = Sender::number(number).net_key.into_iter();
        hex.map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    let plan = Plan::new(4).workers(workers);
    plan.key("allow_keys", &format!("{listed:?}")).start()
}

fn request(number: u32) -> Message {
    Message::new(opcode::PROXY_REQUEST, &Sender::number(number))
}

fn expect_closed(proxy: &Proxy, what: &str, message: &Message) {
    eprintln!("{what}");
    let mut node = proxy.node(1);
    node.peer().try_send(&message.frame());
    node.expect_closed();
}

fn expect_served(proxy: &Proxy, number: u32) -> (Node, std::net::SocketAddr) {
    let mut node = proxy.node(number);
    let request = node.message(opcode::PROXY_REQUEST).signed(&key(number));
    node.send(request.frame());
    let public = node.answer();
    (node, public)
}

#[test]
fn only_who_is_listed_and_signs_is_served() {
    let proxy = strict(2);
    let (mut node, public) = expect_served(&proxy, 1);
    expect_closed(&proxy, "unsigned", &request(2));
    expect_closed(&proxy, "not listed", &request(3).signed(&key(3)));
    expect_closed(
        &proxy,
        "signed by another listed key",
        &request(2).signed(&key(1)),
    );
    expect_closed(&proxy, "signed by a stranger", &request(2).signed(&key(3)));
    let mut cut = request(2).signed(&key(2));
    cut.signature.truncate(63);
    expect_closed(&proxy, "half a signature", &cut);
    let mut long = request(2).signed(&key(2));
    long.signature.push(0);
    expect_closed(&proxy, "too long a signature", &long);
    for at in [0, 31, 32, 63] {
        let mut wrong = request(2).signed(&key(2));
        wrong.signature[at] ^= 1;
        expect_closed(&proxy, "another bit in the signature", &wrong);
    }
    let other_bytes = request(2).signed(&key(2)).message(b"other");
    expect_closed(&proxy, "signed other bytes", &other_bytes);
    let mut other_address = request(2).signed(&key(2));
    other_address.sender.address = b"tcp://10.9.9.9:1".into();
    expect_closed(&proxy, "signed another address", &other_address);
    let mut short_key = request(2).signed(&key(2));
    short_key.sender.net_key.truncate(31);
    expect_closed(&proxy, "a shorter key", &short_key);
    let mut no_key = request(2).signed(&key(2));
    no_key.sender.net_key.clear();
    expect_closed(&proxy, "no key", &no_key);
    // Nobody of them has disturbed the one that is served.
    let keepalive = node.message(opcode::KEEPALIVE).signed(&key(1));
    node.send(keepalive.frame()).expect_keepalive_answer();
    let bytes = crate::support::node::message::frame(b"unsigned, as visitors are");
    Peer::connect(public).send(&bytes);
    node.expect(&bytes);
    let (_, other) = expect_served(&proxy, 2);
    assert_ne!(other, public);
}

#[test]
fn an_unsigned_keepalive_does_not_count() {
    let proxy = strict(1);
    let (mut node, _) = expect_served(&proxy, 1);
    node.say(opcode::KEEPALIVE).expect_closed();
}

#[test]
fn a_listed_node_cannot_take_the_address_of_another() {
    let proxy = strict(2);
    let (mut node, public) = expect_served(&proxy, 1);
    // Its connection_id stands in every message that it sends to others.
    let mut thief = Message::new(opcode::PROXY_REQUEST, &Sender::number(2));
    thief.sender.connection_id = Sender::number(1).connection_id;
    let mut other = proxy.node(2);
    other.send(thief.signed(&key(2)).frame());
    if let Some(given) = other.try_answer() {
        assert_ne!(given, public);
    }
    let keepalive = node.message(opcode::KEEPALIVE).signed(&key(1));
    node.send(keepalive.frame()).expect_keepalive_answer();
    let bytes = crate::support::node::message::frame(b"to its owner");
    Peer::connect(public).send(&bytes);
    node.expect(&bytes);
}

#[test]
fn without_a_list_no_signature_is_looked_at() {
    let proxy = Proxy::new(4);
    let reference = Bystander::start(&proxy);
    let mut node = proxy.node(1);
    let mut wrong = request(1).nonce(1).signed(&key(7));
    wrong.signature.pop();
    node.send(wrong.frame()).answer();
    let mut node = proxy.node(2);
    node.send(request(2).signed(&key(3)).frame()).answer();
    reference.expect_undisturbed();
}

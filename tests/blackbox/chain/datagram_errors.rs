//! Datagrams that get an error or no answer at all: what failed, and who is not worth a word.

use crate::support::bulk::Numbers;
use crate::support::chain::datagram::Flow;
use crate::support::chain::destination::{Datagrams, Unreceptive};
use crate::support::chain::plan::{Plan, Proxy, Row};
use crate::support::chain::request::{PROBE, Request, now};
use crate::support::chain::seal::{HEAD, Seal};
use crate::support::chain::{Key, Transport, address, code};

/// A hop beside an echo that it may send to.
fn hop() -> (Proxy, Datagrams) {
    let echo = Datagrams::echo();
    let proxy = Plan::allowing(Key::number(1), &[echo.address]).start();
    (proxy, echo)
}

/// Rows of one to three hops; at each of their hops a datagram that goes nowhere.
fn at_each_hop(allow: &str, bad: &[u8], expected: u8) {
    for count in 1..=3 {
        let row = Row::new(count, &[allow]);
        for hop in 1..=usize::from(count) {
            for payload in [&b""[..], &[4; 1200]] {
                let mut flow = Flow::new(&row.hops(), bad.to_vec());
                let mut requests = flow.requests();
                requests[hop - 1].address = bad.to_vec();
                flow.send_as(requests, payload).expect_error(hop, expected);
            }
        }
        row.stop_with_flows();
    }
}

#[test]
fn a_forbidden_destination_is_told_of() {
    let echo = Datagrams::echo();
    at_each_hop("8.8.8.8:53", &address::at(echo.address), code::FORBIDDEN);
    assert_eq!(echo.received(), 0);
}

#[test]
fn a_name_that_is_none_is_told_of() {
    at_each_hop("*:*", &address::named(address::NO_NAME, 53), code::RESOLVE);
}

#[test]
fn a_destination_that_refuses_is_told_of() {
    let refusing = Unreceptive::new();
    let text = refusing.address.to_string();
    at_each_hop(&text, &address::at(refusing.address), code::REFUSED);
}

#[test]
fn an_error_ends_no_flow_of_the_client() {
    let echo = Datagrams::echo();
    let refusing = Unreceptive::new();
    let row = Row::new(2, &[echo.address, refusing.address]);
    let mut flow = row.flow(echo.address);
    for _ in 0..5 {
        flow.expect_echo(b"before");
        let mut requests = flow.requests();
        requests[1].address = address::at(refusing.address);
        flow.send_as(requests, b"lost")
            .expect_error(2, code::REFUSED);
        let mut requests = flow.requests();
        requests[1].address = address::ip("127.0.0.1:1");
        flow.send_as(requests, b"lost")
            .expect_error(2, code::FORBIDDEN);
        let mut requests = flow.requests();
        requests[1].address = address::named(address::NO_NAME, 5);
        flow.send_as(requests, b"lost")
            .expect_error(2, code::RESOLVE);
    }
    flow.expect_echo(b"after");
    row.stop_with_flows();
}

/// Sends what is worth no answer, then something that is: that answer is the first that comes.
fn expect_unanswered(cases: impl Fn(&mut Flow) -> Vec<Vec<u8>>) {
    let (proxy, echo) = hop();
    let mut flow = proxy.flow(address::at(echo.address));
    let datagrams = cases(&mut flow);
    let known = echo.received();
    for datagram in &datagrams {
        flow.send_raw(datagram);
    }
    flow.expect_echo(b"first");
    // Others' sockets, too: nobody else has ever spoken from there.
    let mut other = proxy.flow(address::at(echo.address));
    for datagram in &datagrams {
        other.send_raw(datagram);
    }
    other.expect_echo(b"first of another");
    assert_eq!(echo.received(), known + 2, "one of them was passed on");
    flow.expect_nothing_yet();
    other.expect_nothing_yet();
    proxy.server.stop();
}

/// A good datagram's request, changed.
fn changed(flow: &Flow, change: impl FnOnce(&mut Request)) -> Vec<u8> {
    let mut request = flow.requests().remove(0);
    change(&mut request);
    [&request.frame()[..], b"payload"].concat()
}

#[test]
fn a_wrong_key_gets_no_answer() {
    expect_unanswered(|flow| {
        let keys = [Key::number(2), Key([0; 32]), Key([0xff; 32])];
        let wrong = |key| changed(flow, |request| request.key = key);
        keys.map(wrong).into()
    });
}

#[test]
fn flipped_bytes_get_no_answer() {
    expect_unanswered(|flow| {
        let length = flow.requests()[0].frame().len();
        let flipped = |at: usize| {
            let mut datagram = changed(flow, |_| {});
            datagram[at] ^= 1 << (at % 8);
            datagram
        };
        (0..length).map(flipped).collect()
    });
}

#[test]
fn stale_and_early_datagrams_get_no_answer() {
    expect_unanswered(|flow| {
        let stamps = [
            now() - 31_000,
            now() + 60_000,
            now() - 3_600_000,
            0,
            u64::MAX,
        ];
        let wrong = |stamp| changed(flow, |request| request.stamp = stamp);
        stamps.map(wrong).into()
    });
}

#[test]
fn a_replayed_datagram_gets_no_answer() {
    expect_unanswered(|flow| {
        let requests = flow.requests();
        let datagram = [&requests[0].frame()[..], b"once"].concat();
        flow.send_as(requests, b"once").expect(b"once");
        vec![datagram; 8]
    });
}

#[test]
fn a_replayed_probe_gets_no_answer() {
    expect_unanswered(|flow| {
        let mut requests = flow.requests();
        requests[0].flags = PROBE;
        let datagram = [&requests[0].frame()[..], b"once"].concat();
        flow.send_as(requests, b"once").expect(b"once");
        vec![datagram; 8]
    });
}

#[test]
fn what_was_sealed_for_tcp_or_as_a_response_gets_no_answer() {
    expect_unanswered(|flow| {
        let request = flow.requests().remove(0);
        let tcp = Request {
            transport: Transport::Tcp,
            ..request.clone()
        };
        let reflected = request.response(code::OK);
        let disguised = request.response_of(&request.plain());
        let version = Seal {
            label: b"towpath chain 2".to_vec(),
            ..request.seal()
        };
        let version = version.close(&request.nonce, &request.plain());
        vec![tcp.frame(), reflected, disguised, version]
    });
}

#[test]
fn a_response_sent_back_to_its_hop_gets_no_answer() {
    expect_unanswered(|flow| {
        flow.send(b"ping");
        vec![flow.receive_raw()]
    });
}

#[test]
fn impossible_lengths_get_no_answer() {
    expect_unanswered(|flow| {
        let wrong = |length: u16| {
            let mut datagram = changed(flow, |_| {});
            datagram[HEAD - 2..HEAD].copy_from_slice(&length.to_be_bytes());
            datagram.resize(1000, 1);
            datagram
        };
        let mut cases: Vec<_> = [0, 1, 15, 16, 31, 33, 513, 0xffff].map(wrong).into();
        // The true length, and fewer bytes than it says.
        let whole = flow.requests().remove(0).frame();
        cases.extend((0..whole.len()).map(|cut| whole[..cut].to_vec()));
        cases
    });
}

#[test]
fn noise_of_every_size_gets_no_answer() {
    expect_unanswered(|_| {
        let mut numbers = Numbers::new(11);
        let sizes = [0, 1, 2, 25, 26, 27, 57, 58, 59, 512, 1200, 9000, 65_507];
        sizes.map(|size| numbers.bytes(size)).into()
    });
}

#[test]
fn an_error_is_no_longer_than_its_question() {
    let (proxy, _echo) = hop();
    let bad = [
        address::ip("127.0.0.1:1"),
        address::named("localhost", 1),
        address::named(address::NO_NAME, 1),
        address::named("a", 0),
    ];
    for destination in bad {
        let mut flow = proxy.flow(destination);
        let question = flow.requests()[0].frame().len();
        flow.send(b"");
        let answer = flow.receive_raw();
        assert!(answer.len() <= question, "{} for {question}", answer.len());
    }
    proxy.server.stop();
}

#[test]
fn a_name_that_is_none_holds_up_no_other_flow() {
    let echo = Datagrams::echo();
    let allow = [echo.address.to_string(), "*:*".to_owned()];
    let proxy = Plan::allowing(Key::number(1), &allow).workers(1).start();
    let bad = address::named(address::NO_NAME, 53);
    let mut lost: Vec<Flow> = (0..64).map(|_| proxy.flow(bad.clone())).collect();
    let mut flow = proxy.flow(address::at(echo.address));
    for flow_of_no_name in &mut lost {
        flow_of_no_name.send(b"where to");
        flow.expect_echo(&[7; 100]);
    }
    for flow in lost {
        flow.expect_error(1, code::RESOLVE);
    }
    proxy.server.stop();
}

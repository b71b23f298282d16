//! A gateway that is told to stop: what it has taken arrives, nobody new comes in, and it ends well.

use std::net::TcpStream;

use crate::support::gateway::stream::Stream;
use crate::support::gateway::{DIALECTS, Gateway, Got, PAIRS, Plan};
use crate::support::until;

const ID: u32 = 111;

fn expect_nobody_new(gateway: &Gateway) {
    for address in [gateway.clients, gateway.servers] {
        until("new connections are refused", || {
            TcpStream::connect(address).is_err()
        });
    }
}

#[test]
fn frames_that_were_taken_arrive_and_the_end_is_a_good_one() {
    for (of_client, of_server) in PAIRS {
        let plan = Plan::new(of_server).limit("drain_timeout = \"20s\"");
        let mut gateway = plan.start();
        let mut pair = gateway.pair(of_client, ID);
        let mut made = Stream::between(1, 0, 2000);
        let mut seen = Stream::between(1, 0, 2000);
        let frames: Vec<u8> = (0..300).flat_map(|_| made.frame(pair.conn)).collect();
        pair.client.send(frames).peer().settle();
        gateway.server.signal("TERM");
        for _ in 0..300 {
            let Got::Data(_, payload) = pair.server.got() else {
                panic!("no data");
            };
            seen.check(&payload);
        }
        expect_nobody_new(&gateway);
        // Who was not closed leaves.
        drop(pair);
        assert_eq!(gateway.server.ended(), Some(0), "{}", gateway.server.log());
        assert!(!gateway.server.log().contains("panicked"));
    }
}

#[test]
fn an_idle_gateway_ends_at_once() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::new(DIALECTS[0]);
        gateway.server.signal(signal);
        assert_eq!(gateway.server.ended(), Some(0), "{}", gateway.server.log());
    }
}

#[test]
fn a_drain_does_not_wait_for_ever() {
    for dialect in DIALECTS {
        let plan = Plan::new(dialect).limit("drain_timeout = \"500ms\"");
        let mut gateway = plan.start();
        let mut pair = gateway.pair(dialect, ID);
        let (_silent, _) = gateway.knock();
        gateway.server.signal("TERM");
        assert!(gateway.server.ended().is_some());
        // Closed, perhaps with the Close of the connection before.
        for end in [&mut pair.client, &mut pair.server] {
            while let Some(got) = end.maybe() {
                assert_eq!(got, Got::Close(pair.conn));
            }
        }
    }
}

#[test]
fn a_second_signal_stops_at_once() {
    let plan = Plan::new(DIALECTS[1]).limit("drain_timeout = \"10m\"");
    let mut gateway = plan.start();
    let _pair = gateway.pair(DIALECTS[1], ID);
    gateway.server.signal("TERM");
    expect_nobody_new(&gateway);
    if gateway.server.is_running() {
        gateway.server.signal("TERM");
    }
    assert!(gateway.server.ended().is_some());
}

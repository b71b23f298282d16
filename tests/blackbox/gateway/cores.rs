//! Many endpoints on one, two and four workers: whichever workers the two ends of a connection
//! landed on, every byte arrives in order.

use std::sync::Arc;

use crate::support::bulk::Numbers;
use crate::support::gateway::echo::{Echo, Heard};
use crate::support::gateway::stream::Stream;
use crate::support::gateway::{DIALECTS, Dialect, Gateway, Got, Plan};
use crate::support::until;

const SERVERS: u32 = 8;
const CLIENTS: u64 = 16;
const CONNS: usize = 4;
const MESSAGES: usize = 150;

/// One client: on each of its connections it sends messages and gets them back, up to eight
/// under way at a time, then closes every one.
fn talk(gateway: &Gateway, dialect: Dialect, number: u64) {
    let mut client = gateway.client(dialect);
    let mut numbers = Numbers::new(number + 1000);
    let conns: Vec<u32> = (0..CONNS)
        .map(|_| client.dial(u32::try_from(numbers.below(SERVERS as usize)).unwrap()))
        .collect();
    let streams = || {
        let seeds = (0..CONNS as u64).map(|at| number * 100 + at);
        seeds
            .map(|seed| Stream::between(seed, 0, 20_000))
            .collect::<Vec<_>>()
    };
    let (mut made, mut seen) = (streams(), streams());
    let mut left = [MESSAGES; CONNS];
    let mut under_way = 0;
    loop {
        while under_way < 8 {
            let open: Vec<usize> = (0..CONNS).filter(|&at| left[at] > 0).collect();
            if open.is_empty() {
                break;
            }
            let at = open[numbers.below(open.len())];
            client.send(made[at].frame(conns[at]));
            left[at] -= 1;
            under_way += 1;
        }
        if under_way == 0 {
            break;
        }
        let Got::Data(conn, payload) = client.got() else {
            panic!("client {number}: no data");
        };
        let at = conns.iter().position(|one| *one == conn).unwrap();
        seen[at].check(&payload);
        under_way -= 1;
    }
    for conn in &conns {
        client.close(*conn);
    }
    client.expect_closes(&conns);
    client.expect_quiet();
}

fn crowd(of_client: Dialect, of_server: Dialect, workers: usize) {
    eprintln!("{of_client:?} clients, {of_server:?} servers, {workers} workers");
    let gateway = Arc::new(Plan::new(of_server).workers(workers).start());
    let servers: Vec<Echo> = (0..SERVERS)
        .map(|id| Echo::start(gateway.server(id)))
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let gateway = Arc::clone(&gateway);
            std::thread::spawn(move || talk(&gateway, of_client, number))
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    // Nothing is lost of what is said behind the last message either. A close comes by a letter
    // between workers, so a server that left at once would not wait for those under way.
    let conns = CLIENTS as usize * CONNS;
    until("every close has come", || {
        servers.iter().map(Echo::closed).sum::<usize>() >= conns
    });
    let mut heard = Heard::default();
    for server in servers {
        let one = server.finish();
        heard.joined += one.joined;
        heard.closed += one.closed;
    }
    assert_eq!((heard.joined, heard.closed), (conns, conns));
    Arc::into_inner(gateway).unwrap().stop();
}

#[test]
fn one_worker_passes_on_every_byte() {
    for dialect in DIALECTS {
        crowd(dialect, dialect, 1);
    }
}

#[test]
fn two_workers_pass_on_every_byte() {
    let [document, fastway] = DIALECTS;
    for (of_client, of_server) in [(document, fastway), (fastway, document), (fastway, fastway)] {
        crowd(of_client, of_server, 2);
    }
}

#[test]
fn four_workers_pass_on_every_byte() {
    for dialect in DIALECTS {
        crowd(dialect, dialect, 4);
    }
}

#[test]
fn a_server_reaches_clients_on_every_worker() {
    for dialect in DIALECTS {
        let gateway = Plan::new(dialect).workers(4).start();
        let mut server = gateway.server(1);
        let mut clients: Vec<_> = (0..32).map(|_| gateway.client(dialect)).collect();
        let mut conns = Vec::new();
        for client in &mut clients {
            let conn = client.dial(1);
            let (joined, client_id) = server.joined();
            assert_eq!(joined, conn);
            client.close(conn).expect(Got::Close(conn));
            server.expect(Got::Close(conn));
            let conn = server.dial(client_id);
            assert_eq!(client.joined(), (conn, 1));
            conns.push(conn);
        }
        for round in 0..20_u8 {
            for conn in &conns {
                server.data(*conn, &[round; 700]);
            }
            for (client, conn) in clients.iter_mut().zip(&conns) {
                client.expect(Got::Data(*conn, vec![round; 700]));
                client.data(*conn, &[round]);
            }
            let mut answers = vec![0; conns.len()];
            for _ in &conns {
                let Got::Data(conn, payload) = server.got() else {
                    panic!("no data");
                };
                assert_eq!(payload, [round]);
                answers[conns.iter().position(|one| *one == conn).unwrap()] += 1;
            }
            assert!(answers.iter().all(|&count| count == 1), "{answers:?}");
        }
    }
}

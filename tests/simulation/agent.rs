//! The agent role in the simulated world: single stories, told to the end. The random ones are in
//! `crowd`.

use std::time::Duration;

use towpath::config::Limits;
use towpath::protocols::agent::UNSENT;
use towpath::protocols::agent::config::{Config, Route};
use towpath::protocols::agent::wire::{
    AgentRequest, Dialect, MAX_PAYLOAD, Request, SET, decode_reply, encode_request,
};
use towpath::session::{Ground, Role};
use towpath::store;
use towpath::upstream::Target;

use super::house::{CONNECT, DRAIN, HANDSHAKE, House, IDLE, Shape};
use super::seeds;

/// The longest that a query may wait.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// A house whose service is the agent role with these routes.
pub fn house(seed: u64, shape: Shape, routes: Vec<Route>) -> House {
    let config = Config {
        listen: Vec::new(),
        terms: Default::default(),
        token: None,
        max_payload: MAX_PAYLOAD,
        max_wait: MAX_WAIT,
        store: store::Limits {
            max_value: MAX_PAYLOAD,
            max_records: 1_000_000,
            max_bytes: 1 << 30,
        },
        routes,
    };
    House::new(seed, shape, move |memory, names| {
        let limits = Limits {
            max_connections: 0,
            max_connections_per_ip: 0,
            bandwidth_per_ip: 0,
            connection_rate: 0,
            connection_rate_per_ip: 0,
            handshake_timeout: HANDSHAKE,
            connect_timeout: CONNECT,
            idle_timeout: IDLE,
            user_timeout: IDLE,
            drain_timeout: DRAIN,
            drain_spread: Duration::ZERO,
            max_buffer_memory: 0,
            resolve_ttl: Duration::from_secs(10),
            resolve_timeout: Duration::from_secs(5),
        };
        let ground = Ground {
            memory,
            names,
            limits,
            addresses: Vec::new(),
            own: [].into(),
            cores: 1,
            connections: 1000,
            data_dir: std::path::PathBuf::new(),
        };
        config.service(&ground).seat(0)
    })
}

/// A service without a token, whose default field leads to these hosts.
pub fn route(name: &str, targets: &[(&str, u16)]) -> Route {
    let target = |&(host, port): &(&str, u16)| Target {
        host: host.into(),
        port,
    };
    Route {
        name: name.into(),
        token: None,
        bandwidth: 0,
        send_proxy: None,
        fields: vec![("default".into(), targets.iter().map(target).collect())],
    }
}

/// A request's bytes.
pub fn framed(dialect: Dialect, request: &Request<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_request(&mut out, dialect, [7, 0, 99, 200], request);
    out
}

pub fn set(dialect: Dialect, id: &[u8], section: &[u8], data: &[u8]) -> Vec<u8> {
    let op = SET;
    let request = AgentRequest::Update {
        id,
        section,
        data,
        op,
    };
    framed(dialect, &Request::Agent(request))
}

pub fn query(dialect: Dialect, id: &[u8], section: &[u8], wait: i32) -> Vec<u8> {
    let request = AgentRequest::Query { id, section, wait };
    framed(dialect, &Request::Agent(request))
}

pub fn traffic(service: &str, leading_operation: bool) -> Vec<u8> {
    let request = Request::Traffic {
        service: service.as_bytes(),
        field: b"any",
        token: b"",
        leading_operation,
    };
    framed(Dialect::Stock, &request)
}

/// The codes and data of all replies in a stream, which holds nothing else.
fn replies(mut stream: &[u8], dialect: Dialect) -> Vec<(i32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut scratch = Vec::new();
    while !stream.is_empty() {
        let answer = decode_reply(stream, dialect, MAX_PAYLOAD, &mut scratch);
        let answer = answer.unwrap().expect("a reply is cut short");
        let data = answer.record().map(|(_, data)| data.to_vec());
        all.push((answer.code, data.unwrap_or_default()));
        stream = &stream[answer.consumed..];
    }
    all
}

/// A client that has connected and sent `bytes`, none of which has arrived.
fn client(house: &mut House, bytes: &[u8]) -> usize {
    let mut world = house.world.borrow_mut();
    let client = world.connect();
    world.send(client, bytes);
    client
}

/// Stores a value by a client that comes and goes.
fn store(house: &mut House, id: &[u8], data: &[u8]) {
    let client = client(house, &set(Dialect::Stock, id, b"s", data));
    house.settle();
    let received = house.world.borrow().sockets[client].received.clone();
    assert_eq!(replies(&received, Dialect::Stock), [(0, Vec::new())]);
}

#[test]
fn a_largest_frame_passes_in_tiny_pieces_both_ways() {
    seeds(2, |seed| {
        for dialect in [Dialect::Document, Dialect::Stock] {
            let mut house = house(seed, Shape::default(), Vec::new());
            let around = set(dialect, b"id01", b"s", b"").len() - dialect.header_len();
            let data = house.world.borrow_mut().random.bytes(MAX_PAYLOAD - around);
            let mut bytes = set(dialect, b"id01", b"s", &data);
            bytes.extend(query(dialect, b"id01", b"s", 0));
            let client = client(&mut house, &bytes);
            for _ in 0..20_000 {
                {
                    let mut world = house.world.borrow_mut();
                    let most = world.random.below(800);
                    world.deliver(client, most);
                    let most = world.random.below(800);
                    world.receive(client, most);
                }
                house.turn();
                house.serve_questions(1);
            }
            let received = house.world.borrow().sockets[client].received.clone();
            let expected = [(0, Vec::new()), (0, data)];
            assert!(replies(&received, dialect) == expected);
            house.world.borrow_mut().end(client);
            house.settle();
            house.assert_empty();
        }
    });
}

#[test]
fn a_client_that_never_reads_is_served_a_bounded_amount_and_the_rest_later() {
    let mut house = house(1, Shape::default(), Vec::new());
    let value = house.world.borrow_mut().random.bytes(60_000);
    store(&mut house, b"big", &value);
    let bytes = query(Dialect::Document, b"big", b"s", 0).repeat(200);
    let client = client(&mut house, &bytes);
    for _ in 0..500 {
        house.world.borrow_mut().deliver(client, 500);
        house.turn();
    }
    // Unsent answers with the one on top, and requests unread.
    let most = (UNSENT + 60_100).div_ceil(BLOCK) + 5;
    let held = house.worker.holdings().blocks;
    assert!(held <= most, "{held} blocks for one client");
    while house.world.borrow().sockets[client].received.len() < 200 * 60_000 {
        let before = house.world.borrow().sockets[client].received.len();
        for _ in 0..20 {
            house.world.borrow_mut().receive(client, 50_000);
            house.turn();
        }
        let after = house.world.borrow().sockets[client].received.len();
        assert!(after > before, "stuck after {before} bytes");
    }
    let received = house.world.borrow().sockets[client].received.clone();
    let all = replies(&received, Dialect::Document);
    assert_eq!(all.len(), 200);
    assert!(all.iter().all(|reply| *reply == (0, value.clone())));
    house.world.borrow_mut().end(client);
    house.settle();
    house.assert_empty();
}

/// More than [`UNSENT`] is queued and leaves in one write: nothing is left to be drained later.
#[test]
fn pipelined_queries_go_on_when_the_socket_takes_everything_at_once() {
    for dialect in [Dialect::Document, Dialect::Stock] {
        let mut house = house(1, Shape::default(), Vec::new());
        house.world.borrow_mut().send_room = 1 << 24;
        let value = vec![5; UNSENT + 1];
        store(&mut house, b"big", &value);
        let bytes = query(dialect, b"big", b"s", 0).repeat(7);
        let client = client(&mut house, &bytes);
        house.settle();
        let received = house.world.borrow().sockets[client].received.clone();
        assert_eq!(replies(&received, dialect).len(), 7);
        house.world.borrow_mut().end(client);
        house.settle();
        house.assert_empty();
    }
}

#[test]
fn draining_answers_an_update_that_is_being_stored_then_closes() {
    let mut house = house(1, Shape::default(), Vec::new());
    let client = client(&mut house, &set(Dialect::Document, b"a", b"s", b"v"));
    house.world.borrow_mut().deliver(client, usize::MAX);
    house.quiesce();
    house.phase.drain();
    house.quiesce();
    house.turn();
    assert!(!house.worker.is_done());
    assert!(!house.world.borrow().sockets[client].is_over());
    house.settle();
    let received = house.world.borrow().sockets[client].received.clone();
    assert_eq!(replies(&received, Dialect::Document), [(0, Vec::new())]);
    assert!(house.worker.is_done());
}

#[test]
fn draining_closes_idle_clients_and_waiting_queries_unanswered() {
    let mut house = house(1, Shape::default(), Vec::new());
    let idle = client(&mut house, &query(Dialect::Document, b"a", b"s", 0));
    let waiting = client(&mut house, &query(Dialect::Document, b"a", b"s", 30));
    let silent = client(&mut house, b"");
    house.settle();
    house.phase.drain();
    house.settle();
    for (id, answers) in [(idle, 1), (waiting, 0), (silent, 0)] {
        let world = house.world.borrow();
        assert!(world.sockets[id].closed);
        let received = &world.sockets[id].received;
        assert_eq!(replies(received, Dialect::Document).len(), answers);
    }
    assert!(house.worker.is_done());
    assert!(!house.is_awaited(b"a", b"s"), "the watch was left behind");
}

#[test]
fn draining_lets_relays_go_on_and_half_a_frame_be_finished() {
    let mut house = house(1, Shape::default(), vec![route("r", &[("10.9.0.1", 80)])]);
    let relayed = client(&mut house, &traffic("r", false));
    house.settle();
    let backend = house.world.borrow().sockets.len() - 1;
    house.world.borrow_mut().settle_dial(backend, true);
    house.settle();
    let frame = query(Dialect::Document, b"a", b"s", 0);
    let half = client(&mut house, &frame[..20]);
    house.settle();
    house.phase.drain();
    house.settle();
    house.world.borrow_mut().send(half, &frame[20..]);
    house.world.borrow_mut().send(backend, b"news");
    house.world.borrow_mut().send(relayed, b"thanks");
    house.settle();
    {
        let world = house.world.borrow();
        assert_eq!(world.sockets[relayed].received, b"oknews");
        assert_eq!(world.sockets[backend].received, b"thanks");
        let received = &world.sockets[half].received;
        assert_eq!(replies(received, Dialect::Document).len(), 1);
        assert!(world.sockets[half].closed);
    }
    assert!(!house.worker.is_done());
    house.world.borrow_mut().end(relayed);
    house.world.borrow_mut().end(backend);
    house.settle();
    assert!(house.worker.is_done());
}

/// The update is on disk, the letter about it lies in the box, and the loop comes too late for both.
#[test]
fn a_query_whose_time_is_over_still_finds_what_has_been_stored() {
    let mut house = house(1, Shape::default(), Vec::new());
    let waiting = client(&mut house, &query(Dialect::Stock, b"a", b"s", 2));
    house.settle();
    let updater = client(&mut house, &set(Dialect::Stock, b"a", b"s", b"v"));
    house.world.borrow_mut().deliver(updater, usize::MAX);
    house.quiesce();
    house.serve_questions(1);
    house.now += Duration::from_secs(3);
    house.settle();
    let received = house.world.borrow().sockets[waiting].received.clone();
    assert_eq!(replies(&received, Dialect::Stock), [(0, b"v".to_vec())]);
    house.assert_empty();
}

/// The first to come finds the first host refusing; whoever comes soon after is spared the try.
#[test]
fn a_host_that_refused_is_passed_over_for_a_while() {
    let hosts = [("10.9.0.1", 81), ("10.9.0.2", 82)];
    let mut house = house(1, Shape::default(), vec![route("r", &hosts)]);
    let dialled = |house: &mut House| {
        let client = client(house, &traffic("r", true));
        house.settle();
        let backend = house.world.borrow().sockets.len() - 1;
        assert_ne!(backend, client);
        (backend, house.world.borrow().sockets[backend].peer.port())
    };
    let (first, port) = dialled(&mut house);
    assert_eq!(port, 81);
    house.world.borrow_mut().settle_dial(first, false);
    house.settle();
    let second = house.world.borrow().sockets.len() - 1;
    assert_eq!(house.world.borrow().sockets[second].peer.port(), 82);
    for _ in 0..3 {
        assert_eq!(dialled(&mut house).1, 82);
    }
    house.wait(house.now + Duration::from_secs(6));
    let ports = [dialled(&mut house).1, dialled(&mut house).1];
    assert!(ports.contains(&81), "tried again after its rest");
}

/// A loop that was held up finds a handshake deadline and a listener's rest over at once, the
/// former first: freeing its place ends the rest before the rest's own timer is looked at.
#[test]
fn a_rest_that_is_over_and_not_needed_any_more_is_ended_once() {
    let shape = Shape {
        most: 1,
        ..Shape::default()
    };
    let mut house = house(1, shape, Vec::new());
    let silent = client(&mut house, b"");
    house.turn();
    let second = client(&mut house, &query(Dialect::Stock, b"a", b"s", 0));
    house.wait(house.now + HANDSHAKE - Duration::from_millis(100));
    house.now += Duration::from_secs(3);
    house.settle();
    let world = house.world.borrow();
    assert!(world.sockets[silent].closed && world.sockets[second].closed);
    assert_eq!(
        replies(&world.sockets[second].received, Dialect::Stock).len(),
        1
    );
}

/// One block of the worker's pool.
const BLOCK: usize = towpath::buffer::BLOCK;

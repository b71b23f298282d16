//! Bytes that need not leave at once: they leave with others, or alone when those do not come.

use std::time::Duration;

use towpath::session::{Close, Cx, Event, Seat, Session};

use super::house::{House, Shape};

/// Answers each byte: `l` lazily, any other at once, `e` with the end behind it.
struct Parrot;

impl Session for Parrot {
    fn handle(&mut self, event: Event<'_>, cx: &mut Cx<'_>) -> Result<(), Close> {
        match event {
            Event::Data { conn, rx, .. } => {
                let mut bytes = vec![0; rx.len()];
                rx.copy_to(0, &mut bytes);
                rx.consume(bytes.len());
                for byte in bytes {
                    match byte {
                        b'l' => cx.send_lazily(conn, &[byte]),
                        _ => cx.send(conn, &[byte]),
                    }
                    if byte == b'e' {
                        cx.finish(conn);
                    }
                }
                Ok(())
            }
            Event::Eof { .. } => Err(Close::finished()),
            _ => Ok(()),
        }
    }

    fn describe(&self, _: &mut String) {}
}

struct Cage;

impl Seat for Cage {
    fn accept(&mut self, _: usize) -> Box<dyn Session> {
        Box::new(Parrot)
    }
}

fn house() -> (House, usize) {
    let mut house = House::new(1, Shape::default(), |_, _| Box::new(Cage));
    let client = house.world.borrow_mut().connect();
    house.settle();
    (house, client)
}

fn say(house: &mut House, client: usize, bytes: &[u8]) {
    house.world.borrow_mut().send(client, bytes);
    house.settle();
}

fn heard(house: &House, client: usize) -> Vec<u8> {
    house.world.borrow().sockets[client].received.clone()
}

#[test]
fn lazy_bytes_leave_alone_when_their_time_is_over() {
    let (mut house, client) = house();
    {
        let mut world = house.world.borrow_mut();
        world.send(client, b"ll");
        world.deliver(client, 2);
    }
    house.quiesce();
    assert_eq!(house.world.borrow().sockets[client].emitted(), 0);
    assert_eq!(house.world.borrow().sockets[client].untaken(), 0);
    house.wait(house.now + Duration::from_millis(10));
    house.settle();
    assert_eq!(heard(&house, client), b"ll");
    say(&mut house, client, b"l");
    house.wait(house.now + Duration::from_millis(10));
    house.settle();
    assert_eq!(heard(&house, client), b"lll", "each has its time");
    house.world.borrow_mut().end(client);
    house.settle();
    house.assert_empty();
}

#[test]
fn lazy_bytes_leave_in_their_order_with_others() {
    let (mut house, client) = house();
    say(&mut house, client, b"l");
    say(&mut house, client, b"1l2");
    assert_eq!(heard(&house, client), b"l1l2");
    say(&mut house, client, b"2l");
    assert_eq!(heard(&house, client), b"l1l22l", "one turn is one write");
}

#[test]
fn lazy_bytes_leave_before_the_end_of_their_stream() {
    let (mut house, client) = house();
    say(&mut house, client, b"l");
    say(&mut house, client, b"e");
    assert_eq!(heard(&house, client), b"le");
    assert!(house.world.borrow().sockets[client].shut);
    let (mut house, client) = self::house();
    say(&mut house, client, b"l");
    house.world.borrow_mut().end(client);
    house.settle();
    assert_eq!(
        heard(&house, client),
        b"l",
        "its session's end has them leave"
    );
    house.assert_empty();
}

//! Datagrams that are lost: what the logs, the figures and the command line say of them, and that the
//! next ones go where somebody is.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};

use crate::support::chain::destination::{Datagrams, Unreceptive};
use crate::support::chain::plan::{Plan, Row, access, access_address, via};
use crate::support::chain::program::{Keys, run, words};
use crate::support::chain::socks::socket;
use crate::support::chain::{Hop, Key};
use crate::support::command::{Log, TOWPATH, wait};
use crate::support::server::Server;
use crate::support::until;

/// A `udp` listener of one core through these hops to these destinations.
fn listener(hops: &[Hop], to: &[String]) -> Server {
    let lines = [format!("via = {}", via(hops)), format!("to = {to:?}")];
    let tables = access("post", "udp", &lines);
    let setup = crate::support::server::Setup::new().top("workers = 1");
    setup.tables(&tables).start()
}

/// Sends again and again until the echo has answered.
fn insist(socket: &UdpSocket, server: &Server) {
    let at = access_address(server, "post");
    socket.set_nonblocking(true).unwrap();
    let mut block = [0; 16];
    until("the other destination answers", || {
        socket.send_to(b"hello", at).unwrap();
        socket.recv(&mut block).is_ok_and(|count| count == 5)
    });
}

#[test]
fn a_destination_that_refuses_is_left_for_another_and_told_of() {
    for hops in 0..=2 {
        let (echo, refusing) = (Datagrams::echo(), Unreceptive::new());
        let row = Row::new(hops, &[echo.address, refusing.address]);
        let to = [refusing.address, echo.address].map(|at| at.to_string());
        let server = listener(&row.hops(), &to);
        insist(&socket(), &server);
        insist(&socket(), &server);
        let lost = match row.hops().last() {
            None => "code=refused datagram lost: destination refused the connection".to_owned(),
            Some(hop) => format!(
                "hop={hops} at={0} code=refused datagram lost: hop {hops} ({0}): destination refused the \
                 connection",
                hop.address
            ),
        };
        until("the log tells of it", || server.log().contains(&lost));
        let left = format!("access post to={} is passed over for now: ", to[0]);
        until("and of the change", || server.log().contains(&left));
        server.stop();
        row.stop_with_flows();
    }
}

#[test]
fn a_hop_tells_why_it_answers_a_datagram_with_nothing() {
    let echo = Datagrams::echo();
    let proxy = Plan::allowing(Key::number(1), &[echo.address]).start();
    let strange = Hop {
        key: Key::number(2),
        ..proxy.hop()
    };
    let to = echo.address.to_string();
    let finished = run(&to, &[strange], &["--udp"], b"hello").expect(1);
    assert!(
        finished.error.contains("no answer came"),
        "{}",
        finished.error
    );
    assert!(finished.output.is_empty());
    let line = "datagram denied: the header is not under our key";
    until("its log says why", || proxy.server.log().contains(line));
    // No question at all is no failure.
    run(&to, &[proxy.hop()], &["--udp"], b"").expect(0);
    assert_eq!(echo.received(), 0);
    proxy.server.stop();
}

#[test]
fn an_answer_is_enough_for_the_command_to_end_well() {
    let echo = Datagrams::echo();
    let row = Row::new(1, &[echo.address]);
    let keys = Keys::of(&row.hops());
    let to = echo.address.to_string();
    let mut child = Command::new(TOWPATH)
        .args(words(&to, &row.hops(), &keys, &["--udp"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let error = Log::follow(child.stderr.take().unwrap());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"hello");
    // Only now does stdin end, so it is of no matter how long the answer took.
    drop(stdin);
    let status = wait(&mut child);
    assert_eq!(status.code(), Some(0), "{}", error.finish());
    row.stop_with_flows();
}

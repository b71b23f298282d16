//! A name server for a secluded test: says what it is told to say, or nothing.

use std::net::{Ipv4Addr, SocketAddr};

use super::destination::Datagrams;

/// What is said about a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Say {
    /// It is this address; about other kinds of addresses, that there is none.
    Address(Ipv4Addr),
    /// There is no such name.
    Unknown,
    /// Nothing at all.
    Nothing,
}

/// Answers on port 53 of loopback, which only a secluded test has; `say` is given the name without
/// its last point, and whether an IPv4 address is asked for.
pub fn serve(say: impl Fn(&str, bool) -> Say + Send + 'static) -> Datagrams {
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
    Datagrams::serve(at, move |socket, question, from| {
        let Some((name, end)) = read_name(question) else {
            return;
        };
        let wants_v4 = question[end..end + 2] == [0, 1];
        let said = say(&name, wants_v4);
        if said != Say::Nothing {
            let answer = answer(&question[..end + 4], said, wants_v4);
            socket.send_to(&answer, from).unwrap();
        }
    })
}

/// The name that is asked for, and where its type stands.
fn read_name(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            question.get(at..at + 4)?;
            return Some((labels.join("."), at));
        }
        let label = question.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).into_owned());
        at += length;
    }
}

/// The question again, with what is said about it. RFC 1035, section 4.
fn answer(question: &[u8], said: Say, wants_v4: bool) -> Vec<u8> {
    let mut answer = question.to_vec();
    // A response, recursion wanted and had.
    answer[2] = 0x81;
    answer[3] = if said == Say::Unknown { 0x83 } else { 0x80 };
    // One question, no further records so far.
    answer[4..HEADER].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0]);
    if let (Say::Address(ip), true) = (said, wants_v4) {
        answer[7] = 1;
        // The name as above, an address of the internet, never to be kept, of four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(ip.octets());
    }
    answer
}

const HEADER: usize = 12;

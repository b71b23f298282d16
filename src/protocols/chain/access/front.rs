//! What an access listener's client asks for, and how it is answered: the side of SOCKS5 and HTTP
//! CONNECT that has a connection.
//!
//! Nothing is answered with success before every hop has said that it is connected.

use super::super::config::AccessProtocol;
use super::super::users::admits;
use super::super::wire::{Address, Code, http, socks5};
use super::Door;
use crate::buffer::Ring;
use crate::net::ConnKey;
use crate::session::{Cause, Close, Cx};

/// How far a client has come with its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// It asks for nothing: its listener says where it goes.
    Plain,
    /// The next message is this one.
    Socks5(Step),
    /// The next message is its request.
    Http,
}

/// The messages of a SOCKS5 client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Greeting,
    Login,
    Request,
}

/// What a client wants.
#[derive(Debug)]
pub(super) enum Asked {
    Connect(Address),
    Associate,
}

impl Front {
    pub(super) fn of(protocol: AccessProtocol) -> Self {
        match protocol {
            AccessProtocol::Tcp | AccessProtocol::Udp => Self::Plain,
            AccessProtocol::Socks5 => Self::Socks5(Step::Greeting),
            AccessProtocol::Http => Self::Http,
        }
    }

    /// Takes the messages that are whole; what is behind the request stays. `Err` has told the client.
    pub(super) fn read(
        &mut self,
        door: &Door,
        conn: ConnKey,
        rx: &mut Ring,
        cx: &mut Cx<'_>,
    ) -> Result<Option<Asked>, Close> {
        let mut bytes = vec![0; rx.len().min(http::LONGEST + 1)];
        rx.copy_to(0, &mut bytes);
        match self {
            Self::Plain => Ok(None),
            Self::Http => read_http(door, conn, &bytes, rx, cx),
            Self::Socks5(step) => read_socks5(step, door, conn, &bytes, rx, cx),
        }
    }

    /// The client is connected.
    pub(super) fn grant(self, conn: ConnKey, cx: &mut Cx<'_>) {
        match self {
            Self::Plain => {}
            Self::Socks5(_) => reply(conn, socks5::Reply::Done, cx),
            Self::Http => cx.send(conn, http::ESTABLISHED),
        }
    }

    /// The client is not, and is told why as far as it can be.
    pub(super) fn deny(self, conn: ConnKey, code: Code, told: &str, cx: &mut Cx<'_>) {
        match self {
            Self::Plain => {}
            Self::Socks5(_) => reply(conn, code.into(), cx),
            Self::Http => {
                let mut answer = Vec::new();
                http::failure(code, told, &mut answer);
                cx.send(conn, &answer);
            }
        }
    }
}

fn read_http(
    door: &Door,
    conn: ConnKey,
    bytes: &[u8],
    rx: &mut Ring,
    cx: &mut Cx<'_>,
) -> Result<Option<Asked>, Close> {
    let mut refuse = |refusal: http::Refusal| {
        let mut answer = Vec::new();
        refusal.encode(&mut answer);
        cx.send(conn, &answer);
        let words = refusal.words();
        let cause = match refusal {
            http::Refusal::Malformed(_) | http::Refusal::TooLarge => Cause::Malformed(words),
            http::Refusal::Method | http::Refusal::Unauthorised => Cause::Denied(words),
        };
        Close::downstream(cause).told()
    };
    let (connect, len) = match http::request(bytes) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(None),
        Err(refusal) => return Err(refuse(refusal)),
    };
    rx.consume(len);
    let users = &door.access.users;
    let is_known = users.is_empty()
        || connect
            .login
            .is_some_and(|login| admits(users, &login.name, &login.password));
    match is_known {
        true => Ok(Some(Asked::Connect(connect.address))),
        false => Err(refuse(http::Refusal::Unauthorised)),
    }
}

fn read_socks5(
    step: &mut Step,
    door: &Door,
    conn: ConnKey,
    bytes: &[u8],
    rx: &mut Ring,
    cx: &mut Cx<'_>,
) -> Result<Option<Asked>, Close> {
    let users = &door.access.users;
    let denied = |words| Close::downstream(Cause::Denied(words)).told();
    let mut rest = bytes;
    loop {
        let taken = match *step {
            Step::Greeting => {
                let Some((greeting, len)) = socks5::greeting(rest)? else {
                    break;
                };
                let method = greeting.choose(!users.is_empty());
                cx.send(conn, &method.encode());
                *step = match method {
                    socks5::Method::Open => Step::Request,
                    socks5::Method::Login => Step::Login,
                    socks5::Method::None => return Err(denied("no method in common")),
                };
                len
            }
            Step::Login => {
                let Some((login, len)) = socks5::login(rest)? else {
                    break;
                };
                let is_right = users.is_empty() || admits(users, &login.name, &login.password);
                cx.send(conn, &socks5::login_answer(is_right));
                if !is_right {
                    return Err(denied("wrong user or password"));
                }
                *step = Step::Request;
                len
            }
            Step::Request => {
                let (request, len) = match socks5::request(rest) {
                    Ok(Some(found)) => found,
                    Ok(None) => break,
                    Err(malformed) => {
                        if let Some(why) = malformed.reply() {
                            reply(conn, why, cx);
                        }
                        return Err(Close::from(malformed.error()).told());
                    }
                };
                rx.consume(len);
                return match request {
                    socks5::Request::Connect(address) => Ok(Some(Asked::Connect(address))),
                    socks5::Request::Associate => Ok(Some(Asked::Associate)),
                    socks5::Request::Other(_) => {
                        reply(conn, socks5::Reply::NoSuchCommand, cx);
                        Err(denied("no such command"))
                    }
                };
            }
        };
        rx.consume(taken);
        rest = &rest[taken..];
    }
    Ok(None)
}

/// A reply that tells no address: nobody needs to know where it is that we dial from.
fn reply(conn: ConnKey, reply: socks5::Reply, cx: &mut Cx<'_>) {
    let mut answer = Vec::new();
    reply.encode(([0, 0, 0, 0], 0).into(), &mut answer);
    cx.send(conn, &answer);
}

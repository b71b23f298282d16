//! SOCKS5 (RFC 1928, and RFC 1929 for user and password), the server's side.
//!
//! ```text
//!   client                                server
//!   greeting: which methods it has ──>
//!                                   <── choice of one, or 0xff and the end
//!   user and password, if chosen   ──>
//!                                   <── 0, or 1 and the end
//!   request                        ──>
//!                                   <── reply: 0, or why not and the end
//!   payload                       <──>  payload
//! ```
//!
//! | message | bytes |
//! |---|---|
//! | greeting | 5, count u8, so many methods |
//! | choice | 5, method |
//! | login | 1, length u8, name, length u8, password |
//! | its answer | 1, status |
//! | request | 5, command, 0, address |
//! | reply | 5, code, 0, address |
//! | datagram | 0, 0, fragment, address, payload |
//!
//! | address | bytes |
//! |---|---|
//! | IPv4 | 1, 4 bytes, port u16 |
//! | name | 3, length u8, the host, port u16 |
//! | IPv6 | 4, 16 bytes, port u16 |
//!
//! Ports are big-endian. A reading function says `Ok(None)` while more bytes are needed, and beside
//! what it read how many bytes that were; those behind it are the next message's, or payload.

use std::net::{IpAddr, SocketAddr};

use super::asked;
use super::{Address, Code, Login};
use crate::wire::{Reader, WireError, Writer};

/// What a reading function says: not yet, or what was read and how many bytes it took.
pub type Read<T, E = WireError> = Result<Option<(T, usize)>, E>;

/// The methods that a client offers and this server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// It would go without telling who it is.
    pub open: bool,
    /// It can tell a user and a password.
    pub login: bool,
}

/// How a client shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Open,
    /// By user and password.
    Login,
    /// In none of the ways that it offers: it is told so, and that is the end.
    None,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// A connection to there.
    Connect(Address),
    /// A place to send datagrams to. Where they will come from is not taken from its word.
    Associate,
    /// Something that is not done here, such as waiting for a connection: answer
    /// [`Reply::NoSuchCommand`].
    Other(u8),
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// What is no SOCKS5 at all; it gets no answer.
    Stranger(WireError),
    /// What is answered by [`Reply::NoSuchAddress`], and then is the end, as nobody knows how long
    /// it is.
    AddressKind(u8),
    /// What is answered by [`Reply::Failure`], and then is the end.
    Address(WireError),
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done = 0,
    /// It failed for a reason that has no code.
    Failure = 1,
    /// The rules forbid it.
    Forbidden = 2,
    /// No way leads to the network.
    NoNetwork = 3,
    /// The host cannot be reached, or is not known.
    NoHost = 4,
    /// The host takes no connection.
    Refused = 5,
    /// There was no answer in time.
    Timeout = 6,
    /// The command is not known here.
    NoSuchCommand = 7,
    /// The kind of address is not known here.
    NoSuchAddress = 8,
}

/// Reads the client's first message.
pub fn greeting(bytes: &[u8]) -> Read<Greeting> {
    let mut reader = Reader::new(bytes);
    if !starts(&mut reader, "version", VERSION)? {
        return Ok(None);
    }
    let Ok(methods) = run(&mut reader, "methods") else {
        return Ok(None);
    };
    let greeting = Greeting {
        open: methods.contains(&OPEN),
        login: methods.contains(&LOGIN),
    };
    Ok(Some((greeting, bytes.len() - reader.remaining())))
}

impl Greeting {
    /// The method for a listener that has users, or has none.
    pub fn choose(self, has_users: bool) -> Method {
        match has_users {
            true if self.login => Method::Login,
            false if self.open => Method::Open,
            // Some clients offer nothing else once they were given a password; without users any
            // login is taken.
            false if self.login => Method::Login,
            _ => Method::None,
        }
    }
}

impl Method {
    /// The answer to the greeting.
    pub fn encode(self) -> [u8; 2] {
        let method = match self {
            Self::Open => OPEN,
            Self::Login => LOGIN,
            Self::None => 0xff,
        };
        [VERSION, method]
    }
}

/// Reads user and password.
pub fn login(bytes: &[u8]) -> Read<Login> {
    let mut reader = Reader::new(bytes);
    if !starts(&mut reader, "login version", LOGIN_VERSION)? {
        return Ok(None);
    }
    let (Ok(name), Ok(password)) = (
        run(&mut reader, "user name"),
        run(&mut reader, "user password"),
    ) else {
        return Ok(None);
    };
    let login = Login {
        name: name.to_vec(),
        password: password.to_vec(),
    };
    Ok(Some((login, bytes.len() - reader.remaining())))
}

/// The answer to user and password; a client that was refused gets nothing more.
pub fn login_answer(is_right: bool) -> [u8; 2] {
    [LOGIN_VERSION, u8::from(!is_right)]
}

/// Reads a request.
pub fn request(bytes: &[u8]) -> Read<Request, Malformed> {
    let mut reader = Reader::new(bytes);
    if !starts(&mut reader, "version", VERSION).map_err(Malformed::Stranger)? {
        return Ok(None);
    }
    let (Ok(command), Ok(_reserved)) = (reader.u8("command"), reader.u8("reserved")) else {
        return Ok(None);
    };
    let Some((host, port)) = place(&mut reader)? else {
        return Ok(None);
    };
    let request = match command {
        CONNECT => Request::Connect(host.address(port).map_err(Malformed::Address)?),
        ASSOCIATE => Request::Associate,
        other => Request::Other(other),
    };
    Ok(Some((request, bytes.len() - reader.remaining())))
}

impl Malformed {
    /// What to answer; none where no answer would be understood.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Self::Stranger(_) => None,
            Self::AddressKind(_) => Some(Reply::NoSuchAddress),
            Self::Address(_) => Some(Reply::Failure),
        }
    }

    /// For the log.
    pub fn error(self) -> WireError {
        match self {
            Self::Stranger(error) | Self::Address(error) => error,
            Self::AddressKind(kind) => WireError::BadValue {
                field: "address kind",
                value: kind.into(),
            },
        }
    }
}

impl From<Code> for Reply {
    fn from(code: Code) -> Self {
        match code {
            Code::Ok => Self::Done,
            Code::Forbidden => Self::Forbidden,
            Code::Refused => Self::Refused,
            Code::Unreachable | Code::Resolve => Self::NoHost,
            Code::Timeout => Self::Timeout,
            Code::Overloaded | Code::Protocol | Code::Internal => Self::Failure,
        }
    }
}

impl Reply {
    /// Appends the reply. `bound` is where datagrams are to be sent, or what the connection comes
    /// from; where neither is known, or anybody's business, 0.0.0.0:0 does.
    pub fn encode(self, bound: SocketAddr, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.bytes(&[VERSION, self as u8, 0]);
        write(bound, &mut writer);
    }
}

/// Reads a datagram of a client: where it is to go, and its payload. One of several fragments is
/// refused, and so dropped.
pub fn datagram(bytes: &[u8]) -> Result<(Address, &[u8]), WireError> {
    let mut reader = Reader::new(bytes);
    for field in ["reserved", "reserved", "fragment"] {
        let value = reader.u8(field)?;
        if value != 0 {
            let value = value.into();
            return Err(WireError::BadValue { field, value });
        }
    }
    let truncated = WireError::Missing { field: "address" };
    let found = place(&mut reader).map_err(Malformed::error)?;
    let (host, port) = found.ok_or(truncated)?;
    Ok((host.address(port)?, reader.rest()))
}

/// Appends what a datagram to the client has in front of its payload.
pub fn datagram_head(from: SocketAddr, out: &mut Vec<u8>) {
    let mut writer = Writer::new(out);
    writer.bytes(&[0, 0, 0]);
    write(from, &mut writer);
}

/// A host before it is looked at.
enum Host<'a> {
    Ip(IpAddr),
    Name(&'a [u8]),
}

impl Host<'_> {
    fn address(self, port: u16) -> Result<Address, WireError> {
        let bad = |field, value| WireError::BadValue { field, value };
        if port == 0 {
            return Err(bad("port", 0));
        }
        match self {
            Self::Ip(ip) => Ok(Address::Socket(SocketAddr::new(ip, port))),
            Self::Name(name) => asked::address(name, port).ok_or(match name.first() {
                Some(first) => bad("host", u64::from(*first)),
                None => WireError::Missing { field: "host" },
            }),
        }
    }
}

/// Reads an address as far as it is there.
fn place<'a>(reader: &mut Reader<'a>) -> Result<Option<(Host<'a>, u16)>, Malformed> {
    let Ok(kind) = reader.u8("address kind") else {
        return Ok(None);
    };
    let host = match kind {
        IP4 => reader.array::<4>("ip4").map(|ip| Host::Ip(ip.into())),
        IP6 => reader.array::<16>("ip6").map(|ip| Host::Ip(ip.into())),
        NAME => run(reader, "host").map(Host::Name),
        other => return Err(Malformed::AddressKind(other)),
    };
    let (Ok(host), Ok(port)) = (host, reader.array("port")) else {
        return Ok(None);
    };
    Ok(Some((host, u16::from_be_bytes(port))))
}

/// False while there is no byte; an error when it is not the one that must be there.
fn starts(reader: &mut Reader<'_>, field: &'static str, want: u8) -> Result<bool, WireError> {
    match reader.u8(field) {
        Ok(value) if value == want => Ok(true),
        Ok(value) => Err(WireError::BadValue {
            field,
            value: value.into(),
        }),
        Err(_) => Ok(false),
    }
}

/// Bytes behind their length.
fn run<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<&'a [u8], WireError> {
    let length = usize::from(reader.u8(field)?);
    reader.bytes(field, length)
}

fn write(address: SocketAddr, writer: &mut Writer<'_>) {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            writer.u8(IP4);
            writer.bytes(&ip.octets());
        }
        IpAddr::V6(ip) => {
            writer.u8(IP6);
            writer.bytes(&ip.octets());
        }
    }
    writer.bytes(&address.port().to_be_bytes());
}

/// Bytes of the longest message that a client sends before payload.
pub const LONGEST: usize = 3 + 255 + 255;

/// Bytes of the longest [`datagram_head`].
pub const DATAGRAM_HEAD: usize = 3 + 1 + 16 + 2;

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const OPEN: u8 = 0;
const LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const ASSOCIATE: u8 = 3;
const IP4: u8 = 1;
const NAME: u8 = 3;
const IP6: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// `read` takes nothing of each prefix, and all of the message, whatever stands behind it.
    #[track_caller]
    fn whole<T: std::fmt::Debug + PartialEq, E: std::fmt::Debug + PartialEq>(
        bytes: &[u8],
        read: impl Fn(&[u8]) -> Read<T, E>,
    ) -> T {
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {bytes:?}");
        }
        let more = [bytes, b"GET / HTTP/1.1"].concat();
        let (found, count) = read(&more).unwrap().unwrap();
        assert_eq!(count, bytes.len());
        assert!(count <= LONGEST);
        found
    }

    #[test]
    fn a_method_is_chosen_of_those_that_are_offered() {
        for (offered, of_users, of_all) in [
            (&[0][..], Method::None, Method::Open),
            (&[2], Method::Login, Method::Login),
            (&[0, 2], Method::Login, Method::Open),
            (&[2, 1, 0], Method::Login, Method::Open),
            (&[1, 3, 0x80], Method::None, Method::None),
            (&[], Method::None, Method::None),
        ] {
            let bytes = [&[5, offered.len() as u8], offered].concat();
            let greeting = whole(&bytes, greeting);
            let chosen = (greeting.choose(true), greeting.choose(false));
            assert_eq!(chosen, (of_users, of_all), "{offered:?}");
        }
        whole(&[&[5, 255][..], &[9; 255]].concat(), greeting);
        assert_eq!(Method::Open.encode(), [5, 0]);
        assert_eq!(Method::Login.encode(), [5, 2]);
        assert_eq!(Method::None.encode(), [5, 0xff]);
    }

    #[test]
    fn user_and_password_are_any_bytes() {
        let found = whole(b"\x01\x03ann\x06secret", login);
        assert_eq!(
            (&found.name[..], &found.password[..]),
            (&b"ann"[..], &b"secret"[..])
        );
        assert_eq!(format!("{found:?}"), "(secret)");
        assert_eq!(whole(&[1, 0, 0], login).name, b"");
        let long = [&[1, 255][..], &[0xff; 255], &[255], &[0; 255]].concat();
        assert_eq!(long.len(), LONGEST);
        assert_eq!(whole(&long, login).password, [0; 255]);
        assert_eq!((login_answer(true), login_answer(false)), ([1, 0], [1, 1]));
    }

    #[test]
    fn requests_name_an_address_of_three_kinds() {
        for (bytes, want) in [
            (&b"\x05\x01\0\x01\x01\x02\x03\x04\0\x50"[..], "1.2.3.4:80"),
            (b"\x05\x01\0\x03\x09localhost\x01\xbb", "localhost:443"),
            (b"\x05\x01\0\x03\x071.2.3.4\0\x50", "1.2.3.4:80"),
            (b"\x05\x01\0\x03\x03::1\0\x50", "[::1]:80"),
            (
                b"\x05\x01\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x50",
                "[::1]:80",
            ),
        ] {
            let Request::Connect(address) = whole(bytes, request) else {
                panic!("{bytes:?}");
            };
            assert_eq!(address.to_string(), want);
        }
        let long = [&[5, 1, 0, 3, 255][..], &[b'a'; 255], &[0, 1]].concat();
        assert!(matches!(whole(&long, request), Request::Connect(_)));
        let nowhere = b"\x05\x03\0\x01\0\0\0\0\0\0";
        assert_eq!(whole(nowhere, request), Request::Associate);
        // Waiting for a connection, and what nobody knows.
        for command in [0, 2, 4, 255] {
            let mut bytes = *nowhere;
            bytes[1] = command;
            assert_eq!(whole(&bytes, request), Request::Other(command));
        }
    }

    #[test]
    fn what_is_malformed_is_answered_where_it_can_be() {
        let bad = |field, value| WireError::BadValue { field, value };
        for version in [0, 4, 6, b'G'] {
            let error = bad("version", version.into());
            assert_eq!(greeting(&[version]), Err(error));
            assert_eq!(request(&[version]), Err(Malformed::Stranger(error)));
            assert_eq!(Malformed::Stranger(error).reply(), None);
        }
        assert_eq!(login(&[5]), Err(bad("login version", 5)));
        for kind in [0, 2, 5, 255] {
            let found = request(&[5, 1, 0, kind]).unwrap_err();
            assert_eq!(found, Malformed::AddressKind(kind));
            assert_eq!(found.reply(), Some(Reply::NoSuchAddress));
            assert_eq!(found.error(), bad("address kind", kind.into()));
        }
        for (bytes, error) in [
            (&b"\x05\x01\0\x01\x01\x02\x03\x04\0\0"[..], bad("port", 0)),
            (
                b"\x05\x01\0\x03\0\0\x50",
                WireError::Missing { field: "host" },
            ),
            (b"\x05\x01\0\x03\x03a b\0\x50", bad("host", b'a'.into())),
            (b"\x05\x01\0\x03\x02\xffa\0\x50", bad("host", 255)),
            (b"\x05\x01\0\x03\x05[::1]\0\x50", bad("host", b'['.into())),
        ] {
            let found = request(bytes).unwrap_err();
            assert_eq!(found, Malformed::Address(error), "{bytes:?}");
            assert_eq!(found.reply(), Some(Reply::Failure));
        }
    }

    #[test]
    fn every_code_of_a_chain_has_its_reply() {
        let replies = Code::ALL.map(|code| Reply::from(code) as u8);
        assert_eq!(replies, [0, 4, 5, 4, 6, 2, 1, 1, 1]);
        let mut out = Vec::new();
        Reply::Done.encode("1.2.3.4:258".parse().unwrap(), &mut out);
        assert_eq!(out, [5, 0, 0, 1, 1, 2, 3, 4, 1, 2]);
        out.clear();
        Reply::NoSuchCommand.encode("[::1]:2".parse().unwrap(), &mut out);
        let one = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(out, [&[5, 7, 0, 4][..], &one, &[0, 2]].concat());
    }

    #[test]
    fn a_datagram_has_its_address_in_front() {
        for at in ["1.2.3.4:53", "[2a00::1]:53"] {
            let mut bytes = Vec::new();
            datagram_head(at.parse().unwrap(), &mut bytes);
            assert!(bytes.len() <= DATAGRAM_HEAD);
            for end in 0..bytes.len() {
                assert!(datagram(&bytes[..end]).is_err(), "{end}");
            }
            assert_eq!(datagram(&bytes).unwrap().1, b"");
            bytes.extend(b"payload");
            let (address, payload) = datagram(&bytes).unwrap();
            assert_eq!((&*address.to_string(), payload), (at, &b"payload"[..]));
            for (place, field) in [(0, "reserved"), (1, "reserved"), (2, "fragment")] {
                let mut wrong = bytes.clone();
                wrong[place] = 1;
                let error = WireError::BadValue { field, value: 1 };
                assert_eq!(datagram(&wrong), Err(error));
            }
        }
        let (address, payload) = datagram(b"\0\0\0\x03\x01a\0\x35x").unwrap();
        assert_eq!((&*address.to_string(), payload), ("a:53", &b"x"[..]));
        let mapped = "[::ffff:1.2.3.4]:5".parse().unwrap();
        let mut bytes = Vec::new();
        datagram_head(mapped, &mut bytes);
        assert_eq!(bytes[3..], [1, 1, 2, 3, 4, 0, 5]);
    }
}

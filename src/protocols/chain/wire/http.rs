//! HTTP CONNECT, the server's side: the one request, and its answers.
//!
//! A head is read as a whole, of [`LONGEST`] bytes and [`MOST_FIELDS`] fields at most; what stands
//! behind it is payload and stays unread. Whatever is no CONNECT is refused, since this is a proxy for
//! connections and not for pages.

use std::fmt::Write;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::asked;
use super::{Address, Code, Login};

/// A request to be connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Where to.
    pub address: Address,
    /// Who asks, where it says so in a form that is known here.
    pub login: Option<Login>,
}

/// Why a client gets no connection before anything was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no request; the words say what is wrong.
    Malformed(&'static str),
    /// It is another request than CONNECT.
    Method,
    /// It does not say who it is, or says it wrong.
    Unauthorised,
    /// The head is too long, or has too many fields.
    TooLarge,
}

/// Reads a request's head: `Ok(None)` while it is not whole, and beside the request how many bytes it
/// took.
pub fn request(bytes: &[u8]) -> Result<Option<(Connect, usize)>, Refusal> {
    let head = &bytes[..bytes.len().min(LONGEST)];
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let length = match request.parse(head) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if head.len() < LONGEST => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::TooLarge);
        }
        Err(_) => return Err(Refusal::Malformed("the head is no HTTP/1 request")),
    };
    if request.method != Some("CONNECT") {
        return Err(Refusal::Method);
    }
    let address = address(request.path.unwrap_or_default());
    let address = address.ok_or(Refusal::Malformed("the target is not HOST:PORT"))?;
    let login = examine(request.headers)?;
    Ok(Some((Connect { address, login }, length)))
}

/// The authority form: a host, and a port that must be there.
fn address(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse().ok().filter(|_| is_number)?;
    let inside = host.strip_prefix('[').map(|rest| rest.strip_suffix(']'));
    match inside {
        Some(inside) => {
            let ip: std::net::Ipv6Addr = inside?.parse().ok()?;
            asked::address(ip.to_string().as_bytes(), port)
        }
        None if host.contains(':') => None,
        None => asked::address(host.as_bytes(), port),
    }
}

/// Looks for who asks, and for a body, which a CONNECT has none of: taken for payload, it would be
/// sent to the destination.
fn examine(fields: &[httparse::Header<'_>]) -> Result<Option<Login>, Refusal> {
    let mut shown = None;
    for field in fields {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("proxy-authorization") {
            if shown.is_some() {
                return Err(Refusal::Malformed("two fields say who asks"));
            }
            shown = Some(field.value);
        } else if is("transfer-encoding") || is("content-length") && field.value != b"0" {
            return Err(Refusal::Malformed("a CONNECT has no body"));
        }
    }
    Ok(shown.and_then(login))
}

/// What `Basic` and base64 of `name:password` say.
fn login(value: &[u8]) -> Option<Login> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(at);
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let both = BASE64.decode(rest.trim_ascii()).ok()?;
    let colon = both.iter().position(|byte| *byte == b':')?;
    let (name, password) = both.split_at(colon);
    Some(Login {
        name: name.to_vec(),
        password: password[1..].to_vec(),
    })
}

impl Refusal {
    /// Appends the answer, behind which the connection ends.
    pub fn encode(self, out: &mut Vec<u8>) {
        let (status, field) = match self {
            Self::Malformed(_) => ("400 Bad Request", REQUEST_ERROR),
            Self::Method => ("405 Method Not Allowed", "Allow: CONNECT\r\n"),
            Self::Unauthorised => (
                "407 Proxy Authentication Required",
                "Proxy-Authenticate: Basic realm=\"towpath\"\r\n",
            ),
            Self::TooLarge => ("431 Request Header Fields Too Large", REQUEST_ERROR),
        };
        answer(status, field, self.words(), out);
    }

    /// What is wrong, for the client and for the log.
    pub fn words(self) -> &'static str {
        match self {
            Self::Malformed(words) => words,
            Self::Method => "this proxy takes CONNECT alone",
            Self::Unauthorised => "this proxy wants a user and a password",
            Self::TooLarge => "the head is too long, or has too many fields",
        }
    }
}

/// Appends the answer to a chain that failed, behind which the connection ends. `told` is the chain's
/// error in one line; what would break that line is left out.
pub fn failure(code: Code, told: &str, out: &mut Vec<u8>) {
    let (status, error) = match code {
        Code::Forbidden => ("403 Forbidden", "destination_ip_prohibited"),
        Code::Resolve => ("502 Bad Gateway", "dns_error"),
        Code::Refused => ("502 Bad Gateway", "connection_refused"),
        Code::Unreachable => ("502 Bad Gateway", "destination_ip_unroutable"),
        Code::Timeout => ("504 Gateway Timeout", "connection_timeout"),
        Code::Overloaded => ("503 Service Unavailable", "connection_limit_reached"),
        // A chain that is well has not failed, so that this is a failure of ours.
        Code::Ok | Code::Protocol | Code::Internal => ("502 Bad Gateway", "proxy_internal_error"),
    };
    let field = format!("Proxy-Status: towpath; error={error}\r\n");
    let told: String = told.chars().filter(|letter| !letter.is_control()).collect();
    answer(status, &field, &told, out);
}

fn answer(status: &str, field: &str, told: &str, out: &mut Vec<u8>) {
    let mut text = String::new();
    let length = told.len() + 1;
    // Writing to a string fails only where memory ends.
    let _ = write!(
        text,
        "HTTP/1.1 {status}\r\n{field}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{told}\n"
    );
    out.extend(text.as_bytes());
}

/// The answer to a request that was fulfilled; payload follows, both ways.
pub const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// The longest head, in bytes.
pub const LONGEST: usize = 8 << 10;

/// The most fields of a head.
pub const MOST_FIELDS: usize = 64;

const REQUEST_ERROR: &str = "Proxy-Status: towpath; error=http_request_error\r\n";

/// The padding may be there or not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing of each prefix, and the head alone of what is longer.
    #[track_caller]
    fn whole(head: &str) -> Connect {
        for end in 0..head.len() {
            assert_eq!(
                request(&head.as_bytes()[..end]),
                Ok(None),
                "{end} of {head}"
            );
        }
        let more = [head.as_bytes(), b"\x16\x03\x01payload"].concat();
        let (found, length) = request(&more).unwrap().unwrap();
        assert_eq!(length, head.len(), "{head}");
        found
    }

    fn head(target: &str, fields: &str) -> String {
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields}\r\n")
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        for (target, want) in [
            ("example.com:443", "example.com:443"),
            ("1.2.3.4:80", "1.2.3.4:80"),
            ("[2a00::1]:65535", "[2a00::1]:65535"),
            ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]:1"),
            ("a_b-c.d.:00443", "a_b-c.d.:443"),
        ] {
            assert_eq!(whole(&head(target, "")).address.to_string(), want);
        }
        assert_eq!(whole("CONNECT a:1 HTTP/1.0\r\n\r\n").login, None);
        for target in [
            "example.com",
            "example.com:",
            ":443",
            "example.com:0",
            "example.com:65536",
            "example.com:+80",
            "example.com:000443",
            "::1:80",
            "[::1]",
            "[::1]80",
            "[::1:80",
            "[a]:80",
            "[1.2.3.4]:80",
            "[fe80::1%eth0]:80",
            "user@example.com:80",
            "http://example.com:80",
            "example.com:80/",
            "/:80",
            "*:80",
            &format!("{}:80", "a".repeat(256)),
        ] {
            let want = Err(Refusal::Malformed("the target is not HOST:PORT"));
            assert_eq!(request(head(target, "").as_bytes()), want, "{target}");
        }
    }

    #[test]
    fn who_asks_is_told_by_basic() {
        let found = |value: &str| {
            let field = format!("Proxy-Authorization: {value}\r\n");
            let login = whole(&head("a:1", &field)).login;
            login.map(|login| (login.name, login.password))
        };
        // ann:se:cret
        let want = Some((b"ann".to_vec(), b"se:cret".to_vec()));
        assert_eq!(found("Basic YW5uOnNlOmNyZXQ="), want);
        assert_eq!(found("basic   YW5uOnNlOmNyZXQ"), want);
        assert_eq!(found("Basic Og=="), Some((vec![], vec![])));
        for value in [
            "Basic",
            "Basic ",
            "Bearer YW5uOnNlOmNyZXQ=",
            "Basic YW5u",
            "Basic *",
            "x",
        ] {
            assert_eq!(found(value), None, "{value}");
        }
        let twice = "Proxy-Authorization: Basic Og==\r\nproxy-authorization: Basic Og==\r\n";
        let want = Err(Refusal::Malformed("two fields say who asks"));
        assert_eq!(request(head("a:1", twice).as_bytes()), want);
    }

    #[test]
    fn a_body_another_method_and_nonsense_are_refused() {
        for field in [
            "Content-Length: 5",
            "content-length: 00",
            "Transfer-Encoding: chunked",
        ] {
            let want = Err(Refusal::Malformed("a CONNECT has no body"));
            assert_eq!(
                request(head("a:1", &format!("{field}\r\n")).as_bytes()),
                want,
                "{field}"
            );
        }
        whole(&head("a:1", "Content-Length: 0\r\n"));
        for line in [
            "GET / HTTP/1.1",
            "connect a:1 HTTP/1.1",
            "OPTIONS * HTTP/1.1",
        ] {
            let text = format!("{line}\r\n\r\n");
            assert_eq!(request(text.as_bytes()), Err(Refusal::Method), "{line}");
        }
        for text in [
            "\x05\x01\x00",
            "CONNECT a:1 HTTP/2.0\r\n",
            "CONNECT a:1 HTTP/1.1\r\na b: c\r\n",
        ] {
            let want = Err(Refusal::Malformed("the head is no HTTP/1 request"));
            assert_eq!(request(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn a_head_is_bounded_in_its_bytes_and_fields() {
        let fields = |count: usize| "X: y\r\n".repeat(count);
        whole(&head("a:1", &fields(MOST_FIELDS - 1)));
        let text = head("a:1", &fields(MOST_FIELDS));
        assert_eq!(request(text.as_bytes()), Err(Refusal::TooLarge));
        let padded = |length: usize| {
            let bare = head("a:1", "X: \r\n").len();
            head("a:1", &format!("X: {}\r\n", "y".repeat(length - bare)))
        };
        let text = padded(LONGEST);
        assert_eq!(request(text.as_bytes()).unwrap().unwrap().1, LONGEST);
        assert_eq!(request(&text.as_bytes()[..LONGEST - 1]), Ok(None));
        let text = padded(LONGEST + 1);
        assert_eq!(request(&text.as_bytes()[..LONGEST]), Err(Refusal::TooLarge));
        assert_eq!(request(text.as_bytes()), Err(Refusal::TooLarge));
    }

    /// The status line, its fields, and the body of an answer whose length is right.
    #[track_caller]
    fn parted(out: &[u8]) -> (String, Vec<String>, String) {
        let text = String::from_utf8(out.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.split("\r\n").map(str::to_owned);
        let status = lines.next().unwrap();
        let fields: Vec<String> = lines.collect();
        assert!(fields.contains(&format!("Content-Length: {}", body.len())));
        assert!(fields.contains(&"Connection: close".to_owned()));
        (status, fields, body.to_owned())
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        for (refusal, status, field) in [
            (
                Refusal::Malformed("the target is not HOST:PORT"),
                "HTTP/1.1 400 Bad Request",
                "Proxy-Status: towpath; error=http_request_error",
            ),
            (
                Refusal::Method,
                "HTTP/1.1 405 Method Not Allowed",
                "Allow: CONNECT",
            ),
            (
                Refusal::Unauthorised,
                "HTTP/1.1 407 Proxy Authentication Required",
                "Proxy-Authenticate: Basic realm=\"towpath\"",
            ),
            (
                Refusal::TooLarge,
                "HTTP/1.1 431 Request Header Fields Too Large",
                "Proxy-Status: towpath; error=http_request_error",
            ),
        ] {
            let mut out = Vec::new();
            refusal.encode(&mut out);
            let (line, fields, body) = parted(&out);
            assert_eq!((&*line, body), (status, format!("{}\n", refusal.words())));
            assert!(fields.contains(&field.to_owned()), "{fields:?}");
        }
    }

    #[test]
    fn a_failed_chain_is_told_in_its_own_words() {
        let told = "hop 2 (nyc.example:7300): destination refused the connection";
        let statuses = Code::ALL.map(|code| {
            let mut out = Vec::new();
            failure(code, told, &mut out);
            let (line, fields, body) = parted(&out);
            assert_eq!(body, format!("{told}\n"));
            let field = fields
                .iter()
                .find_map(|f| f.strip_prefix("Proxy-Status: towpath; error="));
            format!("{} {}", &line[9..12], field.unwrap())
        });
        assert_eq!(
            statuses,
            [
                "502 proxy_internal_error",
                "502 dns_error",
                "502 connection_refused",
                "502 destination_ip_unroutable",
                "504 connection_timeout",
                "403 destination_ip_prohibited",
                "503 connection_limit_reached",
                "502 proxy_internal_error",
                "502 proxy_internal_error",
            ]
        );
        let mut out = Vec::new();
        failure(Code::Internal, "a\r\n\r\nb\u{7f}\u{e4}", &mut out);
        assert_eq!(parted(&out).2, "ab\u{e4}\n");
        assert_eq!(ESTABLISHED, b"HTTP/1.1 200 Connection established\r\n\r\n");
    }
}

//! Requests out of bytes, by `httparse` and the rules that it leaves to its user.
//!
//! Total: any bytes give a request, "not yet", or a refusal with its status. What could be read in two
//! ways is refused: more than one length, a length that is no plain number, any transfer encoding.

use super::response::Refusal;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET` and the like, as it came.
    pub method: String,
    /// The path between its slashes, decoded; one empty part for `/`.
    pub path: Vec<String>,
    /// The query's names and values, decoded.
    pub query: Vec<(String, String)>,
    /// The host that the client believes to speak with.
    pub host: Option<String>,
    /// What it shows.
    pub authorization: Option<String>,
    /// A page in a browser sent it: it names its origin, or says that it is of another site.
    pub from_page: bool,
    /// The connection stays open behind the answer.
    pub keep: bool,
    /// HTTP/1.0, which needs no host.
    pub is_old: bool,
    /// What came behind the head.
    pub body: Vec<u8>,
}

/// Understands the first request in `bytes`, and how many of them it takes; `None` when there are not
/// enough yet.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let window = &bytes[..bytes.len().min(HEAD + 1)];
    let length = match head.parse(window) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD => length,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD => return Ok(None),
        Ok(_) => return Err(Refusal::bad(format!("the head is over {HEAD} bytes"))),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::bad(format!("more than {MOST_HEADERS} headers")));
        }
        Err(error) => return Err(Refusal::bad(format!("this is not HTTP/1.1: {error}"))),
    };
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        is_old: head.version == Some(0),
        keep: head.version != Some(0),
        ..Request::default()
    };
    read_target(head.path.unwrap_or_default(), &mut request)?;
    let body = read_headers(head.headers, &mut request)?;
    if body > BODY {
        return Err(Refusal::new(413, format!("the body is over {BODY} bytes")));
    }
    let whole = length + body;
    if bytes.len() < whole {
        return Ok(None);
    }
    request.body = bytes[length..whole].to_vec();
    Ok(Some((request, whole)))
}

/// Reads what matters of the headers; the result is the body's length.
fn read_headers(headers: &[httparse::Header<'_>], request: &mut Request) -> Result<usize, Refusal> {
    let mut length = None;
    for header in headers {
        let text = std::str::from_utf8(header.value).map(str::trim);
        let text = text.map_err(|_| Refusal::bad(format!("{} is not text", header.name)))?;
        let name = header.name.to_ascii_lowercase();
        match name.as_str() {
            "host" => once(&mut request.host, text, "Host")?,
            "authorization" => once(&mut request.authorization, text, "Authorization")?,
            "origin" => request.from_page = true,
            "sec-fetch-site" if text != "none" && text != "same-origin" => {
                request.from_page = true;
            }
            "connection" => {
                let mut words = text.split(',').map(str::trim);
                if words.any(|word| word.eq_ignore_ascii_case("close")) {
                    request.keep = false;
                }
            }
            "transfer-encoding" => {
                let why = "a transfer encoding is not taken; send Content-Length";
                return Err(Refusal::new(501, why));
            }
            "content-length" => {
                let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                if !plain || length.is_some() {
                    return Err(Refusal::bad("Content-Length must be one plain number"));
                }
                // More digits than a number has are certainly too much.
                length = Some(text.parse().unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
    Ok(length.unwrap_or(0))
}

fn once(place: &mut Option<String>, text: &str, name: &str) -> Result<(), Refusal> {
    match place.replace(text.to_owned()) {
        None => Ok(()),
        Some(_) => Err(Refusal::bad(format!("{name} is given twice"))),
    }
}

fn read_target(target: &str, request: &mut Request) -> Result<(), Refusal> {
    let Some(target) = target.strip_prefix('/') else {
        return Err(Refusal::bad("the target must be a path"));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    for part in path.split('/') {
        request.path.push(decode(part)?);
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        request.query.push((decode(name)?, decode(value)?));
    }
    Ok(())
}

/// Undoes `%2F` and the like; what is then no printable text is refused.
fn decode(text: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::bad("the target is not well formed");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
        rest = behind;
        let value = |digit: u8| char::from(digit).to_digit(16);
        let (Some(high), Some(low)) = (value(digits[0]), value(digits[1])) else {
            return Err(wrong());
        };
        bytes.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    match text.chars().any(char::is_control) {
        true => Err(wrong()),
        false => Ok(text),
    }
}

/// The longest head, in bytes.
pub const HEAD: usize = 8 * 1024;

/// The longest body, in bytes.
pub const BODY: usize = 64 * 1024;

/// The most headers.
const MOST_HEADERS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const PUT: &[u8] =
        b"PUT /leases/node%2Ftcp/20000?x=a%20b&y HTTP/1.1\r\nHost: 127.0.0.1:7900\r\n\
        authorization: Bearer t\r\nContent-Length: 4\r\n\r\nbody";

    fn refused(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().status
    }

    #[test]
    fn every_prefix_is_not_yet_and_what_follows_is_left() {
        for end in 0..PUT.len() {
            assert_eq!(parse(&PUT[..end]), Ok(None), "{end} bytes");
        }
        let (request, used) = parse(PUT).unwrap().unwrap();
        assert_eq!(used, PUT.len());
        assert_eq!(request.path, ["leases", "node/tcp", "20000"]);
        let query = [("x", "a b"), ("y", "")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(request.query, query);
        assert_eq!(request.host.as_deref(), Some("127.0.0.1:7900"));
        assert_eq!(request.authorization.as_deref(), Some("Bearer t"));
        assert_eq!(request.body, b"body");
        assert!(request.keep && !request.from_page && !request.is_old);
        // Split anywhere, with another request behind it: the same two come out.
        let two = [PUT, b"GET / HTTP/1.0\r\n\r\n"].concat();
        for split in 0..=two.len() {
            let mut held = Vec::new();
            let mut found = Vec::new();
            for piece in [&two[..split], &two[split..]] {
                held.extend_from_slice(piece);
                while let Some((request, used)) = parse(&held).unwrap() {
                    held.drain(..used);
                    found.push(request);
                }
            }
            assert_eq!(found.len(), 2, "split at {split}");
            assert_eq!(found[0], request);
            assert_eq!(found[1].path, [""]);
            assert!(found[1].is_old && !found[1].keep);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let with = |header: &str| format!("POST /drain HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n");
        for (header, status) in [
            ("Transfer-Encoding: chunked", 501),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked", 501),
            ("Transfer-Encoding : chunked", 400),
            ("Content-Length: 5\r\nContent-Length: 5", 400),
            ("Content-Length: 5, 5", 400),
            ("Content-Length: +5", 400),
            ("Content-Length: -1", 400),
            ("Content-Length: 0x5", 400),
            ("Content-Length:", 400),
            ("Content-Length: 65537", 413),
            ("Content-Length: 99999999999999999999999", 413),
            ("Host: y", 400),
            ("X: a\r\n folded: b", 400),
        ] {
            assert_eq!(refused(&with(header)), status, "{header}");
        }
        for (line, status) in [
            ("GET /%zz HTTP/1.1", 400),
            ("GET /%00 HTTP/1.1", 400),
            ("GET http://127.0.0.1/ HTTP/1.1", 400),
            ("GET * HTTP/1.1", 400),
            ("GET / HTTP/2.0", 400),
            ("\u{16}\u{3}\u{1}", 400),
        ] {
            assert_eq!(
                refused(&format!("{line}\r\nHost: x\r\n\r\n")),
                status,
                "{line}"
            );
        }
    }

    #[test]
    fn heads_are_bounded() {
        let filled = |length: usize| {
            let head = "GET / HTTP/1.1\r\nX: ";
            format!("{head}{}\r\n\r\n", "a".repeat(length - head.len() - 4))
        };
        assert!(parse(filled(HEAD).as_bytes()).unwrap().is_some());
        assert_eq!(refused(&filled(HEAD + 1)), 400);
        let endless = "a".repeat(HEAD + 1);
        assert_eq!(refused(&format!("GET /{endless}")), 400);
        let many = "X: y\r\n".repeat(MOST_HEADERS + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), 400);
    }

    #[test]
    fn mutated_requests_never_panic() {
        let mut random = 1_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        for _ in 0..20_000 {
            let mut bytes = PUT.to_vec();
            for _ in 0..1 + next() % 4 {
                let at = next() % bytes.len();
                bytes[at] = next() as u8;
            }
            let _ = parse(&bytes);
        }
    }
}

//! Who may ask: the host that a request names, the token that it shows, and where it comes from.
//!
//! A page in the operator's browser can send requests to loopback. It cannot read the answers unless a
//! name of its own leads there, which the host gives away (rebinding); and it cannot send one that
//! changes something without naming its origin.

use std::net::{IpAddr, SocketAddr};

use ring::digest::{Digest, SHA256, digest};
use subtle::ConstantTimeEq;

use super::request::Request;
use super::response::Refusal;
use crate::config::Secret;

/// What keeps the door.
pub struct Guard {
    /// The token's digest: comparing digests takes the same time whatever is shown.
    token: Option<Digest>,
}

impl Guard {
    /// A guard that asks for this token, if there is one.
    pub fn new(token: Option<&Secret>) -> Self {
        Self {
            token: token.map(|token| digest(&SHA256, token.expose())),
        }
    }

    /// Looks at the host alone: for what tells nothing.
    pub fn check_host(&self, request: &Request) -> Result<(), Refusal> {
        match &request.host {
            None if request.is_old => Ok(()),
            None => Err(Refusal::bad("the Host header is missing")),
            Some(host) if is_own(host) => Ok(()),
            Some(_) => Err(Refusal::new(
                403,
                "the Host header must be an IP address or localhost",
            )),
        }
    }

    /// Looks at everything.
    pub fn check(&self, request: &Request, changes: bool) -> Result<(), Refusal> {
        self.check_host(request)?;
        match &self.token {
            Some(token) => {
                let shown = request.authorization.as_deref().and_then(bearer);
                let shown = digest(&SHA256, shown.unwrap_or_default().as_bytes());
                match token.as_ref().ct_eq(shown.as_ref()).into() {
                    true => Ok(()),
                    false => Err(Refusal::new(401, "the token is missing or wrong")
                        .header("WWW-Authenticate: Bearer")),
                }
            }
            None if changes && request.from_page => Err(Refusal::new(
                403,
                "a page may change something only where there is a token",
            )),
            None => Ok(()),
        }
    }
}

fn bearer(shown: &str) -> Option<&str> {
    let (scheme, token) = shown.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// An address written out, or `localhost`, with or without a port. No name leads here but by the
/// server's own: whoever can have a name lead here would have the browser trust it.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || bracketed(host).is_some_and(|ip| ip.parse::<IpAddr>().is_ok())
}

fn bracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: Option<&str>) -> Request {
        Request {
            host: host.map(str::to_owned),
            ..Request::default()
        }
    }

    #[test]
    fn only_addresses_and_localhost_are_hosts() {
        let guard = Guard::new(None);
        let status = |host| guard.check(&request(host), false).err().map(|r| r.status);
        for good in [
            "127.0.0.1",
            "127.0.0.1:7900",
            "localhost",
            "LOCALHOST:7900",
            "[::1]",
            "[::1]:7900",
            "192.0.2.1:80",
        ] {
            assert_eq!(status(Some(good)), None, "{good}");
        }
        for foreign in [
            "",
            "example.com",
            "example.com:7900",
            "127.0.0.1.example.com",
            "localhost.example.com",
            "127.0.0.1@example.com",
            "localhost:7900:1",
            "[::1",
            "2130706433",
            "127.1",
        ] {
            assert_eq!(status(Some(foreign)), Some(403), "{foreign}");
        }
        assert_eq!(status(None), Some(400));
        let old = Request {
            is_old: true,
            ..request(None)
        };
        assert!(guard.check(&old, true).is_ok());
    }

    #[test]
    fn tokens_and_pages() {
        let secret = Secret::new(b"open sesame");
        let guard = Guard::new(secret.as_ref());
        let shown = |shown: Option<&str>| {
            let mut request = request(Some("127.0.0.1"));
            request.authorization = shown.map(str::to_owned);
            request.from_page = true;
            guard
                .check(&request, true)
                .err()
                .map(|refusal| refusal.status)
        };
        assert_eq!(shown(Some("Bearer open sesame")), None);
        assert_eq!(shown(Some("bearer open sesame")), None);
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer open"),
            Some("Basic open sesame"),
        ] {
            assert_eq!(shown(wrong), Some(401), "{wrong:?}");
        }
        let open = Guard::new(None);
        let mut page = request(Some("127.0.0.1"));
        page.from_page = true;
        assert!(open.check(&page, false).is_ok());
        assert_eq!(open.check(&page, true).unwrap_err().status, 403);
    }
}

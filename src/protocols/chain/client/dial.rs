//! The client's own connection: to the first hop or, without hops, to the destination.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::super::wire::Address;
use super::{Options, Reason};

/// The addresses to try, in the resolver's order.
pub(super) fn resolve(address: &Address) -> Result<Vec<SocketAddr>, Reason> {
    let found = match address {
        Address::Socket(address) => return Ok(vec![*address]),
        Address::Name { host, port } => (&**host, *port).to_socket_addrs(),
    };
    let found: Vec<SocketAddr> = found.map_err(Reason::Resolve)?.take(MOST).collect();
    match found.is_empty() {
        true => Err(Reason::Resolve(io::ErrorKind::NotFound.into())),
        false => Ok(found),
    }
}

/// A connection to the first address that takes one.
pub(super) fn connect(
    address: &Address,
    options: &Options,
    deadline: Instant,
) -> Result<TcpStream, Reason> {
    let mut last = Reason::Resolve(io::ErrorKind::NotFound.into());
    for address in resolve(address)? {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = at_least(options.connect_timeout.min(left));
        let stream = TcpStream::connect_timeout(&address, patience)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match stream {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Reason::Connect { address, source },
        }
        if left.is_zero() {
            break;
        }
    }
    Err(last)
}

/// A timeout of zero is none at all to the system, which refuses it.
pub(super) fn at_least(timeout: Duration) -> Duration {
    timeout.max(Duration::from_millis(1))
}

/// A time to come; what lies beyond the clock's end is a year away.
pub(super) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + YEAR)
}

/// The most addresses of a name that are tried.
const MOST: usize = 16;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

//! The data of messages to one TCP connection, in order.
//!
//! While the address takes nothing, this waits, the node's queue fills, and the peers are held back:
//! data is dropped only where it has broken two connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use super::output;

/// The address, and the connection to it while there is one.
pub(super) struct Forward {
    to: SocketAddr,
    stream: Option<TcpStream>,
}

impl Forward {
    pub(super) fn new(to: SocketAddr) -> Self {
        Self { to, stream: None }
    }

    /// Writes the data, on a new connection where the old one has ended. Where it ends in the middle,
    /// all of it is written once more to the next.
    pub(super) fn put(&mut self, data: &[u8]) {
        for _ in 0..TRIES {
            let mut stream = match self.stream.take().filter(is_open) {
                Some(stream) => stream,
                None => self.connect(),
            };
            match stream.write_all(data) {
                Ok(()) => {
                    self.stream = Some(stream);
                    return;
                }
                Err(error) => output::say(&format!("{} ended: {error}", self.to)),
            }
        }
        let (to, length) = (self.to, data.len());
        output::say(&format!(
            "{to} does not take {length} bytes, they are dropped"
        ));
    }

    fn connect(&self) -> TcpStream {
        let mut pause = SHORTEST_PAUSE;
        loop {
            let connected = TcpStream::connect_timeout(&self.to, CONNECT_TIMEOUT)
                .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
            match connected {
                Ok(stream) => return stream,
                Err(error) => {
                    let to = self.to;
                    output::say(&format!(
                        "cannot connect to {to}: {error}; again in {pause:?}"
                    ));
                    thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

/// Whether the other side is still there. What it has said is dropped, so that it never waits for us
/// to take it; a talker that is faster than this is taken for open.
fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let mut block = [0; 16 << 10];
    let ends = (0..READS).find_map(|_| match (&*stream).read(&mut block) {
        Ok(0) => Some(false),
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        Err(error) => Some(error.kind() == io::ErrorKind::WouldBlock),
    });
    ends.unwrap_or(true) && stream.set_nonblocking(false).is_ok()
}

/// Connections that one message's data is written to.
const TRIES: usize = 2;

/// Reads of what the other side has said, before each write.
const READS: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses after failed connects double between these two.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn data_goes_on_where_the_last_connection_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut forward = Forward::new(listener.local_addr().unwrap());
        let patience = Some(Duration::from_secs(20));
        let read = |count| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(patience).unwrap();
            let mut data = vec![0; count];
            stream.read_exact(&mut data).unwrap();
            (stream, data)
        };
        forward.put(b"one");
        forward.put(b"two");
        let (mut stream, data) = read(6);
        assert_eq!(data, b"onetwo");
        // It may talk: nobody listens, and nothing is held up.
        stream.write_all(&[7; 1000]).unwrap();
        forward.put(b"three");
        let mut data = [0; 5];
        stream.read_exact(&mut data).unwrap();
        assert_eq!(&data, b"three");
        // Its end has arrived when our side cannot be reset any more: then it is seen.
        drop(stream);
        let ended = forward.stream.as_ref().unwrap();
        ended.set_read_timeout(patience).unwrap();
        while !matches!((&*ended).read(&mut [0; 2000]), Ok(0) | Err(_)) {}
        forward.put(b"four");
        assert_eq!(read(4).1, b"four");
    }
}

//! What clients with a local end have in common: stdin and stdout, or the connections to a local port,
//! joined to a far end that a command has made.
//!
//! ```text
//!   local connection or stdin  --bytes-->  far end
//!                  or stdout   <--bytes--
//! ```
//!
//! Each direction is a thread that copies until its end and then passes the end on, so either side
//! may finish first and still hear the other out.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use log::{debug, info, warn};
use socket2::{SockRef, TcpKeepalive};

use super::exit::{FAILED, Failure};
use super::output;

/// Where bytes go, and how it is told that there are no more.
pub(super) trait Outlet: Write {
    /// Passes the end on.
    fn finish(&mut self) -> io::Result<()>;
}

impl Outlet for TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Outlet for &TcpStream {
    fn finish(&mut self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Stdin and stdout through one far end.
pub(super) fn converse(
    command: &str,
    mut down: impl Read,
    mut up: impl Outlet + Send + 'static,
) -> Result<(), Failure> {
    let failed = |what: &str, error: &io::Error| {
        Failure::new(FAILED, format!("towpath {command}: {what}: {error}"))
    };
    // Not joined: when the far end has ended, nobody is left to hear what stdin still has to say.
    spawn("stdin", move || {
        let ended = copy(&mut io::stdin().lock(), &mut up, &mut 0);
        debug!("stdin ended: {ended:?}");
        // Fails only where the connection has ended already.
        let _ = up.finish();
    })
    .map_err(|error| failed("no thread for stdin", &error))?;
    match copy(&mut down, &mut io::stdout().lock(), &mut 0) {
        Err(Cut::Reading(error)) => Err(failed("the connection broke", &error)),
        Err(Cut::Writing(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(failed("stdout cannot be written", &error))
        }
        _ => Ok(()),
    }
}

/// Connections to a local port, each taken by a thread of its own. Never returns but by a failure.
pub(super) fn serve(
    command: &str,
    address: SocketAddr,
    take: impl Fn(&TcpStream, SocketAddr) + Send + Sync + 'static,
) -> Result<(), Failure> {
    let (listener, bound) = TcpListener::bind(address)
        .and_then(|listener| Ok((listener.local_addr()?, listener)))
        .map(|(bound, listener)| (listener, bound))
        .map_err(|error| {
            let line = format!("towpath {command}: cannot listen on {address}: {error}");
            Failure::of_socket(&error, line)
        })?;
    output::say(&format!("listening on {bound}"));
    let take = Arc::new(take);
    // Each connection holds one of these permits; further ones wait in the kernel's queue.
    let (permits, freed) = bounded(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let _ = permits.send(());
    }
    let mut pause = SHORTEST_PAUSE;
    loop {
        let _ = freed.recv();
        let permit = Permit(permits.clone());
        match listener.accept() {
            Ok((local, from)) => {
                pause = SHORTEST_PAUSE;
                let take = Arc::clone(&take);
                let started = spawn("connection", move || {
                    let _permit = permit;
                    take(&local, from);
                });
                if let Err(error) = started {
                    warn!("from={from} closed: no thread: {error}");
                }
            }
            Err(error) => {
                // Out of descriptors, or a connection that left while it waited.
                warn!("accept failed, again in {pause:?}: {error}");
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Joins a local connection to a far end until both have ended. `remote` is the connection that the far
/// end goes over.
pub(super) fn join(
    local: &TcpStream,
    from: SocketAddr,
    down: impl Read,
    up: impl Outlet + Send,
    remote: &TcpStream,
) {
    for stream in [local, remote] {
        prepare(stream);
    }
    // A direction that breaks ends both, as nobody would know any more what the other one answers to.
    let cut = || {
        for stream in [local, remote] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    };
    let carried = thread::scope(|scope| {
        let up = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, || pass(local, up, cut))?;
        let down = pass(down, local, cut);
        Ok::<_, io::Error>((up.join().unwrap_or_default(), down))
    });
    match carried {
        Ok((up, down)) => info!("from={from} ended up={up} down={down}"),
        Err(error) => warn!("from={from} closed: no thread for its second direction: {error}"),
    }
}

/// Makes a stream quick with small writes, and lets it notice a peer that is gone without a word.
/// Where the system refuses either, the stream still carries every byte.
pub(super) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let probes = TcpKeepalive::new().with_time(SILENCE).with_interval(PROBE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}

/// One direction: copies to the end and passes the end on. Returns the bytes carried.
fn pass(mut from: impl Read, mut to: impl Outlet, cut: impl Fn()) -> u64 {
    let mut carried = 0;
    let ended = copy(&mut from, &mut to, &mut carried);
    let passed = match ended {
        Ok(()) => to.finish(),
        Err(_) => {
            cut();
            Ok(())
        }
    };
    debug!("a direction ended: {ended:?} {passed:?}");
    carried
}

/// Which side of a copy failed.
#[derive(Debug)]
enum Cut {
    Reading(io::Error),
    Writing(io::Error),
}

/// Copies until the end. Every block is flushed, so that a conversation by lines goes on.
fn copy(from: &mut dyn Read, to: &mut dyn Write, carried: &mut u64) -> Result<(), Cut> {
    let mut block = vec![0; BLOCK];
    loop {
        let count = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Cut::Reading(error)),
        };
        to.write_all(&block[..count])
            .and_then(|()| to.flush())
            .map_err(Cut::Writing)?;
        *carried += count as u64;
    }
}

/// The right to one connection; goes back when it is dropped, also by a panic.
struct Permit(Sender<()>);

impl Drop for Permit {
    fn drop(&mut self) {
        // Never full: there are as many places as permits.
        let _ = self.0.try_send(());
    }
}

/// A thread that only copies.
pub(super) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(name.to_owned());
    thread.stack_size(STACK).spawn(body).map(drop)
}

/// Local connections at once.
const CONNECTIONS: usize = 1024;

/// Bytes of one copy, on the heap: large enough that system calls do not dominate.
pub(super) const BLOCK: usize = 64 << 10;

/// The stack of a thread that only copies.
const STACK: usize = 256 << 10;

/// When a silent connection is probed, and how often until it answers.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(10);

/// The pauses after failed accepts double between these two.
pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_goes_back_by_itself() {
        let (permits, freed) = bounded(1);
        drop(Permit(permits.clone()));
        assert_eq!(freed.try_recv(), Ok(()));
        let panicking = thread::spawn(move || {
            let _permit = Permit(permits);
            panic!("a connection's thread");
        });
        assert!(panicking.join().is_err());
        assert_eq!(freed.try_recv(), Ok(()));
    }
}

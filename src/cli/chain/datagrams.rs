//! Datagrams through a chain: those of stdin and stdout, or those of a local port, where each sender has
//! a flow of its own.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use log::{debug, info, warn};
use parking_lot::Mutex;

use super::Chain;
use crate::chain::{Datagram, Error, Socket};
use crate::cli::exit::{FAILED, Failure};
use crate::cli::{output, pump};

impl Chain {
    fn socket(&self) -> Result<Socket, Failure> {
        let socket = Socket::connect(&self.destination, &self.hops, &self.options);
        socket.map_err(|error| failed(&error))
    }
}

/// Stdin and stdout: each read of stdin is a datagram, and each datagram that comes is written. When stdin
/// has ended, it ends as soon as nothing comes any more: well, if there was an answer, or no question.
pub(super) fn converse(chain: &Chain) -> Result<(), Failure> {
    let socket = Arc::new(chain.socket()?);
    let timed = socket.set_read_timeout(Some(QUIET));
    timed.map_err(|error| Failure::new(FAILED, format!("towpath chain: no timeout: {error}")))?;
    let has_asked = Arc::new(AtomicBool::new(false));
    let sent = send_stdin(Arc::clone(&socket), Arc::clone(&has_asked))?;
    let (mut is_ended, mut has_come, mut lost) = (false, false, None);
    loop {
        // Before the wait: an answer has all of it.
        let was_ended = is_ended;
        match socket.receive().map_err(|error| failed(&error))? {
            Some(Datagram::Payload(payload)) => {
                has_come = true;
                output::print(&payload)?;
            }
            Some(Datagram::Lost(error)) => {
                warn!("a datagram is lost: {error}");
                lost.get_or_insert(error);
            }
            None if was_ended => break,
            None => {}
        }
        match sent.try_recv() {
            Ok(error) => {
                lost.get_or_insert(error);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => is_ended = true,
        }
    }
    // Where something came, the chain is good, and losses are what datagrams are like.
    match lost {
        _ if has_come => Ok(()),
        Some(error) => Err(failed(&error)),
        None if has_asked.load(Ordering::Relaxed) => Err(unanswered(chain)),
        None => Ok(()),
    }
}

/// A hop answers no datagram that it does not know the key of, and no destination has to answer.
fn unanswered(chain: &Chain) -> Failure {
    let causes = match chain.hops.is_empty() {
        true => "the destination is silent",
        false => {
            "a hop's key is another, this clock is more than 30s from a hop's, or the destination is silent"
        }
    };
    let line = format!("towpath chain: no answer came within {QUIET:?} after stdin: {causes}");
    Failure::new(FAILED, line)
}

/// Sends all of stdin on a thread of its own; what is received from it is the first failure, and its end.
/// `has_asked` is set before the end when there was a datagram.
fn send_stdin(socket: Arc<Socket>, has_asked: Arc<AtomicBool>) -> Result<Receiver<Error>, Failure> {
    let (tell, told) = bounded(1);
    let started = pump::spawn("stdin", move || {
        let mut stdin = io::stdin().lock();
        let mut block = vec![0; LONGEST];
        loop {
            let count = match stdin.read(&mut block) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    debug!("stdin ended: {error}");
                    return;
                }
            };
            has_asked.store(true, Ordering::Relaxed);
            if let Err(error) = socket.send(&block[..count]) {
                warn!("a datagram is lost: {error}");
                let _ = tell.try_send(error);
            }
        }
    });
    started.map_err(|error| {
        Failure::new(
            FAILED,
            format!("towpath chain: no thread for stdin: {error}"),
        )
    })?;
    Ok(told)
}

/// Datagrams to a local port. Never returns but by a failure.
pub(super) fn serve(chain: &Chain, address: SocketAddr) -> Result<(), Failure> {
    // The chain that every flow has one like; itself it carries nothing.
    let chain = chain.socket()?;
    let (local, bound) = UdpSocket::bind(address)
        .and_then(|local| Ok((local.local_addr()?, local)))
        .map(|(bound, local)| (local, bound))
        .map_err(|error| {
            let line = format!("towpath chain: cannot listen on {address}: {error}");
            Failure::of_socket(&error, line)
        })?;
    output::say(&format!("listening on {bound}"));
    let flows = Arc::new(Flows {
        local,
        began: Instant::now(),
        open: Mutex::default(),
    });
    let mut block = vec![0; BLOCK];
    let mut pause = pump::SHORTEST_PAUSE;
    loop {
        match flows.local.recv_from(&mut block) {
            Ok((count, from)) => {
                pause = pump::SHORTEST_PAUSE;
                let sent = Flows::of(&flows, &chain, from).map(|flow| {
                    flow.used.store(flows.now(), Ordering::Relaxed);
                    flow.socket.send(&block[..count])
                });
                match sent {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => warn!("from={from} a datagram is lost: {error}"),
                    Err(error) => warn!("from={from} a datagram is lost: no flow: {error}"),
                }
            }
            Err(error) => {
                warn!("receiving failed, again in {pause:?}: {error}");
                thread::sleep(pause);
                pause = (pause * 2).min(pump::LONGEST_PAUSE);
            }
        }
    }
}

/// The flows of a local port, by their senders: at most [`FLOWS`], each with a thread for what comes back.
struct Flows {
    local: UdpSocket,
    began: Instant,
    open: Mutex<HashMap<SocketAddr, Arc<Flow>>>,
}

struct Flow {
    socket: Socket,
    /// When it last carried a datagram, in milliseconds.
    used: AtomicU64,
    /// It has made room for another one.
    is_over: AtomicBool,
}

impl Flows {
    /// A sender's flow; a new one where it has none. Beyond the bound the one that was idle longest goes.
    fn of(flows: &Arc<Flows>, chain: &Socket, from: SocketAddr) -> Result<Arc<Flow>, String> {
        if let Some(flow) = flows.open.lock().get(&from) {
            return Ok(Arc::clone(flow));
        }
        let socket = chain.another().map_err(|error| error.to_string())?;
        let timed = socket.set_read_timeout(Some(TICK));
        timed.map_err(|error| format!("no timeout: {error}"))?;
        let flow = Arc::new(Flow {
            socket,
            used: AtomicU64::new(flows.now()),
            is_over: AtomicBool::new(false),
        });
        let (shared, back) = (Arc::clone(flows), Arc::clone(&flow));
        let started = pump::spawn("flow", move || shared.carry_back(&back, from));
        started.map_err(|error| format!("no thread: {error}"))?;
        let mut open = flows.open.lock();
        if open.len() >= FLOWS {
            let used = |flow: &Arc<Flow>| flow.used.load(Ordering::Relaxed);
            let oldest = open.iter().min_by_key(|(_, flow)| used(flow));
            if let Some(from) = oldest.map(|(from, _)| *from)
                && let Some(flow) = open.remove(&from)
            {
                warn!("from={from} closed: {FLOWS} flows are open, and this one was idle longest");
                flow.is_over.store(true, Ordering::Relaxed);
            }
        }
        open.insert(from, Arc::clone(&flow));
        Ok(flow)
    }

    /// Hands back what comes, until the flow has been idle for a while or has made room.
    fn carry_back(&self, flow: &Arc<Flow>, from: SocketAddr) {
        let mut count = 0_u64;
        while !flow.is_over.load(Ordering::Relaxed) {
            match flow.socket.receive() {
                Ok(Some(Datagram::Payload(payload))) => {
                    flow.used.store(self.now(), Ordering::Relaxed);
                    count += 1;
                    if let Err(error) = self.local.send_to(&payload, from) {
                        debug!("from={from} an answer is lost: {error}");
                    }
                }
                Ok(Some(Datagram::Lost(error))) => warn!("from={from} a datagram is lost: {error}"),
                Ok(None) => {
                    let idle = self.now().saturating_sub(flow.used.load(Ordering::Relaxed));
                    if idle >= IDLE_MS {
                        break;
                    }
                }
                Err(error) => {
                    warn!("from={from} closed: {error}");
                    break;
                }
            }
        }
        let mut open = self.open.lock();
        // By now the sender may have another one.
        if open
            .get(&from)
            .is_some_and(|other| Arc::ptr_eq(other, flow))
        {
            open.remove(&from);
        }
        info!("from={from} ended answers={count}");
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn failed(error: &Error) -> Failure {
    Failure::new(FAILED, format!("towpath chain: {error}"))
}

/// The longest datagram that IPv4 carries.
const LONGEST: usize = 65_507;

/// More than that, so that none is cut short.
const BLOCK: usize = 64 << 10;

/// How long nothing comes before it has ended, when stdin has.
const QUIET: Duration = Duration::from_secs(2);

/// How often a flow looks whether it is over.
const TICK: Duration = Duration::from_secs(1);

/// How long a flow without datagrams stays.
const IDLE_MS: u64 = 60_000;

/// Flows at once.
const FLOWS: usize = 256;

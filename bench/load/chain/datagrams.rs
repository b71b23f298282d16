//! Datagrams through a chain: clients that have a few under way each, and the echo behind the last hop,
//! in one loop.
//!
//! ```text
//!   Flow ── [headers][payload] x burst ──> hops ── [payload] ──> echo
//!    ^ all answers are there, or are given up after a while        │
//!    └────────── [responses][payload] <── hops <── [payload] ──────┘
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use towpath::protocols::chain::nonces::Nonces;
use towpath::protocols::chain::wire::binding::{Asked, Cadence, make_anchor};
use towpath::protocols::chain::wire::{Code, RESPONSE_FRAME, Transport};
use towpath::sys::{
    Arrival, DATAGRAMS, Departure, join_datagrams, receive_datagrams, send_datagrams,
};

use super::plan::Plan;
use super::way::unix_ms;
use crate::meter::corrupt;
use crate::pattern::Pattern;
use crate::report::{self, Report, ratio};
use crate::usage;

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut lab = Lab::new(plan)?;
    lab.begin()?;
    lab.pass(plan.warmup)?;
    lab.tally = Tally::default();
    let own = [std::process::id()];
    let (before, own_before) = (usage::each(&plan.pids)?, usage::read(&own)?);
    let began = Instant::now();
    lab.pass(plan.window)?;
    let elapsed = began.elapsed();
    let (after, own_after) = (usage::each(&plan.pids)?, usage::read(&own)?);
    let cpu: Vec<Duration> = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after.cpu.saturating_sub(before.cpu))
        .collect();
    let own = own_after.cpu.saturating_sub(own_before.cpu);
    Ok(lab.tally.report(plan, elapsed, &cpu, own))
}

/// Counts of the measured window.
#[derive(Default)]
struct Tally {
    /// Answers: each hop has passed on two datagrams for one.
    echoes: u64,
    /// Datagrams that were given up.
    lost: u64,
    /// Answers that say that something went wrong.
    errors: u64,
}

impl Tally {
    fn report(&self, plan: &Plan, elapsed: Duration, cpu: &[Duration], own: Duration) -> Report {
        let seconds = elapsed.as_secs_f64();
        let packets = 2.0 * self.echoes as f64;
        let mut fields = vec![
            ("conns", plan.flows as f64),
            ("size", plan.size as f64),
            ("burst", plan.burst as f64),
            ("seconds", seconds),
            ("echoes_per_s", self.echoes as f64 / seconds),
            ("packets_per_s", packets / seconds),
        ];
        if !cpu.is_empty() {
            let sum: Duration = cpu.iter().sum();
            fields.push(("cpu_us", ratio(sum.as_secs_f64() * 1e6, packets)));
            fields.extend(report::shares(cpu, |cpu| ratio(cpu * 1e6, packets)));
            fields.push(("cpu_percent", sum.as_secs_f64() / seconds * 100.0));
        }
        fields.push(("load_percent", own.as_secs_f64() / seconds * 100.0));
        fields.push(("lost", self.lost as f64));
        fields.push(("errors", self.errors as f64));
        Report::of("chain-datagrams", fields)
    }
}

struct Lab<'a> {
    plan: &'a Plan,
    poll: Poll,
    events: Events,
    echo: UdpSocket,
    flows: Vec<Flow>,
    nonces: Nonces,
    payload: Vec<u8>,
    /// Where everything is read to; nothing stays in it between two calls.
    room: Vec<u8>,
    /// Where a burst is put together.
    out: Vec<u8>,
    tally: Tally,
    began: Instant,
    looked: Instant,
}

/// One client.
struct Flow {
    socket: UdpSocket,
    /// What was asked of each hop.
    asked: Vec<Asked>,
    cadence: Cadence,
    awaited: usize,
    since: Instant,
    /// It has had an answer.
    is_proven: bool,
}

impl<'a> Lab<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut echo = open(plan.backend, plan.trains)?;
        poll.registry()
            .register(&mut echo, ECHO, Interest::READABLE)?;
        let now = Instant::now();
        Ok(Self {
            plan,
            poll,
            events: Events::with_capacity(1024),
            echo,
            flows: Vec::with_capacity(plan.flows),
            nonces: Nonces::new(),
            payload: Pattern::new().at(0, plan.size).to_vec(),
            room: vec![0; DATAGRAMS * PLACE],
            out: Vec::new(),
            tally: Tally::default(),
            began: now,
            looked: now,
        })
    }

    /// Opens the flows, and waits until each has had an answer.
    fn begin(&mut self) -> io::Result<()> {
        let hops = self.plan.way.as_ref().map_or(0, |way| way.hops());
        for index in 0..self.plan.flows {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let mut socket = open(any, self.plan.trains)?;
            socket.connect(self.plan.target)?;
            let registry = self.poll.registry();
            registry.register(&mut socket, Token(index), Interest::READABLE)?;
            self.flows.push(Flow {
                socket,
                asked: vec![Asked::default(); hops],
                cadence: Cadence::default(),
                awaited: 0,
                since: Instant::now(),
                is_proven: false,
            });
            self.send(index)?;
            self.turn()?;
        }
        let deadline = Instant::now() + OPENING;
        while !self.flows.iter().all(|flow| flow.is_proven) {
            self.turn()?;
            if Instant::now() > deadline {
                return Err(io::Error::other("not every flow had an answer"));
            }
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        if let Err(error) = self.poll.poll(&mut self.events, Some(TICK))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        let ready: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        for token in ready {
            match token {
                ECHO => self.give_back()?,
                Token(index) => self.receive(index)?,
            }
        }
        let now = Instant::now();
        if now.duration_since(self.looked) >= PATIENCE / 4 {
            self.looked = now;
            self.give_up(now)?;
        }
        Ok(())
    }

    /// Sends a flow's next burst.
    fn send(&mut self, index: usize) -> io::Result<()> {
        let Some(flow) = self.flows.get_mut(index) else {
            return Ok(());
        };
        self.out.clear();
        let now = Instant::now();
        let mut length = self.plan.size;
        for _ in 0..self.plan.burst {
            let start = self.out.len();
            if let Some(way) = &self.plan.way {
                let clock = now.duration_since(self.began).as_millis() as u64;
                let is_anchor = flow.cadence.is_due(clock);
                let nonces = &mut self.nonces;
                let nonce = || {
                    let mut nonce = nonces.next()?;
                    if is_anchor {
                        make_anchor(&mut nonce);
                    }
                    Some(nonce)
                };
                let asked = way.seal(&mut self.out, Transport::Udp, unix_ms(), nonce)?;
                for (hop, nonce) in flow.asked.iter_mut().zip(&asked) {
                    hop.note(nonce);
                }
            }
            self.out.extend_from_slice(&self.payload);
            length = self.out.len() - start;
        }
        let each = match self.plan.trains {
            true => (LONGEST / length).clamp(1, MOST_SEGMENTS) * length,
            false => length,
        };
        let departures = self.out.chunks(each).map(|payload| Departure {
            to: None,
            payload,
            segment: if payload.len() > length { length } else { 0 },
        });
        let sent = send_all(&flow.socket, departures)?;
        flow.awaited = (sent * each).min(self.out.len()) / length;
        flow.since = now;
        Ok(())
    }

    /// Takes a flow's answers; if all are there, the next burst follows.
    fn receive(&mut self, index: usize) -> io::Result<()> {
        loop {
            let Some(flow) = self.flows.get_mut(index) else {
                return Ok(());
            };
            let mut arrivals = NOTHING;
            let taken = receive(&flow.socket, &mut self.room, &mut arrivals)?;
            for (place, arrival) in self.room.chunks(PLACE).zip(arrivals.iter().take(taken)) {
                let train = place.get(..arrival.len).unwrap_or_default();
                let each = match arrival.segment {
                    0 => train.len().max(1),
                    segment => segment,
                };
                for datagram in train.chunks(each) {
                    let is_closely_read =
                        self.plan.verify || self.tally.echoes.is_multiple_of(SAMPLE);
                    if flow.is_answer(datagram, self.plan, &self.payload, is_closely_read)? {
                        self.tally.echoes += 1;
                    } else {
                        self.tally.errors += 1;
                    }
                }
            }
            if taken < DATAGRAMS {
                break;
            }
        }
        match self.flows.get(index) {
            Some(flow) if flow.awaited == 0 => self.send(index),
            _ => Ok(()),
        }
    }

    /// The destination's part.
    fn give_back(&mut self) -> io::Result<()> {
        loop {
            let mut arrivals = NOTHING;
            let taken = receive(&self.echo, &mut self.room, &mut arrivals)?;
            let places = self.room.chunks(PLACE).zip(arrivals.iter().take(taken));
            let departures = places.map(|(place, arrival)| Departure {
                to: arrival.from,
                payload: place.get(..arrival.len).unwrap_or_default(),
                segment: match arrival.segment {
                    segment if segment < arrival.len => segment,
                    _ => 0,
                },
            });
            send_all(&self.echo, departures)?;
            if taken < DATAGRAMS {
                return Ok(());
            }
        }
    }

    /// Nobody sends a datagram twice: what has not come by now is lost.
    fn give_up(&mut self, now: Instant) -> io::Result<()> {
        for index in 0..self.flows.len() {
            let flow = self.flows.get(index);
            let late = flow.filter(|flow| now.duration_since(flow.since) >= PATIENCE);
            if let Some(flow) = late {
                self.tally.lost += flow.awaited as u64;
                self.send(index)?;
            }
        }
        Ok(())
    }
}

impl Flow {
    /// Whether it is an answer with the payload; else the chain says that something is wrong. Opening
    /// one takes the generator as long as all else together, so that only some are looked into.
    fn is_answer(
        &mut self,
        datagram: &[u8],
        plan: &Plan,
        payload: &[u8],
        is_closely_read: bool,
    ) -> io::Result<bool> {
        self.awaited = self.awaited.saturating_sub(1);
        let whole = self.asked.len() * RESPONSE_FRAME + payload.len();
        if datagram.len() == whole && !is_closely_read {
            self.is_proven = true;
            return Ok(true);
        }
        let mut rest = datagram;
        if let Some(way) = &plan.way {
            for asked in &mut self.asked {
                let parts = rest.split_at_checked(RESPONSE_FRAME);
                let (frame, behind) = parts.ok_or_else(|| corrupt("an answer was cut"))?;
                let answer = asked.open(&way.key, frame);
                let answer = answer.map_err(|_| corrupt("an answer is not under the key"))?;
                if answer.response.code != Code::Ok {
                    return Ok(false);
                }
                rest = behind;
            }
        }
        if rest != payload {
            return Err(corrupt("a datagram came back as another one"));
        }
        self.is_proven = true;
        Ok(true)
    }
}

/// With room for what may be under way.
fn open(at: SocketAddr, trains: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(BUFFER)?;
    socket.set_send_buffer_size(BUFFER)?;
    socket.bind(&at.into())?;
    if trains {
        join_datagrams(socket.as_fd())?;
    }
    Ok(UdpSocket::from_std(socket.into()))
}

/// Sends all that the socket takes; how many those are.
fn send_all<'a>(
    socket: &UdpSocket,
    departures: impl Iterator<Item = Departure<'a>> + Clone,
) -> io::Result<usize> {
    let (mut left, mut sent) = (departures, 0);
    while left.clone().next().is_some() {
        match send_datagrams(socket.as_fd(), left.clone()) {
            Ok(0) => break,
            Ok(count) => {
                sent += count;
                left.nth(count - 1);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

fn receive(
    socket: &UdpSocket,
    room: &mut [u8],
    arrivals: &mut [Arrival; DATAGRAMS],
) -> io::Result<usize> {
    match receive_datagrams(socket.as_fd(), room, PLACE, arrivals) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        taken => taken,
    }
}

const ECHO: Token = Token(usize::MAX - 1);
/// The longest that the loop sleeps past the end of a phase.
const TICK: Duration = Duration::from_millis(10);
/// A datagram that has not come back for so long is lost.
const PATIENCE: Duration = Duration::from_millis(400);
/// How long the flows may take to have their first answers.
const OPENING: Duration = Duration::from_secs(10);
/// Of so many answers one is looked into.
const SAMPLE: u64 = 64;
/// Bytes for a datagram or a train.
const PLACE: usize = 64 * 1024;
/// The longest datagram, and so the longest train, that IPv4 carries.
const LONGEST: usize = 65_507;
/// Datagrams of a train that every system takes.
const MOST_SEGMENTS: usize = 64;
const BUFFER: usize = 4 << 20;
const NOTHING: [Arrival; DATAGRAMS] = [Arrival {
    from: None,
    len: 0,
    segment: 0,
    truncated: false,
}; DATAGRAMS];

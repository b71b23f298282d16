//! How fast connections may be read: buckets of bytes, each shared by all cores.
//!
//! A [`Bucket`] is one number: until when all bytes that it has lent are paid for, at its rate. Whoever
//! wants to read takes a portion, pays for it behind all who came before, and may use it when no more
//! than the burst is unpaid:
//!
//! ```text
//!            now        due of this portion        paid for
//!   ──────────┼──────────────────┼───────────────────┤
//!             └── to be waited ──┘<───── burst ─────>└─ the next who comes begins here
//! ```
//!
//! So portions are due in the order in which they were taken, and connections that share a bucket have
//! their turns, however many they are. What of a portion is not used is given back, what was read beyond it
//! is paid for later. A bucket holds no queue, wakes nobody and reads no clock: a connection that waits
//! is its worker's to wake.
//!
//! A [`Throttle`] is a bucket for each way, a [`Pace`] one connection's part in some of them, and
//! [`Sources`] has a throttle for each address that connections come from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::buffer::BLOCK;
use crate::reactor::TimerKey;

/// Bytes by the second, for all who share it.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes a second; never 0. It may change while bytes are lent: what has its price keeps it.
    rate: AtomicU64,
    epoch: Instant,
    /// Nanoseconds from the epoch to the time at which all that was lent is paid for.
    paid: AtomicU64,
}

impl Bucket {
    /// A full bucket that gives so many bytes a second, 1 at the least.
    pub fn new(rate: u64, epoch: Instant) -> Self {
        Self {
            rate: AtomicU64::new(rate.max(1)),
            epoch,
            paid: AtomicU64::new(0),
        }
    }

    fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// What is lent at a time.
    fn portion(&self) -> usize {
        let portion = usize::try_from(self.rate() / PORTIONS).unwrap_or(usize::MAX);
        portion.clamp(BLOCK, LARGEST_PORTION)
    }

    /// What a full bucket lends at once.
    fn most(&self) -> usize {
        let most = usize::try_from(self.rate() / BURSTS).unwrap_or(usize::MAX);
        most.max(self.portion())
    }

    /// How far ahead bytes may be lent: a narrow bucket's one portion takes longer than the usual burst.
    fn burst(&self) -> Duration {
        BURST.max(Duration::from_nanos(self.price(self.portion())))
    }

    /// Lends some bytes; from when on they may be used.
    fn lend(&self, now: Instant, bytes: usize) -> Instant {
        let (now, price) = (self.since_epoch(now), self.price(bytes));
        let add = |paid: u64| Some(paid.max(now).saturating_add(price));
        let order = Ordering::Relaxed;
        let before = self.paid.fetch_update(order, order, add).unwrap_or(now);
        let paid = Duration::from_nanos(before.max(now).saturating_add(price));
        self.epoch + paid.saturating_sub(self.burst())
    }

    /// Takes bytes back that were not used.
    fn take_back(&self, bytes: usize) {
        let price = self.price(bytes);
        let order = Ordering::Relaxed;
        let less = |paid: u64| Some(paid.saturating_sub(price));
        // An update that always gives a value does not fail.
        let _ = self.paid.fetch_update(order, order, less);
    }

    /// True while something that it has lent is not paid for.
    fn is_owed(&self, now: Instant) -> bool {
        self.paid.load(Ordering::Relaxed) > self.since_epoch(now)
    }

    /// How long so many bytes take, in nanoseconds.
    fn price(&self, bytes: usize) -> u64 {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.rate()));
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX)
    }
}

/// One rate for each of two ways: from those who came here (0), and to them (1).
#[derive(Debug)]
pub struct Throttle {
    ways: [Bucket; 2],
}

impl Throttle {
    /// So many bytes a second each way; none for 0, which is no limit.
    pub fn of(rate: u64) -> Option<Arc<Self>> {
        (rate > 0).then(|| Self::since(rate, Instant::now()))
    }

    /// The same; a former one is kept and has that rate from now on, also for those whom it limits
    /// already. With no limit it lets them go as fast as they can.
    pub fn kept(former: Option<&Arc<Self>>, rate: u64) -> Option<Arc<Self>> {
        let Some(former) = former else {
            return Self::of(rate);
        };
        former.set(rate);
        (rate > 0).then(|| Arc::clone(former))
    }

    /// Another rate from now on; 0 is no limit.
    fn set(&self, rate: u64) {
        let rate = if rate > 0 { rate } else { NO_LIMIT };
        for way in &self.ways {
            way.rate.store(rate, Ordering::Relaxed);
        }
    }

    /// The same, of a time that begins at `epoch`.
    pub fn since(rate: u64, epoch: Instant) -> Arc<Self> {
        let ways = [(), ()].map(|()| Bucket::new(rate, epoch));
        Arc::new(Self { ways })
    }
}

/// One connection's part in the throttles that its reading is subject to.
#[derive(Debug)]
pub struct Pace {
    throttles: Vec<Arc<Throttle>>,
    way: usize,
    /// Bytes that may be read from `due` on, and are paid for.
    lent: usize,
    due: Instant,
    /// Wakes the connection when they are due.
    pub timer: Option<TimerKey>,
}

impl Pace {
    /// Bytes of that way by all of these.
    pub fn new(throttles: Vec<Arc<Throttle>>, way: usize, now: Instant) -> Self {
        Self {
            throttles,
            way: way & 1,
            lent: 0,
            due: now,
            timer: None,
        }
    }

    /// How many bytes may be read now; where none may be, from when on some may. They are kept until
    /// [`Pace::settle`].
    pub fn take(&mut self, now: Instant) -> Result<usize, Instant> {
        if self.lent == 0 {
            // A wide bucket's turns come seldom beside a narrow one's: what is taken at one of them must
            // last until the next. What the narrow one has no room for, nobody would get at once.
            let portion = self.buckets().map(Bucket::portion).max();
            let most = self.buckets().map(Bucket::most).min();
            let portion = portion.min(most).unwrap_or(LARGEST_PORTION);
            // Whoever is the slowest decides.
            let due = self.buckets().map(|bucket| bucket.lend(now, portion)).max();
            (self.lent, self.due) = (portion, due.unwrap_or(now));
        }
        match self.due <= now {
            true => Ok(self.lent),
            false => Err(self.due),
        }
    }

    /// So many bytes were read. What is left is given back, unless the connection is to be read on.
    pub fn settle(&mut self, read: usize, reads_on: bool, now: Instant) {
        let beyond = read.saturating_sub(self.lent);
        if beyond > 0 {
            self.buckets().for_each(|bucket| {
                bucket.lend(now, beyond);
            });
        }
        self.lent = self.lent.saturating_sub(read);
        if !reads_on {
            self.give_back();
        }
    }

    /// True while it waits for bytes that are not due.
    pub fn waits(&self, now: Instant) -> bool {
        self.lent > 0 && self.due > now
    }

    fn give_back(&mut self) {
        let lent = std::mem::take(&mut self.lent);
        if lent > 0 {
            self.buckets().for_each(|bucket| bucket.take_back(lent));
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        let way = self.way;
        self.throttles.iter().map(move |one| &one.ways[way])
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// A throttle for each source address, all of one rate.
///
/// Asked for when a connection begins to be paced, never for a byte. An address is known while some
/// pace has its throttle and until its bytes are paid for, or short connections would each find a full
/// bucket; those that are neither are swept out when the table has doubled. So it holds twice as many as
/// there are paced connections, or [`FEW`].
#[derive(Debug)]
pub struct Sources {
    rate: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    throttles: HashMap<IpAddr, Arc<Throttle>>,
    /// So many of them there were behind the last sweep.
    swept: usize,
}

impl Sources {
    /// So many bytes a second each way for each address; 0 is no limit.
    pub fn new(rate: u64) -> Self {
        let known = Mutex::default();
        let rate = AtomicU64::new(rate);
        Self { rate, known }
    }

    /// True when there is a limit.
    pub fn are_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) > 0
    }

    /// Another limit, for those who are limited already, too.
    pub fn set(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
        let mut known = self.known.lock();
        known.throttles.values().for_each(|one| one.set(rate));
        if rate == 0 {
            *known = Known::default();
        }
    }

    /// The throttle of an address; none where there is no limit.
    pub fn throttle(&self, from: IpAddr, now: Instant) -> Option<Arc<Throttle>> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == 0 {
            return None;
        }
        // An address is the same whether it came by an IPv4 or by a dual-stack listener.
        let from = from.to_canonical();
        let mut known = self.known.lock();
        if let Some(throttle) = known.throttles.get(&from) {
            return Some(Arc::clone(throttle));
        }
        if known.throttles.len() >= FEW.max(2 * known.swept) {
            let is_used = |one: &Arc<Throttle>| {
                Arc::strong_count(one) > 1 || one.ways.iter().any(|way| way.is_owed(now))
            };
            known.throttles.retain(|_, throttle| is_used(throttle));
            known.throttles.shrink_to_fit();
            known.swept = known.throttles.len();
        }
        let throttle = Throttle::since(rate, now);
        known.throttles.insert(from, Arc::clone(&throttle));
        Some(throttle)
    }
}

/// A rate that limits nobody: for those whose limit was taken away.
const NO_LIMIT: u64 = u64::MAX;

/// How much a bucket that was left alone gives at once, but for one that is narrow: a portion.
const BURST: Duration = Duration::from_millis(50);

/// As many of them make a second.
const BURSTS: u64 = 20;

/// Into how many portions a second's bytes go, where these are neither too small nor too large.
const PORTIONS: u64 = 100;

/// As much as one connection reads in one turn.
const LARGEST_PORTION: usize = 256 * 1024;

/// So many addresses are known before those that are gone are looked for.
const FEW: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 20_000_000;

    /// Reads by all of the paces as fast as they allow, for so long; what each has read.
    fn run(paces: &mut [Pace], start: Instant, time: Duration) -> Vec<usize> {
        let mut read = vec![0; paces.len()];
        let mut now = start;
        while now < start + time {
            for (pace, read) in paces.iter_mut().zip(&mut read) {
                while let Ok(lent) = pace.take(now) {
                    *read += lent;
                    pace.settle(lent, true, now);
                }
            }
            now += Duration::from_millis(1);
        }
        read
    }

    fn paces(count: usize, throttles: &[&Arc<Throttle>], start: Instant) -> Vec<Pace> {
        let throttles: Vec<_> = throttles.iter().map(|one| Arc::clone(one)).collect();
        let pace = |_| Pace::new(throttles.clone(), 0, start);
        (0..count).map(pace).collect()
    }

    #[test]
    fn the_rate_is_kept_whoever_comes_and_nobody_starves() {
        let start = Instant::now();
        for count in [1, 7, 100] {
            let throttle = Throttle::since(RATE, start);
            let read = run(
                &mut paces(count, &[&throttle], start),
                start,
                Duration::from_secs(10),
            );
            let (sum, want) = (read.iter().sum::<usize>() as f64, (RATE * 10) as f64);
            assert!((0.99..1.02).contains(&(sum / want)), "{count}: {sum}");
            let (least, most) = (read.iter().min().unwrap(), read.iter().max().unwrap());
            // Who comes first finds the bucket full.
            let full = RATE as usize / BURSTS as usize;
            assert!(most - least <= full + LARGEST_PORTION, "{least} and {most}");
        }
    }

    #[test]
    fn of_several_throttles_the_slowest_decides_and_the_other_serves_the_rest() {
        let start = Instant::now();
        let time = Duration::from_secs(10);
        let (wide, narrow) = (
            Throttle::since(RATE, start),
            Throttle::since(RATE / 10, start),
        );
        let mut all = paces(1, &[&wide, &narrow], start);
        all.extend(paces(1, &[&wide], start));
        let read = run(&mut all, start, time);
        let share = |read: usize| read as f64 / (RATE * 10) as f64;
        assert!((0.095..0.105).contains(&share(read[0])), "{read:?}");
        assert!((0.88..0.92).contains(&share(read[1])), "{read:?}");
    }

    #[test]
    fn what_is_not_used_is_given_back_and_what_is_too_much_is_paid_for() {
        let start = Instant::now();
        let bucket = Bucket::new(RATE, start);
        let throttle = Throttle::since(RATE, start);
        let mut pace = Pace::new(vec![Arc::clone(&throttle)], 1, start);
        // Short reads, each long before its portion would be paid for.
        for _ in 0..1_000 {
            assert!(pace.take(start).is_ok());
            pace.settle(100, false, start);
        }
        let mut more = 0;
        while let Ok(lent) = pace.take(start) {
            pace.settle(lent, true, start);
            more += lent;
        }
        let burst = (RATE as f64 * BURST.as_secs_f64()) as usize;
        assert!(more + 100_000 <= burst && more + 100_000 + bucket.portion() > burst);
        drop(pace);
        let mut pace = Pace::new(vec![throttle], 0, start);
        assert!(pace.take(start).is_ok());
        pace.settle(2 * RATE as usize, true, start);
        let due = pace.take(start).unwrap_err();
        assert!(due > start + Duration::from_millis(1_900) && pace.waits(start));
    }

    #[test]
    fn whoever_ends_while_it_waits_leaves_no_debt() {
        let start = Instant::now();
        let throttle = Throttle::since(RATE, start);
        let mut one = paces(1, &[&throttle], start).remove(0);
        while let Ok(lent) = one.take(start) {
            one.settle(lent, true, start);
        }
        let due = one.take(start).unwrap_err();
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let mut pace = paces(1, &[&throttle], start).remove(0);
                assert!(pace.take(start).is_err());
                pace
            })
            .collect();
        drop(crowd);
        one.settle(0, false, start);
        let again = one.take(start).unwrap_err();
        assert!(again <= due + Duration::from_micros(1));
    }

    #[test]
    fn another_rate_holds_for_those_who_are_limited_already() {
        let start = Instant::now();
        let time = Duration::from_secs(10);
        let throttle = Throttle::since(RATE, start);
        let mut all = paces(2, &[&throttle], start);
        let share = |read: Vec<usize>| read.iter().sum::<usize>() as f64 / (RATE * 10) as f64;
        let whole = share(run(&mut all, start, time));
        assert!((0.99..1.02).contains(&whole), "{whole}");
        let kept = Throttle::kept(Some(&throttle), RATE / 10).unwrap();
        assert!(Arc::ptr_eq(&kept, &throttle));
        // One that comes now shares with those that were there.
        all.extend(paces(1, &[&kept], start));
        let tenth = share(run(&mut all, start + time, time));
        assert!((0.09..0.11).contains(&tenth), "{tenth}");
        assert!(Throttle::kept(Some(&throttle), 0).is_none());
        let freed = all[0].take(start + 2 * time + Duration::from_secs(1));
        assert!(freed.is_ok());
        all[0].settle(RATE as usize * 1_000, true, start + 3 * time);
        assert!(all[0].take(start + 3 * time).is_ok(), "nothing limits it");
    }

    #[test]
    fn slow_rates_wait_long_and_do_not_overflow() {
        let start = Instant::now();
        let throttle = Throttle::since(1, start);
        let mut pace = paces(1, &[&throttle], start).remove(0);
        assert!(pace.take(start).is_ok());
        pace.settle(BLOCK, true, start);
        let due = pace.take(start).unwrap_err();
        assert_eq!(due - start, Duration::from_secs(BLOCK as u64));
        assert!(Throttle::of(0).is_none());
    }

    #[test]
    fn sources_are_known_while_they_owe_and_the_table_is_bounded() {
        let now = Instant::now();
        let sources = Sources::new(RATE);
        let at = |n: u32| IpAddr::from(n.to_be_bytes());
        let first = sources.throttle(at(1), now).unwrap();
        let mapped = "::ffff:0.0.0.1".parse().unwrap();
        assert!(Arc::ptr_eq(&first, &sources.throttle(mapped, now).unwrap()));
        let debtor = sources.throttle(at(2), now).unwrap();
        let mut pace = Pace::new(vec![debtor], 0, now);
        assert!(pace.take(now).is_ok());
        pace.settle(RATE as usize, true, now);
        drop(pace);
        for n in 3..100_000 {
            assert!(sources.throttle(at(n), now).is_some());
            assert!(sources.known.lock().throttles.len() <= FEW + 1);
        }
        let known = &sources.known;
        assert!(known.lock().throttles.contains_key(&at(1)), "it is in use");
        assert!(known.lock().throttles.contains_key(&at(2)), "it owes");
        sources.set(RATE / 2);
        let same = sources.throttle(at(1), now).unwrap();
        assert!(Arc::ptr_eq(&first, &same) && same.ways[0].rate() == RATE / 2);
        assert!(Sources::new(0).throttle(at(1), now).is_none());
    }
}

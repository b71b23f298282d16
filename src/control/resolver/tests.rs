//! The resolver with its name service played by the test, and once with its own threads.

use super::*;

const TTL: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(5);

/// A resolver, the two ends of its lookups, and what it told to whom.
struct Stage {
    resolver: Resolver<u32>,
    jobs: Receiver<Arc<str>>,
    start: Instant,
    told: Vec<(u32, Outcome)>,
}

impl Stage {
    fn new() -> Self {
        let (resolver, jobs, _) = Resolver::with_channels(TTL, TIMEOUT);
        Self {
            resolver,
            jobs,
            start: Instant::now(),
            told: Vec::new(),
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn ask(&mut self, millis: u64, host: &str, waiter: u32) -> Option<Outcome> {
        self.resolver.ask(host, waiter, self.at(millis))
    }

    fn find(&mut self, millis: u64, host: &str, result: io::Result<Vec<IpAddr>>) {
        let found = Found {
            host: host.into(),
            result,
        };
        let now = self.at(millis);
        let told = &mut self.told;
        self.resolver
            .finish(found, now, |waiter, outcome| told.push((waiter, outcome)));
    }

    fn expire(&mut self, millis: u64) -> Vec<(u32, Outcome)> {
        let now = self.at(millis);
        let told = &mut self.told;
        self.resolver
            .expire(now, |waiter, outcome| told.push((waiter, outcome)));
        std::mem::take(told)
    }

    fn jobs(&self) -> Vec<String> {
        self.jobs.try_iter().map(|host| host.to_string()).collect()
    }

    /// Puts an answer for `host` into the cache.
    fn learn(&mut self, millis: u64, host: &str, last: u8) {
        assert_eq!(self.ask(millis, host, 0), None);
        self.find(millis, host, Ok(vec![ip(last)]));
        self.told.clear();
        self.jobs();
    }
}

fn ip(last: u8) -> IpAddr {
    [192, 0, 2, last].into()
}

fn good(last: u8) -> Outcome {
    Ok([ip(last)].into())
}

fn no_such_name() -> io::Result<Vec<IpAddr>> {
    Err(io::Error::other("Name or service not known"))
}

#[test]
fn one_lookup_serves_all_who_ask_for_the_host() {
    let mut stage = Stage::new();
    assert_eq!(stage.ask(0, "host", 1), None);
    assert_eq!(stage.ask(10, "host", 2), None);
    assert_eq!(stage.ask(10, "other", 3), None);
    assert_eq!(stage.jobs(), ["host", "other"]);
    stage.find(20, "host", Ok(vec![ip(1)]));
    assert_eq!(stage.told, [(1, good(1)), (2, good(1))]);
    assert_eq!(stage.resolver.waiting(), 1);
    // From here on it is known, to the workers as well.
    assert_eq!(stage.ask(30, "host", 4), Some(good(1)));
    let names = stage.resolver.names();
    assert_eq!(names.lookup("host", stage.at(30)), good(1).ok());
    assert!(stage.jobs().is_empty());
}

#[test]
fn addresses_and_impossible_names_are_answered_at_once() {
    let mut stage = Stage::new();
    assert_eq!(stage.ask(0, "192.0.2.7", 1), Some(good(7)));
    let refused = Some(Err(Failure::NoSuchName));
    for host in ["", "nul\0", &"x".repeat(256)] {
        assert_eq!(stage.ask(0, host, 1), refused, "{host:?}");
    }
    assert!(stage.jobs().is_empty());
}

#[test]
fn an_answer_keeps_sixteen_different_addresses() {
    let mut stage = Stage::new();
    assert_eq!(stage.ask(0, "many", 1), None);
    let all = (0..200).flat_map(|last| [ip(last), ip(last)]).collect();
    stage.find(0, "many", Ok(all));
    let kept: Vec<_> = (0..16).map(ip).collect();
    assert_eq!(stage.told, [(1, Ok(kept.into()))]);
}

#[test]
fn a_hung_lookup_times_out_for_each_who_asks_and_delays_no_other_host() {
    let mut stage = Stage::new();
    assert_eq!(stage.ask(0, "hung", 1), None);
    assert_eq!(stage.ask(3000, "hung", 2), None);
    assert_eq!(stage.ask(3000, "fine", 3), None);
    assert_eq!(stage.resolver.next_deadline(), Some(stage.at(5000)));
    assert_eq!(stage.expire(4999), []);
    let late = Err(Failure::TimedOut(TIMEOUT));
    assert_eq!(stage.expire(5000), [(1, late.clone())]);
    stage.find(5001, "fine", Ok(vec![ip(2)]));
    assert_eq!(std::mem::take(&mut stage.told), [(3, good(2))]);
    assert_eq!(stage.expire(8000), [(2, late)]);
    assert_eq!(stage.resolver.next_deadline(), None);
    // It is asked once, however many come while it hangs; when it returns it is of use.
    assert_eq!(stage.ask(9000, "hung", 4), None);
    assert_eq!(stage.jobs(), ["hung", "fine"]);
    stage.find(9500, "hung", Ok(vec![ip(1)]));
    assert_eq!(stage.told, [(4, good(1))]);
    assert_eq!(stage.resolver.waiting(), 0);
}

#[test]
fn an_old_answer_serves_when_the_lookup_fails() {
    let mut stage = Stage::new();
    stage.learn(0, "host", 1);
    assert_eq!(stage.ask(10_001, "host", 1), None);
    assert_eq!(stage.jobs(), ["host"]);
    stage.find(10_100, "host", no_such_name());
    assert_eq!(std::mem::take(&mut stage.told), [(1, good(1))]);
    // Within the second of the failure nobody is asked again.
    assert_eq!(stage.ask(10_200, "host", 2), Some(good(1)));
    assert_eq!(stage.jobs().len(), 0);
    assert_eq!(stage.ask(11_200, "host", 3), None);
    assert_eq!(stage.jobs(), ["host"]);
    stage.find(11_300, "host", Ok(vec![ip(9)]));
    assert_eq!(stage.told, [(3, good(9))]);
}

#[test]
fn an_old_answer_serves_after_a_second_of_waiting() {
    let mut stage = Stage::new();
    stage.learn(0, "host", 1);
    assert_eq!(stage.ask(20_000, "host", 1), None);
    assert_eq!(stage.ask(20_500, "host", 2), None);
    assert_eq!(stage.resolver.next_deadline(), Some(stage.at(21_000)));
    assert_eq!(stage.expire(20_999), []);
    assert_eq!(stage.expire(21_000), [(1, good(1)), (2, good(1))]);
    assert_eq!(stage.ask(22_000, "host", 3), Some(good(1)));
    assert_eq!(stage.jobs(), ["host"]);
    stage.find(30_000, "host", Ok(vec![ip(2)]));
    assert_eq!(stage.ask(30_000, "host", 4), Some(good(2)));
}

#[test]
fn an_answer_older_than_an_hour_is_no_answer() {
    let mut stage = Stage::new();
    stage.learn(0, "host", 1);
    assert_eq!(stage.ask(3_600_001, "host", 1), None);
    stage.find(3_600_002, "host", no_such_name());
    assert_eq!(stage.told, [(1, Err(Failure::NoSuchName))]);
}

#[test]
fn a_missing_name_is_remembered_for_a_second() {
    let mut stage = Stage::new();
    for (base, error, failure) in [
        (0, no_such_name(), Failure::NoSuchName),
        (5000, Ok(Vec::new()), Failure::NoSuchName),
        (
            10_000,
            Err(io::Error::other("Temporary failure in name resolution")),
            Failure::Unavailable,
        ),
        (
            15_000,
            Err(io::Error::from_raw_os_error(libc::EMFILE)),
            Failure::Unavailable,
        ),
    ] {
        assert_eq!(stage.ask(base, "none", 1), None);
        stage.find(base, "none", error);
        assert_eq!(std::mem::take(&mut stage.told), [(1, Err(failure))]);
        assert_eq!(stage.ask(base + 999, "none", 2), Some(Err(failure)));
        assert_eq!(stage.jobs().len(), 1);
    }
    for number in 0..2 * FAILURES as u32 {
        assert_eq!(stage.ask(30_000, &number.to_string(), number), None);
        stage.find(30_000, &number.to_string(), no_such_name());
        stage.jobs();
    }
    assert_eq!(stage.resolver.failed.hosts.len(), FAILURES);
    assert_eq!(stage.resolver.failed.order.len(), FAILURES);
}

#[test]
fn a_full_queue_is_busy_unless_an_old_answer_is_known() {
    let mut stage = Stage::new();
    stage.learn(0, "known", 1);
    for number in 0..LOOKUPS as u32 {
        assert_eq!(stage.ask(20_000, &number.to_string(), number), None);
    }
    let busy = Some(Err(Failure::Busy));
    assert_eq!(stage.ask(20_000, "one more", 1), busy);
    assert_eq!(stage.ask(20_000, "known", 1), Some(good(1)));
    // One that is under way already can still be joined.
    assert_eq!(stage.ask(20_000, "7", 1), None);
    stage.find(20_001, "7", Ok(vec![ip(7)]));
    stage.jobs();
    assert_eq!(stage.ask(20_002, "one more", 1), None);
}

#[test]
fn those_who_wait_are_bounded() {
    let mut stage = Stage::new();
    for waiter in 0..WAITERS as u32 {
        assert_eq!(stage.ask(0, "host", waiter), None);
    }
    assert_eq!(stage.ask(0, "host", 1), Some(Err(Failure::Busy)));
    assert_eq!(stage.expire(5000).len(), WAITERS);
    assert_eq!(stage.ask(5000, "host", 1), None);
}

struct Fixed;

impl Lookup for Fixed {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        match host {
            "fixed" => Ok(vec![ip(5)]),
            _ => no_such_name(),
        }
    }
}

#[test]
fn inline_lookups_are_answered_at_once() {
    let mut resolver: Resolver<u32> = Resolver::inline(Box::new(Fixed), TTL, TIMEOUT);
    let now = Instant::now();
    assert_eq!(resolver.ask("fixed", 1, now), Some(good(5)));
    let refused = Some(Err(Failure::NoSuchName));
    assert_eq!(resolver.ask("other", 1, now), refused);
    assert_eq!(resolver.waiting(), 0);
}

/// Hangs on the host "hung" until it is let go.
struct Hanging(Receiver<()>);

impl Lookup for Hanging {
    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if host == "hung" {
            let _ = self.0.recv();
        }
        Ok(vec![ip(1)])
    }
}

#[test]
fn a_hung_thread_leaves_the_others_to_work() {
    let (let_go, held) = bounded::<()>(0);
    let lookup = Arc::new(Hanging(held));
    let mut resolver = Resolver::with_threads(lookup, TTL, TIMEOUT).unwrap();
    let now = Instant::now();
    assert_eq!(resolver.ask("hung", 0, now), None);
    let mut told = Vec::new();
    for waiter in 1..=20 {
        assert_eq!(resolver.ask(&format!("host-{waiter}"), waiter, now), None);
        let found = resolver.found().recv_timeout(Duration::from_secs(30));
        resolver.finish(found.unwrap(), now, |waiter, _| told.push(waiter));
    }
    assert_eq!(told, (1..=20).collect::<Vec<_>>());
    drop(let_go);
    let found = resolver.found().recv_timeout(Duration::from_secs(30));
    resolver.finish(found.unwrap(), now, |waiter, _| told.push(waiter));
    assert_eq!(told.last(), Some(&0));
}

#[test]
fn the_system_knows_localhost() {
    let found = System.lookup("localhost").unwrap();
    assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
}

//! Micro benches of what every turn of a worker stands on: ring, table, timer wheel, mailbox, the
//! leases of ports, and the agent's codec. They tell one room's cost before and after a change to it; what a server does as a
//! whole is measured by the scripts beside this file.
//!
//! `cargo bench --bench micro` measures, `cargo bench --bench micro -- --test` only runs each once.
#![allow(clippy::unwrap_used)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use towpath::buffer::{BLOCK, Pool, Ring};
use towpath::control::leases::{self, Book};
use towpath::protocols::agent::wire::{
    AgentRequest, Dialect, Reply, Request, SET, decode, decode_reply, encode_reply, encode_request,
};
use towpath::reactor::{Bell, Table, Wheel, mailbox};

/// One read into a ring and the write that empties it, as a relay does for what fits and for bulk.
fn ring(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring");
    let source = vec![7; 16 * BLOCK];
    for size in [64, 1024, BLOCK, 16 * BLOCK] {
        let (mut pool, mut ring) = (Pool::new(64 << 20), Ring::default());
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("fill, drain", size), |bencher| {
            bencher.iter(|| {
                let mut left = &source[..size];
                let filled = ring.fill(&mut pool, size.div_ceil(BLOCK), |slices| {
                    for slice in slices {
                        let part = slice.len().min(left.len());
                        slice[..part].copy_from_slice(&left[..part]);
                        left = &left[part..];
                    }
                    Ok(size)
                });
                black_box(filled.unwrap().unwrap());
                let all =
                    |slices: &[std::io::IoSlice<'_>]| Ok(slices.iter().map(|s| s.len()).sum());
                ring.drain(&mut pool, all).unwrap()
            });
        });
    }
}

/// The cost of an entry among ten thousand others.
fn table(criterion: &mut Criterion) {
    let mut table: Table<[u64; 16]> = Table::new(1 << 20);
    let keys: Vec<_> = (0..10_000)
        .map(|n| table.insert([n; 16]).unwrap())
        .collect();
    let mut turn = keys.iter().step_by(7).cycle();
    criterion.bench_function("table/get", |bencher| {
        bencher.iter(|| table.get(*turn.next().unwrap()).map(|entry| entry[0]));
    });
    criterion.bench_function("table/insert, remove", |bencher| {
        bencher.iter(|| {
            let key = table.insert([1; 16]).unwrap();
            table.remove(black_box(key))
        });
    });
}

/// Timers beside ten thousand idle timeouts, which is what a busy worker has.
fn timer(criterion: &mut Criterion) {
    let start = Instant::now();
    let mut wheel = Wheel::new(start);
    for n in 0..10_000 {
        wheel.arm(start, Duration::from_secs(600 + n % 60), n);
    }
    criterion.bench_function("timer/arm, cancel", |bencher| {
        bencher.iter(|| {
            let key = wheel.arm(start, Duration::from_secs(5), 1).unwrap();
            wheel.cancel(black_box(key))
        });
    });
    criterion.bench_function("timer/arm 100, expire", |bencher| {
        bencher.iter(|| {
            let mut wheel = Wheel::new(start);
            for n in 0..100 {
                wheel.arm(start, Duration::from_millis(n * 10), n);
            }
            let mut fired = 0;
            wheel.expire(start + Duration::from_secs(2), |_, n| fired += n);
            fired
        });
    });
}

/// A take-over in a range that is half lent, whose size must make no difference.
fn lending(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("leases");
    let now = Instant::now();
    for size in [100u16, 10_000, 60_000] {
        let pool = leases::Pool {
            name: "bench",
            ports: 1..=size,
            lease: Duration::from_secs(3 * 3600),
        };
        let mut book = Book::new(pool, now);
        for owner in 0..size / 2 {
            let lease = book.acquire(&owner.to_be_bytes(), None, 0, now).unwrap();
            book.leave(&owner.to_be_bytes(), lease.lease.epoch, now);
        }
        book.saved();
        let mut turn = (0..size / 2).step_by(7).cycle();
        group.bench_function(BenchmarkId::new("acquire, leave", size), |bencher| {
            bencher.iter(|| {
                let owner = turn.next().unwrap().to_be_bytes();
                let granted = book.acquire(&owner, None, 0, now).unwrap();
                let left = book.leave(&owner, granted.lease.epoch, now);
                book.saved();
                left
            });
        });
    }
}

struct Silent;

impl Bell for Silent {
    fn ring(&self) {}
}

/// Letters from the control thread to a worker, without the wake-up's own call.
fn letters(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mailbox");
    for count in [1, 64] {
        let (address, mut mailbox) = mailbox(1024, Arc::new(Silent));
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("post, open", count), |bencher| {
            bencher.iter(|| {
                for letter in 0..count {
                    address.post(letter).unwrap();
                }
                let mut sum = 0;
                mailbox.open(1024, |letter| sum += letter);
                sum
            });
        });
    }
}

const MASK: [u8; 4] = [0x5a, 0xc3, 0x17, 0x99];

/// A small and a large record through the agent's codec, both ways.
fn wire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wire");
    let most = 1 << 20;
    for size in [64, 64 << 10] {
        let data = vec![b'd'; size];
        let update = Request::Agent(AgentRequest::Update {
            id: b"some-id",
            section: b"section",
            data: &data,
            op: SET,
        });
        let found = Reply::Found {
            timestamp: 1_700_000_000,
            data: &data,
        };
        let (mut request, mut reply, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        encode_request(&mut request, Dialect::Stock, MASK, &update);
        encode_reply(&mut reply, Dialect::Stock, MASK, &found);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("decode an update", size), |bencher| {
            bencher.iter(|| {
                let frame = decode(black_box(&request), most, &mut scratch).unwrap();
                frame.unwrap().consumed
            });
        });
        group.bench_function(BenchmarkId::new("decode a reply", size), |bencher| {
            bencher.iter(|| {
                let answer = decode_reply(black_box(&reply), Dialect::Stock, most, &mut scratch);
                answer.unwrap().unwrap().consumed
            });
        });
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("encode a reply", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                encode_reply(&mut out, Dialect::Stock, MASK, black_box(&found));
                out.len()
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    ring(&mut criterion);
    table(&mut criterion);
    timer(&mut criterion);
    lending(&mut criterion);
    letters(&mut criterion);
    wire(&mut criterion);
    criterion.final_summary();
}

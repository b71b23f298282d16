//! The link's keeper: the thread that writes what no caller writes, and says goodbye.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::super::wire::{Command, Dialect};
use super::channel::wait;
use super::error::End;
use super::link::Link;

/// Writes what is due until the link is over.
pub(super) fn run(link: &Link) {
    let interval = link.options.ping_interval;
    let pings = link.options.dialect == Dialect::Fastway && !interval.is_zero();
    let next = |now: Instant| now.checked_add(interval).filter(|_| pings);
    let mut ping_at = next(Instant::now());
    loop {
        let end = wait_for_due(link, ping_at);
        let is_over = end.is_some();
        if is_over && !matches!(end, Some(End::Left)) {
            break;
        }
        let now = Instant::now();
        let is_time = !is_over && ping_at.is_some_and(|at| at <= now);
        let ping = link.options.dialect.frame(Command::Ping);
        let ping = if is_time { ping.as_ref() } else { &[] };
        // What timed out is still due, and is tried again until the link is over.
        let written = link.write(ping, &[]);
        if is_time && written.is_ok() {
            ping_at = next(now);
        }
        if is_over {
            break;
        }
    }
    leave(link);
}

/// Waits until something is to be written, it is time for a ping, or the link is over.
fn wait_for_due(link: &Link, ping_at: Option<Instant>) -> Option<End> {
    let mut table = link.table.lock();
    while !table.is_due() && wait(&link.due, &mut table, ping_at).is_ok() {}
    table.end.clone()
}

/// Closes. The reader hears the gateway out for a moment first: closing over unread bytes would reset
/// the connection, and could take from the gateway what was sent last.
fn leave(link: &Link) {
    let _ = link.stream.shutdown(Shutdown::Write);
    let deadline = Instant::now().checked_add(LINGER);
    let mut table = link.table.lock();
    while !table.has_read_all && wait(&link.done, &mut table, deadline).is_ok() {}
    table.has_left = true;
    drop(table);
    link.done.notify_all();
    let _ = link.stream.shutdown(Shutdown::Both);
}

/// How long the gateway is heard out after the goodbye.
pub(super) const LINGER: Duration = Duration::from_secs(1);

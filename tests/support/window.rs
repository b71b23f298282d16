//! Time that a test means to pass: the pace of a load, and windows over which something is measured.
//! No outcome hangs on one of them being long enough; what is waited for is [`super::until`]'s.

use std::time::Duration;

use super::{kernel, until};

/// Acts once in every `pace` until `act` is false.
pub fn paced(pace: Duration, mut act: impl FnMut() -> bool) {
    while act() {
        std::thread::sleep(pace);
    }
}

/// Waits until a value is the same at both ends of a window, and gives it.
pub fn standing_still<T: PartialEq>(what: &str, mut value: impl FnMut() -> T) -> T {
    let mut last = value();
    until(what, || {
        std::thread::sleep(STILL);
        let before = std::mem::replace(&mut last, value());
        before == last
    });
    last
}

/// Waits for a window of two seconds in which a process uses no more than `most` ticks of 10 ms. One
/// that spins has no such window, however long it is watched; what went before may cost an
/// earlier one something.
pub fn expect_calm(process: u32, most: u64) {
    until(&format!("a window with at most {most} ticks"), || {
        let before = kernel::ticks(process);
        std::thread::sleep(CALM);
        let used = kernel::ticks(process) - before;
        eprintln!("{used} ticks of 10 ms in {CALM:?}");
        used <= most
    });
}

const STILL: Duration = Duration::from_millis(300);

const CALM: Duration = Duration::from_secs(2);

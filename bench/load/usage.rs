//! What the server under test has used, read from `/proc`: CPU time and resident memory, summed
//! over its processes and their descendants.

use std::fs;
use std::io;
use std::time::Duration;

/// A reading of all the processes together.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// User and system time since they started.
    pub cpu: Duration,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// Reads each process once, by itself.
pub fn each(pids: &[u32]) -> io::Result<Vec<Usage>> {
    pids.iter().map(|pid| read(&[*pid])).collect()
}

/// Reads the processes once. A named process that is gone is an error: its figures would be
/// missing. A descendant may come and go.
pub fn read(pids: &[u32]) -> io::Result<Usage> {
    let mut sum = Usage::default();
    let mut family = pids.to_vec();
    let mut next = 0;
    while let Some(pid) = family.get(next).copied() {
        match add(pid, &mut sum) {
            Err(error) if next < pids.len() => return Err(error),
            _ => next += 1,
        }
        for child in children(pid) {
            if family.len() < MOST_PROCESSES && !family.contains(&child) {
                family.push(child);
            }
        }
    }
    Ok(sum)
}

fn add(pid: u32, sum: &mut Usage) -> io::Result<()> {
    let stat = open(pid, "stat")?;
    let status = open(pid, "status")?;
    let ticks = ticks(&stat).ok_or_else(|| strange(pid, "stat"))?;
    let resident = resident_kib(&status).ok_or_else(|| strange(pid, "status"))?;
    sum.cpu += Duration::from_millis(ticks * MS_PER_TICK);
    sum.resident_bytes += resident * 1024;
    Ok(())
}

/// The processes that any thread of this one has started. None where the kernel does not tell.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        fs::read_to_string(thread.join("children")).ok()
    });
    lists
        .flat_map(|list| {
            let numbers = list.split_ascii_whitespace().map(str::parse);
            numbers.filter_map(Result::ok).collect::<Vec<u32>>()
        })
        .collect()
}

fn open(pid: u32, file: &str) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .map_err(|error| io::Error::new(error.kind(), format!("process {pid}: {error}")))
}

fn strange(pid: u32, file: &str) -> io::Error {
    io::Error::other(format!("process {pid}: cannot read its {file}"))
}

/// Fields 14 and 15. The name in field 2 may hold spaces and parentheses, so counting begins
/// behind its last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `/proc` counts in USER_HZ, which is 100 on every Linux that this can run on.
const MS_PER_TICK: u64 = 10;
/// A server with a process for each connection is followed so far.
const MOST_PROCESSES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_found_by_its_name() {
        assert_eq!(resident_kib("VmSize:\t 9 kB\nVmRSS:\t 123 kB\n"), Some(123));
        assert_eq!(resident_kib("VmSize:\t 9 kB\n"), None);
    }

    #[test]
    fn this_process_can_be_read_and_a_missing_one_cannot() {
        assert!(read(&[std::process::id()]).unwrap().resident_bytes > 0);
        assert!(read(&[u32::MAX]).is_err());
    }

    #[test]
    fn a_child_counts_with_its_parent() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let found = children(std::process::id()).contains(&child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}

//! What the kernel says about a process and a connection: descriptors, memory, processor time,
//! unread bytes. And the few commands that a test may give it.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

/// Open descriptors of a process.
pub fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .count()
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// Processor time of a process, user and system, in ticks of 10 ms.
pub fn ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name in parentheses may hold spaces, so the fields are counted from behind it.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let user: u64 = fields[11].parse().unwrap();
    let system: u64 = fields[12].parse().unwrap();
    user + system
}

/// True while bytes from `theirs` lie unread at `mine`, or are on their way there, or while nobody
/// has accepted the connection. False for a connection that is closed or closing.
pub fn has_unread(mine: SocketAddr, theirs: SocketAddr) -> bool {
    let table = if mine.is_ipv4() { "tcp" } else { "tcp6" };
    let sockets = std::fs::read_to_string(format!("/proc/net/{table}")).unwrap();
    let find = |local: &str, remote: &str| {
        sockets.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_wanted = fields.get(1) == Some(&local) && fields.get(2) == Some(&remote);
            is_wanted.then(|| Socket::read(&fields))
        })
    };
    let (here, there) = (hex(mine), hex(theirs));
    let Some(socket) = find(&here, &there).filter(|socket| socket.is_established) else {
        return false;
    };
    let unsent = find(&there, &here).is_some_and(|other| other.has_unsent);
    socket.has_unread || socket.is_orphan || unsent
}

struct Socket {
    is_established: bool,
    has_unsent: bool,
    has_unread: bool,
    is_orphan: bool,
}

impl Socket {
    /// Reads the columns of one line: state, the two queues, the inode (0: no process has it).
    fn read(fields: &[&str]) -> Self {
        let (unsent, unread) = fields[4].split_once(':').unwrap();
        Self {
            is_established: fields[3] == "01",
            has_unsent: unsent != "00000000",
            has_unread: unread != "00000000",
            is_orphan: fields[9] == "0",
        }
    }
}

/// An address as /proc/net/tcp prints it: the words of the IP in the machine's byte order.
fn hex(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let words = octets.chunks(4).map(|word| {
        let word: [u8; 4] = word.try_into().unwrap();
        format!("{:08X}", u32::from_ne_bytes(word))
    });
    format!("{}:{:04X}", words.collect::<String>(), address.port())
}

/// Sends a signal by name (`TERM`, `INT`).
pub fn signal(process: u32, name: &str) {
    let command = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Changes a resource limit of a running process, e.g. `--fsize=unlimited`.
pub fn set_limit(process: u32, limit: &str) {
    let process = process.to_string();
    let arguments = ["--pid", &process, limit];
    let status = Command::new("prlimit").args(arguments).status().unwrap();
    assert!(status.success(), "prlimit {arguments:?}");
}

/// Lets this test process open as many descriptors as its hard limit allows.
pub fn raise_own_descriptor_limit() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let hard = line.split_whitespace().nth(4).unwrap();
    set_limit(std::process::id(), &format!("--nofile={hard}:"));
}

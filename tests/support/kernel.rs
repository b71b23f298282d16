//! What the kernel says about a process and a connection: descriptors, memory, processor time,
//! unread bytes. And the few commands that a test may give it.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Open descriptors of a process, but for the files in which its threads look up what the machine is
/// like as they start: nobody keeps one of those.
pub fn descriptors(process: u32) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    // One that has gone meanwhile leads nowhere.
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    targets
        .filter(|target| !target.starts_with("/proc") && !target.starts_with("/sys"))
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
    // The sender is looked at first: bytes that arrive between the two looks are seen by the second.
    let has_unsent = unacknowledged(theirs, mine) > 0;
    let is_open = |socket: &Socket| matches!(socket.state, ESTABLISHED | BEING_MADE);
    socket(mine, theirs)
        .filter(is_open)
        .is_some_and(|socket| has_unsent || socket.unread > 0 || socket.inode == 0)
}

/// Bytes on their way from `theirs` to `mine`: unsent or unacknowledged there, unread here. Those that
/// arrive at this moment may count twice, and none is overlooked.
pub fn bytes_under_way(mine: SocketAddr, theirs: SocketAddr) -> usize {
    let unsent = unacknowledged(theirs, mine);
    let unread = socket(mine, theirs).map_or(0, |socket| socket.unread);
    unread as usize + unsent
}

/// Bytes that the socket at `mine` was given for `theirs` and that have not arrived there.
pub fn unacknowledged(mine: SocketAddr, theirs: SocketAddr) -> usize {
    socket(mine, theirs).map_or(0, |socket| socket.unsent) as usize
}

struct Socket {
    state: u8,
    unread: u32,
    unsent: u32,
    /// 0 while no process has the socket.
    inode: u32,
}

const ESTABLISHED: u8 = 1;

/// The last word of the handshake is still to be heard (`TCP_SYN_RECV`).
const BEING_MADE: u8 = 3;

/// Asks the kernel (`sock_diag`, see `man 7 sock_diag`) for one TCP socket of this machine. The
/// table in /proc says the same, but takes 20 ms for each look.
fn socket(mine: SocketAddr, theirs: SocketAddr) -> Option<Socket> {
    let asking = socket2::Socket::new(NETLINK.into(), socket2::Type::RAW, Some(DIAG.into()));
    let asking = asking.expect("the kernel answers sock_diag");
    asking.set_read_timeout(Some(super::DEADLINE)).unwrap();
    asking.send(&question(mine, theirs)).unwrap();
    let mut answer = [0; 512];
    let length = (&asking).read(&mut answer).unwrap();
    let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
    // Behind the message's 16 bytes and the socket's 52: expiry, the queues, the user, the inode.
    let is_socket = length >= 88 && u16::from_ne_bytes([answer[4], answer[5]]) == SOCK_DIAG;
    is_socket.then(|| Socket {
        state: answer[17],
        unread: word(72),
        unsent: word(76),
        inode: word(84),
    })
}

const NETLINK: i32 = 16;
const DIAG: i32 = 4;
const SOCK_DIAG: u16 = 20;

/// A netlink header and an `inet_diag_req_v2` for exactly one socket.
fn question(mine: SocketAddr, theirs: SocketAddr) -> Vec<u8> {
    let family: u8 = if mine.is_ipv4() { 2 } else { 10 };
    let ip = |address: SocketAddr| {
        let mut octets = match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        octets.resize(16, 0);
        octets
    };
    let request = [
        vec![family, 6, 0, 0],
        vec![0xff; 4],
        mine.port().to_be_bytes().to_vec(),
        theirs.port().to_be_bytes().to_vec(),
        ip(mine),
        ip(theirs),
        vec![0; 4],
        // Any cookie.
        vec![0xff; 8],
    ]
    .concat();
    let length = u32::try_from(16 + request.len()).unwrap();
    let header = [
        length.to_ne_bytes().to_vec(),
        SOCK_DIAG.to_ne_bytes().to_vec(),
        1_u16.to_ne_bytes().to_vec(),
        vec![0; 8],
    ];
    [header.concat(), request].concat()
}

/// Sends a signal by name (`TERM`, `INT`).
pub fn signal(process: u32, name: &str) {
    let command = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &command]).status().unwrap();
    assert!(status.success(), "{command}");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// Whether there is such a process, and it has not ended.
pub fn is_running(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    // Behind the name in parentheses stands the state; nobody may have asked yet how it ended.
    stat.is_ok_and(|stat| !stat.rsplit(") ").next().unwrap().starts_with('Z'))
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

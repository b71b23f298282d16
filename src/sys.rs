//! The only room with `unsafe`: thin, checked wrappers of the system calls that neither the
//! standard library nor `mio` nor `socket2` offers. No policy lives here.
//!
//! Every function takes borrowed descriptors, returns `io::Result`, and keeps no state but a terminal's
//! former settings, which are given back.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};

use sendfd::RecvWithFd;
use socket2::SockAddr;

/// Moves up to `count` bytes between a pipe and a socket without copying them to user space.
///
/// `more` tells a receiving socket that further bytes follow at once, so that it may wait to fill
/// a segment. `Ok(0)` means the end of the source. `WouldBlock` means that the source has no bytes
/// *or* that the target has no room: the caller, who knows what the pipe holds, tells which.
pub fn splice(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    count: usize,
    more: bool,
) -> io::Result<usize> {
    let mut flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    if more {
        flags |= libc::SPLICE_F_MORE;
    }
    // SAFETY: both descriptors are open for the call, as they are borrowed; the offset pointers
    // may be null for pipes and sockets; splice touches no memory of ours.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            count,
            flags,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// A new kernel pipe, both ends non-blocking and close-on-exec: (reading end, writing end).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is a valid array of two ints that pipe2 fills on success.
    let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
    if made != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: pipe2 succeeded, so both are open descriptors that nobody else owns.
    unsafe { Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))) }
}

/// Asks for a pipe capacity of `bytes`; returns what the kernel gave (a power of two of pages).
///
/// `PermissionDenied` when the user's share of pipe pages is used up; the pipe then keeps its size.
pub fn set_pipe_capacity(pipe: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the descriptor is open; F_SETPIPE_SZ takes an int and touches no memory of ours.
    let given = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
    usize::try_from(given).map_err(|_| io::Error::last_os_error())
}

/// Gives memory that the allocator keeps back to the system. It takes milliseconds where that is
/// much.
pub fn trim_memory() {
    // SAFETY: the call takes a number, and touches only what the allocator holds free.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How many bytes written to a stream socket its peer has not acknowledged.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for the call, and the kernel writes one int where it is told.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    match outcome {
        0 => Ok(usize::try_from(bytes).unwrap_or(0)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The soft and hard limit of open descriptors of this process.
pub fn descriptor_limit() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid rlimit that the call fills.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    if got != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft limit of open descriptors; it cannot exceed the hard limit.
pub fn set_descriptor_limit(soft: u64) -> io::Result<()> {
    let (_, hard) = descriptor_limit()?;
    let limit = libc::rlimit {
        rlim_cur: soft.min(hard),
        rlim_max: hard,
    };
    // SAFETY: `limit` is a valid rlimit that the call only reads.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    if set != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has the process leave no core file, and nobody but root look into it: what it holds in memory, secrets and
/// payload, is for no disk and for no other process of its user.
pub fn forbid_debugging() -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `none` is a valid rlimit that the call only reads.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    // SAFETY: the operation takes numbers only.
    let hidden = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    match (set, hidden) {
        (0, 0) => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Binds the calling thread to one processor of those that it may use, counted from 0.
///
/// Returns the processor's number. `InvalidInput` when there are not so many.
pub fn pin_thread(nth: usize) -> io::Result<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set; the kernel fills it with the thread's
    // own set, CPU_ISSET and CPU_SET stay within its size, and the last call only reads it.
    unsafe {
        let mut allowed: libc::cpu_set_t = zeroed();
        let size = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return Err(io::Error::last_os_error());
        }
        let cpu = (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .nth(nth)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut one: libc::cpu_set_t = zeroed();
        libc::CPU_SET(cpu, &mut one);
        if libc::sched_setaffinity(0, size, &one) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(cpu)
    }
}

/// How many processors the calling thread may run on; at least 1.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// The addresses of this host's interfaces that are up, with the interfaces' names.
pub fn interface_addresses() -> io::Result<Vec<(String, IpAddr)>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: getifaddrs fills `list` with a linked list that lives until freeifaddrs; each node
    // is read only while it lives. An address pointer is null or points at a sockaddr of the
    // family that it names, and the name at a string that ends in NUL.
    unsafe {
        if libc::getifaddrs(&mut list) != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut found = Vec::new();
        let mut node = list;
        while let Some(entry) = node.as_ref() {
            node = entry.ifa_next;
            let up = entry.ifa_flags & libc::IFF_UP as libc::c_uint != 0;
            let Some(address) = entry.ifa_addr.as_ref().filter(|_| up) else {
                continue;
            };
            let ip = match i32::from(address.sa_family) {
                libc::AF_INET => {
                    let v4 = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes())
                }
                libc::AF_INET6 => {
                    let v6 = &*entry.ifa_addr.cast::<libc::sockaddr_in6>();
                    IpAddr::from(v6.sin6_addr.s6_addr)
                }
                _ => continue,
            };
            let name = std::ffi::CStr::from_ptr(entry.ifa_name);
            found.push((name.to_string_lossy().into_owned(), ip));
        }
        libc::freeifaddrs(list);
        Ok(found)
    }
}

/// The descriptors that a service manager has passed to this process (`LISTEN_FDS`), with the name
/// that it gave each; nothing at a second call, nor when they are meant for another process.
///
/// To be called before the process opens anything, which then could have got the number of a
/// descriptor that was announced and not passed.
pub fn passed_descriptors() -> io::Result<Vec<(OwnedFd, String)>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let passed = sd_notify::listen_fds_with_names()?;
    // SAFETY: by the protocol these numbers are open, as the call has checked, and belong to this
    // process since its start; nobody else in it has taken them, as they are given out once.
    let own = |(number, name)| unsafe { (OwnedFd::from_raw_fd(number), name) };
    Ok(passed.map(own).collect())
}

/// Takes one message out of a Unix socket, with the descriptors that came with it, at most [`TOGETHER`] of
/// them; the system closes what is more. A message of no bytes is the end.
pub fn receive_descriptors(
    socket: &UnixDatagram,
    into: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut numbers = [-1; TOGETHER];
    let (count, passed) = socket.recv_with_fd(into, &mut numbers)?;
    // SAFETY: the system has just opened these descriptors for this process, as the call has said, and
    // nobody else in it knows their numbers.
    let own = |number: &RawFd| unsafe { OwnedFd::from_raw_fd(*number) };
    Ok((count, numbers[..passed].iter().map(own).collect()))
}

/// Descriptors that one message may bring.
pub const TOGETHER: usize = 4;

/// A descriptor held in reserve: closing it makes room for one more when the limit is reached.
pub fn reserve_descriptor() -> io::Result<File> {
    File::open("/dev/null")
}

/// What one place of [`receive_datagrams`] took: a datagram, or a train of them from one sender
/// that lie one behind the other, all of the same length but the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Who sent it; `None` when the system names nobody with an IP address.
    pub from: Option<SocketAddr>,
    /// Its length; of a train the length of all.
    pub len: usize,
    /// The length of each datagram of a train; 0 for a lone datagram.
    pub segment: usize,
    /// It was longer than its place, and the rest of it is lost.
    pub truncated: bool,
}

/// What one place of [`send_datagrams`] sends: a datagram, or a train of them.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'a> {
    /// Whom to; `None` on a connected socket.
    pub to: Option<SocketAddr>,
    /// Its bytes.
    pub payload: &'a [u8],
    /// The length of each datagram of a train; 0 for a lone datagram.
    pub segment: usize,
}

/// The most datagrams or trains of one call.
pub const DATAGRAMS: usize = 32;

/// Has the system hand over datagrams of one sender and one length as a train.
pub fn join_datagrams(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the option's value is the int that lives in `on`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the datagrams that wait, as many as `room` has places of `place` bytes, [`DATAGRAMS`] at
/// most. The n-th lies at the beginning of the n-th place.
///
/// Tells how many came. Fewer than there are places means that no more waited. An error comes
/// alone, and those that wait can be had by the next call.
pub fn receive_datagrams(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    place: usize,
    arrivals: &mut [Arrival; DATAGRAMS],
) -> io::Result<usize> {
    // SAFETY: integers and null pointers are valid values of all three, filled in below.
    let (mut names, mut vectors, mut headers) = unsafe {
        (
            zeroed::<[libc::sockaddr_in6; DATAGRAMS]>(),
            zeroed::<[libc::iovec; DATAGRAMS]>(),
            zeroed::<[libc::mmsghdr; DATAGRAMS]>(),
        )
    };
    let mut notes = [Note::default(); DATAGRAMS];
    let mut places = 0;
    for (at, bytes) in room.chunks_exact_mut(place).take(DATAGRAMS).enumerate() {
        vectors[at].iov_base = bytes.as_mut_ptr().cast();
        vectors[at].iov_len = bytes.len();
        let header = &mut headers[at].msg_hdr;
        header.msg_name = std::ptr::from_mut(&mut names[at]).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        header.msg_iov = &mut vectors[at];
        header.msg_iovlen = 1;
        header.msg_control = std::ptr::from_mut(&mut notes[at]).cast();
        header.msg_controllen = size_of::<Note>();
        places += 1;
    }
    // SAFETY: the first `places` headers point at a name, a vector and a note each, which outlive
    // the call, as `room` does; the lengths beside the pointers are theirs.
    let taken = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            places as libc::c_uint,
            libc::MSG_DONTWAIT as _,
            std::ptr::null_mut(),
        )
    };
    let taken = usize::try_from(taken).map_err(|_| io::Error::last_os_error())?;
    for (at, header) in headers.iter().enumerate().take(taken) {
        arrivals[at] = Arrival {
            from: sender(&names[at], header.msg_hdr.msg_namelen),
            len: (header.msg_len as usize).min(place),
            segment: segment_noted(&header.msg_hdr),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
    }
    Ok(taken)
}

/// Sends datagrams and trains in their order, [`DATAGRAMS`] at most; how many the system took. An
/// error concerns the first of them, or, on a connected socket, an earlier one: none was taken.
pub fn send_datagrams<'a>(
    socket: BorrowedFd<'_>,
    departures: impl IntoIterator<Item = Departure<'a>>,
) -> io::Result<usize> {
    // SAFETY: integers and null pointers are valid values of both, filled in below.
    let (mut vectors, mut headers) = unsafe {
        (
            zeroed::<[libc::iovec; DATAGRAMS]>(),
            zeroed::<[libc::mmsghdr; DATAGRAMS]>(),
        )
    };
    let mut names = [const { None::<SockAddr> }; DATAGRAMS];
    let mut notes = [Note::default(); DATAGRAMS];
    let mut places = 0;
    for (at, departure) in departures.into_iter().take(DATAGRAMS).enumerate() {
        vectors[at].iov_base = departure.payload.as_ptr().cast_mut().cast();
        vectors[at].iov_len = departure.payload.len();
        let header = &mut headers[at].msg_hdr;
        header.msg_iov = &mut vectors[at];
        header.msg_iovlen = 1;
        if let Some(to) = departure.to {
            let name = names[at].insert(to.into());
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
        }
        if departure.segment > 0 {
            notes[at] = Note::segment(departure.segment as u16);
            header.msg_control = std::ptr::from_mut(&mut notes[at]).cast();
            // SAFETY: it computes with the length alone.
            header.msg_controllen = unsafe { libc::CMSG_SPACE(SEGMENT_BYTES) } as usize;
        }
        places += 1;
    }
    // SAFETY: the first `places` headers point at a vector and perhaps a name and a note each,
    // which outlive the call, as the payloads do; sendmmsg only reads them, but for the count in
    // each header.
    let taken = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            places as libc::c_uint,
            libc::MSG_DONTWAIT as _,
        )
    };
    usize::try_from(taken).map_err(|_| io::Error::last_os_error())
}

/// Room for one control message with an int or less.
#[repr(C)]
#[derive(Clone, Copy)]
struct Note {
    header: libc::cmsghdr,
    value: [u8; 8],
}

impl Default for Note {
    fn default() -> Self {
        Self {
            header: libc::cmsghdr {
                cmsg_len: 0,
                cmsg_level: 0,
                cmsg_type: 0,
            },
            value: [0; 8],
        }
    }
}

impl Note {
    /// Tells the system the length of each datagram of a train.
    fn segment(length: u16) -> Self {
        let mut note = Self::default();
        // SAFETY: it computes with the length alone.
        note.header.cmsg_len = unsafe { libc::CMSG_LEN(SEGMENT_BYTES) } as usize;
        note.header.cmsg_level = libc::SOL_UDP;
        note.header.cmsg_type = libc::UDP_SEGMENT;
        note.value[..2].copy_from_slice(&length.to_ne_bytes());
        note
    }
}

/// The length that the system told of each datagram of a train; 0 when it told none.
fn segment_noted(header: &libc::msghdr) -> usize {
    // SAFETY: the control pointer and length are those of a `Note` as the system has filled it; a
    // control message within them is aligned, and only one long enough for its int is read.
    unsafe {
        let Some(note) = libc::CMSG_FIRSTHDR(header).as_ref() else {
            return 0;
        };
        let told = note.cmsg_level == libc::SOL_UDP
            && note.cmsg_type == libc::UDP_GRO
            && note.cmsg_len >= libc::CMSG_LEN(size_of::<libc::c_int>() as u32) as usize;
        match told {
            true => {
                let value = libc::CMSG_DATA(note).cast::<libc::c_int>().read_unaligned();
                usize::try_from(value).unwrap_or(0)
            }
            false => 0,
        }
    }
}

/// The address that the system wrote; an IPv4 one as such even when it came by an IPv6 socket.
fn sender(name: &libc::sockaddr_in6, length: libc::socklen_t) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET if length as usize >= size_of::<libc::sockaddr_in>() => {
            // SAFETY: the family says that a sockaddr_in lies here; it is shorter than a
            // sockaddr_in6 and no stricter aligned.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 if length as usize >= size_of::<libc::sockaddr_in6>() => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddr::from((v4, port)),
                None => SocketAddrV6::new(ip, port, 0, name.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}

/// A train's segment length is a u16.
const SEGMENT_BYTES: libc::c_uint = 2;

/// A terminal that gives each key at once and echoes none; dropping it gives it back as it was.
pub struct RawTerminal {
    terminal: OwnedFd,
    before: libc::termios,
}

impl RawTerminal {
    /// Takes the terminal over. A read waits for a key a fifth of a second at most, and gives nothing
    /// then; interrupts come as keys.
    pub fn new(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let terminal = terminal.try_clone_to_owned()?;
        let mut before = std::mem::MaybeUninit::<libc::termios>::uninit();
        // SAFETY: the descriptor is open, and tcgetattr fills what `before` points to.
        let done = unsafe { libc::tcgetattr(terminal.as_raw_fd(), before.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: tcgetattr has succeeded, so it is filled.
        let before = unsafe { before.assume_init() };
        let mut raw = before;
        raw.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG | libc::IEXTEN);
        raw.c_iflag &= !(libc::IXON | libc::ICRNL);
        raw.c_cc[libc::VMIN] = 0;
        raw.c_cc[libc::VTIME] = 2;
        set_terminal(terminal.as_fd(), &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Fails only where the terminal has gone.
        let _ = set_terminal(self.terminal.as_fd(), &self.before);
    }
}

fn set_terminal(terminal: BorrowedFd<'_>, wanted: &libc::termios) -> io::Result<()> {
    // SAFETY: the descriptor is open, and `wanted` is a valid termios that is only read.
    match unsafe { libc::tcsetattr(terminal.as_raw_fd(), libc::TCSANOW, wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A terminal's columns and lines.
pub fn terminal_size(terminal: BorrowedFd<'_>) -> Option<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and the request fills a winsize, which `size` is.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (done == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}

#[cfg(test)]
mod tests;

//! The only room with `unsafe`: thin, checked wrappers of the system calls that neither the
//! standard library nor `mio` nor `socket2` offers. No policy lives here.
//!
//! Every function takes borrowed descriptors, returns `io::Result`, and keeps no state.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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

/// Binds the calling thread to one processor of those that it may use, counted from 0.
///
/// Returns the processor's number. `InvalidInput` when there are not so many.
pub fn pin_thread(nth: usize) -> io::Result<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set; the kernel fills it with the thread's
    // own set, CPU_ISSET and CPU_SET stay within its size, and the last call only reads it.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        let size = std::mem::size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return Err(io::Error::last_os_error());
        }
        let cpu = (0..libc::CPU_SETSIZE as usize)
            .filter(|&cpu| libc::CPU_ISSET(cpu, &allowed))
            .nth(nth)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mut one: libc::cpu_set_t = std::mem::zeroed();
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

/// A descriptor held in reserve: closing it makes room for one more when the limit is reached.
pub fn reserve_descriptor() -> io::Result<File> {
    File::open("/dev/null")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn bytes_pass_through_a_pipe_between_two_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut source = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (from, _) = listener.accept().unwrap();
        let to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut sink, _) = listener.accept().unwrap();
        let (reading, writing) = pipe().unwrap();
        source.write_all(b"through").unwrap();
        drop(source);
        let taken = splice(from.as_fd(), writing.as_fd(), 1 << 20, false).unwrap();
        assert_eq!(taken, 7);
        assert_eq!(splice(reading.as_fd(), to.as_fd(), taken, true).unwrap(), 7);
        assert_eq!(splice(from.as_fd(), writing.as_fd(), 16, false).unwrap(), 0);
        let empty = splice(reading.as_fd(), to.as_fd(), 16, false).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        drop(to);
        let mut got = String::new();
        sink.read_to_string(&mut got).unwrap();
        assert_eq!(got, "through");
    }

    #[test]
    fn a_pipe_takes_the_size_asked_for() {
        let (reading, _writing) = pipe().unwrap();
        assert_eq!(
            set_pipe_capacity(reading.as_fd(), 256 << 10).unwrap(),
            256 << 10
        );
    }

    #[test]
    fn the_loopback_interface_is_among_the_addresses() {
        let found = interface_addresses().unwrap();
        assert!(found.iter().any(|(_, ip)| ip.is_loopback()), "{found:?}");
    }

    #[test]
    fn pinning_beyond_the_processors_is_refused() {
        let refused = std::thread::spawn(|| pin_thread(4096)).join().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(std::thread::spawn(|| pin_thread(0)).join().unwrap().is_ok());
    }
}

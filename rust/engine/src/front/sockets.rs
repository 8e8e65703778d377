//! Opening what the front door listens on, and the socket it hands connections over by.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::stun::unmap;
use crate::os::stream::{tune, SEGMENT_BYTES};
use crate::os::{set_option, SockAddr};

const BACKLOG: libc::c_int = 4096;
const STUN_BUFFER_BYTES: libc::c_int = 1 << 20;

/// A TCP listener; `[::]` takes IPv4 clients too.
pub(super) fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket(family(&address), libc::SOCK_STREAM)?;
    set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // Whom it accepts inherits it.
    set_option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, SEGMENT_BYTES)?;
    bind(&fd, address)?;
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) })?;
    Ok(fd)
}

/// A UDP socket that says which of the host's addresses was asked.
pub(super) fn listen_stun(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = socket(family(&address), libc::SOCK_DGRAM)?;
    if address.is_ipv4() {
        set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
    } else {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
    }
    set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, STUN_BUFFER_BYTES)?;
    bind(&fd, address)?;
    Ok(fd)
}

/// The address a socket is bound to.
pub(super) fn local(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = SockAddr::empty();
    let mut len = SockAddr::CAPACITY;
    // SAFETY: pointer and length are those of `name`.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), name.as_mut_ptr(), &mut len) })?;
    name.to_std().map(unmap).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The next waiting client and its address.
pub(super) fn accept(listener: &OwnedFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let mut name = SockAddr::empty();
    let mut len = SockAddr::CAPACITY;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: pointer and length are those of `name`.
    let raw = check(unsafe { libc::accept4(listener.as_raw_fd(), name.as_mut_ptr(), &mut len, flags) })?;
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    tune(&fd)?;
    let peer = name.to_std().map(unmap).ok_or(io::ErrorKind::InvalidData)?;
    Ok((fd, peer))
}

/// Whether `accept` failed for want of descriptors or memory, with a client still waiting.
pub(super) fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Let this process have as many descriptors as it may: each client needs one, and the usual soft limit of 1024 is a
/// relic of `select`.
pub(super) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one writable struct rlimit.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: one readable struct rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }).map(|_| ())
}

/// Connect to a Unix socket; `WouldBlock` when its backlog is full.
pub(super) fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let fd = socket(libc::AF_UNIX, libc::SOCK_STREAM)?;
    // SAFETY: struct sockaddr_un is plain old data, for which zeroes are valid.
    let mut name: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    name.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= name.sun_path.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path of the socket is too long"));
    }
    for (to, from) in name.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: pointer and length are those of `name`.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&name as *const libc::sockaddr_un).cast(), len) })?;
    Ok(fd)
}

fn family(address: &SocketAddr) -> libc::c_int {
    if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = check(unsafe { libc::socket(family, kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    if family == libc::AF_INET6 {
        set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    }
    Ok(fd)
}

fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let name = SockAddr::from(address);
    // SAFETY: pointer and length are those of `name`.
    check(unsafe { libc::bind(fd.as_raw_fd(), name.as_ptr(), name.len()) }).map(|_| ())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

//! What every thread of the engine asks of the operating system: waiting (`poller`), streams without blocking (`stream`),
//! the kernel's form of socket addresses (`address`), socket options.

mod address;
pub(crate) mod poller;
pub(crate) mod stream;

pub(crate) use address::SockAddr;

use std::io;
use std::os::fd::AsRawFd;

/// Set a socket option whose value is a C int.
pub(crate) fn set_option(
    fd: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the option's value is a C int that outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&value as *const libc::c_int).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What an option whose value is a C int is set to.
pub(crate) fn get_option(fd: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, a C int, to `value`.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&mut value as *mut libc::c_int).cast(), &mut len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}

/// Bytes that the kernel has taken and holds yet: for TCP what is not acknowledged, for UDP what has not left.
pub(crate) fn held_bytes(fd: &impl AsRawFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (SIOCOUTQ) writes one C int, which outlives the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

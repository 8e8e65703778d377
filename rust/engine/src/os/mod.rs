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

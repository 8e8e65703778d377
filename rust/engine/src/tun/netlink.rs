//! One netlink request: the largest super-packet the kernel may hand to the device.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const IFLA_GSO_MAX_SEGS: u16 = 40;

/// `struct nlmsghdr`, `struct ifinfomsg` and one u32 attribute, as RTM_NEWLINK takes them.
fn request(index: u32, attribute: u16, value: u32) -> [u8; 40] {
    let mut bytes = [0u8; 40];
    bytes[0..4].copy_from_slice(&40u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&1u32.to_ne_bytes());
    bytes[20..24].copy_from_slice(&index.to_ne_bytes());
    bytes[32..34].copy_from_slice(&8u16.to_ne_bytes());
    bytes[34..36].copy_from_slice(&attribute.to_ne_bytes());
    bytes[36..40].copy_from_slice(&value.to_ne_bytes());
    bytes
}

/// Let one super-packet of interface `index` have at most `segments` segments.
pub fn set_gso_max_segs(index: u32, segments: u32) -> io::Result<()> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `raw` is a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let message = request(index, IFLA_GSO_MAX_SEGS, segments);
    // SAFETY: pointer and length are those of `message`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut answer = [0u8; 512];
    // SAFETY: pointer and length are those of `answer`.
    let got = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    if got < 20 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // An NLMSG_ERROR: 16 bytes of header, then a negative errno or 0.
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

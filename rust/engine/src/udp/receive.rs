//! Taking datagrams in: several messages a call, each a train of equal datagrams when the kernel glued them (UDP_GRO).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::socket::{Socket, UDP_GRO};
use crate::os::SockAddr;

pub const MESSAGES: usize = 8;
pub const MESSAGE_BYTES: usize = 65_536;

/// Room for one control message with an int in it, 8-byte aligned.
const CONTROL_WORDS: usize = 8;

/// One message: where it lies in the arena, and how it is cut.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub source: SocketAddr,
    pub start: usize,
    pub len: usize,
    /// Length of each datagram but the last.
    pub segment: usize,
}

/// Buffers for one call, used again and again.
pub struct Receiver {
    arena: Vec<u8>,
    names: [SockAddr; MESSAGES],
    controls: [[u64; CONTROL_WORDS]; MESSAGES],
    messages: [Option<Message>; MESSAGES],
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver {
            // Zeroed by the allocator, so that pages never written cost no memory.
            arena: vec![0; MESSAGES * MESSAGE_BYTES],
            names: [SockAddr::empty(); MESSAGES],
            controls: [[0; CONTROL_WORDS]; MESSAGES],
            messages: [None; MESSAGES],
        }
    }
}

impl Receiver {
    /// Take what waits at `socket`; the number of messages, or `WouldBlock`.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        // SAFETY: arrays of pointers and lengths, for which zeroes are valid.
        let mut vectors: [libc::iovec; MESSAGES] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
        for index in 0..MESSAGES {
            let buffer = &mut self.arena[index * MESSAGE_BYTES..(index + 1) * MESSAGE_BYTES];
            vectors[index].iov_base = buffer.as_mut_ptr().cast();
            vectors[index].iov_len = buffer.len();
            let header = &mut headers[index].msg_hdr;
            header.msg_name = self.names[index].as_mut_ptr().cast();
            header.msg_namelen = SockAddr::CAPACITY;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = self.controls[index].as_mut_ptr().cast();
            header.msg_controllen = size_of_val(&self.controls[index]) as _;
        }
        // SAFETY: every pointer in `headers` points into `self` or `vectors`, which outlive the call, with its right length.
        let got = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                MESSAGES as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let got = got as usize;
        for (index, header) in headers[..got].iter().enumerate() {
            let len = header.msg_len as usize;
            let segment = gro_size(&header.msg_hdr).filter(|&size| size > 0).unwrap_or(len);
            let whole = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            self.messages[index] = self.names[index].to_std().filter(|_| whole && len > 0).map(|source| Message {
                source,
                start: index * MESSAGE_BYTES,
                len,
                segment,
            });
        }
        Ok(got)
    }

    /// Message `index` of the last call; None for an empty or cut one.
    pub fn message(&self, index: usize) -> Option<Message> {
        self.messages[index]
    }

    pub fn arena(&mut self) -> &mut [u8] {
        &mut self.arena
    }
}

/// The size of the glued datagrams, from the control messages.
fn gro_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel filled the control buffer that `header` describes.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: not null, and CMSG_FIRSTHDR and CMSG_NXTHDR stay inside the buffer.
        let (level, kind) = unsafe { ((*control).cmsg_level, (*control).cmsg_type) };
        if level == libc::IPPROTO_UDP && kind == UDP_GRO {
            // SAFETY: UDP_GRO carries an int.
            let size = unsafe { libc::CMSG_DATA(control).cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(size).ok();
        }
        // SAFETY: `control` came from this header's own buffer.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    None
}

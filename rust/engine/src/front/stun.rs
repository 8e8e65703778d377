//! The STUN responder: any RFC 5389 binding request is told where it came from, by the address it was asked at.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::os::SockAddr;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER_BYTES: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const BINDING_RESPONSE: [u8; 2] = [1, 1];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0, 0x20];
/// Answered at a time, so that a flood does not starve the relay beside it.
const AT_A_TIME: usize = 64;
const CONTROL_WORDS: usize = 8;

pub(super) struct Responder {
    pub fd: OwnedFd,
    pub answered: u64,
    pub ignored: u64,
}

impl Responder {
    pub fn new(fd: OwnedFd) -> Responder {
        Responder { fd, answered: 0, ignored: 0 }
    }

    /// Answer what waits.
    pub fn serve(&mut self) {
        for _ in 0..AT_A_TIME {
            match self.serve_one() {
                Ok(true) => self.answered += 1,
                Ok(false) => self.ignored += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An unreachable asker's ICMP error comes back here: that datagram is lost, the next is not.
                Err(_) => self.ignored += 1,
            }
        }
    }

    fn serve_one(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 1500];
        let mut name = SockAddr::empty();
        let mut control = [0u64; CONTROL_WORDS];
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: struct msghdr is plain old data, for which zeroes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = name.as_mut_ptr().cast();
        message.msg_namelen = SockAddr::CAPACITY;
        message.msg_iov = &mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: every pointer in `message` is to a live buffer of the length beside it.
        let got = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &mut message, 0) };
        let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        let Some(source) = name.to_std() else { return Ok(false) };
        let Some((answer, len)) = respond(&buffer[..got], unmap(source)) else { return Ok(false) };
        // The same control message (the address asked, IP_PKTINFO or IPV6_PKTINFO) makes the answer leave from there.
        clear_interface(&message);
        vector = libc::iovec { iov_base: answer.as_ptr().cast_mut().cast(), iov_len: len };
        message.msg_iov = &mut vector;
        message.msg_flags = 0;
        // SAFETY: as above; the control buffer holds what recvmsg put there.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &message, 0) };
        // What cannot be sent is lost; "no room" is not to be taken for "nothing more came".
        Ok(sent >= 0)
    }
}

/// Leave the way out to the routing table: only the source address is to be the asked one.
fn clear_interface(message: &libc::msghdr) {
    // SAFETY: `message` was filled by recvmsg; CMSG_* walk its control buffer, and the data is of the kind named by its type.
    unsafe {
        let mut head = libc::CMSG_FIRSTHDR(message);
        while !head.is_null() {
            match ((*head).cmsg_level, (*head).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(head).cast::<libc::in_pktinfo>();
                    let mut value = info.read_unaligned();
                    value.ipi_ifindex = 0;
                    value.ipi_spec_dst = value.ipi_addr;
                    info.write_unaligned(value);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(head).cast::<libc::in6_pktinfo>();
                    let mut value = info.read_unaligned();
                    let link_local = value.ipi6_addr.s6_addr[0] == 0xfe && value.ipi6_addr.s6_addr[1] & 0xc0 == 0x80;
                    if !link_local {
                        value.ipi6_ifindex = 0;
                    }
                    info.write_unaligned(value);
                }
                _ => {}
            }
            head = libc::CMSG_NXTHDR(message, head);
        }
    }
}

/// An IPv4 client of a dual-stack socket is told its IPv4 address.
pub(super) fn unmap(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The answer to a binding request from `source` (RFC 5389, sections 6 and 15.2), None for anything else.
pub(super) fn respond(request: &[u8], source: SocketAddr) -> Option<([u8; HEADER_BYTES + 24], usize)> {
    let head = request.first_chunk::<HEADER_BYTES>()?;
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if head[..2] != BINDING_REQUEST || head[4..8] != COOKIE || len % 4 != 0 || request.len() < HEADER_BYTES + len {
        return None;
    }
    let mut out = [0u8; HEADER_BYTES + 24];
    out[..2].copy_from_slice(&BINDING_RESPONSE);
    out[4..HEADER_BYTES].copy_from_slice(&head[4..]);
    let mut address = [0u8; 16];
    let (family, octets) = match source.ip() {
        IpAddr::V4(ip) => {
            address[..4].copy_from_slice(&ip.octets());
            (1, 4)
        }
        IpAddr::V6(ip) => {
            address = ip.octets();
            (2, 16)
        }
    };
    let attribute = 4 + octets;
    out[2..4].copy_from_slice(&((4 + attribute) as u16).to_be_bytes());
    let body = &mut out[HEADER_BYTES..];
    body[..2].copy_from_slice(&XOR_MAPPED_ADDRESS);
    body[2..4].copy_from_slice(&(attribute as u16).to_be_bytes());
    body[5] = family;
    let port = source.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    body[6..8].copy_from_slice(&port.to_be_bytes());
    for (at, byte) in address[..octets].iter().enumerate() {
        body[8 + at] = byte ^ head[4 + at]; // the cookie, then the transaction's number
    }
    Some((out, HEADER_BYTES + 4 + attribute))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Vec<u8> {
        let mut bytes = vec![0, 1, 0, 0];
        bytes.extend_from_slice(&COOKIE);
        bytes.extend_from_slice(b"abcdefghijkl");
        bytes
    }

    #[test]
    fn an_ipv4_asker_hears_its_address_xored() {
        // RFC 5769, section 2.2: 192.0.2.1:32853 with this transaction is a1 47 e1 12 a6 43.
        let mut bytes = request();
        bytes[8..20].copy_from_slice(&[0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        let (out, len) = respond(&bytes, "192.0.2.1:32853".parse().expect("address")).expect("an answer");
        assert_eq!(len, 32);
        assert_eq!(&out[..4], [1, 1, 0, 12]);
        assert_eq!(&out[20..32], [0, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }

    #[test]
    fn an_ipv6_asker_hears_its_address_xored() {
        // RFC 5769, section 2.3.
        let mut bytes = request();
        bytes[8..20].copy_from_slice(&[0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
        let source = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().expect("address");
        let (out, len) = respond(&bytes, source).expect("an answer");
        assert_eq!(len, 44);
        assert_eq!(
            &out[24..44],
            [
                0, 2, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2,
                0xb9, 0xd9
            ]
        );
    }

    proptest! {
        #[test]
        fn nonsense_gets_no_answer_and_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(respond(&bytes, "192.0.2.1:1".parse().expect("address")).is_none());
        }
    }
}

//! Socket addresses between Rust's form and the kernel's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SockAddr {
    storage: libc::sockaddr_in6,
    len: libc::socklen_t,
}

impl SockAddr {
    pub const CAPACITY: libc::socklen_t = size_of::<libc::sockaddr_in6>() as libc::socklen_t;

    pub fn empty() -> SockAddr {
        // SAFETY: struct sockaddr_in6 is plain old data, for which zeroes are valid.
        SockAddr { storage: unsafe { std::mem::zeroed() }, len: Self::CAPACITY }
    }

    pub fn len(&self) -> libc::socklen_t {
        self.len
    }

    pub fn as_ptr(&self) -> *const libc::sockaddr {
        (&self.storage as *const libc::sockaddr_in6).cast()
    }

    pub fn as_mut_ptr(&mut self) -> *mut libc::sockaddr {
        (&mut self.storage as *mut libc::sockaddr_in6).cast()
    }

    #[inline]
    pub fn to_std(self) -> Option<SocketAddr> {
        match libc::c_int::from(self.storage.sin6_family) {
            libc::AF_INET6 => Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(self.storage.sin6_addr.s6_addr),
                u16::from_be(self.storage.sin6_port),
                0,
                self.storage.sin6_scope_id,
            ))),
            // struct sockaddr_in has its address where sockaddr_in6 has its flow information.
            libc::AF_INET => Some(SocketAddr::V4(SocketAddrV4::new(
                Ipv4Addr::from(self.storage.sin6_flowinfo.to_ne_bytes()),
                u16::from_be(self.storage.sin6_port),
            ))),
            _ => None,
        }
    }
}

impl From<SocketAddr> for SockAddr {
    #[inline]
    fn from(address: SocketAddr) -> SockAddr {
        let mut name = SockAddr::empty();
        name.storage.sin6_port = address.port().to_be();
        match address {
            SocketAddr::V4(address) => {
                name.storage.sin6_family = libc::AF_INET as libc::sa_family_t;
                name.storage.sin6_flowinfo = u32::from_ne_bytes(address.ip().octets());
                name.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            }
            SocketAddr::V6(address) => {
                name.storage.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.storage.sin6_addr.s6_addr = address.ip().octets();
                name.storage.sin6_scope_id = address.scope_id();
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_kernels_form() {
        for text in ["1.2.3.4:5", "[fd7a::1]:65535"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(SockAddr::from(address).to_std(), Some(address));
        }
        assert_eq!(SockAddr::empty().to_std(), None);
    }
}

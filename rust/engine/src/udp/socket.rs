//! A pair of UDP sockets, one a family, on the same port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::os::{get_option, held_bytes, set_option, SockAddr};

/// 10 ms at 10 Gbit/s, and a little for bursts.
const RECEIVE_BUFFER_BYTES: libc::c_int = 16 << 20;
const SEND_BUFFER_BYTES: libc::c_int = 4 << 20;

/// How many ports above the wanted one are tried.
const PORTS_TRIED: u16 = 64;

pub(super) const UDP_GRO: libc::c_int = 104;
pub(super) const UDP_SEGMENT: libc::c_int = 103;

/// What sockets are opened with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// SO_MARK, 0 for none.
    pub mark: u32,
    pub gro: bool,
    pub gso: bool,
}

#[derive(Debug)]
pub enum BindError {
    /// SO_MARK needs CAP_NET_ADMIN.
    MarkNotPermitted(io::Error),
    /// This port and all tried above it are taken.
    PortsTaken(u16),
    Other(io::Error),
}

/// Whether datagrams may be cut on their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fragmentation {
    /// DF set; what does not fit is EMSGSIZE here or lost there.
    Never,
    Allowed,
}

pub struct Socket {
    fd: OwnedFd,
    ipv6: bool,
    port: u16,
    fragmentation: Fragmentation,
    send_buffer_bytes: usize,
    /// Cleared for good when the kernel refuses a train.
    pub gso: bool,
    /// Whether trains come in.
    pub gro: bool,
}

impl Socket {
    fn open(ipv6: bool, options: &Options) -> Result<Socket, BindError> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET };
        // SAFETY: no pointers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(BindError::Other(io::Error::last_os_error()));
        }
        // SAFETY: `raw` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut socket = Socket {
            fd,
            ipv6,
            port: 0,
            fragmentation: Fragmentation::Allowed,
            send_buffer_bytes: 0,
            gso: false,
            gro: false,
        };
        if ipv6 {
            socket.set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1).map_err(BindError::Other)?;
        }
        if options.mark != 0 {
            socket
                .set(libc::SOL_SOCKET, libc::SO_MARK, options.mark as libc::c_int)
                .map_err(BindError::MarkNotPermitted)?;
        }
        // Without the right to go past the host's limits, what they allow must do.
        if socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES).is_err() {
            socket.set(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER_BYTES).map_err(BindError::Other)?;
        }
        if socket.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES).is_err() {
            socket.set(libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER_BYTES).map_err(BindError::Other)?;
        }
        let granted = get_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF).map_err(BindError::Other)?;
        socket.send_buffer_bytes = usize::try_from(granted).unwrap_or(0);
        socket.set_fragmentation(Fragmentation::Never).map_err(BindError::Other)?;
        socket.gro = options.gro && socket.set(libc::IPPROTO_UDP, UDP_GRO, 1).is_ok();
        // Setting the segment size to 0 changes nothing and tells whether the kernel knows the option.
        socket.gso = options.gso && socket.set(libc::IPPROTO_UDP, UDP_SEGMENT, 0).is_ok();
        Ok(socket)
    }

    fn set(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        set_option(&self.fd, level, name, value)
    }

    /// Set or clear DF for what is sent from now on; costs a system call only when it changes.
    #[inline]
    pub fn set_fragmentation(&mut self, wanted: Fragmentation) -> io::Result<()> {
        if self.fragmentation == wanted {
            return Ok(());
        }
        let (level, name) = if self.ipv6 {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        };
        // The values of both families are the same. In IPv6 only the sender cuts, to the length that a router told it:
        // without ICMP nothing is cut. (IPV6_MTU would only say how short the pieces are, not that there be any.)
        let value = match wanted {
            Fragmentation::Never => libc::IP_PMTUDISC_DO,
            Fragmentation::Allowed => libc::IP_PMTUDISC_DONT,
        };
        self.set(level, name, value)?;
        self.fragmentation = wanted;
        Ok(())
    }

    fn bind(&mut self, port: u16) -> io::Result<()> {
        let address = if self.ipv6 {
            SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))
        } else {
            SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
        };
        let name = SockAddr::from(address);
        // SAFETY: pointer and length are those of `name`.
        if unsafe { libc::bind(self.fd.as_raw_fd(), name.as_ptr(), name.len()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut bound = SockAddr::empty();
        let mut len = SockAddr::CAPACITY;
        // SAFETY: `bound` has room for `len` bytes.
        if unsafe { libc::getsockname(self.fd.as_raw_fd(), bound.as_mut_ptr(), &mut len) } < 0 {
            return Err(io::Error::last_os_error());
        }
        self.port = bound.to_std().map_or(port, |address| address.port());
        Ok(())
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether answers to those who have proven nothing may go out. The kernel holds what it sends to an address of this
    /// link that nobody answers at, for seconds: made-up senders would fill the buffer that all share.
    pub fn has_room_for_strangers(&self) -> bool {
        held_bytes(&self.fd).is_ok_and(|held| held < self.send_buffer_bytes / 4)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The sockets of both families; a host may lack one.
pub struct Pair {
    pub ipv4: Option<Socket>,
    pub ipv6: Option<Socket>,
}

impl Pair {
    /// Bind both families to `port`, or to the next one above it that is free in both; 0 means any.
    pub fn bind(port: u16, options: &Options) -> Result<Pair, BindError> {
        for offset in 0..PORTS_TRIED {
            let Some(candidate) = port.checked_add(offset) else { break };
            // With port 0, the kernel's choice for IPv4 may be taken in IPv6: then it chooses again.
            let candidate = if port == 0 { 0 } else { candidate };
            if let Some(pair) = Self::try_bind(candidate, options)? {
                return Ok(pair);
            }
        }
        Err(BindError::PortsTaken(port))
    }

    fn try_bind(port: u16, options: &Options) -> Result<Option<Pair>, BindError> {
        let mut ipv4 = open_family(false, options)?;
        let mut ipv6 = open_family(true, options)?;
        let mut port = port;
        if let Some(socket) = &mut ipv4 {
            match bind_family(socket, port)? {
                Bound::Yes => port = socket.port(),
                Bound::Taken => return Ok(None),
                Bound::NoFamily => ipv4 = None,
            }
        }
        if let Some(socket) = &mut ipv6 {
            match bind_family(socket, port)? {
                Bound::Yes => {}
                Bound::Taken => return Ok(None),
                Bound::NoFamily => ipv6 = None,
            }
        }
        if ipv4.is_none() && ipv6.is_none() {
            return Err(BindError::Other(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)));
        }
        Ok(Some(Pair { ipv4, ipv6 }))
    }

    #[inline]
    pub fn of(&mut self, address: &SocketAddr) -> Option<&mut Socket> {
        if address.is_ipv4() {
            self.ipv4.as_mut()
        } else {
            self.ipv6.as_mut()
        }
    }

    pub fn port(&self) -> u16 {
        self.ipv4.as_ref().or(self.ipv6.as_ref()).map_or(0, Socket::port)
    }
}

enum Bound {
    Yes,
    Taken,
    NoFamily,
}

fn bind_family(socket: &mut Socket, port: u16) -> Result<Bound, BindError> {
    match socket.bind(port) {
        Ok(()) => Ok(Bound::Yes),
        Err(error) => match error.raw_os_error() {
            Some(libc::EADDRINUSE) => Ok(Bound::Taken),
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => Ok(Bound::NoFamily),
            _ => Err(BindError::Other(error)),
        },
    }
}

fn open_family(ipv6: bool, options: &Options) -> Result<Option<Socket>, BindError> {
    match Socket::open(ipv6, options) {
        Ok(socket) => Ok(Some(socket)),
        Err(BindError::Other(error)) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Options = Options { mark: 0, gro: true, gso: true };

    #[test]
    fn both_families_share_a_port_and_a_taken_one_is_stepped_over() {
        let first = Pair::bind(0, &PLAIN).expect("two sockets");
        let port = first.port();
        assert_ne!(port, 0);
        if let (Some(ipv4), Some(ipv6)) = (&first.ipv4, &first.ipv6) {
            assert_eq!(ipv4.port(), ipv6.port());
        }
        let second = Pair::bind(port, &PLAIN).expect("two more sockets");
        assert!(second.port() > port);
    }
}

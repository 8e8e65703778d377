//! The TUN device: opening, offloads, one read, one write. Facts: kernel drivers/net/tun.c, linux/if_tun.h.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::netlink;
use super::virtio;

const IFF_TUN: libc::c_short = 0x0001;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;

const TUN_F_CSUM: libc::c_uint = 0x01;
const TUN_F_TSO4: libc::c_uint = 0x02;
const TUN_F_TSO6: libc::c_uint = 0x04;
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// What one read may bring: the virtio header and the largest IP packet.
pub const READ_BYTES: usize = virtio::HEADER_BYTES + 65_536;

const QUEUE_PACKETS: libc::c_int = 1000;

/// Why no device could be had; the variant tells whose fault it is.
#[derive(Debug)]
pub enum OpenError {
    /// The kernel has no TUN driver, or /dev/net/tun is missing.
    Missing(io::Error),
    NotPermitted(io::Error),
    /// Another program holds an interface of this name.
    NameTaken(String),
    /// The name is longer than 15 bytes, or empty, or has a slash in it.
    BadName(String),
    Other(&'static str, io::Error),
}

/// Which offloads are asked for, and after opening, which were granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// The kernel hands over TCP super-packets.
    pub tso: bool,
    /// The kernel hands over UDP super-packets.
    pub uso: bool,
}

pub struct Device {
    fd: OwnedFd,
    name: String,
    features: Features,
    queue_limited: bool,
}

impl Device {
    /// Create the interface `name`, with `mtu`, not yet up. `wire_overhead_bytes` is what a packet grows by on its way out:
    /// super-packets are then limited to what one UDP send carries.
    pub fn open(name: &str, mtu: u16, wanted: Features, wire_overhead_bytes: usize) -> Result<Device, OpenError> {
        if name.is_empty() || name.len() > 15 || name.contains(['/', '\0']) || name == "." || name == ".." {
            return Err(OpenError::BadName(name.to_owned()));
        }
        // SAFETY: the path is a NUL-terminated literal.
        let raw = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if raw < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => OpenError::Missing(error),
                Some(libc::EACCES | libc::EPERM) => OpenError::NotPermitted(error),
                _ => OpenError::Other("open /dev/net/tun", error),
            });
        }
        // SAFETY: `raw` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut request = interface_request(name);
        request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR;
        // SAFETY: TUNSETIFF takes a struct ifreq, which outlives the call.
        if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETIFF as _, &mut request) } < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => OpenError::NotPermitted(error),
                Some(libc::EBUSY | libc::EINVAL | libc::EEXIST) => OpenError::NameTaken(name.to_owned()),
                _ => OpenError::Other("create the interface", error),
            });
        }
        let features = set_offloads(&fd, wanted)?;
        let mut device = Device { fd, name: name.to_owned(), features, queue_limited: false };
        device.configure(mtu, wire_overhead_bytes)?;
        Ok(device)
    }

    fn configure(&mut self, mtu: u16, wire_overhead_bytes: usize) -> Result<(), OpenError> {
        // SAFETY: no pointers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(OpenError::Other("open a socket to set the MTU", io::Error::last_os_error()));
        }
        // SAFETY: `raw` is a fresh descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut request = interface_request(&self.name);
        request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
        // SAFETY: SIOCSIFMTU takes a struct ifreq, which outlives the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &mut request) } < 0 {
            let error = io::Error::last_os_error();
            return Err(match error.raw_os_error() {
                Some(libc::EPERM) => OpenError::NotPermitted(error),
                _ => OpenError::Other("set the interface's MTU", error),
            });
        }
        // The ifreq union's metric is the queue length here. A shorter queue only drops earlier, so a refusal is no fault.
        request.ifr_ifru.ifru_metric = QUEUE_PACKETS;
        // SAFETY: SIOCSIFTXQLEN takes a struct ifreq, which outlives the call.
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN as _, &mut request) };
        // SAFETY: SIOCGIFINDEX takes a struct ifreq, which outlives the call.
        if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as _, &mut request) } == 0 {
            // SAFETY: SIOCGIFINDEX has just filled this member of the union.
            let index = unsafe { request.ifr_ifru.ifru_ifindex };
            let segments = (65_507 / (usize::from(mtu) + wire_overhead_bytes)).clamp(1, 64);
            self.queue_limited = netlink::set_gso_max_segs(index as u32, segments as u32).is_ok();
        }
        Ok(())
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn features(&self) -> Features {
        self.features
    }

    /// Whether the kernel took our limit on super-packets (else one read may need two sends).
    pub fn queue_limited(&self) -> bool {
        self.queue_limited
    }

    /// Read one packet, its virtio header first. `WouldBlock` when there is none.
    #[inline]
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: pointer and length are those of `buffer`.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(got as usize)
    }

    /// Write one packet, its virtio header first.
    #[inline]
    pub fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        // SAFETY: IoSlice has the layout of struct iovec, and the slices outlive the call.
        let put = unsafe { libc::writev(self.fd.as_raw_fd(), parts.as_ptr().cast(), parts.len() as libc::c_int) };
        if put < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsRawFd for Device {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Ask for the offloads; what an older kernel refuses is left out.
fn set_offloads(fd: &OwnedFd, wanted: Features) -> Result<Features, OpenError> {
    let mut attempts = [Some(wanted), None, None];
    if wanted.uso {
        attempts[1] = Some(Features { tso: wanted.tso, uso: false });
    }
    if wanted.tso {
        attempts[2] = Some(Features { tso: false, uso: false });
    }
    let mut last = None;
    for features in attempts.into_iter().flatten() {
        let mut flags = 0;
        if features.tso || features.uso {
            flags |= TUN_F_CSUM;
        }
        if features.tso {
            flags |= TUN_F_TSO4 | TUN_F_TSO6;
        }
        if features.uso {
            flags |= TUN_F_USO4 | TUN_F_USO6;
        }
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        if unsafe { libc::ioctl(fd.as_raw_fd(), TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) } == 0 {
            return Ok(features);
        }
        last = Some(io::Error::last_os_error());
    }
    match last {
        // The kernel knows no offloads at all, and none were granted: packets come whole.
        Some(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Features { tso: false, uso: false }),
        Some(error) => Err(OpenError::Other("set the interface's offloads", error)),
        None => Ok(Features { tso: false, uso: false }),
    }
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: struct ifreq is plain old data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request
}

//! Building and flushing trains of datagrams.
//!
//! A builder is one message for the kernel: datagrams to one address, all of one length but the last, which UDP_SEGMENT cuts
//! apart as late as it can. Datagrams are written and sealed in place. What a train cannot carry goes one datagram at a time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use super::socket::{Fragmentation, Pair, Socket, UDP_SEGMENT};
use crate::os::SockAddr;

const BUILDERS: usize = 32;
/// The largest UDP payload over IPv4.
const TRAIN_BYTES: usize = 65_507;
/// UDP_MAX_SEGMENTS of kernels before 6.9; later ones take 128.
const TRAIN_DATAGRAMS: usize = 64;

/// Where a datagram goes and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub to: SocketAddr,
    /// Told in a fault: whose path this is.
    pub owner: u32,
    /// No trains, and cutting on the way is allowed.
    pub plain: bool,
}

/// A datagram that the kernel refused to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendFault {
    pub owner: u32,
    pub to: SocketAddr,
    pub errno: i32,
}

/// What flushing did; the caller adds it to its counters.
#[derive(Default)]
pub struct Report {
    pub datagrams: u64,
    pub bytes: u64,
    pub calls: u64,
    /// Datagrams dropped because a buffer was full.
    pub congested: u64,
    /// Datagrams dropped for another reason, told in `faults`.
    pub refused: u64,
    /// How often a socket gave up trains.
    pub gso_given_up: u64,
    pub faults: Vec<SendFault>,
}

struct Builder {
    route: Route,
    start: usize,
    len: usize,
    segment: usize,
    count: usize,
    closed: bool,
}

/// All builders of a turn.
pub struct Outbox {
    arena: Vec<u8>,
    builders: Vec<Builder>,
    bytes: usize,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox { arena: vec![0; BUILDERS * TRAIN_BYTES], builders: Vec::with_capacity(BUILDERS), bytes: 0 }
    }
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.builders.is_empty()
    }

    /// Bytes that wait to be flushed.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Room for up to `count` datagrams of `segment` bytes, of which the last may have only `last` bytes. Returns how many
    /// were granted (at least one) and their place, or None when everything is full: flush, then ask again.
    #[inline]
    pub fn reserve(&mut self, route: &Route, segment: usize, count: usize, last: usize) -> Option<(usize, &mut [u8])> {
        debug_assert!(count > 0 && last > 0 && last <= segment && segment <= TRAIN_BYTES);
        let first = if count == 1 { last } else { segment };
        // Only the newest builder to an address may grow: datagrams of a path stay in order.
        let newest = self.builders.iter().rposition(|one| one.route == *route);
        let at = match newest {
            Some(at) if self.builders[at].takes(first) => at,
            other => {
                if let Some(at) = other {
                    self.builders[at].closed = true;
                }
                if self.builders.len() == BUILDERS {
                    return None;
                }
                let start = self.builders.len() * TRAIN_BYTES;
                self.builders.push(Builder { route: *route, start, len: 0, segment: first, count: 0, closed: false });
                self.builders.len() - 1
            }
        };
        let builder = &mut self.builders[at];
        let by_bytes = (TRAIN_BYTES - builder.len) / segment;
        let mut granted = count.min(TRAIN_DATAGRAMS - builder.count).min(by_bytes.max(1));
        if first < builder.segment {
            granted = 1;
        }
        let bytes = if granted == count { (count - 1) * segment + last } else { granted * segment };
        let place = builder.start + builder.len;
        builder.len += bytes;
        builder.count += granted;
        builder.closed = (if granted == count { last } else { segment }) != builder.segment;
        self.bytes += bytes;
        Some((granted, &mut self.arena[place..place + bytes]))
    }

    /// Take the newest reservation back: `datagrams` of together `bytes` were not filled after all.
    pub fn give_back(&mut self, route: &Route, datagrams: usize, bytes: usize) {
        if let Some(at) = self.builders.iter().rposition(|one| one.route == *route) {
            let builder = &mut self.builders[at];
            builder.len -= bytes;
            builder.count -= datagrams;
            builder.closed = true;
            self.bytes -= bytes;
            if builder.count == 0 {
                // It was begun for this reservation, so it is the last; left, it would go out as an empty datagram.
                debug_assert_eq!(at + 1, self.builders.len());
                self.builders.truncate(at);
            }
        }
    }

    /// Put a whole datagram in; false when everything is full.
    pub fn push(&mut self, route: &Route, datagram: &[u8]) -> bool {
        match self.reserve(route, datagram.len(), 1, datagram.len()) {
            Some((_, place)) => {
                place.copy_from_slice(datagram);
                true
            }
            None => false,
        }
    }

    /// Send everything, in order for each address.
    pub fn flush(&mut self, sockets: &mut Pair, report: &mut Report) {
        let mut at = 0;
        while at < self.builders.len() {
            let head = &self.builders[at].route;
            let (ipv6, plain) = (head.to.is_ipv6(), head.plain);
            let mut end = at + 1;
            while end < self.builders.len() {
                let next = &self.builders[end].route;
                if next.to.is_ipv6() != ipv6 || next.plain != plain {
                    break;
                }
                end += 1;
            }
            match sockets.of(&head.to) {
                Some(socket) => self.send_group(socket, at..end, plain, report),
                None => {
                    for builder in self.builders[at..end].iter().filter(|one| one.count > 0) {
                        report.refuse(builder, builder.count, libc::EAFNOSUPPORT);
                    }
                }
            }
            at = end;
        }
        self.builders.clear();
        self.bytes = 0;
    }

    fn send_group(&self, socket: &mut Socket, group: std::ops::Range<usize>, plain: bool, report: &mut Report) {
        let wanted = if plain { Fragmentation::Allowed } else { Fragmentation::Never };
        if let Err(error) = socket.set_fragmentation(wanted) {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            for builder in &self.builders[group] {
                report.refuse(builder, builder.count, errno);
            }
            return;
        }
        let mut at = group.start;
        while at < group.end {
            let builder = &self.builders[at];
            if builder.count > 1 && (plain || !socket.gso) {
                self.send_singly(socket, builder, report);
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < group.end && (self.builders[end].count == 1 || (!plain && socket.gso)) {
                end += 1;
            }
            at += self.send_trains(socket, at..end, report);
        }
    }

    /// One call for several builders; returns how many are done with, sent or not.
    fn send_trains(&self, socket: &mut Socket, group: std::ops::Range<usize>, report: &mut Report) -> usize {
        let mut batch = Batch::new();
        let builders = &self.builders[group];
        for builder in builders.iter() {
            let bytes = &self.arena[builder.start..builder.start + builder.len];
            batch.add(&builder.route.to, bytes, if builder.count > 1 { builder.segment } else { 0 });
        }
        let sent = match batch.send(socket, report) {
            Ok(sent) => sent,
            Err(error) => {
                let builder = &builders[0];
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                if builder.count > 1 && matches!(errno, libc::EIO | libc::EINVAL) {
                    // Trains are what this kernel or device dislikes, unless single datagrams fare no better.
                    let before = report.datagrams;
                    self.send_singly(socket, builder, report);
                    if report.datagrams - before == builder.count as u64 && socket.gso {
                        socket.gso = false;
                        report.gso_given_up += 1;
                    }
                } else {
                    report.refuse(builder, builder.count, errno);
                }
                return 1;
            }
        };
        for builder in &builders[..sent] {
            report.datagrams += builder.count as u64;
            report.bytes += builder.len as u64;
        }
        sent
    }

    fn send_singly(&self, socket: &Socket, builder: &Builder, report: &mut Report) {
        let bytes = &self.arena[builder.start..builder.start + builder.len];
        let mut datagrams = bytes.chunks(builder.segment);
        let mut left = builder.count;
        while left > 0 {
            let mut batch = Batch::new();
            for datagram in datagrams.clone().take(BUILDERS) {
                batch.add(&builder.route.to, datagram, 0);
            }
            let done = match batch.send(socket, report) {
                Ok(sent) => {
                    for datagram in datagrams.clone().take(sent) {
                        report.datagrams += 1;
                        report.bytes += datagram.len() as u64;
                    }
                    sent
                }
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    // A full buffer has no room for the rest either.
                    let refused = if is_congestion(errno) { left } else { 1 };
                    report.refuse(builder, refused, errno);
                    refused
                }
            };
            left = left.saturating_sub(done);
            for _ in 0..done {
                datagrams.next();
            }
        }
    }
}

impl Builder {
    #[inline]
    fn takes(&self, datagram: usize) -> bool {
        !self.closed && datagram <= self.segment && self.count < TRAIN_DATAGRAMS && self.len + datagram <= TRAIN_BYTES
    }
}

impl Report {
    fn refuse(&mut self, builder: &Builder, datagrams: usize, errno: i32) {
        if is_congestion(errno) {
            self.congested += datagrams as u64;
            return;
        }
        self.refused += datagrams as u64;
        let fault = SendFault { owner: builder.route.owner, to: builder.route.to, errno };
        if self.faults.len() < BUILDERS && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

fn is_congestion(errno: i32) -> bool {
    matches!(errno, libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM)
}

/// A control message with a u16 in it, as UDP_SEGMENT wants it.
#[repr(C)]
#[derive(Clone, Copy)]
struct SegmentControl {
    header: libc::cmsghdr,
    size: u16,
    padding: [u8; 6],
}

/// The arguments of one sendmmsg.
struct Batch {
    count: usize,
    headers: [libc::mmsghdr; BUILDERS],
    vectors: [libc::iovec; BUILDERS],
    names: [SockAddr; BUILDERS],
    controls: [SegmentControl; BUILDERS],
}

impl Batch {
    fn new() -> Batch {
        // SAFETY: plain old data throughout, for which zeroes are valid.
        unsafe { std::mem::zeroed() }
    }

    fn add(&mut self, to: &SocketAddr, bytes: &[u8], segment: usize) {
        let at = self.count;
        self.count += 1;
        self.names[at] = SockAddr::from(*to);
        self.vectors[at] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        if segment > 0 {
            self.controls[at].header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
            self.controls[at].header.cmsg_level = libc::IPPROTO_UDP;
            self.controls[at].header.cmsg_type = UDP_SEGMENT;
            self.controls[at].size = segment as u16;
        }
    }

    /// How many were sent; the error is that of the first when none was.
    fn send(&mut self, socket: &Socket, report: &mut Report) -> io::Result<usize> {
        for at in 0..self.count {
            let header = &mut self.headers[at].msg_hdr;
            header.msg_name = self.names[at].as_mut_ptr().cast();
            header.msg_namelen = self.names[at].len();
            header.msg_iov = &mut self.vectors[at];
            header.msg_iovlen = 1;
            if self.controls[at].size > 0 {
                header.msg_control = (&mut self.controls[at] as *mut SegmentControl).cast();
                header.msg_controllen = size_of::<SegmentControl>() as _;
            }
        }
        loop {
            report.calls += 1;
            // SAFETY: the pointers in `headers` point into `self` and to the bytes given to `add`, which the caller holds.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    self.count as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            if sent >= 0 {
                return Ok(sent as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
#[path = "send_test.rs"]
mod tests;

//! Gluing consecutive segments of one flow into a super-packet before it is written to the device.
//!
//! Packets stay where they were opened, in the caller's arena; a run only remembers where. They came authenticated out of a
//! tunnel, so their checksums are not verified again. A flow's packets are written in the order they came.

use std::io::IoSlice;

use super::checksum;
use super::virtio::{Header, Kind};
use crate::filter::headers::{Headers, TCP, UDP};

const MAX_RUNS: usize = 32;
const MAX_SEGMENTS: usize = 64;
const MAX_IP_BYTES: usize = 65_535;

const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;

/// Which super-packets the device may be given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    pub tcp: bool,
    pub udp: bool,
}

#[derive(Clone, Copy)]
struct Place {
    start: u32,
    len: u32,
}

struct Run {
    headers: Headers,
    header_len: usize,
    segment_size: usize,
    total: usize,
    next_sequence: u32,
    push: bool,
    open: bool,
    /// The first is the whole first packet, the others are payloads.
    places: Vec<Place>,
}

/// Runs that wait to be written. Keeps its buffers, so that the packet path allocates nothing.
pub struct Coalescer {
    runs: Vec<Run>,
    used: usize,
    allowed: Allowed,
}

impl Coalescer {
    pub fn new(allowed: Allowed) -> Coalescer {
        Coalescer { runs: Vec::with_capacity(MAX_RUNS), used: 0, allowed }
    }

    pub fn is_full(&self) -> bool {
        self.used == MAX_RUNS
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Take the packet at `start` of `arena`, whose headers are `headers`. Drain first when full.
    #[inline]
    pub fn push(&mut self, arena: &[u8], start: usize, headers: &Headers) {
        debug_assert!(!self.is_full());
        let packet = &arena[start..start + usize::from(headers.len)];
        let shape = self.shape(packet, headers);
        if let Some(run) = self.runs[..self.used].iter_mut().rev().find(|run| same_flow(&run.headers, headers)) {
            if let (true, Some(header_len)) = (run.open, shape) {
                let first = &arena[run.places[0].start as usize..];
                if run.accepts(first, packet, header_len) {
                    run.append(start, packet, header_len);
                    return;
                }
            }
            run.open = false;
        }
        self.begin(start, packet, headers, shape);
    }

    /// Where the payload begins when this packet may be part of a run.
    #[inline]
    fn shape(&self, packet: &[u8], headers: &Headers) -> Option<usize> {
        let upper = usize::from(headers.upper);
        if headers.fragment || upper != if headers.ipv6 { 40 } else { 20 } {
            return None;
        }
        let (header_len, least) = match headers.protocol {
            TCP if self.allowed.tcp && headers.detail & !TCP_PSH == TCP_ACK => {
                (upper + usize::from(packet[upper + 12] >> 4) * 4, upper + 20)
            }
            // Whoever claims another length than the IP header's means something by it that a run could not keep.
            UDP if self.allowed.udp
                && packet[upper + 6..upper + 8] != [0, 0]
                && usize::from(u16::from_be_bytes([packet[upper + 4], packet[upper + 5]])) == packet.len() - upper =>
            {
                (upper + 8, upper + 8)
            }
            _ => return None,
        };
        (header_len >= least && header_len < packet.len()).then_some(header_len)
    }

    fn begin(&mut self, start: usize, packet: &[u8], headers: &Headers, shape: Option<usize>) {
        let header_len = shape.unwrap_or(packet.len());
        let payload = packet.len() - header_len;
        let push = headers.protocol == TCP && headers.detail & TCP_PSH != 0;
        let next_sequence = match (shape, headers.protocol) {
            (Some(_), TCP) => sequence(packet, usize::from(headers.upper)).wrapping_add(payload as u32),
            _ => 0,
        };
        if self.used == self.runs.len() {
            self.runs.push(Run {
                headers: *headers,
                header_len: 0,
                segment_size: 0,
                total: 0,
                next_sequence: 0,
                push: false,
                open: false,
                places: Vec::with_capacity(MAX_SEGMENTS),
            });
        }
        let run = &mut self.runs[self.used];
        self.used += 1;
        run.headers = *headers;
        run.header_len = header_len;
        run.segment_size = payload;
        run.total = packet.len();
        run.next_sequence = next_sequence;
        run.push = push;
        run.open = shape.is_some() && !push;
        run.places.clear();
        run.places.push(Place { start: start as u32, len: packet.len() as u32 });
    }

    /// Hand every waiting packet to `sink`, its virtio header first, and forget them.
    #[inline]
    pub fn drain(&mut self, arena: &mut [u8], mut sink: impl FnMut(&[IoSlice<'_>])) {
        for run in &self.runs[..self.used] {
            let header = run.seal(arena).encode();
            let mut parts = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
            parts[0] = IoSlice::new(&header);
            for (part, place) in parts[1..].iter_mut().zip(&run.places) {
                *part = IoSlice::new(&arena[place.start as usize..(place.start + place.len) as usize]);
            }
            sink(&parts[..=run.places.len()]);
        }
        self.used = 0;
    }
}

impl Run {
    #[inline]
    fn accepts(&self, first: &[u8], packet: &[u8], header_len: usize) -> bool {
        let payload = packet.len() - header_len;
        if header_len != self.header_len
            || payload > self.segment_size
            || self.places.len() == MAX_SEGMENTS
            || self.total + payload > MAX_IP_BYTES
        {
            return false;
        }
        let same_ip = if self.headers.ipv6 {
            first[..4] == packet[..4] && first[7] == packet[7]
        } else {
            let atomic = packet[6] & 0x40 != 0;
            let id = u16::from_be_bytes([packet[4], packet[5]]);
            let expected = u16::from_be_bytes([first[4], first[5]]).wrapping_add(self.places.len() as u16);
            // RFC 6864: the ID means nothing when the packet may not be fragmented.
            first[1] == packet[1] && first[6..9] == packet[6..9] && (atomic || id == expected)
        };
        if !same_ip || self.headers.protocol == UDP {
            return same_ip;
        }
        let upper = usize::from(self.headers.upper);
        sequence(packet, upper) == self.next_sequence
            && first[upper + 8..upper + 13] == packet[upper + 8..upper + 13]
            && first[upper + 14..upper + 16] == packet[upper + 14..upper + 16]
            && first[upper + 18..header_len] == packet[upper + 18..header_len]
    }

    #[inline]
    fn append(&mut self, start: usize, packet: &[u8], header_len: usize) {
        let payload = packet.len() - header_len;
        self.places.push(Place { start: (start + header_len) as u32, len: payload as u32 });
        self.total += payload;
        self.next_sequence = self.next_sequence.wrapping_add(payload as u32);
        let push = self.headers.protocol == TCP && packet[usize::from(self.headers.upper) + 13] & TCP_PSH != 0;
        self.push |= push;
        self.open = payload == self.segment_size && !push;
    }

    /// Make the first packet's headers those of the whole run.
    fn seal(&self, arena: &mut [u8]) -> Header {
        if self.places.len() == 1 {
            return Header::VERIFIED;
        }
        let start = self.places[0].start as usize;
        let upper = usize::from(self.headers.upper);
        let head = &mut arena[start..start + self.header_len];
        let upper_len = self.total - upper;
        if self.headers.ipv6 {
            head[4..6].copy_from_slice(&(upper_len as u16).to_be_bytes());
        } else {
            head[2..4].copy_from_slice(&(self.total as u16).to_be_bytes());
            head[10..12].fill(0);
            let sum = checksum::finish(checksum::add(0, &head[..20]));
            head[10..12].copy_from_slice(&sum.to_ne_bytes());
        }
        let addresses = if self.headers.ipv6 { &head[8..40] } else { &head[12..20] };
        let partial = checksum::fold(checksum::pseudo(addresses, self.headers.protocol, upper_len)).to_ne_bytes();
        let (kind, offset) = if self.headers.protocol == UDP {
            head[upper + 4..upper + 6].copy_from_slice(&(upper_len as u16).to_be_bytes());
            (Kind::Udp, 6)
        } else {
            if self.push {
                head[upper + 13] |= TCP_PSH;
            }
            (if self.headers.ipv6 { Kind::TcpV6 } else { Kind::TcpV4 }, 16)
        };
        head[upper + offset..upper + offset + 2].copy_from_slice(&partial);
        Header {
            kind,
            needs_checksum: true,
            data_valid: false,
            header_len: self.header_len as u16,
            segment_size: self.segment_size as u16,
            checksum_start: self.headers.upper,
            checksum_offset: offset as u16,
        }
    }
}

#[inline]
fn same_flow(one: &Headers, other: &Headers) -> bool {
    one.source_port == other.source_port
        && one.destination_port == other.destination_port
        && one.source == other.source
        && one.destination == other.destination
        && one.protocol == other.protocol
        && one.ipv6 == other.ipv6
}

#[inline]
fn sequence(packet: &[u8], upper: usize) -> u32 {
    u32::from_be_bytes([packet[upper + 4], packet[upper + 5], packet[upper + 6], packet[upper + 7]])
}

#[cfg(test)]
#[path = "coalesce_test.rs"]
mod tests;

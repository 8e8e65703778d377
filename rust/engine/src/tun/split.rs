//! Cutting the kernel's super-packets (TSO, USO) into the segments that go on the wire.
//!
//! Segments are written one by one straight to where they will be sealed. The kernel's own checksum field holds only
//! half a sum there, so every segment's is computed anew. Rules: RFC 9293 for sequence numbers and flags, linux/udp.h for USO.

use super::checksum;
use super::virtio::{Header, Kind};

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// The longest headers a segment repeats: IPv4 with options or IPv6 with extensions, and TCP with options.
const MAX_HEADER_BYTES: usize = 256;

/// Why a packet read from the device is not cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// One packet of the device, seen as the segments it stands for.
pub struct Segments<'a> {
    packet: &'a [u8],
    kind: Kind,
    upper: usize,
    header_len: usize,
    segment_size: usize,
    count: usize,
    checksum_start: usize,
    checksum_at: Option<usize>,
}

impl<'a> Segments<'a> {
    /// Look at `packet` (an IP packet without its virtio header).
    pub fn new(header: &Header, packet: &'a [u8]) -> Result<Segments<'a>, Malformed> {
        if packet.len() < 20 {
            return Err(Malformed);
        }
        let checksum_start = usize::from(header.checksum_start);
        if header.kind == Kind::Single {
            let at = checksum_start + usize::from(header.checksum_offset);
            if header.needs_checksum && (checksum_start > packet.len() || at + 2 > packet.len()) {
                return Err(Malformed);
            }
            return Ok(Segments {
                packet,
                kind: Kind::Single,
                upper: 0,
                header_len: packet.len(),
                segment_size: 0,
                count: 1,
                checksum_start,
                checksum_at: header.needs_checksum.then_some(at),
            });
        }
        let version = packet[0] >> 4;
        // The kernel always asks for the checksum with segmentation; its start is where the upper layer begins.
        let upper = checksum_start;
        let least = if version == 4 { usize::from(packet[0] & 0x0f) * 4 } else { 40 };
        let (version_fits, fixed) = match header.kind {
            Kind::TcpV4 => (version == 4, 20),
            Kind::TcpV6 => (version == 6, 20),
            _ => (version == 4 || version == 6, 8),
        };
        if !version_fits || !header.needs_checksum || least < 20 || upper < least || upper + fixed > packet.len() {
            return Err(Malformed);
        }
        let upper_len = if header.kind == Kind::Udp { 8 } else { usize::from(packet[upper + 12] >> 4) * 4 };
        let header_len = upper + upper_len;
        let segment_size = usize::from(header.segment_size);
        if upper_len < fixed || header_len > MAX_HEADER_BYTES || header_len >= packet.len() || segment_size == 0 {
            return Err(Malformed);
        }
        let count = (packet.len() - header_len).div_ceil(segment_size);
        Ok(Segments {
            packet,
            kind: header.kind,
            upper,
            header_len,
            segment_size,
            count,
            checksum_start,
            checksum_at: None,
        })
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of segment `index`, headers included.
    pub fn len_of(&self, index: usize) -> usize {
        if self.count == 1 {
            return self.packet.len();
        }
        let payload = self.packet.len() - self.header_len - index * self.segment_size;
        self.header_len + payload.min(self.segment_size)
    }

    /// Write segment `index` into `out`, which has exactly `len_of(index)` bytes.
    #[inline]
    pub fn write(&self, index: usize, out: &mut [u8]) {
        if self.kind == Kind::Single {
            out.copy_from_slice(self.packet);
            if let Some(at) = self.checksum_at {
                let sum = checksum::finish(checksum::add(0, &out[self.checksum_start..]));
                // RFC 768: a computed zero is sent as ones, for zero means "none".
                let sum = if sum == 0 { 0xffff } else { sum };
                out[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
            }
            return;
        }
        let offset = index * self.segment_size;
        let payload_at = self.header_len + offset;
        out[..self.header_len].copy_from_slice(&self.packet[..self.header_len]);
        let payload_len = out.len() - self.header_len;
        out[self.header_len..].copy_from_slice(&self.packet[payload_at..payload_at + payload_len]);
        self.fix_ip(index, out);
        if self.kind == Kind::Udp {
            self.fix_udp(out);
        } else {
            self.fix_tcp(index, offset, out);
        }
    }

    #[inline]
    fn fix_ip(&self, index: usize, out: &mut [u8]) {
        let len = out.len();
        if out[0] >> 4 == 4 {
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16::from_be_bytes([out[4], out[5]]).wrapping_add(index as u16);
            out[4..6].copy_from_slice(&id.to_be_bytes());
            out[10..12].fill(0);
            let header = usize::from(out[0] & 0x0f) * 4;
            let sum = checksum::finish(checksum::add(0, &out[..header]));
            out[10..12].copy_from_slice(&sum.to_ne_bytes());
        } else {
            out[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
    }

    #[inline]
    fn fix_tcp(&self, index: usize, offset: usize, out: &mut [u8]) {
        let tcp = self.upper;
        let sequence = u32::from_be_bytes([out[tcp + 4], out[tcp + 5], out[tcp + 6], out[tcp + 7]]);
        out[tcp + 4..tcp + 8].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
        if index + 1 != self.count {
            out[tcp + 13] &= !(TCP_FIN | TCP_PSH);
        }
        if index != 0 {
            out[tcp + 13] &= !TCP_CWR;
        }
        out[tcp + 16..tcp + 18].fill(0);
        let sum = checksum::finish(self.upper_sum(TCP, out));
        out[tcp + 16..tcp + 18].copy_from_slice(&sum.to_ne_bytes());
    }

    #[inline]
    fn fix_udp(&self, out: &mut [u8]) {
        let udp = self.upper;
        let len = (out.len() - udp) as u16;
        out[udp + 4..udp + 6].copy_from_slice(&len.to_be_bytes());
        out[udp + 6..udp + 8].fill(0);
        let sum = checksum::finish(self.upper_sum(UDP, out));
        let sum = if sum == 0 { 0xffff } else { sum };
        out[udp + 6..udp + 8].copy_from_slice(&sum.to_ne_bytes());
    }

    #[inline]
    fn upper_sum(&self, protocol: u8, out: &[u8]) -> u64 {
        let addresses = if out[0] >> 4 == 4 { &out[12..20] } else { &out[8..40] };
        let upper = &out[self.upper..];
        checksum::add(checksum::pseudo(addresses, protocol, upper.len()), upper)
    }
}

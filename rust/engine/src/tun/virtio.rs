//! The ten bytes before every packet of a TUN device opened with IFF_VNET_HDR (linux/virtio_net.h, host byte order).

pub const HEADER_BYTES: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How the packet behind the header is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    #[default]
    Single,
    TcpV4,
    TcpV6,
    Udp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    pub kind: Kind,
    /// The checksum at `checksum_start + checksum_offset` covers only the pseudo-header so far.
    pub needs_checksum: bool,
    /// The checksum was verified already (or the packet was authenticated end to end).
    pub data_valid: bool,
    pub header_len: u16,
    pub segment_size: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

impl Header {
    /// What stands before a packet that came out of a tunnel alone: its checksum needs no second look.
    pub const VERIFIED: Header = Header {
        kind: Kind::Single,
        needs_checksum: false,
        data_valid: true,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Read the header; None when it is short or of a kind that was never negotiated.
    pub fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !GSO_ECN {
            GSO_NONE => Kind::Single,
            GSO_TCPV4 => Kind::TcpV4,
            GSO_TCPV6 => Kind::TcpV6,
            GSO_UDP_L4 => Kind::Udp,
            _ => return None,
        };
        Some(Header {
            kind,
            needs_checksum: bytes[0] & F_NEEDS_CSUM != 0,
            data_valid: bytes[0] & F_DATA_VALID != 0,
            header_len: word(2),
            segment_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        })
    }

    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0u8; HEADER_BYTES];
        bytes[0] = if self.needs_checksum { F_NEEDS_CSUM } else { 0 } | if self.data_valid { F_DATA_VALID } else { 0 };
        bytes[1] = match self.kind {
            Kind::Single => GSO_NONE,
            Kind::TcpV4 => GSO_TCPV4,
            Kind::TcpV6 => GSO_TCPV6,
            Kind::Udp => GSO_UDP_L4,
        };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        let header = Header {
            kind: Kind::TcpV6,
            needs_checksum: true,
            data_valid: false,
            header_len: 72,
            segment_size: 1208,
            checksum_start: 40,
            checksum_offset: 16,
        };
        assert_eq!(Header::parse(&header.encode()), Some(header));
    }

    #[test]
    fn unknown_kinds_and_short_headers_are_refused() {
        assert_eq!(Header::parse(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(Header::parse(&[0; 9]), None);
    }
}

//! The few fields of an IP packet that routing, filter and coalescing look at, read once.

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
/// Tailscale's own signalling inside the tunnel.
pub const TSMP: u8 = 99;
pub const SCTP: u8 = 132;

const IPV6_HOP_BY_HOP: u8 = 0;
const IPV6_ROUTING: u8 = 43;
const IPV6_FRAGMENT: u8 = 44;
const IPV6_DESTINATION: u8 = 60;

/// An IP address as a number; IPv4 in the low 32 bits. The family is told beside it.
pub type Number = u128;

/// What stands where the ports stand, and whether it can.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Part {
    /// A whole packet, or the first fragment of one.
    First,
    /// A later fragment: it has no upper header.
    Later,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Headers {
    pub ipv6: bool,
    pub part: Part,
    /// More fragments follow, or this is one.
    pub fragment: bool,
    pub protocol: u8,
    pub source: Number,
    pub destination: Number,
    /// Ports of TCP, UDP and SCTP; else 0.
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP's flags; ICMP's type.
    pub detail: u8,
    /// Where the upper header begins.
    pub upper: u16,
    /// Length by the IP header, at most the bytes there are (padding is behind it).
    pub len: u16,
}

impl Headers {
    /// Parse an IP packet that may have padding behind it. None when it is no IP packet or is cut short.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Headers> {
        match packet.first()? >> 4 {
            4 => Self::parse_ipv4(packet),
            6 => Self::parse_ipv6(packet),
            _ => None,
        }
    }

    #[inline]
    fn parse_ipv4(packet: &[u8]) -> Option<Headers> {
        let fixed: &[u8; 20] = packet.get(..20)?.try_into().ok()?;
        let upper = usize::from(fixed[0] & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        if upper < 20 || len < upper || len > packet.len() {
            return None;
        }
        let fragment = u16::from_be_bytes([fixed[6], fixed[7]]);
        let offset = fragment & 0x1fff;
        let mut headers = Headers {
            ipv6: false,
            part: if offset == 0 { Part::First } else { Part::Later },
            fragment: fragment & 0x3fff != 0,
            protocol: fixed[9],
            source: Number::from(u32::from_be_bytes([fixed[12], fixed[13], fixed[14], fixed[15]])),
            destination: Number::from(u32::from_be_bytes([fixed[16], fixed[17], fixed[18], fixed[19]])),
            source_port: 0,
            destination_port: 0,
            detail: 0,
            upper: upper as u16,
            len: len as u16,
        };
        // RFC 1858: a fragment that begins inside the first 64 bytes could overwrite the upper header already judged.
        if headers.part == Part::Later && usize::from(offset) * 8 < 64 {
            return None;
        }
        headers.parse_upper(&packet[upper..len])?;
        Some(headers)
    }

    #[inline]
    fn parse_ipv6(packet: &[u8]) -> Option<Headers> {
        let fixed: &[u8; 40] = packet.get(..40)?.try_into().ok()?;
        let len = 40 + usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        if len > packet.len() || len > 0xffff {
            return None;
        }
        let mut headers = Headers {
            ipv6: true,
            part: Part::First,
            fragment: false,
            protocol: fixed[6],
            source: number6(&fixed[8..24]),
            destination: number6(&fixed[24..40]),
            source_port: 0,
            destination_port: 0,
            detail: 0,
            upper: 40,
            len: len as u16,
        };
        let mut at = 40;
        loop {
            match headers.protocol {
                IPV6_HOP_BY_HOP | IPV6_ROUTING | IPV6_DESTINATION => {
                    let next = packet.get(at..at + 8).filter(|_| at + 8 <= len)?;
                    headers.protocol = next[0];
                    at += 8 + usize::from(next[1]) * 8;
                }
                IPV6_FRAGMENT => {
                    let next = packet.get(at..at + 8).filter(|_| at + 8 <= len)?;
                    headers.protocol = next[0];
                    headers.fragment = true;
                    let offset = u16::from_be_bytes([next[2], next[3]]) & 0xfff8;
                    at += 8;
                    if offset != 0 {
                        if offset < 64 {
                            return None;
                        }
                        headers.part = Part::Later;
                        break;
                    }
                }
                _ => break,
            }
            if at > len {
                return None;
            }
        }
        headers.upper = at as u16;
        headers.parse_upper(&packet[at..len])?;
        Some(headers)
    }

    #[inline]
    fn parse_upper(&mut self, upper: &[u8]) -> Option<()> {
        if self.part == Part::Later {
            return Some(());
        }
        let least = match self.protocol {
            TCP => 20,
            UDP | ICMP | ICMPV6 => 8,
            SCTP => 12,
            _ => return Some(()),
        };
        if upper.len() < least {
            return None;
        }
        match self.protocol {
            ICMP | ICMPV6 => self.detail = upper[0],
            protocol => {
                self.source_port = u16::from_be_bytes([upper[0], upper[1]]);
                self.destination_port = u16::from_be_bytes([upper[2], upper[3]]);
                if protocol == TCP {
                    self.detail = upper[13];
                }
            }
        }
        Some(())
    }
}

fn number6(bytes: &[u8]) -> Number {
    let mut whole = [0u8; 16];
    whole.copy_from_slice(bytes);
    Number::from_be_bytes(whole)
}

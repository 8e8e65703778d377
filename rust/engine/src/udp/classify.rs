//! What a datagram on the WireGuard port is (wire reference 1e, "Demultiplexing one UDP socket").

const DISCO_MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
const DISCO_LEAST_BYTES: usize = 6 + 32 + 24;
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_HEADER_BYTES: usize = 20;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    WireGuard,
    Disco,
    Stun,
    /// Nothing we know.
    Unknown,
}

#[inline]
pub fn classify(datagram: &[u8]) -> Class {
    // Transport data first: type 4 in little-endian and room for header and tag.
    if datagram.len() >= 32 && matches!(datagram[..4], [1..=4, 0, 0, 0]) {
        return Class::WireGuard;
    }
    if datagram.len() >= DISCO_LEAST_BYTES && datagram[..6] == DISCO_MAGIC {
        return Class::Disco;
    }
    let stun = datagram.len() >= STUN_HEADER_BYTES
        && datagram[4..8] == STUN_COOKIE
        && datagram[0] & 0xc0 == 0
        && datagram[1] == 0x01;
    if stun {
        return Class::Stun;
    }
    Class::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_by_its_first_bytes() {
        let mut wireguard = [0u8; 32];
        wireguard[0] = 4;
        assert_eq!(classify(&wireguard), Class::WireGuard);
        wireguard[1] = 1;
        assert_eq!(classify(&wireguard), Class::Unknown);

        let mut disco = [0u8; 62];
        disco[..6].copy_from_slice("TS💬".as_bytes());
        assert_eq!(classify(&disco), Class::Disco);
        assert_eq!(classify(&disco[..61]), Class::Unknown);

        let mut stun = [0u8; 20];
        stun[0] = 0x01;
        stun[1] = 0x01;
        stun[4..8].copy_from_slice(&STUN_COOKIE);
        assert_eq!(classify(&stun), Class::Stun);
        assert_eq!(classify(&stun[..19]), Class::Unknown);
        assert_eq!(classify(&[]), Class::Unknown);
    }
}

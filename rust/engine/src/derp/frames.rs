//! DERP frames: one byte of type, four of length (big-endian), a body (upstream: `derp/derp.go`).

pub const MAGIC: [u8; 8] = [0x44, 0x45, 0x52, 0x50, 0xf0, 0x9f, 0x94, 0x91];
pub const HEADER_BYTES: usize = 5;
pub const KEY_BYTES: usize = 32;
pub const NONCE_BYTES: usize = 24;
/// The longest packet that a relay carries.
pub const LONGEST_PACKET_BYTES: usize = 64 << 10;
pub const LONGEST_CLIENT_INFO_BYTES: usize = 256 << 10;
pub const LONGEST_PING_BYTES: usize = 1000;

pub const SERVER_KEY: u8 = 0x01;
pub const CLIENT_INFO: u8 = 0x02;
pub const SERVER_INFO: u8 = 0x03;
pub const SEND_PACKET: u8 = 0x04;
pub const RECV_PACKET: u8 = 0x05;
pub const KEEP_ALIVE: u8 = 0x06;
pub const NOTE_PREFERRED: u8 = 0x07;
pub const PEER_GONE: u8 = 0x08;
pub const FORWARD_PACKET: u8 = 0x0a;
pub const WATCH_CONNECTIONS: u8 = 0x10;
pub const CLOSE_PEER: u8 = 0x11;
pub const PING: u8 = 0x12;
pub const PONG: u8 = 0x13;

pub const GONE_DISCONNECTED: u8 = 0;
pub const GONE_NOT_HERE: u8 = 1;

/// A node's public key, as relays name it.
pub type Key = [u8; KEY_BYTES];

/// A frame's type and body length, when `bytes` holds a whole header.
pub fn parse_header(bytes: &[u8]) -> Option<(u8, usize)> {
    let head = bytes.get(..HEADER_BYTES)?;
    Some((head[0], u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize))
}

/// A frame's header.
pub fn build_header(kind: u8, body_len: usize) -> [u8; HEADER_BYTES] {
    let len = (body_len as u32).to_be_bytes();
    [kind, len[0], len[1], len[2], len[3]]
}

/// Append a whole frame, its body given in parts.
pub fn push_frame(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.extend_from_slice(&build_header(kind, parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The key at the start of a body.
pub fn first_key(body: &[u8]) -> Option<&Key> {
    body.first_chunk()
}

/// Whether a packet is a disco message (magic, and long enough to be one; upstream: `disco.LooksLikeDiscoWrapper`).
pub fn is_disco(packet: &[u8]) -> bool {
    packet.len() >= 62 && packet.starts_with(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac])
}

/// Whether a packet is a cookie reply of WireGuard (paper, section 5.4.7).
pub fn is_cookie(packet: &[u8]) -> bool {
    packet.len() == 64 && packet.starts_with(&[3, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_built_is_parsed(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            push_frame(&mut out, kind, &[&body[..body.len() / 2], &body[body.len() / 2..]]);
            prop_assert_eq!(parse_header(&out), Some((kind, body.len())));
            prop_assert_eq!(&out[HEADER_BYTES..], &body[..]);
        }
    }

    #[test]
    fn a_header_in_pieces_waits() {
        assert_eq!(parse_header(&[4, 0, 0, 0]), None);
    }
}

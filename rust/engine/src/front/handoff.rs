//! A connection handed over to Python: the PROXY v2 header that goes before it (HAProxy, `doc/proxy-protocol.txt`, 2.2).

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;
const TLV_SSL: u8 = 0x20;
const CLIENT_SSL: u8 = 0x01;

/// The header for a connection from `source` to `destination`.
pub(super) fn proxy_header(source: SocketAddr, destination: SocketAddr, tls: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            body.extend_from_slice(&from.octets());
            body.extend_from_slice(&to.octets());
            TCP4
        }
        (from, to) => {
            body.extend_from_slice(&wide(from));
            body.extend_from_slice(&wide(to));
            TCP6
        }
    };
    body.extend_from_slice(&source.port().to_be_bytes());
    body.extend_from_slice(&destination.port().to_be_bytes());
    if tls {
        body.extend_from_slice(&[TLV_SSL, 0, 5, CLIENT_SSL, 0, 0, 0, 0]);
    }
    let mut out = SIGNATURE.to_vec();
    out.extend_from_slice(&[PROXY, family]);
    out.extend_from_slice(&(body.len() as u16).to_be_bytes());
    out.append(&mut body);
    out
}

fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_names_both_ends_and_tls() {
        let header = proxy_header("192.0.2.1:1000".parse().expect("a"), "198.51.100.2:443".parse().expect("a"), true);
        assert_eq!(&header[12..16], [0x21, 0x11, 0, 20]);
        assert_eq!(&header[16..28], [192, 0, 2, 1, 198, 51, 100, 2, 0x03, 0xe8, 0x01, 0xbb]);
        assert_eq!(&header[28..], [0x20, 0, 5, 1, 0, 0, 0, 0]);
        let plain = proxy_header("[2001:db8::1]:1".parse().expect("a"), "[2001:db8::2]:2".parse().expect("a"), false);
        assert_eq!((plain[13], plain.len()), (0x21, 16 + 36));
    }
}

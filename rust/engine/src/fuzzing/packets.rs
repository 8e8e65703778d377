//! Datagrams and inner packets: what they are, their headers, and the cutting and gluing of super-packets.

use std::collections::HashMap;

use super::{piece, Input};
use crate::derp::frames::is_disco;
use crate::filter::headers::{Headers, ICMP, ICMPV6, TCP, UDP};
use crate::tun::checksum;
use crate::tun::coalesce::{Allowed, Coalescer};
use crate::tun::split::Segments;
use crate::tun::virtio::{self, Kind};
use crate::udp::{classify, Class};
use crate::wireguard;

/// A datagram on the WireGuard port: the ways of telling what it is agree.
pub fn demultiplex(data: &[u8]) {
    let class = classify(data);
    assert_eq!(class == Class::Disco, is_disco(data));
    if wireguard::classify(data).is_some() {
        assert_eq!(class, Class::WireGuard);
    }
}

pub fn demultiplex_seeds() -> Vec<Vec<u8>> {
    let sized = |head: &[u8], len: usize| {
        let mut bytes = head.to_vec();
        bytes.resize(len, 1);
        bytes
    };
    vec![
        sized(&[1, 0, 0, 0], 148),
        sized(&[2, 0, 0, 0], 92),
        sized(&[3, 0, 0, 0], 64),
        sized(&[4, 0, 0, 0], 32),
        sized(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac], 62),
        sized(&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], 20),
    ]
}

/// An inner packet: what the headers say lies inside it.
pub fn headers(data: &[u8]) {
    let Some(headers) = Headers::parse(data) else { return };
    let (upper, len) = (usize::from(headers.upper), usize::from(headers.len));
    assert!(upper >= if headers.ipv6 { 40 } else { 20 });
    assert!(upper <= len && len <= data.len());
    // Padding behind the packet changes nothing.
    assert_eq!(Headers::parse(&data[..len]), Some(headers));
    if !headers.ipv6 {
        assert!(headers.source <= u128::from(u32::MAX) && headers.destination <= u128::from(u32::MAX));
    }
}

/// A packet with valid checksums, of either family.
pub(super) fn packet(ipv6: bool, protocol: u8, id: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut upper = match protocol {
        TCP => {
            let mut tcp = vec![0x9c, 0x40, 0x00, 0x50];
            tcp.extend(sequence.to_be_bytes());
            tcp.extend(77u32.to_be_bytes());
            tcp.extend([0x50, 0x10, 0x01, 0xf6, 0, 0, 0, 0]);
            tcp
        }
        UDP => [&[0x9c, 0x40, 0x00, 0x35][..], &(8 + payload.len() as u16).to_be_bytes(), &[0, 0]].concat(),
        _ => vec![if ipv6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
    };
    upper.extend(payload);
    let len = upper.len() as u16;
    let mut ip = if ipv6 {
        let mut ip = [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[protocol, 64]].concat();
        for last in [1, 2] {
            ip.extend([0xfd, 0x7a, 0x11, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        ip
    } else {
        let mut ip = [&[0x45, 0][..], &(20 + len).to_be_bytes(), &id.to_be_bytes()].concat();
        ip.extend([0x40, 0, 64, protocol, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]);
        let sum = checksum::finish(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum.to_ne_bytes());
        ip
    };
    if let TCP | UDP = protocol {
        let at = if protocol == TCP { 16 } else { 6 };
        let sum = upper_sum(&ip, protocol, &upper);
        upper[at..at + 2].copy_from_slice(&if sum == 0 { 0xffff } else { sum }.to_ne_bytes());
    }
    ip.extend(upper);
    ip
}

/// The checksum of an upper layer, behind an IP header without options.
fn upper_sum(ip: &[u8], protocol: u8, upper: &[u8]) -> u16 {
    let addresses = if ip[0] >> 4 == 4 { &ip[12..20] } else { &ip[8..40] };
    checksum::finish(checksum::add(checksum::pseudo(addresses, protocol, upper.len()), upper))
}

pub fn headers_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for ipv6 in [false, true] {
        for protocol in [TCP, UDP, if ipv6 { ICMPV6 } else { ICMP }, 132, 99] {
            seeds.push(packet(ipv6, protocol, 7, 1, b"payload that is long enough"));
        }
    }
    // Hop-by-hop options, routing, a fragment header, destination options, then UDP.
    let mut chain = packet(true, 0, 0, 0, b"");
    chain.truncate(40);
    for next in [43, 44, 60, UDP] {
        chain.extend([next, 0, 0, 1, 0, 0, 0, 0]);
    }
    chain.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    chain[5] = (chain.len() - 40) as u8;
    seeds.push(chain);
    let mut later = packet(false, UDP, 7, 0, &[0; 40]);
    later[7] = 8;
    seeds.push(later);
    seeds
}

/// A read of the TUN device: its virtio header, and the cutting of what stands behind it.
pub fn split(data: &[u8]) {
    let Some(header) = virtio::Header::parse(data) else { return };
    let packet = &data[virtio::HEADER_BYTES..];
    let Some(whole) = Headers::parse(packet) else { return };
    let Ok(segments) = Segments::new(&header, packet) else { return };
    let count = segments.count();
    assert!(count >= 1 && count <= packet.len());
    let mut lengths = 0;
    for index in 0..count {
        let len = segments.len_of(index);
        assert!(index + 1 == count || len == segments.len_of(0), "segments of a train are of one length");
        lengths += len;
        let mut out = vec![0u8; len];
        segments.write(index, &mut out);
        if header.kind == Kind::Single {
            continue;
        }
        assert_eq!(out[0], packet[0]);
        let Some(cut) = Headers::parse(&out) else { continue };
        assert_eq!((cut.source, cut.destination), (whole.source, whole.destination));
        if !cut.ipv6 {
            assert_eq!(usize::from(cut.len), len);
        }
    }
    if header.kind == Kind::Single {
        assert_eq!(lengths, packet.len());
    } else {
        assert!(lengths >= packet.len(), "bytes were lost");
    }
}

pub fn split_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for ipv6 in [false, true] {
        for protocol in [TCP, UDP] {
            let packet = packet(ipv6, protocol, 7, 1, &[0x5a; 2500]);
            let upper = if ipv6 { 40 } else { 20 };
            let kind = match (protocol, ipv6) {
                (UDP, _) => Kind::Udp,
                (_, false) => Kind::TcpV4,
                (_, true) => Kind::TcpV6,
            };
            let header = virtio::Header {
                kind,
                needs_checksum: true,
                data_valid: false,
                header_len: upper + 20,
                segment_size: 1200,
                checksum_start: upper,
                checksum_offset: if protocol == TCP { 16 } else { 6 },
            };
            seeds.push([&header.encode()[..], &packet].concat());
            seeds.push([&virtio::Header { kind: Kind::Single, ..header }.encode()[..], &packet].concat());
        }
    }
    seeds
}

/// Packets out of the tunnel, glued and written: nothing of any flow is lost, doubled or put in another order.
pub fn coalesce(data: &[u8]) {
    let mut input = Input(data);
    let flags = input.byte();
    let mut coalescer = Coalescer::new(Allowed { tcp: flags & 1 == 0, udp: flags & 2 == 0 });
    let mut arena = Vec::new();
    let mut given: HashMap<Flow, Vec<u8>> = HashMap::new();
    let mut pushed = Vec::new();
    while !input.is_empty() && pushed.len() < 32 {
        let start = arena.len();
        arena.extend_from_slice(input.piece());
        let Some(headers) = Headers::parse(&arena[start..]) else {
            arena.truncate(start);
            continue;
        };
        let packet = &arena[start..start + usize::from(headers.len)];
        given.entry(flow(&headers)).or_default().extend_from_slice(payload(&headers, packet));
        pushed.push((start, headers));
    }
    for (start, headers) in &pushed {
        coalescer.push(&arena, *start, headers);
    }
    let mut written: HashMap<Flow, Vec<u8>> = HashMap::new();
    coalescer.drain(&mut arena, |parts| {
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let header = virtio::Header::parse(&all).expect("a header");
        let packet = &all[virtio::HEADER_BYTES..];
        let headers = Headers::parse(packet).expect("what is written is a packet");
        assert_eq!(usize::from(headers.len), packet.len());
        if header.kind != Kind::Single {
            let segments = Segments::new(&header, packet).expect("what is glued can be cut");
            assert!(segments.count() >= 2);
        }
        written.entry(flow(&headers)).or_default().extend_from_slice(payload(&headers, packet));
    });
    assert_eq!(given, written);
}

type Flow = (bool, u8, u128, u128, u16, u16);

fn flow(headers: &Headers) -> Flow {
    (headers.ipv6, headers.protocol, headers.source, headers.destination, headers.source_port, headers.destination_port)
}

/// What stands behind the headers that gluing may merge.
fn payload<'a>(headers: &Headers, packet: &'a [u8]) -> &'a [u8] {
    let upper = usize::from(headers.upper);
    let len = match headers.protocol {
        TCP => packet.get(upper + 12).map_or(0, |word| usize::from(word >> 4) * 4),
        UDP => 8,
        _ => 0,
    };
    packet.get(upper + len..).unwrap_or_default()
}

pub fn coalesce_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for ipv6 in [false, true] {
        for protocol in [TCP, UDP] {
            let train =
                (0..5u16).flat_map(|n| piece(&packet(ipv6, protocol, n, 1 + 100 * u32::from(n), &[n as u8; 100])));
            seeds.push(std::iter::once(0).chain(train).collect());
        }
    }
    let mixed = [
        piece(&packet(false, TCP, 1, 1, &[1; 64])),
        piece(&packet(false, UDP, 1, 1, &[1; 64])),
        piece(&packet(false, TCP, 2, 65, &[2; 64])),
        piece(&packet(false, UDP, 2, 1, &[2; 30])),
        piece(&packet(false, ICMP, 3, 1, &[3; 30])),
        piece(&packet(false, TCP, 3, 200, &[2; 64])),
    ];
    seeds.push([vec![0], mixed.concat()].concat());
    seeds
}

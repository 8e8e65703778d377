//! Splitting undoes coalescing, to the byte, with valid checksums.

use proptest::prelude::*;

use super::*;
use crate::tun::split::Segments;
use crate::tun::virtio;

const BOTH: Allowed = Allowed { tcp: true, udp: true };

/// A packet with valid checksums: IPv4 or IPv6, TCP or UDP.
fn packet(ipv6: bool, protocol: u8, id: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut upper = if protocol == TCP {
        let mut tcp = vec![0x9c, 0x40, 0x00, 0x50];
        tcp.extend(sequence.to_be_bytes());
        tcp.extend(77u32.to_be_bytes());
        tcp.extend([0x80, flags, 0x01, 0xf6, 0, 0, 0, 0]);
        tcp.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        tcp
    } else {
        let mut udp = vec![0x9c, 0x40, 0x00, 0x35];
        udp.extend((8 + payload.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp
    };
    upper.extend(payload);
    let mut ip = if ipv6 {
        let mut ip = vec![0x60, 0, 0, 0];
        ip.extend((upper.len() as u16).to_be_bytes());
        ip.extend([protocol, 64]);
        ip.extend([0xfd, 0x7a, 0x11, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        ip.extend([0xfd, 0x7a, 0x11, 0x5c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        ip
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend((20 + upper.len() as u16).to_be_bytes());
        ip.extend(id.to_be_bytes());
        ip.extend([0x40, 0, 64, protocol, 0, 0, 100, 64, 0, 1, 100, 64, 0, 2]);
        let sum = checksum::finish(checksum::add(0, &ip));
        ip[10..12].copy_from_slice(&sum.to_ne_bytes());
        ip
    };
    let addresses = if ipv6 { ip[8..40].to_vec() } else { ip[12..20].to_vec() };
    let sum = checksum::finish(checksum::add(checksum::pseudo(&addresses, protocol, upper.len()), &upper));
    let at = if protocol == TCP { 16 } else { 6 };
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    upper[at..at + 2].copy_from_slice(&sum.to_ne_bytes());
    ip.extend(upper);
    ip
}

/// Coalesce the packets; give back what would be written, each with its virtio header.
fn written(packets: &[Vec<u8>], allowed: Allowed) -> Vec<Vec<u8>> {
    let mut arena = Vec::new();
    let mut coalescer = Coalescer::new(allowed);
    let mut starts = Vec::new();
    for packet in packets {
        starts.push(arena.len());
        arena.extend_from_slice(packet);
    }
    let mut out = Vec::new();
    for (start, packet) in starts.into_iter().zip(packets) {
        if coalescer.is_full() {
            coalescer.drain(&mut arena, |parts| out.push(parts.concat_bytes()));
        }
        coalescer.push(&arena, start, &Headers::parse(packet).expect("an IP packet"));
    }
    coalescer.drain(&mut arena, |parts| out.push(parts.concat_bytes()));
    out
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|part| part.iter().copied()).collect()
    }
}

fn split(written: &[u8]) -> Vec<Vec<u8>> {
    let header = virtio::Header::parse(written).expect("a virtio header");
    let segments = Segments::new(&header, &written[virtio::HEADER_BYTES..]).expect("well formed");
    (0..segments.count())
        .map(|index| {
            let mut out = vec![0; segments.len_of(index)];
            segments.write(index, &mut out);
            out
        })
        .collect()
}

/// A train of `count` segments of `size`, the last one of `last` bytes.
fn train(ipv6: bool, protocol: u8, count: usize, size: usize, last: usize, push: bool) -> Vec<Vec<u8>> {
    (0..count)
        .map(|index| {
            let is_last = index + 1 == count;
            let payload: Vec<u8> = (0..if is_last { last } else { size }).map(|at| (at * 7 + index) as u8).collect();
            let flags = if push && is_last { TCP_ACK | TCP_PSH } else { TCP_ACK };
            packet(ipv6, protocol, 1000 + index as u16, 5_000_000 + (index * size) as u32, flags, &payload)
        })
        .collect()
}

proptest! {
    #[test]
    fn splitting_undoes_coalescing(
        ipv6 in any::<bool>(), tcp in any::<bool>(), count in 1usize..50, size in 1usize..1240, last in 1usize..1240,
        push in any::<bool>(),
    ) {
        let packets = train(ipv6, if tcp { TCP } else { UDP }, count, size, last.min(size), push);
        let written = written(&packets, BOTH);
        prop_assert_eq!(written.len(), 1);
        prop_assert_eq!(split(&written[0]), packets);
    }

    #[test]
    fn mixed_flows_keep_each_flow_in_order(order in proptest::collection::vec(0usize..4, 1..200)) {
        let mut next = [0usize; 4];
        let packets: Vec<Vec<u8>> = order.iter().map(|&flow| {
            let index = next[flow];
            next[flow] += 1;
            packet(flow & 1 == 1, if flow & 2 == 2 { TCP } else { UDP }, index as u16, (index * 100) as u32, TCP_ACK, &[flow as u8; 100])
        }).collect();
        let back: Vec<Vec<u8>> = written(&packets, BOTH).iter().flat_map(|one| split(one)).collect();
        prop_assert_eq!(back.len(), packets.len());
        for flow in 0..4u8 {
            let mine = |all: &[Vec<u8>]| all.iter().filter(|one| one.last() == Some(&flow)).cloned().collect::<Vec<_>>();
            prop_assert_eq!(mine(&back), mine(&packets));
        }
    }
}

proptest! {
    #[test]
    fn whatever_a_peer_sends_is_written_or_refused_but_never_harms(
        packets in proptest::collection::vec(
            (any::<bool>(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), 0usize..64, any::<u8>()), 1..40),
    ) {
        let packets: Vec<Vec<u8>> = packets.into_iter().filter_map(|(ipv6, tcp, payload, at, byte)| {
            let mut made = packet(ipv6, if tcp { TCP } else { UDP }, 1, 1, TCP_ACK, &payload);
            let at = at % made.len();
            made[at] = byte;
            let len = usize::from(Headers::parse(&made)?.len);
            made.truncate(len);
            Some(made)
        }).collect();
        let total: usize = written(&packets, BOTH).iter().map(|one| one.len() - virtio::HEADER_BYTES).sum();
        prop_assert!(total <= packets.iter().map(Vec::len).sum());
    }

    #[test]
    fn no_bytes_at_all_upset_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Some(headers) = Headers::parse(&bytes) {
            prop_assert!(usize::from(headers.upper) <= usize::from(headers.len));
            prop_assert!(usize::from(headers.len) <= bytes.len());
        }
    }
}

#[test]
fn a_tcp_header_shorter_than_tcp_allows_is_left_alone() {
    let mut short = packet(false, TCP, 1, 0, TCP_ACK, &[1; 100]);
    short[32] = 0x30;
    assert_eq!(written(&[short.clone(), short], BOTH).len(), 2);
}

#[test]
fn a_train_longer_than_the_device_takes_becomes_several() {
    let packets = train(false, TCP, 130, 1200, 1200, false);
    let written = written(&packets, BOTH);
    assert_eq!(written.len(), 3);
    assert_eq!(written.iter().flat_map(|one| split(one)).collect::<Vec<_>>(), packets);
}

#[test]
fn a_switched_off_offload_leaves_packets_alone() {
    for (protocol, allowed) in [(TCP, Allowed { tcp: false, udp: true }), (UDP, Allowed { tcp: true, udp: false })] {
        let packets = train(false, protocol, 5, 100, 100, false);
        assert_eq!(written(&packets, allowed).len(), 5);
    }
}

#[test]
fn a_push_ends_a_run_and_odd_flags_never_join_one() {
    let packets = vec![
        packet(false, TCP, 1, 0, TCP_ACK | TCP_PSH, &[1; 100]),
        packet(false, TCP, 2, 100, TCP_ACK, &[2; 100]),
        packet(false, TCP, 3, 200, TCP_ACK | 0x01, &[3; 100]),
        packet(false, TCP, 4, 300, TCP_ACK, &[4; 100]),
    ];
    assert_eq!(written(&packets, BOTH).len(), 4);
}

#[test]
fn a_gap_in_the_sequence_starts_a_new_run() {
    let packets = vec![
        packet(false, TCP, 1, 0, TCP_ACK, &[1; 100]),
        packet(false, TCP, 2, 100, TCP_ACK, &[2; 100]),
        packet(false, TCP, 3, 300, TCP_ACK, &[3; 100]),
    ];
    assert_eq!(written(&packets, BOTH).len(), 2);
}

#[test]
fn malformed_super_packets_are_refused() {
    let whole = packet(false, TCP, 1, 0, TCP_ACK, &[1; 100]);
    let good = virtio::Header {
        kind: virtio::Kind::TcpV4,
        needs_checksum: true,
        data_valid: false,
        header_len: 52,
        segment_size: 50,
        checksum_start: 20,
        checksum_offset: 16,
    };
    assert!(Segments::new(&good, &whole).is_ok());
    for bad in [
        virtio::Header { segment_size: 0, ..good },
        virtio::Header { checksum_start: 10, ..good },
        virtio::Header { checksum_start: 60000, ..good },
        virtio::Header { kind: virtio::Kind::TcpV6, ..good },
        virtio::Header { needs_checksum: false, ..good },
    ] {
        assert!(Segments::new(&bad, &whole).is_err(), "{bad:?}");
    }
    assert!(Segments::new(&good, &whole[..30]).is_err());
    let past_the_end = virtio::Header { kind: virtio::Kind::Single, checksum_start: 150, checksum_offset: 16, ..good };
    assert!(Segments::new(&past_the_end, &whole).is_err());
}

#[test]
fn a_datagram_that_claims_another_length_than_its_packet_stays_alone() {
    let mut packets: Vec<Vec<u8>> = (0..3).map(|id| packet(false, UDP, id, 0, 0, &[id as u8; 100])).collect();
    packets[1][24..26].copy_from_slice(&58u16.to_be_bytes());
    let written = written(&packets, BOTH);
    assert_eq!(written.len(), 3);
    assert!(written.iter().zip(&packets).all(|(one, packet)| one[virtio::HEADER_BYTES..] == packet[..]));
}

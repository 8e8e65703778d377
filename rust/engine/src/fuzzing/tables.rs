//! The compiled tables, and packets judged by them, beside plain searches.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::packets::packet;
use super::{piece, Input};
use crate::filter::headers::{Headers, Part, TCP, UDP};
use crate::filter::{Filter, IpRange, Refusal, Rule, Table};
use crate::routes::{PeerIndex, Prefix, Routes};

fn range(input: &mut Input<'_>) -> IpRange {
    let bits = input.byte();
    let address = if bits & 0x80 == 0 {
        IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes([input.byte(), input.byte(), input.byte(), input.byte()])))
    } else {
        IpAddr::V6(Ipv6Addr::from(input.number()))
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    IpRange::from_prefix(address, (bits & 0x7f) % (most + 1)).expect("few enough bits")
}

fn ranges(input: &mut Input<'_>) -> Vec<IpRange> {
    (0..input.byte() % 4).map(|_| range(input)).collect()
}

/// A table, then packets in and out: a verdict is the same whatever was asked before it, and never lets in a stranger.
pub fn filter(data: &[u8]) {
    let mut input = Input(data);
    let local = ranges(&mut input);
    let mut rules = Vec::new();
    for _ in 0..input.byte() % 4 {
        rules.push(Rule {
            sources: ranges(&mut input),
            destinations: ranges(&mut input),
            ports: (0..input.byte() % 3).map(|_| (input.word(), input.word())).collect(),
            protocols: (0..input.byte() % 3).map(|_| input.byte()).collect(),
        });
    }
    let shields_up = input.byte() & 1 == 1;
    let mut filter = Filter::default();
    filter.replace(Table::new(&local, &rules), shields_up);
    let contains = |ranges: &[IpRange], ipv6: bool, number: u128| {
        ranges.iter().any(|range| range.ipv6 == ipv6 && range.first <= number && number <= range.last)
    };
    let mut sent = false;
    while !input.is_empty() {
        let outward = input.byte() & 1 == 1;
        let Some(headers) = Headers::parse(input.piece()) else { continue };
        if outward {
            filter.outbound(&headers);
            sent = true;
            continue;
        }
        let verdict = filter.inbound(&headers);
        assert_eq!(verdict, filter.inbound(&headers));
        if verdict.is_ok() {
            assert!(contains(&local, headers.ipv6, headers.destination), "a packet for somebody else passed");
        }
        if !sent {
            let mut fresh = Filter::default();
            fresh.replace(Table::new(&local, &rules), shields_up);
            assert_eq!(verdict, fresh.inbound(&headers), "the verdict depends on what was asked before");
        }
        // A new flow of TCP or UDP passes by a rule that has its source, destination, port and protocol; by nothing else.
        let begins = headers.protocol == UDP || headers.protocol == TCP && headers.detail & 0x12 == 0x02;
        if begins && !sent && headers.part == Part::First && matches!(verdict, Ok(()) | Err(Refusal::NoRule)) {
            let allows = |rule: &Rule| {
                contains(&rule.sources, headers.ipv6, headers.source)
                    && contains(&rule.destinations, headers.ipv6, headers.destination)
                    && rule.ports.iter().any(|(first, last)| (*first..=*last).contains(&headers.destination_port))
                    && rule.protocols.contains(&headers.protocol)
            };
            assert_eq!(verdict.is_ok(), !shields_up && rules.iter().any(allows));
        }
    }
}

pub fn filter_seeds() -> Vec<Vec<u8>> {
    let local = [1, 32, 100, 64, 0, 2];
    let rule = [1, 1, 10, 100, 64, 0, 0, 1, 32, 100, 64, 0, 2, 1, 0, 0, 0xff, 0xff, 2, TCP, UDP];
    let packets = [
        [&[0][..], &piece(&packet(false, TCP, 1, 1, b"x"))].concat(),
        [&[0][..], &piece(&packet(false, UDP, 1, 1, b"x"))].concat(),
        [&[1][..], &piece(&packet(false, UDP, 1, 1, b"x"))].concat(),
        [&[0][..], &piece(&packet(true, 58, 1, 1, b"x"))].concat(),
        [&[0][..], &piece(&packet(false, 1, 1, 1, b"x"))].concat(),
    ];
    [0, 1].iter().map(|shields| [&local[..], &rule, &[*shields], &packets.concat()].concat()).collect()
}

/// Prefixes that come and go: a look-up finds what a plain search finds.
pub fn routes(data: &[u8]) {
    let mut input = Input(data);
    let mut routes = Routes::default();
    let mut plain: HashMap<(bool, u8, u128), PeerIndex> = HashMap::new();
    while !input.is_empty() {
        let action = input.byte();
        let ipv6 = action & 0x80 != 0;
        let width: u8 = if ipv6 { 128 } else { 32 };
        // Few distinct networks, so that prefixes nest and collide.
        let spread = u128::from(input.byte());
        let number = (spread >> 4 << (width - 8)) | (spread & 0x0f);
        let cut = |bits: u8| if bits == 0 { 0 } else { number >> (width - bits) << (width - bits) };
        let address = if ipv6 { IpAddr::V6(Ipv6Addr::from(number)) } else { IpAddr::V4(Ipv4Addr::from(number as u32)) };
        let bits = input.byte();
        let peer = PeerIndex::from(action >> 2 & 7);
        match (action & 3, Prefix::new(address, bits)) {
            (_, None) => assert!(bits > width),
            (0 | 1, Some(prefix)) => {
                assert_eq!(routes.insert(prefix, peer), plain.insert((ipv6, bits, cut(bits)), peer));
            }
            (2, Some(prefix)) => {
                routes.remove(prefix, peer);
                if plain.get(&(ipv6, bits, cut(bits))) == Some(&peer) {
                    plain.remove(&(ipv6, bits, cut(bits)));
                }
            }
            _ => {}
        }
        let expected = (0..=width).rev().find_map(|bits| plain.get(&(ipv6, bits, cut(bits))).copied());
        assert_eq!(routes.lookup(ipv6, number), expected);
    }
}

pub fn routes_seeds() -> Vec<Vec<u8>> {
    vec![
        vec![0, 0xa3, 32, 4, 0xa0, 8, 8, 0, 0, 2, 0xa3, 32, 3, 0xa3, 0],
        vec![0x80, 0x11, 128, 0x84, 0x10, 7, 0x82, 0x11, 128, 0x80, 0, 0],
    ]
}

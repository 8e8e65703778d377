//! The filter, one sentence a case.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn range(text: &str) -> IpRange {
    let (address, bits) = text.split_once('/').expect("a prefix");
    IpRange::from_prefix(address.parse().expect("an address"), bits.parse().expect("a length")).expect("fits")
}

/// A bare packet: addresses as text, the upper header's first bytes by protocol.
fn packet(source: &str, destination: &str, protocol: u8, ports: (u16, u16), detail: u8) -> Vec<u8> {
    let mut upper = vec![0u8; 20];
    match protocol {
        ICMP | ICMPV6 => upper[0] = detail,
        _ => {
            upper[0..2].copy_from_slice(&ports.0.to_be_bytes());
            upper[2..4].copy_from_slice(&ports.1.to_be_bytes());
            upper[13] = detail;
        }
    }
    let mut bytes = Vec::new();
    match (source.parse().expect("an address"), destination.parse().expect("an address")) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            bytes.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            bytes.extend([0x60, 0, 0, 0, 0, 20, protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
        }
        _ => panic!("one family a packet"),
    }
    bytes.extend(upper);
    bytes
}

fn headers(source: &str, destination: &str, protocol: u8, ports: (u16, u16), detail: u8) -> Headers {
    Headers::parse(&packet(source, destination, protocol, ports, detail)).expect("a packet")
}

/// We are 100.64.0.1 and fd7a::1 and serve 10.0.0.0/8; 100.64.0.2 may reach SSH and DNS, fd7a::2 anything.
fn filter(shields_up: bool) -> Filter {
    let mut filter = Filter::default();
    let table = Table::new(
        &[range("100.64.0.1/32"), range("fd7a::1/128"), range("10.0.0.0/8")],
        &[
            Rule {
                sources: vec![range("100.64.0.2/32")],
                destinations: vec![range("100.64.0.1/32")],
                ports: vec![(22, 22), (53, 54)],
                protocols: vec![TCP, UDP],
            },
            Rule {
                sources: vec![range("fd7a::2/128")],
                destinations: vec![range("fd7a::/16")],
                ports: vec![(0, 65535)],
                protocols: vec![TCP, UDP, ICMPV6, 47],
            },
        ],
    );
    filter.replace(table, shields_up);
    filter
}

const ME: &str = "100.64.0.1";
const FRIEND: &str = "100.64.0.2";
const STRANGER: &str = "100.64.0.3";

#[test]
fn a_new_tcp_connection_needs_a_rule_for_its_port_and_source() {
    let mut filter = filter(false);
    assert_eq!(filter.inbound(&headers(FRIEND, ME, TCP, (5, 22), TCP_SYN)), Ok(()));
    assert_eq!(filter.inbound(&headers(FRIEND, ME, TCP, (5, 23), TCP_SYN)), Err(Refusal::NoRule));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, TCP, (5, 22), TCP_SYN)), Err(Refusal::NoRule));
}

#[test]
fn tcp_that_opens_nothing_passes() {
    let mut filter = filter(true);
    assert_eq!(filter.inbound(&headers(STRANGER, ME, TCP, (5, 99), TCP_ACK)), Ok(()));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, TCP, (5, 99), TCP_SYN | TCP_ACK)), Ok(()));
}

#[test]
fn udp_passes_by_rule_or_as_an_answer() {
    let mut filter = filter(false);
    assert_eq!(filter.inbound(&headers(FRIEND, ME, UDP, (5, 54), 0)), Ok(()));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 4000), 0)), Err(Refusal::NoRule));
    filter.outbound(&headers(ME, STRANGER, UDP, (4000, 53), 0));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 4000), 0)), Ok(()));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 4001), 0)), Err(Refusal::NoRule));
}

#[test]
fn the_flow_used_longest_ago_is_forgotten_first() {
    let mut filter = filter(true);
    for port in 0..512 {
        filter.outbound(&headers(ME, STRANGER, UDP, (1000 + port, 53), 0));
    }
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 1000), 0)), Ok(()));
    filter.outbound(&headers(ME, STRANGER, UDP, (9999, 53), 0));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 1001), 0)), Err(Refusal::NoRule));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 1000), 0)), Ok(()));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, UDP, (53, 9999), 0)), Ok(()));
}

#[test]
fn pings_need_any_rule_to_the_host_and_their_answers_need_none() {
    let mut filter = filter(false);
    assert_eq!(filter.inbound(&headers(FRIEND, ME, ICMP, (0, 0), 8)), Ok(()));
    assert_eq!(filter.inbound(&headers(STRANGER, ME, ICMP, (0, 0), 8)), Err(Refusal::NoRule));
    for answer in [0, 3, 11, 12] {
        assert_eq!(filter.inbound(&headers(STRANGER, ME, ICMP, (0, 0), answer)), Ok(()));
    }
    assert_eq!(filter.inbound(&headers("fd7a::3", "fd7a::1", ICMPV6, (0, 0), 2)), Ok(()));
    assert_eq!(filter.inbound(&headers("fd7a::3", "fd7a::1", ICMPV6, (0, 0), 128)), Err(Refusal::NoRule));
    assert_eq!(filter.inbound(&headers("fd7a::2", "fd7a::1", ICMPV6, (0, 0), 128)), Ok(()));
}

#[test]
fn tsmp_always_passes_and_other_protocols_need_all_ports() {
    let mut filter = filter(false);
    assert_eq!(filter.inbound(&headers(STRANGER, ME, TSMP, (0, 0), 0)), Ok(()));
    assert_eq!(filter.inbound(&headers("fd7a::2", "fd7a::1", 47, (0, 0), 0)), Ok(()));
    assert_eq!(filter.inbound(&headers("fd7a::2", "fd7a::1", 50, (0, 0), 0)), Err(Refusal::NoRule));
}

#[test]
fn only_local_destinations_are_served_and_scope_is_kept() {
    let mut filter = filter(false);
    assert_eq!(filter.inbound(&headers(FRIEND, STRANGER, TCP, (5, 22), TCP_ACK)), Err(Refusal::NotLocal));
    assert_eq!(filter.inbound(&headers(FRIEND, "10.9.9.9", TCP, (5, 22), TCP_ACK)), Ok(()));
    for scoped in ["224.0.0.251", "169.254.1.1"] {
        assert_eq!(filter.inbound(&headers(FRIEND, scoped, UDP, (5, 5), 0)), Err(Refusal::Scope));
    }
    assert_eq!(filter.inbound(&headers(FRIEND, "169.254.169.254", UDP, (5, 5), 0)), Err(Refusal::NotLocal));
    for scoped in ["ff02::fb", "fe80::1"] {
        assert_eq!(filter.inbound(&headers("fd7a::2", scoped, UDP, (5, 5), 0)), Err(Refusal::Scope));
    }
}

#[test]
fn shields_up_drops_what_is_new() {
    let mut filter = filter(true);
    assert_eq!(filter.inbound(&headers(FRIEND, ME, TCP, (5, 22), TCP_SYN)), Err(Refusal::NoRule));
    assert_eq!(filter.inbound(&headers(FRIEND, ME, ICMP, (0, 0), 8)), Err(Refusal::NoRule));
}

#[test]
fn nothing_passes_before_a_table_comes_and_a_new_table_counts_at_once() {
    let mut filter = Filter::default();
    let syn = headers(FRIEND, ME, TCP, (5, 22), TCP_SYN);
    assert_eq!(filter.inbound(&syn), Err(Refusal::NotLocal));
    filter.replace(Table::new(&[range("100.64.0.1/32")], &[]), false);
    assert_eq!(filter.inbound(&syn), Err(Refusal::NoRule));
}

#[test]
fn later_fragments_pass_unless_they_could_overwrite_the_first() {
    let mut filter = filter(false);
    let mut later = packet(STRANGER, ME, UDP, (0, 0), 0);
    later[6..8].copy_from_slice(&100u16.to_be_bytes());
    let parsed = Headers::parse(&later).expect("a packet");
    assert_eq!(parsed.part, Part::Later);
    assert_eq!(filter.inbound(&parsed), Ok(()));
    later[6..8].copy_from_slice(&1u16.to_be_bytes());
    assert_eq!(Headers::parse(&later), None);
}

#[test]
fn ipv6_extension_headers_are_walked_to_the_upper_one() {
    let mut inner = packet("fd7a::2", "fd7a::1", 0, (0, 0), 0);
    inner.truncate(40);
    inner[4..6].copy_from_slice(&36u16.to_be_bytes());
    inner.extend([44, 0, 1, 4, 0, 0, 0, 0]);
    inner.extend([TCP, 0, 0, 1, 0, 0, 0, 9]);
    inner.extend([0, 5, 0, 22, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, TCP_SYN, 0, 0, 0, 0, 0, 0]);
    let parsed = Headers::parse(&inner).expect("a packet");
    assert!(parsed.fragment);
    assert_eq!((parsed.protocol, parsed.destination_port, parsed.upper), (TCP, 22, 56));
    assert_eq!(filter(false).inbound(&parsed), Ok(()));
}

#[test]
fn what_is_cut_short_is_no_packet() {
    let whole = packet(FRIEND, ME, TCP, (5, 22), TCP_SYN);
    for len in 0..whole.len() {
        assert_eq!(Headers::parse(&whole[..len]), None, "{len} bytes");
    }
    assert_eq!(Headers::parse(&[0x00; 40]), None);
}

/// A few addresses of each family, with networks and neighbours among them.
fn some_range() -> impl Strategy<Value = IpRange> {
    (any::<bool>(), 0u8..40, 0u8..=8).prop_map(|(ipv6, last, host)| {
        let (address, bits): (IpAddr, u8) = if ipv6 {
            (Ipv6Addr::from(0xfd7a << 112 | u128::from(last)).into(), 128 - host)
        } else {
            (Ipv4Addr::from(0x6440_0000 + u32::from(last)).into(), 32 - host)
        };
        IpRange::from_prefix(address, bits).expect("fits")
    })
}

fn some_rule() -> impl Strategy<Value = Rule> {
    let ports = (0u16..30, 0u16..30).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let ports = prop_oneof![4 => ports, 1 => Just((0u16, 65535u16)), 1 => Just((9u16, 3u16))];
    (
        prop::collection::vec(some_range(), 0..4),
        prop::collection::vec(some_range(), 0..4),
        prop::collection::vec(ports, 0..3),
        prop::collection::vec(prop::sample::select(vec![TCP, UDP, ICMP, ICMPV6, 47, 200]), 0..4),
    )
        .prop_map(|(sources, destinations, ports, protocols)| Rule { sources, destinations, ports, protocols })
}

fn holds(ranges: &[IpRange], ipv6: bool, number: Number) -> bool {
    ranges.iter().any(|one| one.ipv6 == ipv6 && one.first <= number && number <= one.last)
}

/// What a rule says of a new flow, word by word.
fn accepts(rule: &Rule, headers: &Headers) -> bool {
    let joined = holds(&rule.sources, headers.ipv6, headers.source)
        && holds(&rule.destinations, headers.ipv6, headers.destination);
    let port = headers.destination_port;
    joined
        && match headers.protocol {
            ICMP | ICMPV6 => true,
            TCP | UDP => {
                rule.protocols.contains(&headers.protocol)
                    && rule.ports.iter().any(|&(first, last)| first <= port && port <= last)
            }
            _ => {
                // Ranges of a rule may add up to every port, but these here do so only by one that is all of them.
                rule.protocols.contains(&headers.protocol) && rule.ports.contains(&(0, 65535))
            }
        }
}

proptest! {
    #[test]
    fn the_compiled_table_says_what_its_rules_say(
        rules in prop::collection::vec(some_rule(), 0..200),
        flows in prop::collection::vec((0u8..60, 0u8..60, 0usize..5, 0u16..40, any::<bool>()), 1..100),
    ) {
        let mut filter = Filter::default();
        filter.replace(Table::new(&[range("0.0.0.0/0"), range("::/0")], &rules), false);
        for (from, to, protocol, port, ipv6) in flows {
            let ping = if ipv6 { ICMPV6 } else { ICMP };
            let protocol = [TCP, UDP, ping, 47, 200][protocol];
            let (base, echo) = if ipv6 { (0xfd7a << 112, 128) } else { (0x6440_0000, 8) };
            let headers = Headers {
                ipv6,
                part: Part::First,
                fragment: false,
                protocol,
                source: base + Number::from(from),
                destination: base + Number::from(to),
                source_port: 1,
                destination_port: if matches!(protocol, TCP | UDP) { port } else { 0 },
                detail: match protocol { TCP => TCP_SYN, ICMP | ICMPV6 => echo, _ => 0 },
                upper: 40,
                len: 60,
            };
            let expected = rules.iter().any(|rule| accepts(rule, &headers));
            prop_assert_eq!(filter.inbound(&headers).is_ok(), expected, "{:?}", headers);
        }
    }
}

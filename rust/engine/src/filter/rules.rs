//! Rules compiled for look-up: every set of addresses becomes sorted, disjoint ranges, searched by bisection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::axis::{flip, meet, Axis, Set};
use super::headers::{Headers, Number};

/// An IP prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IpRange {
    pub ipv6: bool,
    pub first: Number,
    pub last: Number,
}

impl IpRange {
    /// The addresses of `address`/`bits`; None when there are not so many bits.
    pub fn from_prefix(address: IpAddr, bits: u8) -> Option<IpRange> {
        let (ipv6, number, width) = match address {
            IpAddr::V4(address) => (false, Number::from(u32::from(address)), 32),
            IpAddr::V6(address) => (true, Number::from(address), 128),
        };
        if bits > width {
            return None;
        }
        let host = width - bits;
        let mask = if host == 128 { Number::MAX } else { (1 << host) - 1 };
        Some(IpRange { ipv6, first: number & !mask, last: number | mask })
    }
}

/// Accept from any source to any destination on any of the ports by any of the protocols.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    pub sources: Vec<IpRange>,
    pub destinations: Vec<IpRange>,
    pub ports: Vec<(u16, u16)>,
    pub protocols: Vec<u8>,
}

/// Sorted, disjoint ranges of one family.
#[derive(Default)]
struct Ranges(Vec<(Number, Number)>);

impl Ranges {
    fn new(mut ranges: Vec<(Number, Number)>) -> Ranges {
        ranges.sort_unstable();
        let mut merged: Vec<(Number, Number)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => previous.1 = previous.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        Ranges(merged)
    }

    fn of_family(ranges: &[IpRange], ipv6: bool) -> Ranges {
        Ranges::new(ranges.iter().filter(|one| one.ipv6 == ipv6).map(|one| (one.first, one.last)).collect())
    }

    fn of_ports(rule: &Rule) -> Ranges {
        let ports = rule.ports.iter().map(|&(first, last)| (Number::from(first), Number::from(last)));
        Ranges::new(ports.filter(|(first, last)| first <= last).collect())
    }

    #[inline]
    fn contains(&self, number: Number) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= number);
        after > 0 && number <= self.0[after - 1].1
    }
}

/// A set of addresses, both families.
#[derive(Default)]
struct Addresses {
    ipv4: Ranges,
    ipv6: Ranges,
}

impl Addresses {
    fn new(ranges: &[IpRange]) -> Addresses {
        Addresses { ipv4: Ranges::of_family(ranges, false), ipv6: Ranges::of_family(ranges, true) }
    }

    #[inline]
    fn contains(&self, ipv6: bool, number: Number) -> bool {
        if ipv6 {
            self.ipv6.contains(number)
        } else {
            self.ipv4.contains(number)
        }
    }
}

/// All rules, by everything that a packet is judged by: what it costs hardly grows with their number.
///
/// To make one takes a while when there are thousands; so whoever gives the order makes it, not the thread of the packets.
#[derive(Default)]
pub struct Table {
    local: Addresses,
    sources: [Axis; 2],
    destinations: [Axis; 2],
    ports: Axis,
    /// Rules for each protocol that any rule names, and those of them that open every port.
    protocols: Vec<(u8, Vec<u64>, Vec<u64>)>,
}

impl Table {
    pub fn new(local: &[IpRange], rules: &[Rule]) -> Table {
        let addresses = |side: fn(&Rule) -> &[IpRange], ipv6: bool| {
            let ranges = rules.iter().enumerate().flat_map(move |(number, rule)| {
                let ranges = Ranges::of_family(side(rule), ipv6).0;
                ranges.into_iter().map(move |(first, last)| (number, first, last))
            });
            Axis::new(rules.len(), ranges)
        };
        let ports: Vec<Ranges> = rules.iter().map(Ranges::of_ports).collect();
        let mut protocols: BTreeMap<u8, (Vec<u64>, Vec<u64>)> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate() {
            let named: BTreeSet<u8> = rule.protocols.iter().copied().collect();
            for protocol in named {
                let empty = || vec![0; rules.len().div_ceil(64)];
                let (any, whole) = protocols.entry(protocol).or_insert_with(|| (empty(), empty()));
                flip(any, number);
                if ports[number].0.as_slice() == [(0, 0xffff)] {
                    flip(whole, number);
                }
            }
        }
        Table {
            local: Addresses::new(local),
            sources: [false, true].map(|ipv6| addresses(|rule| &rule.sources, ipv6)),
            destinations: [false, true].map(|ipv6| addresses(|rule| &rule.destinations, ipv6)),
            ports: Axis::new(
                rules.len(),
                ports
                    .iter()
                    .enumerate()
                    .flat_map(|(number, ranges)| ranges.0.iter().map(move |&(first, last)| (number, first, last))),
            ),
            protocols: protocols.into_iter().map(|(protocol, (any, whole))| (protocol, any, whole)).collect(),
        }
    }

    pub fn is_local(&self, ipv6: bool, destination: Number) -> bool {
        self.local.contains(ipv6, destination)
    }

    /// A rule for this protocol and destination port.
    pub fn port(&self, headers: &Headers) -> bool {
        let [sources, destinations] = self.ends(headers);
        let ports = self.ports.rules(Number::from(headers.destination_port));
        self.protocol(headers.protocol).is_some_and(|(any, _)| meet([sources, destinations, ports, any]))
    }

    /// A rule for any port of that host, whatever the protocol: then it may be pinged.
    pub fn any_port(&self, headers: &Headers) -> bool {
        meet(self.ends(headers))
    }

    /// A rule for this protocol that opens every port: protocols without ports need one.
    pub fn all_ports(&self, headers: &Headers) -> bool {
        let [sources, destinations] = self.ends(headers);
        self.protocol(headers.protocol).is_some_and(|(_, whole)| meet([sources, destinations, whole]))
    }

    #[inline]
    fn ends(&self, headers: &Headers) -> [&Set; 2] {
        let family = usize::from(headers.ipv6);
        [self.sources[family].rules(headers.source), self.destinations[family].rules(headers.destination)]
    }

    #[inline]
    fn protocol(&self, protocol: u8) -> Option<(&Set, &Set)> {
        let (_, any, whole) = self.protocols.iter().find(|(number, _, _)| *number == protocol)?;
        Some((any, whole))
    }
}

//! Rules compiled for look-up: every set of addresses becomes sorted, disjoint ranges, searched by bisection.

use std::net::IpAddr;

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
        let of = |ipv6: bool| {
            Ranges::new(ranges.iter().filter(|one| one.ipv6 == ipv6).map(|one| (one.first, one.last)).collect())
        };
        Addresses { ipv4: of(false), ipv6: of(true) }
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

struct CompiledRule {
    sources: Addresses,
    destinations: Addresses,
    ports: Ranges,
    protocols: [u64; 4],
}

impl CompiledRule {
    fn joins(&self, headers: &Headers) -> bool {
        self.destinations.contains(headers.ipv6, headers.destination)
            && self.sources.contains(headers.ipv6, headers.source)
    }

    fn speaks(&self, protocol: u8) -> bool {
        self.protocols[usize::from(protocol >> 6)] >> (protocol & 63) & 1 == 1
    }
}

pub struct Compiled {
    local: Addresses,
    rules: Vec<CompiledRule>,
}

impl Compiled {
    pub fn new(local: &[IpRange], rules: &[Rule]) -> Compiled {
        let rules = rules
            .iter()
            .map(|rule| {
                let mut protocols = [0u64; 4];
                for protocol in &rule.protocols {
                    protocols[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
                }
                let ports = rule.ports.iter().map(|&(first, last)| (Number::from(first), Number::from(last)));
                CompiledRule {
                    sources: Addresses::new(&rule.sources),
                    destinations: Addresses::new(&rule.destinations),
                    ports: Ranges::new(ports.filter(|(first, last)| first <= last).collect()),
                    protocols,
                }
            })
            .collect();
        Compiled { local: Addresses::new(local), rules }
    }

    pub fn is_local(&self, ipv6: bool, destination: Number) -> bool {
        self.local.contains(ipv6, destination)
    }

    /// A rule for this protocol and destination port.
    pub fn port(&self, headers: &Headers) -> bool {
        self.rules.iter().any(|rule| {
            rule.speaks(headers.protocol)
                && rule.ports.contains(Number::from(headers.destination_port))
                && rule.joins(headers)
        })
    }

    /// A rule for any port of that host, whatever the protocol: then it may be pinged.
    pub fn any_port(&self, headers: &Headers) -> bool {
        self.rules.iter().any(|rule| rule.joins(headers))
    }

    /// A rule for this protocol that opens every port: protocols without ports need one.
    pub fn all_ports(&self, headers: &Headers) -> bool {
        self.rules.iter().any(|rule| {
            rule.speaks(headers.protocol) && rule.ports.0.as_slice() == [(0, 0xffff)] && rule.joins(headers)
        })
    }
}

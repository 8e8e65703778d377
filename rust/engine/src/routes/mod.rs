//! Which peer an inner address belongs to: the longest prefix of all allowed IPs.
//!
//! A mesh is mostly host routes, so a hash of full addresses answers first. Other prefixes are hashed by length, and only
//! the lengths in use are tried, longest first: a tailnet has a handful.

use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::net::IpAddr;

use crate::filter::headers::Number;

/// A peer's place in the shell's slab.
pub type PeerIndex = u32;

/// A prefix with its host bits cleared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Prefix {
    ipv6: bool,
    bits: u8,
    network: Number,
}

impl Prefix {
    /// None when the family has fewer bits.
    pub fn new(address: IpAddr, bits: u8) -> Option<Prefix> {
        let (ipv6, number) = match address {
            IpAddr::V4(address) => (false, Number::from(u32::from(address))),
            IpAddr::V6(address) => (true, Number::from(address)),
        };
        (bits <= width(ipv6)).then(|| Prefix { ipv6, bits, network: number & mask(ipv6, bits) })
    }
}

fn width(ipv6: bool) -> u8 {
    if ipv6 {
        128
    } else {
        32
    }
}

fn mask(ipv6: bool, bits: u8) -> Number {
    match width(ipv6) - bits {
        128 => 0,
        host => Number::MAX << host,
    }
}

#[derive(Default)]
struct Family {
    hosts: HashMap<Number, PeerIndex, RandomState>,
    /// By falling prefix length.
    nets: Vec<(u8, HashMap<Number, PeerIndex, RandomState>)>,
}

impl Family {
    fn insert(&mut self, ipv6: bool, prefix: Prefix, peer: PeerIndex) -> Option<PeerIndex> {
        if prefix.bits == width(ipv6) {
            return self.hosts.insert(prefix.network, peer);
        }
        let at = match self.nets.binary_search_by(|(bits, _)| prefix.bits.cmp(bits)) {
            Ok(at) => at,
            Err(at) => {
                self.nets.insert(at, (prefix.bits, HashMap::default()));
                at
            }
        };
        self.nets[at].1.insert(prefix.network, peer)
    }

    fn remove(&mut self, ipv6: bool, prefix: Prefix, peer: PeerIndex) {
        let map = if prefix.bits == width(ipv6) {
            &mut self.hosts
        } else {
            match self.nets.iter_mut().find(|(bits, _)| *bits == prefix.bits) {
                Some((_, map)) => map,
                None => return,
            }
        };
        if map.get(&prefix.network) == Some(&peer) {
            map.remove(&prefix.network);
            self.nets.retain(|(_, map)| !map.is_empty());
        }
    }

    #[inline]
    fn lookup(&self, ipv6: bool, address: Number) -> Option<PeerIndex> {
        if let Some(&peer) = self.hosts.get(&address) {
            return Some(peer);
        }
        self.nets.iter().find_map(|(bits, map)| map.get(&(address & mask(ipv6, *bits))).copied())
    }
}

/// The table. A prefix belongs to one peer: the one that claimed it last.
#[derive(Default)]
pub struct Routes {
    ipv4: Family,
    ipv6: Family,
}

impl Routes {
    /// Give `prefix` to `peer`; returns who had it before.
    pub fn insert(&mut self, prefix: Prefix, peer: PeerIndex) -> Option<PeerIndex> {
        self.family(prefix.ipv6).insert(prefix.ipv6, prefix, peer)
    }

    /// Take `prefix` away from `peer`; nothing happens when another peer has it by now.
    pub fn remove(&mut self, prefix: Prefix, peer: PeerIndex) {
        self.family(prefix.ipv6).remove(prefix.ipv6, prefix, peer);
    }

    #[inline]
    pub fn lookup(&self, ipv6: bool, address: Number) -> Option<PeerIndex> {
        let family = if ipv6 { &self.ipv6 } else { &self.ipv4 };
        family.lookup(ipv6, address)
    }

    fn family(&mut self, ipv6: bool) -> &mut Family {
        if ipv6 {
            &mut self.ipv6
        } else {
            &mut self.ipv4
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn prefix(text: &str) -> Prefix {
        let (address, bits) = text.split_once('/').expect("a prefix");
        Prefix::new(address.parse().expect("an address"), bits.parse().expect("a length")).expect("few enough bits")
    }

    fn ask(routes: &Routes, address: &str) -> Option<PeerIndex> {
        match address.parse().expect("an address") {
            IpAddr::V4(address) => routes.lookup(false, Number::from(u32::from(address))),
            IpAddr::V6(address) => routes.lookup(true, Number::from(address)),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_families_do_not_mix() {
        let mut routes = Routes::default();
        for (text, peer) in [("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.2.3/32", 3), ("::/0", 4), ("fd00::1/128", 5)] {
            assert_eq!(routes.insert(prefix(text), peer), None);
        }
        assert_eq!(ask(&routes, "10.1.2.3"), Some(3));
        assert_eq!(ask(&routes, "10.1.2.4"), Some(2));
        assert_eq!(ask(&routes, "8.8.8.8"), Some(1));
        assert_eq!(ask(&routes, "fd00::1"), Some(5));
        assert_eq!(ask(&routes, "::10.1.2.3"), Some(4));
    }

    #[test]
    fn a_prefix_that_moved_is_not_lost_with_its_old_owner() {
        let mut routes = Routes::default();
        routes.insert(prefix("10.0.0.0/8"), 1);
        assert_eq!(routes.insert(prefix("10.0.0.0/8"), 2), Some(1));
        routes.remove(prefix("10.0.0.0/8"), 1);
        assert_eq!(ask(&routes, "10.0.0.1"), Some(2));
        routes.remove(prefix("10.0.0.0/8"), 2);
        assert_eq!(ask(&routes, "10.0.0.1"), None);
    }

    #[test]
    fn too_many_bits_are_no_prefix() {
        assert_eq!(Prefix::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 33), None);
        assert_eq!(Prefix::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 129), None);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_plain_search(
            entries in proptest::collection::vec((any::<u32>(), 0u8..=32, 0u32..5, any::<bool>()), 1..60),
            asks in proptest::collection::vec(any::<u32>(), 1..60),
        ) {
            let mut routes = Routes::default();
            let mut plain: HashMap<(u8, u32), PeerIndex> = HashMap::new();
            for (address, bits, peer, keep) in entries {
                // Few distinct networks, so that prefixes nest and collide.
                let address = address & 0xe000_0007;
                let one = Prefix::new(IpAddr::V4(Ipv4Addr::from(address)), bits).expect("fits");
                let network = (address as u64 & (0xffff_ffffu64 << (32 - bits))) as u32;
                if keep {
                    routes.insert(one, peer);
                    plain.insert((bits, network), peer);
                } else {
                    routes.remove(one, peer);
                    if plain.get(&(bits, network)) == Some(&peer) {
                        plain.remove(&(bits, network));
                    }
                }
            }
            for address in asks {
                let address = address & 0xe000_0007;
                let expected = (0..=32u8).rev().find_map(|bits| {
                    plain.get(&(bits, (address as u64 & (0xffff_ffffu64 << (32 - bits))) as u32)).copied()
                });
                prop_assert_eq!(routes.lookup(false, Number::from(address)), expected);
            }
        }
    }
}

//! Whose disco and STUN datagrams Python gets to see, and how many: it works a hundred times slower than a flood arrives.
//!
//! Senders we know (a peer's path, whoever Python has just written to, a peer at a relay) have a budget of their own, so that
//! strangers who spend theirs cost established paths nothing.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;

use crate::routes::PeerIndex;

/// Heartbeats of a thousand active peers are some 700 a second.
const ACQUAINTED_A_SECOND: u32 = 4000;
/// Peers that try a new way to us, some five pings each.
const STRANGERS_A_SECOND: u32 = 500;
/// An answer comes within seconds.
const MEMORY: Duration = Duration::from_secs(5);
const MOST_REMEMBERED: usize = 4096;

/// Fills at a rate, holds one second's worth.
struct Budget {
    per_second: u32,
    left: f64,
    filled: Option<Instant>,
}

impl Budget {
    fn new(per_second: u32) -> Budget {
        Budget { per_second, left: f64::from(per_second), filled: None }
    }

    fn spend(&mut self, now: Instant) -> bool {
        let passed = self.filled.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.filled = Some(now);
        let most = f64::from(self.per_second);
        self.left = (self.left + passed.as_secs_f64() * most).min(most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }
}

pub(super) struct Callers {
    paths: HashMap<SocketAddr, PeerIndex, RandomState>,
    /// Written to in this span of `MEMORY`, and in the one before.
    written: HashSet<SocketAddr, RandomState>,
    written_before: HashSet<SocketAddr, RandomState>,
    turned: Option<Instant>,
    acquainted: Budget,
    strangers: Budget,
}

impl Default for Callers {
    fn default() -> Callers {
        Callers {
            paths: HashMap::default(),
            written: HashSet::default(),
            written_before: HashSet::default(),
            turned: None,
            acquainted: Budget::new(ACQUAINTED_A_SECOND),
            strangers: Budget::new(STRANGERS_A_SECOND),
        }
    }
}

impl Callers {
    /// A peer's path changed.
    pub fn path_moved(&mut self, peer: PeerIndex, from: Option<SocketAddr>, to: Option<SocketAddr>) {
        if let Some(from) = from.filter(|from| self.paths.get(from) == Some(&peer)) {
            self.paths.remove(&from);
        }
        if let Some(to) = to {
            self.paths.insert(to, peer);
        }
    }

    /// Python writes to this address: an answer is expected.
    pub fn wrote(&mut self, to: SocketAddr, now: Instant) {
        let is_over = self.turned.is_none_or(|at| now.saturating_duration_since(at) >= MEMORY);
        if is_over || self.written.len() >= MOST_REMEMBERED {
            self.turned = Some(now);
            self.written_before = std::mem::take(&mut self.written);
        }
        self.written.insert(to);
    }

    /// Whether one more datagram from this address may go to Python.
    pub fn may_call(&mut self, source: &SocketAddr, now: Instant) -> bool {
        let known =
            self.paths.contains_key(source) || self.written.contains(source) || self.written_before.contains(source);
        self.spend(known, now)
    }

    /// The same for one that came by a relay, from a peer or from a stranger.
    pub fn spend(&mut self, known: bool, now: Instant) -> bool {
        if known {
            self.acquainted.spend(now)
        } else {
            self.strangers.spend(now)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn strangers_who_flood_cost_known_senders_nothing() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        callers.path_moved(7, None, Some(address(1)));
        callers.wrote(address(2), now);
        let heard = (0..100_000).filter(|port| callers.may_call(&address(1000 + (port % 5000) as u16), now)).count();
        assert_eq!(heard, STRANGERS_A_SECOND as usize);
        assert!(callers.may_call(&address(1), now) && callers.may_call(&address(2), now));
        assert!(callers.spend(true, now) && !callers.spend(false, now));
        assert!(callers.may_call(&address(9), now + Duration::from_millis(10)), "the budget fills again");
    }

    #[test]
    fn known_senders_have_a_bound_too() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        callers.path_moved(7, None, Some(address(1)));
        assert_eq!((0..100_000).filter(|_| callers.may_call(&address(1), now)).count(), ACQUAINTED_A_SECOND as usize);
    }

    #[test]
    fn who_was_written_to_is_remembered_for_a_while_and_a_path_as_long_as_it_stands() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        callers.path_moved(7, None, Some(address(1)));
        callers.wrote(address(2), now);
        while callers.may_call(&address(3), now) {}
        callers.wrote(address(4), now + MEMORY);
        assert!(callers.may_call(&address(2), now));
        callers.wrote(address(4), now + MEMORY * 2);
        assert!(!callers.may_call(&address(2), now));
        callers.path_moved(8, Some(address(1)), None);
        assert!(callers.may_call(&address(1), now), "another peer's path is not ours to forget");
        callers.path_moved(7, Some(address(1)), Some(address(5)));
        assert!(!callers.may_call(&address(1), now) && callers.may_call(&address(5), now));
    }

    #[test]
    fn memory_is_bounded_however_many_are_written_to() {
        let (mut callers, now) = (Callers::default(), Instant::now());
        for port in 0..60_000 {
            callers.wrote(address(port), now);
        }
        assert!(callers.written.len() + callers.written_before.len() <= 2 * MOST_REMEMBERED);
    }
}

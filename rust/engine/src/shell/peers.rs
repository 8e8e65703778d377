//! The peers of the table: who they are, what is behind them, which way to them now.

use foldhash::quality::RandomState;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::config::Key;
use crate::routes::{PeerIndex, Prefix};
use crate::udp::send::Route;
use crate::wireguard::PeerId;

/// `PeerActive` and `PathFault` come at most this often for a peer.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Where a peer's packets go.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Path {
    pub udp: Option<Route>,
    pub relay: Option<u32>,
}

impl Path {
    pub fn is_none(&self) -> bool {
        self.udp.is_none() && self.relay.is_none()
    }
}

pub struct Peer {
    pub key: Key,
    /// Its name in the WireGuard core; the index of it is the place in this slab.
    pub id: PeerId,
    pub allowed_ips: Vec<Prefix>,
    pub path: Path,
    /// Bytes of inner packets.
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    /// Regions by which this peer was heard.
    pub seen_by: Vec<u32>,
    active_told: Option<Instant>,
    fault_told: Option<(SocketAddr, i32, Instant)>,
}

impl Peer {
    /// Whether Python is to hear of traffic to this peer now.
    #[inline]
    pub fn tell_active(&mut self, now: Instant) -> bool {
        if self.active_told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return false;
        }
        self.active_told = Some(now);
        true
    }

    /// Whether Python is to hear of this fault now.
    pub fn tell_fault(&mut self, address: SocketAddr, errno: i32, now: Instant) -> bool {
        let told = self
            .fault_told
            .is_some_and(|(to, which, at)| (to, which) == (address, errno) && now.duration_since(at) < TELL_EVERY);
        if told {
            return false;
        }
        self.fault_told = Some((address, errno, now));
        true
    }
}

/// A slab with a name for each place; the places are the core's.
#[derive(Default)]
pub struct Peers {
    slots: Vec<Option<Peer>>,
    by_key: HashMap<Key, PeerIndex, RandomState>,
}

impl Peers {
    pub fn find(&self, key: &Key) -> Option<PeerIndex> {
        self.by_key.get(key).copied()
    }

    #[inline]
    pub fn get(&self, index: PeerIndex) -> Option<&Peer> {
        self.slots.get(index as usize)?.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, index: PeerIndex) -> Option<&mut Peer> {
        self.slots.get_mut(index as usize)?.as_mut()
    }

    pub fn insert(&mut self, key: Key, id: PeerId) -> PeerIndex {
        let at = id.index();
        if self.slots.len() <= at {
            self.slots.resize_with(at + 1, || None);
        }
        self.slots[at] = Some(Peer {
            key,
            id,
            allowed_ips: Vec::new(),
            path: Path::default(),
            rx_bytes: 0,
            tx_bytes: 0,
            seen_by: Vec::new(),
            active_told: None,
            fault_told: None,
        });
        self.by_key.insert(key, at as PeerIndex);
        at as PeerIndex
    }

    pub fn remove(&mut self, index: PeerIndex) -> Option<Peer> {
        let peer = self.slots.get_mut(index as usize)?.take()?;
        self.by_key.remove(&peer.key);
        Some(peer)
    }

    pub fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Peer)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index as PeerIndex, slot.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut().flatten()
    }
}

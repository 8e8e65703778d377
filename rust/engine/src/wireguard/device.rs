//! The device: a private key, its peers, and everything they share.

use std::collections::HashMap;

use x25519_dalek::{PublicKey, StaticSecret};

use crate::aead::{best_backend, BatchAead};

use super::cookie::CookieJar;
use super::generator::Generator;
use super::index::IndexTable;
use super::limiter::{Limiter, LoadGauge};
use super::noise::diffie_hellman;
use super::peer::Peer;
use super::primitives::Secret;
use super::timers::Timers;
use super::{Counters, Instant, PeerId, PeerStats};

/// What a device is made of.
pub struct Config {
    /// The node's private key.
    pub private_key: [u8; 32],
    /// Seed of the device's generator: 32 bytes of the operating system's randomness.
    pub seed: [u8; 32],
    /// Largest inner packet; padding never exceeds it.
    pub mtu: usize,
    /// Handshake messages a second above which a source must prove its address by a cookie (200 suits a node).
    pub under_load_per_second: u32,
}

/// A peer's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its public key.
    pub public_key: [u8; 32],
}

pub(super) struct Entry {
    pub(super) generation: u32,
    pub(super) peer: Option<Box<Peer>>,
}

/// See the module's documentation for the order of calls.
pub struct Device {
    pub(super) private: StaticSecret,
    pub(super) public: [u8; 32],
    pub(super) aead: &'static dyn BatchAead,
    pub(super) generator: Generator,
    pub(super) mtu: usize,
    pub(super) entries: Vec<Entry>,
    free: Vec<u32>,
    pub(super) by_key: HashMap<[u8; 32], PeerId, foldhash::quality::RandomState>,
    pub(super) indices: IndexTable,
    pub(super) timers: Timers,
    pub(super) jar: CookieJar,
    pub(super) limiter: Limiter,
    pub(super) gauge: LoadGauge,
    pub(super) staged_bytes: usize,
    pub(super) counters: Counters,
}

impl Device {
    /// A device without peers.
    pub fn new(config: Config) -> Self {
        let mut generator = Generator::new(config.seed);
        let private = StaticSecret::from(config.private_key);
        let public = PublicKey::from(&private).to_bytes();
        let index_keys = std::array::from_fn(|_| generator.u64() as u32);
        Device {
            private,
            public,
            aead: best_backend(),
            generator,
            mtu: config.mtu,
            entries: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            indices: IndexTable::new(index_keys),
            timers: Timers::default(),
            jar: CookieJar::new(&public),
            limiter: Limiter::default(),
            gauge: LoadGauge::new(config.under_load_per_second),
            staged_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// Puts another private key in place; drops every session. Peers keep their ids and what is staged; a
    /// handshake that is being tried is tried again with the new key.
    pub fn set_private_key(&mut self, private_key: [u8; 32]) {
        self.private = StaticSecret::from(private_key);
        self.public = PublicKey::from(&self.private).to_bytes();
        self.jar = CookieJar::new(&self.public);
        for peer in self.entries.iter_mut().filter_map(|entry| entry.peer.as_deref_mut()) {
            // The next try, which is in the timers already, will be made with the new key.
            peer.drop_keys(&mut self.indices);
            if let Some(pending) = peer.pending.take() {
                self.indices.release(pending.local_index);
            }
            peer.cookie = None;
            // A key that gave a secret with one private key gives one with any: only points of small order give none.
            peer.static_shared = diffie_hellman(&self.private, &peer.public_key).unwrap_or_default();
        }
    }

    /// The public key of the private one.
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// Changes the largest inner packet.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Adds a peer; a key that is there already keeps its id and sessions. `None` for a key no secret can be shared with (of small order).
    pub fn add_peer(&mut self, public_key: [u8; 32], preshared_key: Option<[u8; 32]>) -> Option<PeerId> {
        let preshared = Secret::new(preshared_key.unwrap_or_default());
        if let Some(id) = self.by_key.get(&public_key).copied() {
            if let Some(peer) = self.peer_mut(id) {
                peer.preshared = preshared;
            }
            return Some(id);
        }
        let static_shared = diffie_hellman(&self.private, &public_key)?;
        let peer = Box::new(Peer::new(public_key, static_shared, preshared));
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.entries.len()).ok()?;
                self.entries.push(Entry { generation: 0, peer: None });
                slot
            }
        };
        let entry = &mut self.entries[slot as usize];
        entry.peer = Some(peer);
        let id = PeerId { slot, generation: entry.generation };
        self.by_key.insert(public_key, id);
        Some(id)
    }

    /// Removes a peer with its sessions. `false` when it was not there.
    pub fn remove_peer(&mut self, peer: PeerId) -> bool {
        let Some(entry) = self.entries.get_mut(peer.index()).filter(|entry| entry.generation == peer.generation) else {
            return false;
        };
        let Some(mut removed) = entry.peer.take() else { return false };
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(peer.slot);
        removed.drop_sessions(&mut self.indices);
        self.staged_bytes -= removed.staged_bytes;
        self.counters.staged_dropped += removed.staged.len() as u64;
        self.by_key.remove(&removed.public_key);
        true
    }

    /// The id of a public key's peer.
    pub fn peer_by_key(&self, public_key: &[u8; 32]) -> Option<PeerId> {
        self.by_key.get(public_key).copied()
    }

    /// A peer's identity.
    pub fn peer(&self, peer: PeerId) -> Option<PeerInfo> {
        self.peer_ref(peer).map(|peer| PeerInfo { public_key: peer.public_key })
    }

    /// What a peer has done.
    pub fn peer_stats(&self, now: Instant, peer: PeerId) -> Option<PeerStats> {
        let peer = self.peer_ref(peer)?;
        let has_session = peer.current.as_ref().is_some_and(|session| session.may_send(now));
        Some(PeerStats { has_session, ..peer.stats })
    }

    /// The fates of datagrams so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    pub(super) fn peer_ref(&self, id: PeerId) -> Option<&Peer> {
        self.entries.get(id.index()).filter(|entry| entry.generation == id.generation)?.peer.as_deref()
    }

    pub(super) fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.entries.get_mut(id.index()).filter(|entry| entry.generation == id.generation)?.peer.as_deref_mut()
    }

    /// The peer an index belongs to.
    pub(super) fn peer_of_index(&self, index: u32) -> Option<PeerId> {
        let slot = self.indices.resolve(index)?;
        let entry = self.entries.get(slot as usize)?;
        entry.peer.is_some().then_some(PeerId { slot, generation: entry.generation })
    }

    /// Arms the timers for a peer's earliest deadline.
    pub(super) fn rearm(&mut self, id: PeerId) {
        let entry = self.entries.get_mut(id.index()).filter(|entry| entry.generation == id.generation);
        if let Some(peer) = entry.and_then(|entry| entry.peer.as_deref_mut()) {
            let deadline = peer.deadline();
            self.timers.arm(id, &mut peer.armed, deadline);
        }
    }
}

//! The seam to the WireGuard core: sessions by peer, and what their messages and timers mean for the node.
//!
//! The core behind it is `boringtun` until `wireguard` stands; only this file knows.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::config::Key;
use super::events::Event;
use super::node::Node;
use crate::routes::PeerIndex;
use crate::tun::Segments;

/// Before the ciphertext: type, receiver, counter.
pub(super) const HEADER_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const LARGEST_BYTES: usize = 70_000;
const TIMERS_EVERY: Duration = Duration::from_millis(250);
const HANDSHAKES_A_SECOND: u64 = 100;

/// Where a WireGuard message came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Udp(SocketAddr),
    Relay { region: u32, key: Key },
}

pub(super) struct Sessions {
    private: StaticSecret,
    public: PublicKey,
    /// By the peer's place in the slab.
    tunnels: Vec<Option<Tunn>>,
    limiter: Arc<RateLimiter>,
    next_timers: Instant,
    buffer: Vec<u8>,
}

impl Sessions {
    pub fn new(private: &Key, now: Instant) -> Sessions {
        let private = StaticSecret::from(*private);
        let public = PublicKey::from(&private);
        Sessions {
            private,
            public,
            tunnels: Vec::new(),
            limiter: Arc::new(RateLimiter::new(&public, HANDSHAKES_A_SECOND)),
            next_timers: now,
            buffer: vec![0; LARGEST_BYTES],
        }
    }

    fn add(&mut self, index: PeerIndex, key: &Key) {
        let at = index as usize;
        if self.tunnels.len() <= at {
            self.tunnels.resize_with(at + 1, || None);
        }
        let limiter = Some(Arc::clone(&self.limiter));
        self.tunnels[at] = Some(Tunn::new(self.private.clone(), PublicKey::from(*key), None, None, index, limiter));
    }

    fn get(&mut self, index: PeerIndex) -> Option<&mut Tunn> {
        self.tunnels.get_mut(index as usize)?.as_mut()
    }

    /// Seal every datagram of a train in place; false when there is no session after all.
    pub fn seal(&mut self, index: PeerIndex, train: &mut [u8], stride: usize) -> bool {
        let Some(Some(tunnel)) = self.tunnels.get_mut(index as usize) else { return false };
        for slot in train.chunks_mut(stride) {
            let inner = HEADER_BYTES..slot.len() - TAG_BYTES;
            match tunnel.encapsulate(&slot[inner], &mut self.buffer) {
                TunnResult::WriteToNetwork(sealed) if sealed.len() == slot.len() => slot.copy_from_slice(sealed),
                _ => return false,
            }
        }
        true
    }
}

impl Node {
    /// Change our key: every session ends.
    pub(super) fn set_private_key(&mut self, key: &Key) {
        self.sessions = Sessions::new(key, self.now);
        self.relays.set_private_key(key);
        for (index, peer) in self.peers.iter() {
            self.sessions.add(index, &peer.key);
        }
    }

    pub(super) fn add_session(&mut self, index: PeerIndex, key: &Key) {
        self.sessions.add(index, key);
    }

    pub(super) fn drop_session(&mut self, index: PeerIndex) {
        if let Some(slot) = self.sessions.tunnels.get_mut(index as usize) {
            *slot = None;
        }
    }

    pub(super) fn handshake_age(&self, index: PeerIndex) -> Option<Duration> {
        self.sessions.tunnels.get(index as usize)?.as_ref()?.stats().0
    }

    #[inline]
    pub(super) fn has_session(&mut self, index: PeerIndex) -> bool {
        self.sessions.get(index).is_some_and(|tunnel| tunnel.stats().0.is_some())
    }

    /// Keep packets until there is a session, and ask for one.
    pub(super) fn stage(&mut self, index: PeerIndex, segments: &Segments<'_>) {
        for number in 0..segments.count() {
            let mut packet = vec![0; segments.len_of(number)];
            segments.write(number, &mut packet);
            self.drive(index, None, |tunnel, buffer| tunnel.encapsulate(&packet, buffer));
        }
    }

    /// A WireGuard message at `place` of the arena.
    pub(super) fn take_wireguard(&mut self, arena: &mut [u8], place: Range<usize>, source: Source) {
        let message = &arena[place.clone()];
        let index = match Tunn::parse_incoming_packet(message) {
            Ok(Packet::HandshakeInit(init)) => {
                parse_handshake_anon(&self.sessions.private, &self.sessions.public, &init)
                    .ok()
                    .and_then(|half| self.peers.find(&half.peer_static_public))
            }
            Ok(Packet::HandshakeResponse(packet)) => Some(packet.receiver_idx >> 8),
            Ok(Packet::PacketCookieReply(packet)) => Some(packet.receiver_idx >> 8),
            Ok(Packet::PacketData(packet)) => Some(packet.receiver_idx >> 8),
            Err(_) => None,
        };
        let Some(index) = index.filter(|index| self.peers.get(*index).is_some()) else {
            self.counters.drop_in_unauthentic += 1;
            return;
        };
        let had = self.handshake_age(index);
        let message = message.to_vec();
        let refused = self.counters.drop_in_unauthentic;
        let opened = self.drive(index, Some(source), |tunnel, buffer| tunnel.decapsulate(None, &message, buffer));
        if self.counters.drop_in_unauthentic == refused {
            self.heard(index, source);
        }
        if self.handshake_age(index).is_some_and(|age| had.is_none_or(|had| age < had)) {
            self.counters.handshakes_done += 1;
            if let Some(peer) = self.peers.get(index) {
                self.events.push(Event::HandshakeDone(peer.key));
            }
            // What waited for the session goes out now.
            while self.sent_something(index, source) {}
        }
        if let Some(len) = opened {
            arena[place.start..place.start + len].copy_from_slice(&self.sessions.buffer[..len]);
            self.deliver(arena, place.start..place.start + len, index);
        }
    }

    fn heard(&mut self, index: PeerIndex, source: Source) {
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.last_rx = Some(self.now);
        if let Source::Relay { region, key } = source {
            if !peer.seen_by.contains(&region) {
                peer.seen_by.push(region);
                self.events.push(Event::RelayPeerSeen { region, key });
            }
        }
    }

    fn sent_something(&mut self, index: PeerIndex, source: Source) -> bool {
        let before = self.outbox.bytes();
        self.drive(index, Some(source), |tunnel, buffer| tunnel.decapsulate(None, &[], buffer));
        self.outbox.bytes() > before
    }

    /// Let the core do something for a peer, and do what it wants done: the length of an inner packet in its buffer, if any.
    fn drive(
        &mut self,
        index: PeerIndex,
        source: Option<Source>,
        act: impl for<'a> FnOnce(&mut Tunn, &'a mut [u8]) -> TunnResult<'a>,
    ) -> Option<usize> {
        let mut buffer = std::mem::take(&mut self.sessions.buffer);
        let result = self.sessions.get(index).map(|tunnel| act(tunnel, &mut buffer));
        let opened = match result {
            Some(TunnResult::WriteToNetwork(message)) => {
                self.answer(index, source, message);
                None
            }
            Some(TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _)) => Some(packet.len()),
            Some(TunnResult::Err(WireGuardError::ConnectionExpired)) => {
                self.counters.handshakes_failed += 1;
                if let Some(peer) = self.peers.get(index) {
                    self.events.push(Event::HandshakeFailed(peer.key));
                }
                None
            }
            Some(TunnResult::Err(_)) => {
                self.counters.drop_in_unauthentic += u64::from(source.is_some());
                None
            }
            Some(TunnResult::Done) | None => None,
        };
        self.sessions.buffer = buffer;
        opened
    }

    /// Send a message by the peer's path; without one, to where the question came from.
    fn answer(&mut self, index: PeerIndex, source: Option<Source>, message: &[u8]) {
        let Some(path) = self.peers.get(index).map(|peer| peer.path) else { return };
        if !path.is_none() {
            self.send_sealed(&path, index, message);
            return;
        }
        match source {
            Some(Source::Udp(to)) => self.send_datagram(to, message),
            Some(Source::Relay { region, key }) => self.relays.send(region, &key, message, false, &mut self.counters),
            None => self.counters.drop_out_no_path += 1,
        }
    }

    pub(super) fn run_timers(&mut self) {
        if self.relays.next_deadline().is_some_and(|at| at <= self.now) {
            self.relays.run_timers(self.now, &self.poller);
        }
        if self.now < self.sessions.next_timers {
            return;
        }
        self.sessions.next_timers = self.now + TIMERS_EVERY;
        self.sessions.limiter.reset_count();
        for index in 0..self.sessions.tunnels.len() {
            self.drive(index as PeerIndex, None, |tunnel, buffer| tunnel.update_timers(buffer));
        }
    }

    /// How long the thread may sleep.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let timers = self.sessions.next_timers;
        let next = self.relays.next_deadline().map_or(timers, |relays| relays.min(timers));
        Some(next.saturating_duration_since(self.now))
    }
}

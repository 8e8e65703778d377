//! The seam to the WireGuard core: when it is called, and what becomes of what it gives back.
//!
//! Trains are sealed and opened in groups, so that a cipher with wide lanes has something to fill them with.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::config::Key;
use super::events::Event;
use super::node::Node;
use super::peers::Path;
use crate::aead::{OpenJob, Opened, SealJob};
use crate::routes::PeerIndex;
use crate::tun::Segments;
use crate::wireguard::{self, Destination, Device, Kind, Out, PeerId, Source, Tai64N};

/// Packets sealed or opened at a time.
const GROUP: usize = 8;

/// Handshake messages a second above which a source must prove its address.
const UNDER_LOAD_A_SECOND: u32 = 200;

/// The first byte of a cookie reply (WireGuard, section 5.4.7).
const COOKIE_REPLY: u8 = 3;

pub(super) struct Sessions {
    device: Device,
    out: Out,
}

impl Sessions {
    /// Fails when the system gives no random bytes.
    pub fn new(private: &Key, mtu: usize) -> std::io::Result<Sessions> {
        let mut seed = Zeroizing::new([0u8; 32]);
        SystemRandom::new().fill(&mut *seed).map_err(|_| std::io::Error::other("the system gives no random bytes"))?;
        let config =
            wireguard::Config { private_key: *private, seed: *seed, mtu, under_load_per_second: UNDER_LOAD_A_SECOND };
        Ok(Sessions { device: Device::new(config), out: Out::new() })
    }

    pub fn add(&mut self, key: Key) -> Option<PeerId> {
        self.device.add_peer(key, None)
    }

    pub fn remove(&mut self, peer: PeerId) {
        self.device.remove_peer(peer);
    }

    /// A way to the peer opened: what was tried before is tried again.
    pub fn retry(&mut self, now: wireguard::Instant, peer: PeerId) {
        self.device.retry_handshake(now, peer);
    }

    pub fn stats(&self, now: wireguard::Instant, peer: PeerId) -> wireguard::PeerStats {
        self.device.peer_stats(now, peer).unwrap_or_default()
    }

    pub fn counters(&self) -> wireguard::Counters {
        self.device.counters()
    }

    /// Seal a train: packet i of `inner` (one every `inner_stride` bytes, the last one of `inner_last`) goes to place i of
    /// `train`. False when there is no session, or it is used up; the train is worthless then.
    #[inline]
    pub fn seal(
        &mut self,
        now: wireguard::Instant,
        peer: PeerId,
        inner: &[u8],
        inner_stride: usize,
        train: &mut [u8],
        stride: usize,
    ) -> bool {
        let Some(mut sealer) = self.device.sealer(now, peer) else { return false };
        let mut left = inner.len().div_ceil(inner_stride);
        let mut packets = inner.chunks(inner_stride);
        let mut places = train.chunks_mut(stride);
        while left >= GROUP {
            let mut jobs: [SealJob<'_>; GROUP] = std::array::from_fn(|_| {
                SealJob::new(packets.next().unwrap_or_default(), places.next().unwrap_or_default())
            });
            if !sealer.seal(&mut jobs) {
                return false;
            }
            left -= GROUP;
        }
        packets.zip(places).all(|(packet, place)| sealer.seal_one(packet, place).is_some())
    }

    #[inline]
    pub fn can_send(&mut self, now: wireguard::Instant, peer: PeerId) -> bool {
        self.device.sealer(now, peer).is_some()
    }
}

impl Node {
    /// Change our key: every session ends, and so does every relay connection.
    pub(super) fn set_private_key(&mut self, key: &Key) {
        self.sessions.device.set_private_key(*key);
        self.relays.set_private_key(key);
    }

    /// Keep packets until there is a session, and ask for one.
    pub(super) fn stage(&mut self, index: PeerIndex, segments: &Segments<'_>) {
        let Some(id) = self.peers.get(index).map(|peer| peer.id) else { return };
        let mut plain = std::mem::take(&mut self.plain_packets);
        for number in 0..segments.count() {
            let packet = &mut plain[..segments.len_of(number)];
            segments.write(number, packet);
            if !self.sessions.device.stage(self.wireguard_now, id, packet) {
                self.counters.drop_out_no_session += 1;
            }
            if let Some(peer) = self.peers.get_mut(index) {
                peer.tx_bytes += segments.len_of(number) as u64;
            }
        }
        self.plain_packets = plain;
    }

    /// A run of WireGuard messages at `place` of the arena, one every `stride` bytes.
    pub(super) fn take_wireguard(&mut self, arena: &mut [u8], place: Range<usize>, stride: usize, source: Source) {
        let mut at = place.start;
        while at < place.end {
            let end = (at + stride).min(place.end);
            match wireguard::classify(&arena[at..end]) {
                Some(Kind::Data(receiver)) => at = self.open_data(arena, at..place.end, stride, receiver, source),
                Some(Kind::Handshake) => {
                    let sessions = &mut self.sessions;
                    let message = &arena[at..end];
                    let waiting = sessions.out.packets.len();
                    let known =
                        sessions.device.handle_handshake(self.wireguard_now, source, message, &mut sessions.out);
                    match known {
                        Some(peer) => {
                            self.heard(peer, source);
                            self.answer_by_path(peer, source, waiting);
                        }
                        None => self.counters.drop_in_unauthentic += 1,
                    }
                    at = end;
                }
                None => {
                    self.counters.drop_in_unauthentic += 1;
                    at = end;
                }
            }
        }
    }

    /// An answer goes back to where the question came from, and by the peer's path where that leads elsewhere: of the two,
    /// one may be dead already or not alive yet. The peer takes the first and ignores the second. Answers to other
    /// messages, the first `waiting`, have gone their ways.
    fn answer_by_path(&mut self, peer: PeerId, source: Source, waiting: usize) {
        let index = peer.index() as PeerIndex;
        let Some(path) = self.peers.get(index).map(|peer| peer.path) else { return };
        let elsewhere = match source {
            Source::Udp(from) => Path { udp: path.udp.filter(|route| route.to != from), relay: path.relay },
            Source::Relay { region, .. } => Path { udp: path.udp, relay: path.relay.filter(|other| *other != region) },
        };
        if elsewhere.is_none() {
            return;
        }
        let mut packets = std::mem::take(&mut self.sessions.out.packets);
        for answer in packets.iter().skip(waiting).filter(|answer| answer.to == Destination::Source(source)) {
            self.send_sealed(&elsewhere, index, &answer.bytes);
        }
        std::mem::swap(&mut self.sessions.out.packets, &mut packets);
    }

    /// Open up to a group of data messages to one receiver; where the next message begins.
    fn open_data(
        &mut self,
        arena: &mut [u8],
        place: Range<usize>,
        stride: usize,
        receiver: u32,
        source: Source,
    ) -> usize {
        let mut places: [Range<usize>; GROUP] = std::array::from_fn(|_| 0..0);
        let mut results: [Opened; GROUP] = std::array::from_fn(|_| Opened::Pending);
        let mut count = 0;
        let mut at = place.start;
        let sessions = &mut self.sessions;
        let now = self.wireguard_now;
        let whole_group = place.start + GROUP * stride <= place.end
            // The core opens one session's messages at a time; at a rekey two sessions may share a train.
            && (1..GROUP).all(|number| {
                let at = place.start + number * stride;
                arena[at..at + 8] == arena[place.start..place.start + 8]
            });
        let peer = if whole_group {
            let group = &mut arena[place.start..place.start + GROUP * stride];
            let mut datagrams = group.chunks_mut(stride);
            let mut jobs: [OpenJob<'_>; GROUP] =
                std::array::from_fn(|_| OpenJob::new(datagrams.next().unwrap_or_default()));
            let peer = sessions.device.open(now, receiver, &mut jobs, &mut sessions.out);
            for (number, job) in jobs.into_iter().enumerate() {
                results[number] = job.result;
                places[number] = at..at + stride;
                at += stride;
            }
            count = GROUP;
            peer
        } else {
            let end = (at + stride).min(place.end);
            let mut jobs = [OpenJob::new(&mut arena[at..end])];
            let peer = sessions.device.open(now, receiver, &mut jobs, &mut sessions.out);
            let [job] = jobs;
            results[0] = job.result;
            places[0] = at..end;
            count += 1;
            at = end;
            peer
        };
        let Some(peer) = peer else {
            self.counters.drop_in_unauthentic += count as u64;
            return at;
        };
        self.heard(peer, source);
        for (place, result) in places[..count].iter().zip(&results) {
            match result {
                // An empty packet is a keepalive.
                Opened::Plaintext(range) if range.is_empty() => {}
                Opened::Plaintext(range) => {
                    self.deliver(arena, place.start + range.start..place.start + range.end, peer.index() as PeerIndex);
                }
                _ => self.counters.drop_in_unauthentic += 1,
            }
        }
        at
    }

    #[inline]
    fn heard(&mut self, peer: PeerId, source: Source) {
        let Source::Relay { region, key } = source else { return };
        let Some(peer) = self.peers.get_mut(peer.index() as PeerIndex) else { return };
        // Who passes on another's packets by a relay is not the one to be found there.
        if peer.key == key && !peer.seen_by.contains(&region) {
            peer.seen_by.push(region);
            self.events.push(Event::RelayPeerSeen { region, key: peer.key });
        }
    }

    /// Let the core do what is due, then send what it made and tell what it tells. Once a turn, before sleeping.
    pub(super) fn drive_sessions(&mut self) {
        let sessions = &mut self.sessions;
        if sessions.device.next_timeout().is_some_and(|at| at <= self.wireguard_now) {
            // A clock before 1970 only makes our handshakes look old.
            let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            sessions.device.handle_timeout(self.wireguard_now, Tai64N::from_unix(since_epoch), &mut sessions.out);
        }
        // Told before it shows: what goes out now may be seen at the other end at once.
        self.tell_sessions();
        while let Some(outgoing) = self.sessions.out.packets.pop_front() {
            self.send_outgoing(outgoing.to, &outgoing.bytes);
        }
    }

    /// Tell Python what the core has told.
    pub(super) fn tell_sessions(&mut self) {
        while let Some(event) = self.sessions.out.events.pop_front() {
            self.tell_session(event);
        }
        self.shared.events.push_all(&mut self.events);
    }

    fn send_outgoing(&mut self, to: Destination, message: &[u8]) {
        match to {
            Destination::Peer(peer) => {
                let index = peer.index() as PeerIndex;
                match self.peers.get(index).map(|peer| peer.path).filter(|path| !path.is_none()) {
                    Some(path) => self.send_sealed(&path, index, message),
                    None => self.counters.drop_out_no_path += 1,
                }
            }
            Destination::Source(Source::Udp(to)) => {
                // Of the answers, only cookies go to senders who have proven nothing.
                let proven = message.first() != Some(&COOKIE_REPLY);
                if proven || self.sockets.of(&to).is_some_and(|socket| socket.has_room_for_strangers()) {
                    self.send_datagram(to, message, true);
                } else {
                    self.counters.drop_out_cookies += 1;
                }
            }
            Destination::Source(Source::Relay { region, key }) => {
                self.relays.send(region, &key, message, false, &mut self.counters);
            }
        }
    }

    fn tell_session(&mut self, event: wireguard::Event) {
        let key = |node: &Node, peer: PeerId| node.peers.get(peer.index() as PeerIndex).map(|peer| peer.key);
        match event {
            wireguard::Event::HandshakeDone { peer, .. } => {
                self.counters.handshakes_done += 1;
                self.events.extend(key(self, peer).map(Event::HandshakeDone));
            }
            wireguard::Event::HandshakeExpired { peer } => {
                self.counters.handshakes_failed += 1;
                self.events.extend(key(self, peer).map(Event::HandshakeFailed));
            }
            wireguard::Event::SessionsZeroed { .. } => self.counters.sessions_zeroed += 1,
        }
    }

    /// How long until the core wants to be called.
    pub(super) fn sessions_left(&self) -> Option<Duration> {
        self.sessions.device.next_timeout().map(|at| at.since(self.wireguard_now))
    }
}

/// The clock of sessions goes on while the machine sleeps: keys age then, too.
pub(super) fn wireguard_now() -> wireguard::Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call, which only fails for clocks that do not exist.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    wireguard::Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

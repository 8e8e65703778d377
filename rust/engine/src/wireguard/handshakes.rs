//! The device's handshakes: initiations made, and the three kinds of handshake message taken.

use super::cookie::{open_reply, write_macs, COOKIE_REPLY_BYTES};
use super::device::Device;
use super::noise::{self, INITIATION_BYTES, RESPONSE_BYTES};
use super::session::Session;
use super::timers::{INITIATION_INTERVAL, REKEY_TIMEOUT, REKEY_TIMEOUT_JITTER, RETRY_SPACING, ZERO_KEYS_AFTER};
use super::{Destination, Event, Instant, Out, Outgoing, PeerId, Source, Tai64N};

impl Device {
    /// Asks for a handshake at the next `handle_timeout`, unless one runs; at most one initiation goes out in 5 s.
    pub fn start_handshake(&mut self, now: Instant, peer: PeerId) {
        if let Some(state) = self.peer_mut(peer) {
            state.want_handshake(now);
            self.rearm(peer);
        }
    }

    /// A way to the peer opened, so that what was sent before is lost: a handshake that is wanted or under way is tried
    /// anew at the next `handle_timeout`, but no sooner after the last try than a responder would hear it.
    pub fn retry_handshake(&mut self, now: Instant, peer: PeerId) {
        let Some(state) = self.peer_mut(peer) else { return };
        let Some(planned) = state.initiate_at else { return };
        let earliest = state.last_initiation_sent.map_or(now, |sent| (sent + RETRY_SPACING).max(now));
        state.initiate_at = Some(planned.min(earliest));
        self.rearm(peer);
    }

    /// Takes an initiation, a response or a cookie reply. The answer is the peer that it authenticated; a cookie reply names
    /// one too, but whoever saw our message can have made it.
    pub fn handle_handshake(&mut self, now: Instant, source: Source, message: &[u8], out: &mut Out) -> Option<PeerId> {
        if let Ok(reply) = <&[u8; COOKIE_REPLY_BYTES]>::try_from(message) {
            if reply[..4] != [3, 0, 0, 0] {
                self.counters.malformed += 1;
                return None;
            }
            return self.handle_cookie_reply(now, reply);
        }
        let kind = message.get(..4);
        let is_initiation = message.len() == INITIATION_BYTES && kind == Some(&[1, 0, 0, 0]);
        let is_response = message.len() == RESPONSE_BYTES && kind == Some(&[2, 0, 0, 0]);
        if !is_initiation && !is_response {
            self.counters.malformed += 1;
            return None;
        }
        // What answers nothing we asked puts nobody under load.
        if is_response && self.answered_by(message).is_none() {
            self.counters.unknown_index += 1;
            return None;
        }
        if !self.jar.mac1_fits(message) {
            self.counters.bad_mac1 += 1;
            return None;
        }
        if self.gauge.note(now) {
            if !self.jar.mac2_fits(now, &source, message) {
                if !self.gauge.may_reply() {
                    self.counters.rate_limited += 1;
                    return None;
                }
                let reply = self.jar.reply(now, &source, message, &mut self.generator);
                out.packets.push_back(Outgoing { to: Destination::Source(source), bytes: reply.to_vec() });
                self.counters.cookies_sent += 1;
                return None;
            }
            if !self.limiter.allow(now, &source) {
                self.counters.rate_limited += 1;
                return None;
            }
        }
        if let Ok(initiation) = message.try_into() {
            self.handle_initiation(now, source, initiation, out)
        } else if let Ok(response) = message.try_into() {
            self.handle_response(now, response, out)
        } else {
            None
        }
    }

    fn handle_initiation(
        &mut self,
        now: Instant,
        source: Source,
        message: &[u8; INITIATION_BYTES],
        out: &mut Out,
    ) -> Option<PeerId> {
        let Some(received) = noise::receive(message, &self.private, &self.public) else {
            self.counters.bad_handshake += 1;
            return None;
        };
        let Some(id) = self.by_key.get(&received.initiator_public).copied() else {
            self.counters.unknown_initiator += 1;
            return None;
        };
        let peer = self.peer_ref(id)?;
        let Some(authenticated) = received.authenticate(&peer.static_shared) else {
            self.counters.bad_handshake += 1;
            return None;
        };
        let too_soon = peer.last_initiation_seen.is_some_and(|seen| now.since(seen) < INITIATION_INTERVAL);
        if too_soon || authenticated.timestamp <= peer.last_timestamp_seen {
            self.counters.stale_initiation += 1;
            return None;
        }
        let timestamp = authenticated.timestamp;
        let preshared = peer.preshared.clone();
        let ephemeral = self.generator.bytes32();
        let local_index = self.indices.allocate(id.slot)?;
        let Some((mut response, keys, remote_index)) = authenticated.respond(local_index, &ephemeral, &preshared)
        else {
            self.indices.release(local_index);
            self.counters.bad_handshake += 1;
            return None;
        };
        let entry = self.entries.get_mut(id.index())?;
        let peer = entry.peer.as_deref_mut()?;
        peer.last_timestamp_seen = timestamp;
        peer.last_initiation_seen = Some(now);
        let cookie = peer.fresh_cookie(now);
        peer.last_mac1 = Some(write_macs(&mut response, &peer.public_key, cookie.as_ref()));
        peer.install_responded(Session::new(keys, local_index, remote_index, false, now), &mut self.indices);
        peer.zero_at = Some(now + ZERO_KEYS_AFTER);
        peer.silence_at = None;
        peer.keepalive_at = None;
        peer.stats.last_received = Some(now);
        peer.stats.last_sent = Some(now);
        self.counters.sessions += 1;
        self.counters.responses_sent += 1;
        out.packets.push_back(Outgoing { to: Destination::Source(source), bytes: response.to_vec() });
        self.rearm(id);
        Some(id)
    }

    /// The peer whose initiation this response claims to answer, and our index in it.
    fn answered_by(&self, response: &[u8]) -> Option<(PeerId, u32)> {
        let index = u32::from_le_bytes(response.get(8..12)?.try_into().ok()?);
        let id = self.peer_of_index(index)?;
        (self.peer_ref(id)?.pending.as_deref()?.local_index == index).then_some((id, index))
    }

    fn handle_response(&mut self, now: Instant, message: &[u8; RESPONSE_BYTES], out: &mut Out) -> Option<PeerId> {
        let (id, index) = self.answered_by(message)?;
        let peer = self.peer_ref(id)?;
        let pending = peer.pending.as_deref()?;
        let Some((keys, remote_index)) = pending.finish(message, &self.private, &peer.preshared) else {
            self.counters.bad_handshake += 1;
            return None;
        };
        let peer = self.entries.get_mut(id.index())?.peer.as_deref_mut()?;
        // The session takes the index over, so it is not released.
        peer.pending = None;
        peer.end_handshake(&mut self.indices);
        peer.install_initiated(Session::new(keys, index, remote_index, true, now), &mut self.indices);
        peer.zero_at = Some(now + ZERO_KEYS_AFTER);
        peer.silence_at = None;
        peer.stats.last_received = Some(now);
        peer.stats.last_handshake = Some(now);
        self.counters.sessions += 1;
        out.events.push_back(Event::HandshakeDone { peer: id, initiator: true });
        // The responder may not send before it has heard data under the new keys: an empty message does it.
        if !self.flush_staged(now, id, out) {
            self.send_keepalive(now, id, out);
        }
        self.rearm(id);
        Some(id)
    }

    fn handle_cookie_reply(&mut self, now: Instant, reply: &[u8; COOKIE_REPLY_BYTES]) -> Option<PeerId> {
        let index = u32::from_le_bytes(reply[4..8].try_into().ok()?);
        let found = self.peer_of_index(index);
        let Some(peer) = found.and_then(|id| self.peer_mut(id)) else {
            self.counters.unknown_index += 1;
            return None;
        };
        // The mac is used up: a replayed reply finds none.
        let opened = peer.last_mac1.and_then(|mac1| open_reply(reply, &peer.public_key, &mac1));
        let Some(cookie) = opened else {
            self.counters.bad_handshake += 1;
            return None;
        };
        peer.cookie = Some((cookie, now));
        peer.last_mac1 = None;
        self.counters.cookies_received += 1;
        found
    }

    /// Sends an initiation and sets the time of the next try.
    pub(super) fn send_initiation(&mut self, now: Instant, wall: Tai64N, id: PeerId, out: &mut Out) {
        let ephemeral = self.generator.bytes32();
        let jitter = self.generator.jitter(REKEY_TIMEOUT_JITTER);
        let Some(peer) = self.entries.get_mut(id.index()).and_then(|entry| entry.peer.as_deref_mut()) else { return };
        let timestamp = wall.max(peer.last_timestamp_sent.successor());
        peer.initiate_at = Some(now + REKEY_TIMEOUT + jitter);
        peer.last_initiation_sent = Some(now);
        let Some(local_index) = self.indices.allocate(id.slot) else { return };
        let made =
            noise::initiate(local_index, &self.public, &peer.public_key, &peer.static_shared, &ephemeral, timestamp);
        let Some((mut message, pending)) = made else {
            self.indices.release(local_index);
            return;
        };
        if let Some(old) = peer.pending.replace(Box::new(pending)) {
            self.indices.release(old.local_index);
        }
        peer.last_timestamp_sent = timestamp;
        let cookie = peer.fresh_cookie(now);
        peer.last_mac1 = Some(write_macs(&mut message, &peer.public_key, cookie.as_ref()));
        peer.stats.last_sent = Some(now);
        self.counters.initiations_sent += 1;
        out.packets.push_back(Outgoing { to: Destination::Peer(id), bytes: message.to_vec() });
    }
}

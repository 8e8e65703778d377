//! What a device does when time has passed.

use super::device::Device;
use super::timers::{KEEPALIVE_TIMEOUT, REKEY_ATTEMPT_TIME};
use super::{Event, Instant, Out, PeerId, Tai64N};

impl Device {
    /// When `handle_timeout` is due next, never later than anything that waits; `None` when nothing does.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what is due: handshakes, retries, keepalives, the end of old keys.
    pub fn handle_timeout(&mut self, now: Instant, wall: Tai64N, out: &mut Out) {
        while let Some((at, id)) = self.timers.pop(now) {
            let Some(peer) = self.peer_mut(id) else { continue };
            if peer.armed != Some(at) {
                continue;
            }
            peer.armed = None;
            self.serve(now, wall, id, out);
            self.rearm(id);
        }
        self.sweep_timers();
    }

    /// Outdated entries pile up under steady traffic; past a few for each peer they are swept.
    fn sweep_timers(&mut self) {
        if self.timers.len() > 64 + 4 * self.entries.len() {
            let armed = self.entries.iter().zip(0u32..).filter_map(|(entry, slot)| {
                let id = PeerId { slot, generation: entry.generation };
                Some((entry.peer.as_deref()?.armed?, id))
            });
            self.timers.rebuild(armed);
        }
    }

    fn serve(&mut self, now: Instant, wall: Tai64N, id: PeerId, out: &mut Out) {
        let Some(entry) = self.entries.get_mut(id.index()) else { return };
        let Some(peer) = entry.peer.as_deref_mut() else { return };
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(peer.zero_at) && peer.drop_keys(&mut self.indices) {
            out.events.push_back(Event::SessionsZeroed { peer: id });
        }
        if is_due(peer.silence_at) {
            peer.silence_at = None;
            peer.want_handshake(now);
        }
        let keepalive_due = is_due(peer.keepalive_at);
        if keepalive_due {
            peer.keepalive_at = peer.keepalive_again.then_some(now + KEEPALIVE_TIMEOUT);
            peer.keepalive_again = false;
        }
        let follow_up = peer.keepalive_at.filter(|_| keepalive_due);
        let mut initiation_due = is_due(peer.initiate_at);
        if initiation_due && peer.trying_since.is_some_and(|since| now.since(since) >= REKEY_ATTEMPT_TIME) {
            initiation_due = false;
            peer.end_handshake(&mut self.indices);
            self.counters.staged_dropped += peer.staged.len() as u64;
            self.staged_bytes -= std::mem::take(&mut peer.staged_bytes);
            peer.staged.clear();
            out.events.push_back(Event::HandshakeExpired { peer: id });
        }
        if initiation_due {
            self.send_initiation(now, wall, id, out);
        }
        if keepalive_due {
            self.send_keepalive(now, id, out);
            if let Some(peer) = self.peer_mut(id) {
                peer.keepalive_at = follow_up;
            }
        }
    }
}

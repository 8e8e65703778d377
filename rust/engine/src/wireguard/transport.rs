//! Data messages: sealing runs, opening runs, and the packets that wait for a session.

use crate::aead::{OpenJob, Opened, Refusal, SealJob, HEADER_BYTES, OVERHEAD_BYTES};

use super::device::Device;
use super::peer::{STAGED_BYTES, STAGED_PACKETS};
use super::timers::{
    KEEPALIVE_TIMEOUT, REJECT_AFTER_MESSAGES, REKEY_ON_RECEIVE_AFTER, REKEY_TIMEOUT_JITTER, SILENCE_LIMIT,
};
use super::{Destination, Event, Instant, Out, Outgoing, PeerId};

/// All peers' staged packets together.
const STAGED_BYTES_IN_ALL: usize = 4 * 1024 * 1024;

/// Seals packets of one peer's current session.
pub struct Sealer<'a> {
    device: &'a mut Device,
    now: Instant,
    peer: PeerId,
}

impl Sealer<'_> {
    /// Length of the datagram that a packet of `plaintext_bytes` becomes.
    pub fn sealed_bytes(&self, plaintext_bytes: usize) -> usize {
        padded_bytes(self.device.mtu, plaintext_bytes) + OVERHEAD_BYTES
    }

    /// Seals one packet into `out` and returns the datagram's length; `None` once the session's counters are used up.
    pub fn seal_one(&mut self, plaintext: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut jobs = [SealJob::new(plaintext, out)];
        self.seal(&mut jobs).then(|| jobs[0].sealed_bytes())
    }

    /// Seals a run: fills each job's counter, padding, header and ciphertext. `false`: the session's counters do not suffice, nothing was sealed.
    pub fn seal(&mut self, jobs: &mut [SealJob<'_>]) -> bool {
        let Sealer { device, now, peer: id } = self;
        let (now, id, mtu) = (*now, *id, device.mtu);
        let Some(peer) = device.entries.get_mut(id.index()).and_then(|entry| entry.peer.as_deref_mut()) else {
            return false;
        };
        let Some(session) = peer.current.as_deref_mut() else { return false };
        let Some(first) = session.reserve(jobs.len() as u64) else { return false };
        let (mut bytes, mut has_data) = (0, false);
        for (job, counter) in jobs.iter_mut().zip(first..) {
            job.counter = counter;
            job.padded_bytes = padded_bytes(mtu, job.plaintext.len());
            job.out[..4].copy_from_slice(&[4, 0, 0, 0]);
            job.out[4..8].copy_from_slice(&session.remote_index.to_le_bytes());
            job.out[8..HEADER_BYTES].copy_from_slice(&counter.to_le_bytes());
            bytes += job.sealed_bytes() as u64;
            has_data |= !job.plaintext.is_empty();
        }
        device.aead.seal(&session.send_key, jobs);
        let wants_rekey = session.wants_rekey(now);
        // The index is as good as random, and costs the data path no draw from the generator.
        let jitter = REKEY_TIMEOUT_JITTER * (session.local_index & 0xff) / 0xff;
        peer.stats.sent_bytes += bytes;
        peer.stats.last_sent = Some(now);
        peer.keepalive_at = None;
        peer.keepalive_again = false;
        if has_data && peer.silence_at.is_none() {
            peer.silence_at = Some(now + SILENCE_LIMIT + jitter);
        }
        if wants_rekey {
            peer.want_handshake(now);
        }
        let deadline = peer.deadline();
        device.timers.arm(id, &mut peer.armed, deadline);
        true
    }
}

/// Up to a multiple of 16, but not past the MTU.
fn padded_bytes(mtu: usize, plaintext_bytes: usize) -> usize {
    plaintext_bytes.next_multiple_of(16).min(mtu.max(plaintext_bytes))
}

impl Device {
    /// The session to send by, if the peer has one that may send now.
    pub fn sealer(&mut self, now: Instant, peer: PeerId) -> Option<Sealer<'_>> {
        let may_send = self.peer_ref(peer)?.current.as_ref()?.may_send(now);
        may_send.then_some(Sealer { device: self, now, peer })
    }

    /// Keeps a packet until a session stands, and starts a handshake unless one runs. `false`: no such peer, or no room at all.
    pub fn stage(&mut self, now: Instant, peer: PeerId, packet: &[u8]) -> bool {
        let Some(state) = self.entries.get_mut(peer.index()).filter(|entry| entry.generation == peer.generation) else {
            return false;
        };
        let Some(state) = state.peer.as_deref_mut() else { return false };
        state.want_handshake(now);
        let fits = packet.len() <= STAGED_BYTES;
        while fits && (state.staged.len() >= STAGED_PACKETS || state.staged_bytes + packet.len() > STAGED_BYTES) {
            let Some(oldest) = state.staged.pop_front() else { break };
            state.staged_bytes -= oldest.len();
            self.staged_bytes -= oldest.len();
            self.counters.staged_dropped += 1;
        }
        let fits = fits && self.staged_bytes + packet.len() <= STAGED_BYTES_IN_ALL;
        if fits {
            state.staged.push_back(packet.to_vec());
            state.staged_bytes += packet.len();
            self.staged_bytes += packet.len();
        } else {
            self.counters.staged_dropped += 1;
        }
        self.rearm(peer);
        fits
    }

    /// Opens a run of data messages to one receiver index; the answer is the peer when at least one was authentic.
    pub fn open(&mut self, now: Instant, receiver: u32, jobs: &mut [OpenJob<'_>], out: &mut Out) -> Option<PeerId> {
        let id = self.peer_of_index(receiver);
        let peer = id.and_then(|id| self.entries.get_mut(id.index())).and_then(|entry| entry.peer.as_deref_mut());
        let (Some(id), Some(peer)) = (id, peer) else {
            return self.refuse_all(jobs, Refusal::UnknownIndex);
        };
        let Some(session) = peer.session_mut(receiver) else {
            return self.refuse_all(jobs, Refusal::UnknownIndex);
        };
        if !session.is_live(now) {
            return self.refuse_all(jobs, Refusal::Expired);
        }
        for job in jobs.iter_mut() {
            job.result = match parse(job.datagram, receiver) {
                None => Opened::Refused(Refusal::Malformed),
                Some(counter) if counter >= REJECT_AFTER_MESSAGES => Opened::Refused(Refusal::Expired),
                Some(counter) if !session.window.is_fresh(counter) => Opened::Refused(Refusal::Replay),
                Some(counter) => {
                    job.counter = counter;
                    Opened::Pending
                }
            };
        }
        self.aead.open(&session.receive_key, jobs);
        let (mut bytes, mut authentic, mut has_data) = (0, false, false);
        for job in jobs.iter_mut() {
            if let Opened::Plaintext(range) = &job.result {
                if session.window.mark(job.counter) {
                    authentic = true;
                    has_data |= !range.is_empty();
                    bytes += job.datagram.len() as u64;
                } else {
                    job.datagram.fill(0);
                    job.result = Opened::Refused(Refusal::Replay);
                }
            }
            match &job.result {
                Opened::Refused(Refusal::Malformed) => self.counters.malformed += 1,
                Opened::Refused(Refusal::Expired) => self.counters.expired_session += 1,
                Opened::Refused(Refusal::Replay) => self.counters.replayed += 1,
                Opened::Refused(Refusal::BadTag) => self.counters.bad_tag += 1,
                _ => {}
            }
        }
        if !authentic {
            return None;
        }
        peer.stats.received_bytes += bytes;
        peer.stats.last_received = Some(now);
        peer.silence_at = None;
        let confirmed = peer.next.as_ref().is_some_and(|next| next.local_index == receiver);
        if confirmed {
            peer.promote_next(&mut self.indices);
            peer.end_handshake(&mut self.indices);
            peer.stats.last_handshake = Some(now);
        }
        if has_data {
            peer.keepalive_again |= peer.keepalive_at.is_some();
            peer.keepalive_at.get_or_insert(now + KEEPALIVE_TIMEOUT);
        }
        let is_old = |session: &super::session::Session| {
            session.initiator && session.local_index == receiver && session.age(now) >= REKEY_ON_RECEIVE_AFTER
        };
        if peer.current.as_deref().is_some_and(is_old) {
            peer.want_handshake(now);
        }
        let deadline = peer.deadline();
        self.timers.arm(id, &mut peer.armed, deadline);
        if confirmed {
            out.events.push_back(Event::HandshakeDone { peer: id, initiator: false });
            self.flush_staged(now, id, out);
        }
        Some(id)
    }

    fn refuse_all(&mut self, jobs: &mut [OpenJob<'_>], why: Refusal) -> Option<PeerId> {
        let count = jobs.len() as u64;
        match why {
            Refusal::Expired => self.counters.expired_session += count,
            _ => self.counters.unknown_index += count,
        }
        for job in jobs {
            job.result = Opened::Refused(why);
        }
        None
    }

    /// Seals what waits into `out`; whether anything was sent.
    pub(super) fn flush_staged(&mut self, now: Instant, id: PeerId, out: &mut Out) -> bool {
        let Some(peer) = self.peer_mut(id) else { return false };
        let staged = std::mem::take(&mut peer.staged);
        let bytes = std::mem::take(&mut peer.staged_bytes);
        self.staged_bytes -= bytes;
        let mut sent = false;
        for packet in staged {
            sent |= self.send_sealed(now, id, &packet, out);
        }
        sent
    }

    pub(super) fn send_keepalive(&mut self, now: Instant, id: PeerId, out: &mut Out) {
        if self.send_sealed(now, id, &[], out) {
            self.counters.keepalives_sent += 1;
        }
    }

    fn send_sealed(&mut self, now: Instant, id: PeerId, packet: &[u8], out: &mut Out) -> bool {
        let Some(mut sealer) = self.sealer(now, id) else { return false };
        let mut bytes = vec![0; sealer.sealed_bytes(packet.len())];
        let sealed = sealer.seal_one(packet, &mut bytes).is_some();
        if sealed {
            out.packets.push_back(Outgoing { to: Destination::Peer(id), bytes });
        }
        sealed
    }
}

/// The counter of a data message to `receiver`.
fn parse(datagram: &[u8], receiver: u32) -> Option<u64> {
    let header = datagram.get(..OVERHEAD_BYTES)?;
    if header[..4] != [4, 0, 0, 0] || header[4..8] != receiver.to_le_bytes() {
        return None;
    }
    Some(u64::from_le_bytes(header[8..16].try_into().ok()?))
}

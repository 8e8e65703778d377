//! One peer: its keys, its sessions, its handshake under way, its deadlines and the packets that wait.

use std::collections::VecDeque;

use super::index::IndexTable;
use super::noise::Pending;
use super::primitives::Secret;
use super::session::Session;
use super::timers::{COOKIE_LIFETIME, REKEY_TIMEOUT};
use super::{Instant, PeerStats, Tai64N};

/// At most so many packets and bytes wait for a session.
pub(crate) const STAGED_PACKETS: usize = 16;
pub(crate) const STAGED_BYTES: usize = 64 * 1024;

/// Boxed in the device's slab; without sessions it is a few hundred bytes.
pub(crate) struct Peer {
    pub(crate) public_key: [u8; 32],
    /// The static-static secret, computed once.
    pub(crate) static_shared: Secret,
    pub(crate) preshared: Secret,
    /// Made as responder, not yet confirmed by the initiator's first data message.
    pub(crate) next: Option<Box<Session>>,
    pub(crate) current: Option<Box<Session>>,
    pub(crate) previous: Option<Box<Session>>,
    pub(crate) pending: Option<Box<Pending>>,
    pub(crate) cookie: Option<([u8; 16], Instant)>,
    /// mac1 of the last handshake message sent: a cookie reply is sealed to it.
    pub(crate) last_mac1: Option<[u8; 16]>,
    pub(crate) last_timestamp_sent: Tai64N,
    pub(crate) last_timestamp_seen: Tai64N,
    pub(crate) last_initiation_sent: Option<Instant>,
    pub(crate) last_initiation_seen: Option<Instant>,
    /// When the next initiation goes out; none unless a handshake is wanted or under way.
    pub(crate) initiate_at: Option<Instant>,
    /// Since when this handshake is tried.
    pub(crate) trying_since: Option<Instant>,
    pub(crate) keepalive_at: Option<Instant>,
    /// Data came while a keepalive was due already: another one follows it.
    pub(crate) keepalive_again: bool,
    /// When silence after sending means that the session is lost.
    pub(crate) silence_at: Option<Instant>,
    pub(crate) zero_at: Option<Instant>,
    /// The peer's valid entry in the timers.
    pub(crate) armed: Option<Instant>,
    pub(crate) staged: VecDeque<Vec<u8>>,
    pub(crate) staged_bytes: usize,
    pub(crate) stats: PeerStats,
}

impl Peer {
    pub(crate) fn new(public_key: [u8; 32], static_shared: Secret, preshared: Secret) -> Self {
        Peer {
            public_key,
            static_shared,
            preshared,
            next: None,
            current: None,
            previous: None,
            pending: None,
            cookie: None,
            last_mac1: None,
            last_timestamp_sent: Tai64N::default(),
            last_timestamp_seen: Tai64N::default(),
            last_initiation_sent: None,
            last_initiation_seen: None,
            initiate_at: None,
            trying_since: None,
            keepalive_at: None,
            keepalive_again: false,
            silence_at: None,
            zero_at: None,
            armed: None,
            staged: VecDeque::new(),
            staged_bytes: 0,
            stats: PeerStats::default(),
        }
    }

    /// The earliest of the peer's deadlines.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.initiate_at, self.keepalive_at, self.silence_at, self.zero_at].into_iter().flatten().min()
    }

    /// Wants a handshake, no sooner than 5 s after the last initiation; one that is wanted or under way stays as it is.
    pub(crate) fn want_handshake(&mut self, now: Instant) {
        if self.initiate_at.is_none() {
            let earliest = self.last_initiation_sent.map_or(now, |sent| sent + REKEY_TIMEOUT);
            self.initiate_at = Some(earliest.max(now));
            self.trying_since = Some(now);
        }
    }

    /// Ends the attempt: a session stands, or nobody answered.
    pub(crate) fn end_handshake(&mut self, indices: &mut IndexTable) {
        if let Some(pending) = self.pending.take() {
            indices.release(pending.local_index);
        }
        self.initiate_at = None;
        self.trying_since = None;
    }

    pub(crate) fn fresh_cookie(&self, now: Instant) -> Option<[u8; 16]> {
        self.cookie.filter(|(_, at)| now.since(*at) < COOKIE_LIFETIME).map(|(cookie, _)| cookie)
    }

    /// The session that receives under an index.
    pub(crate) fn session_mut(&mut self, index: u32) -> Option<&mut Session> {
        [&mut self.current, &mut self.next, &mut self.previous]
            .into_iter()
            .flatten()
            .map(|session| &mut **session)
            .find(|session| session.local_index == index)
    }

    /// A new session as initiator: it sends at once.
    pub(crate) fn install_initiated(&mut self, session: Session, indices: &mut IndexTable) {
        let before = match self.next.take() {
            Some(next) => {
                release(&mut self.current, indices);
                Some(next)
            }
            None => self.current.take(),
        };
        release(&mut self.previous, indices);
        self.previous = before;
        self.current = Some(Box::new(session));
    }

    /// A new session as responder: it waits for the initiator's first data message.
    pub(crate) fn install_responded(&mut self, session: Session, indices: &mut IndexTable) {
        release(&mut self.next, indices);
        release(&mut self.previous, indices);
        self.next = Some(Box::new(session));
    }

    /// Confirms the waiting session.
    pub(crate) fn promote_next(&mut self, indices: &mut IndexTable) {
        if let Some(next) = self.next.take() {
            release(&mut self.previous, indices);
            self.previous = self.current.replace(next);
        }
    }

    /// Drops every session, but not a handshake that is wanted or under way. Whether there was a session.
    pub(crate) fn drop_keys(&mut self, indices: &mut IndexTable) -> bool {
        let (initiate_at, trying_since, pending) = (self.initiate_at, self.trying_since, self.pending.take());
        let had = self.drop_sessions(indices);
        (self.initiate_at, self.trying_since, self.pending) = (initiate_at, trying_since, pending);
        had
    }

    /// Drops every session and the handshake under way. Whether there was a session.
    pub(crate) fn drop_sessions(&mut self, indices: &mut IndexTable) -> bool {
        let had = self.next.is_some() || self.current.is_some() || self.previous.is_some();
        release(&mut self.next, indices);
        release(&mut self.current, indices);
        release(&mut self.previous, indices);
        self.end_handshake(indices);
        self.keepalive_at = None;
        self.keepalive_again = false;
        self.silence_at = None;
        self.zero_at = None;
        had
    }
}

fn release(session: &mut Option<Box<Session>>, indices: &mut IndexTable) {
    if let Some(session) = session.take() {
        indices.release(session.local_index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_peer_costs_less_than_a_kilobyte() {
        assert!(std::mem::size_of::<Peer>() <= 1000, "{}", std::mem::size_of::<Peer>());
    }
}

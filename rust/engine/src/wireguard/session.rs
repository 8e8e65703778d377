//! A session: the two keys of one finished handshake, its send counter and its replay window.

use crate::aead::AeadKey;

use super::noise::TransportKeys;
use super::replay::Window;
use super::timers::{REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME};
use super::Instant;

/// Lives boxed in a peer, from the handshake until it is replaced or zeroed.
pub(crate) struct Session {
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) send_key: AeadKey,
    pub(crate) receive_key: AeadKey,
    pub(crate) window: Window,
    pub(crate) initiator: bool,
    next_counter: u64,
    created: Instant,
}

impl Session {
    pub(crate) fn new(keys: TransportKeys, local_index: u32, remote_index: u32, initiator: bool, now: Instant) -> Self {
        Session {
            local_index,
            remote_index,
            send_key: keys.send,
            receive_key: keys.receive,
            window: Window::new(),
            initiator,
            next_counter: 0,
            created: now,
        }
    }

    pub(crate) fn age(&self, now: Instant) -> std::time::Duration {
        now.since(self.created)
    }

    /// Whether data may still come under it.
    pub(crate) fn is_live(&self, now: Instant) -> bool {
        self.age(now) < REJECT_AFTER_TIME
    }

    /// Whether it may still seal.
    pub(crate) fn may_send(&self, now: Instant) -> bool {
        self.is_live(now) && self.next_counter < REJECT_AFTER_MESSAGES
    }

    /// Whether sending under it calls for a new handshake: by age only as initiator, so that not both sides start one.
    pub(crate) fn wants_rekey(&self, now: Instant) -> bool {
        self.next_counter >= REKEY_AFTER_MESSAGES || (self.initiator && self.age(now) >= REKEY_AFTER_TIME)
    }

    /// Takes `count` counters, the first of which is the answer; `None` when so many are not left.
    pub(crate) fn reserve(&mut self, count: u64) -> Option<u64> {
        let first = self.next_counter;
        let after = first.checked_add(count).filter(|after| *after <= REJECT_AFTER_MESSAGES)?;
        self.next_counter = after;
        Some(first)
    }

    #[cfg(test)]
    pub(crate) fn skip_to_counter(&mut self, counter: u64) {
        self.next_counter = counter;
    }
}

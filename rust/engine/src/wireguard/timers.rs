//! WireGuard's time constants, and the heap that knows which peer is due next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{Instant, PeerId};

pub(crate) const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
pub(crate) const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
pub(crate) const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
pub(crate) const REKEY_TIMEOUT_JITTER: Duration = Duration::from_millis(334);
pub(crate) const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Silence after which a peer that was sent to is taken to have lost its session.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(10 + 5);
/// Age at which receiving alone calls for a new handshake (initiator): reject - keepalive - rekey timeout.
pub(crate) const REKEY_ON_RECEIVE_AFTER: Duration = Duration::from_secs(180 - 10 - 5);
pub(crate) const ZERO_KEYS_AFTER: Duration = Duration::from_secs(3 * 180);
pub(crate) const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
pub(crate) const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// An initiator is heard at most 50 times a second.
pub(crate) const INITIATION_INTERVAL: Duration = Duration::from_millis(20);
/// Between two initiations by different ways, which may differ that much in delay.
pub(crate) const RETRY_SPACING: Duration = Duration::from_millis(100);
pub(crate) const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// Deadlines, earliest first. A peer's `armed` field names its one valid entry; others are skipped when they surface.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, PeerId)>>,
}

impl Timers {
    /// Makes sure that a peer is looked at by `deadline`.
    pub(crate) fn arm(&mut self, peer: PeerId, armed: &mut Option<Instant>, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if armed.is_none_or(|at| deadline < at) {
            *armed = Some(deadline);
            self.heap.push(Reverse((deadline, peer)));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, PeerId)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Forgets outdated entries by taking the valid ones anew.
    pub(crate) fn rebuild(&mut self, armed: impl Iterator<Item = (Instant, PeerId)>) {
        self.heap.clear();
        self.heap.extend(armed.map(Reverse));
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }
}

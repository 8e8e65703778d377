//! One client of a relay: what it has sent so far, what waits for it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::fair::{Dropped, Fair};
use super::frames::{push_frame, Key};

/// Some 35 ms of 60 Mbit/s, or four super-packets: enough that a fast stream never runs dry between two turns of the
/// loop, little enough that a slow receiver's packets are fresh. What does not fit drops the oldest.
const DATA_BYTES: usize = 256 << 10;
/// As many packets as upstream's relay lets wait; `derpprobe` sends a megabyte in 16 and wants them all.
const LEAST_DATA_PACKETS: usize = 32;
/// 32 disco messages of the usual size and more.
const DISCO_BYTES: usize = 16 << 10;
/// Answers of our own that one client may leave waiting: pongs, goodbyes.
const URGENT_BYTES: usize = 16 << 10;
/// Peers remembered per client, to tell them when it leaves.
const LONGEST_ACQUAINTANCE: usize = 4096;
const GONE_BURST: f64 = 3.0;
/// What a client may send in vain (to nobody, or more than its receiver takes), and how fast that is forgiven.
const WASTE_BYTES: f64 = (256 << 10) as f64;
const WASTE_A_SECOND: f64 = (1 << 20) as f64;
/// What a client may send to peers that do not write to it: 64 Mbit/s. Who receives by WireGuard answers, in ten seconds at
/// the latest, so this slows floods alone, and one-way streams to a peer that answers by another way.
const MONOLOGUE_BYTES: f64 = (1 << 20) as f64;
const MONOLOGUE_A_SECOND: f64 = (8 << 20) as f64;
const ANSWER_LIFETIME: Duration = Duration::from_secs(30);
/// What handling a frame costs besides its bytes.
const FRAME_COST_BYTES: usize = 128;
/// How long a client that wastes too much is not read from: its own connection slows it down then. Short enough that a
/// receiver's queue does not run dry below a gigabit a second.
const REST: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// It has not said who it is.
    New,
    Up,
    /// To be closed; nothing more is taken in.
    Closing,
}

/// Bytes that may be spent, and how fast they come back.
struct Allowance {
    most: f64,
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(most: f64, per_second: f64, at: Instant) -> Allowance {
        Allowance { most, per_second, left: most, at }
    }

    /// Spend; how long until what is owed has come back, None when nothing is.
    fn spend(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        self.left = (self.left + passed.as_secs_f64() * self.per_second).min(self.most) - bytes as f64;
        (self.left < 0.0).then(|| Duration::from_secs_f64(-self.left / self.per_second))
    }
}

pub(super) struct Member {
    pub key: Key,
    pub phase: Phase,
    pub since: Instant,
    pub preferred: bool,
    pub keepalive_at: Instant,
    pub dirty: bool,
    /// An unfinished frame.
    pub partial: Vec<u8>,
    /// Bytes of an unknown frame that are still to be skipped.
    pub skip: usize,
    /// Whom it exchanged packets with, and when they last sent it one.
    pub acquaintances: HashMap<Key, Option<Instant>, foldhash::fast::RandomState>,
    urgent: Vec<u8>,
    disco: Fair,
    data: Fair,
    /// What this client may yet send for nothing, and to peers that do not answer.
    waste: Allowance,
    monologue: Allowance,
    gone_tokens: f64,
    gone_at: Instant,
}

impl Member {
    pub fn new(now: Instant) -> Member {
        Member {
            key: [0; 32],
            phase: Phase::New,
            since: now,
            preferred: false,
            keepalive_at: now,
            dirty: false,
            partial: Vec::new(),
            skip: 0,
            acquaintances: HashMap::default(),
            urgent: Vec::new(),
            disco: Fair::new(DISCO_BYTES, 0),
            data: Fair::new(DATA_BYTES, LEAST_DATA_PACKETS),
            waste: Allowance::new(WASTE_BYTES, WASTE_A_SECOND, now),
            monologue: Allowance::new(MONOLOGUE_BYTES, MONOLOGUE_A_SECOND, now),
            gone_tokens: GONE_BURST,
            gone_at: now,
        }
    }

    /// Queue a frame of the relay's own; one that the client leaves unread too long is dropped (false).
    pub fn say(&mut self, kind: u8, parts: &[&[u8]]) -> bool {
        if self.urgent.len() > URGENT_BYTES {
            return false;
        }
        push_frame(&mut self.urgent, kind, parts);
        true
    }

    /// Queue the frame of a packet that `sender` sent.
    pub fn relay(&mut self, disco: bool, sender: &Key, parts: &[&[u8]]) -> Dropped {
        let queue = if disco { &mut self.disco } else { &mut self.data };
        queue.push(sender, parts)
    }

    /// It sent a frame of so many bytes for nothing. How long it is to be left unread, having done so too often.
    pub fn waste(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        self.waste.spend(now, bytes + FRAME_COST_BYTES)?;
        self.waste.left = WASTE_BYTES;
        Some(REST)
    }

    /// It sent so many bytes to a peer that does not answer. How long it is to be left unread, being too fast for that.
    pub fn monologue(&mut self, now: Instant, bytes: usize) -> Option<Duration> {
        self.monologue.spend(now, bytes)
    }

    pub fn has_output(&self) -> bool {
        !self.urgent.is_empty() || !self.disco.is_empty() || !self.data.is_empty()
    }

    /// Whole frames into `out`, about `budget` bytes: the relay's own first, then disco, then data.
    pub fn drain(&mut self, out: &mut Vec<u8>, budget: usize) {
        let start = out.len();
        out.append(&mut self.urgent);
        for queue in [&mut self.disco, &mut self.data] {
            let used = out.len() - start;
            if used < budget {
                queue.take(out, budget - used);
            }
        }
    }

    /// Own no more memory than what waits.
    pub fn shrink(&mut self) {
        self.urgent.shrink_to_fit();
        self.disco.shrink();
        self.data.shrink();
    }

    /// It writes to a peer; whether that peer has written to it lately.
    pub fn write_to(&mut self, peer: &Key, now: Instant) -> bool {
        match self.acquaintances.get(peer) {
            Some(heard) => heard.is_some_and(|at| now.saturating_duration_since(at) < ANSWER_LIFETIME),
            None => {
                if self.acquaintances.len() < LONGEST_ACQUAINTANCE {
                    self.acquaintances.insert(*peer, None);
                }
                false
            }
        }
    }

    /// A peer wrote to it.
    pub fn hear_from(&mut self, peer: &Key, now: Instant) {
        if let Some(heard) = self.acquaintances.get_mut(peer) {
            *heard = Some(now);
        } else if self.acquaintances.len() < LONGEST_ACQUAINTANCE {
            self.acquaintances.insert(*peer, Some(now));
        }
    }

    /// Whether it may be told that a peer is not here: once a second, three at once (upstream's limit).
    pub fn may_hear_gone(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.gone_at);
        self.gone_at = now;
        self.gone_tokens = (self.gone_tokens + passed.as_secs_f64()).min(GONE_BURST);
        if self.gone_tokens < 1.0 {
            return false;
        }
        self.gone_tokens -= 1.0;
        true
    }

    pub fn next_timeout(&self, hello: Duration) -> Option<Instant> {
        match self.phase {
            Phase::New => Some(self.since + hello),
            Phase::Up => Some(self.keepalive_at),
            Phase::Closing => None,
        }
    }
}

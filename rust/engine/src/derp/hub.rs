//! A relay's core without sockets: who is connected, whom each packet goes to, what each client is to be sent.
//!
//! The shell `accept`s a client once its HTTP upgrade is answered, hands what it reads to `handle_bytes`, sends what
//! `drain` gives for every client in `take_dirty`, lets those in `take_resting` wait, closes those in `take_closing`, and says `remove` when a connection ended.
//! Rules: wire reference 1d, "Server behaviour". A full queue drops its oldest frame and counts; a reader never waits.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use serde::Deserialize;

use super::frames::*;
use super::member::{Member, Phase};

const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_JITTER_MS: u64 = 5000;
const PROTOCOL: &[u8] = br#"{"version":2}"#;

/// A client's place in the hub; reused after `remove`.
pub type ClientId = u32;

/// Fills a buffer with random bytes.
pub type Entropy = Box<dyn FnMut(&mut [u8]) + Send>;

type KeyState = foldhash::fast::RandomState;

/// What happened since the start; names are derper's where they mean the same.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    pub accepts: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub packets_sent: u64,
    pub packets_dropped_queue_head: u64,
    pub packets_dropped_unknown_dest: u64,
    pub packets_received_disco: u64,
    pub unknown_frames: u64,
    pub got_ping: u64,
    pub sent_pong: u64,
    pub home_moves_in: u64,
    pub home_moves_out: u64,
    pub peer_gone_disconnected_frames: u64,
    pub peer_gone_not_here_frames: u64,
    pub clients_refused: u64,
    pub clients_slowed: u64,
    pub clients_closed_protocol: u64,
    pub clients_closed_hello: u64,
}

#[derive(Deserialize)]
struct ClientInfo {
    #[serde(default)]
    version: u32,
}

pub struct Hub {
    secret: SecretKey,
    members: Vec<Option<Member>>,
    free: Vec<ClientId>,
    /// The connections of a key; the last is the active one, which wrote last.
    by_key: HashMap<Key, Vec<ClientId>, KeyState>,
    admitted: Option<HashSet<Key, KeyState>>,
    dirty: Vec<ClientId>,
    closing: Vec<(ClientId, &'static str)>,
    resting: Vec<(ClientId, Duration)>,
    entropy: Entropy,
    next_sweep: Option<Instant>,
    pub counters: Counters,
}

impl Hub {
    pub fn new(private: Key, entropy: Entropy) -> Hub {
        Hub {
            secret: SecretKey::from(private),
            members: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::default(),
            admitted: None,
            dirty: Vec::new(),
            closing: Vec::new(),
            resting: Vec::new(),
            entropy,
            next_sweep: None,
            counters: Counters::default(),
        }
    }

    pub fn public_key(&self) -> Key {
        *self.secret.public_key().as_bytes()
    }

    /// A client whose upgrade is answered; it gets our key.
    pub fn accept(&mut self, now: Instant) -> ClientId {
        self.counters.accepts += 1;
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                self.members.push(None);
                (self.members.len() - 1) as ClientId
            }
        };
        let mut member = Member::new(now);
        member.say(SERVER_KEY, &[&MAGIC, &self.public_key()]);
        self.members[id as usize] = Some(member);
        self.soil(id);
        self.due(now + HELLO_TIMEOUT);
        id
    }

    /// The connection ended: forget it, and tell the peers it exchanged packets with.
    pub fn remove(&mut self, id: ClientId) {
        let Some(member) = self.members.get_mut(id as usize).and_then(Option::take) else { return };
        self.free.push(id);
        // The place may be taken again within this turn: whoever takes it is not the one to be closed.
        self.closing.retain(|(closing, _)| *closing != id);
        self.resting.retain(|(resting, _)| *resting != id);
        if member.phase == Phase::New {
            return;
        }
        if let Some(ids) = self.by_key.get_mut(&member.key) {
            ids.retain(|other| *other != id);
            if !ids.is_empty() {
                return;
            }
            self.by_key.remove(&member.key);
        }
        let mut told: Vec<&Key> = member.acquaintances.keys().collect();
        told.sort_unstable();
        for key in told {
            if let Some(peer) = self.active(key) {
                self.say(peer, PEER_GONE, &[&member.key, &[GONE_DISCONNECTED]]);
                self.counters.peer_gone_disconnected_frames += 1;
            }
        }
    }

    /// Let every key in.
    pub fn admit_all(&mut self) {
        self.admitted = None;
    }

    /// Let only these keys in; others that are connected are to be closed.
    pub fn admit(&mut self, keys: impl IntoIterator<Item = Key>) {
        let admitted: HashSet<Key, KeyState> = keys.into_iter().collect();
        let refused: Vec<ClientId> = self
            .by_key
            .iter()
            .filter(|(key, _)| !admitted.contains(*key))
            .flat_map(|(_, ids)| ids.iter().copied())
            .collect();
        self.admitted = Some(admitted);
        for id in refused {
            self.counters.clients_refused += 1;
            self.close(id, "its node key may no longer use this relay");
        }
    }

    /// Clients with new output since the last call, each once.
    pub fn take_dirty(&mut self, into: &mut Vec<ClientId>) {
        for id in self.dirty.drain(..) {
            if let Some(Some(member)) = self.members.get_mut(id as usize) {
                member.dirty = false;
                into.push(id);
            }
        }
    }

    /// Clients to be closed, each with one phrase why.
    pub fn take_closing(&mut self) -> Vec<(ClientId, &'static str)> {
        std::mem::take(&mut self.closing)
    }

    /// Clients that send too much in vain or to who does not answer, each once: they are not to be read from until then.
    pub fn take_resting(&mut self, now: Instant) -> impl Iterator<Item = (ClientId, Instant)> + '_ {
        self.resting.drain(..).map(move |(id, rest)| (id, now + rest))
    }

    fn waste(&mut self, id: ClientId, now: Instant, bytes: usize) {
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            let rest = member.waste(now, bytes);
            self.let_rest(id, rest);
        }
    }

    fn let_rest(&mut self, id: ClientId, rest: Option<Duration>) {
        let Some(rest) = rest else { return };
        match self.resting.iter_mut().find(|(resting, _)| *resting == id) {
            Some((_, planned)) => *planned = rest.max(*planned),
            None => {
                self.resting.push((id, rest));
                self.counters.clients_slowed += 1;
            }
        }
    }

    /// Whole frames for a client, about `budget` bytes.
    pub fn drain(&mut self, id: ClientId, out: &mut Vec<u8>, budget: usize) {
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            let before = out.len();
            member.drain(out, budget);
            self.counters.bytes_sent += (out.len() - before) as u64;
        }
    }

    pub fn has_output(&self, id: ClientId) -> bool {
        matches!(self.members.get(id as usize), Some(Some(member)) if member.has_output())
    }

    /// Keys of all clients that said who they are.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.by_key.keys()
    }

    pub fn connections(&self) -> usize {
        self.members.len() - self.free.len()
    }

    pub fn homes(&self) -> usize {
        self.members.iter().flatten().filter(|member| member.preferred).count()
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Send keepalives that are due, close clients that never said who they are.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|at| at > now) {
            return;
        }
        self.next_sweep = None;
        for id in 0..self.members.len() as ClientId {
            let Some(Some(member)) = self.members.get_mut(id as usize) else { continue };
            let Some(at) = member.next_timeout(HELLO_TIMEOUT) else { continue };
            if at > now {
                self.due(at);
            } else if member.phase == Phase::New {
                self.counters.clients_closed_hello += 1;
                self.close(id, "it did not say who it is in time");
            } else {
                member.shrink();
                self.say(id, super::frames::KEEP_ALIVE, &[]);
                self.plan_keepalive(id, now);
            }
        }
    }

    /// Take in bytes of a client, in pieces of any size. What it does wrong ends in `take_closing`.
    pub fn handle_bytes(&mut self, id: ClientId, now: Instant, bytes: &[u8]) {
        self.counters.bytes_received += bytes.len() as u64;
        let Some(Some(member)) = self.members.get_mut(id as usize) else { return };
        if member.partial.is_empty() {
            let used = self.consume(id, now, bytes);
            self.keep(id, &bytes[used..]);
            return;
        }
        let mut partial = std::mem::take(&mut member.partial);
        partial.extend_from_slice(bytes);
        let used = self.consume(id, now, &partial);
        partial.drain(..used);
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            if !partial.is_empty() {
                member.partial = partial;
            }
        }
    }

    fn keep(&mut self, id: ClientId, rest: &[u8]) {
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            if member.phase != Phase::Closing {
                member.partial.extend_from_slice(rest);
            }
        }
    }

    /// Handle all whole frames; the number of bytes used.
    fn consume(&mut self, id: ClientId, now: Instant, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let Some(Some(member)) = self.members.get_mut(id as usize) else { return bytes.len() };
            if member.phase == Phase::Closing {
                return bytes.len();
            }
            let skipped = member.skip.min(bytes.len() - at);
            member.skip -= skipped;
            at += skipped;
            let Some((kind, len)) = parse_header(&bytes[at..]) else { return at };
            let limit = match (member.phase, kind) {
                (Phase::New, CLIENT_INFO) => LONGEST_CLIENT_INFO_BYTES,
                (Phase::New, _) => {
                    self.fail(id, "it did not begin by saying who it is");
                    return bytes.len();
                }
                (_, SEND_PACKET) => KEY_BYTES + LONGEST_PACKET_BYTES,
                (_, PING) => LONGEST_PING_BYTES,
                (_, NOTE_PREFERRED) => 1,
                (_, WATCH_CONNECTIONS | CLOSE_PEER | FORWARD_PACKET) => {
                    self.fail(id, "it asked for what only relays of one mesh may");
                    return bytes.len();
                }
                _ => {
                    self.counters.unknown_frames += 1;
                    member.skip = len;
                    at += HEADER_BYTES;
                    continue;
                }
            };
            if len > limit {
                self.fail(id, "it announced a frame that is too long");
                return bytes.len();
            }
            let start = at + HEADER_BYTES;
            let Some(body) = bytes.get(start..start + len) else { return at };
            self.frame(id, now, kind, body);
            at = start + len;
        }
    }

    fn frame(&mut self, id: ClientId, now: Instant, kind: u8, body: &[u8]) {
        match kind {
            CLIENT_INFO => self.introduce(id, now, body),
            SEND_PACKET => self.packet(id, now, body),
            NOTE_PREFERRED => self.note_preferred(id, body.first() == Some(&1)),
            PING => {
                self.counters.got_ping += 1;
                self.waste(id, now, body.len());
                if let Some(payload) = body.get(..8) {
                    self.counters.sent_pong += u64::from(self.say(id, PONG, &[payload]));
                }
            }
            _ => {}
        }
    }

    fn introduce(&mut self, id: ClientId, now: Instant, body: &[u8]) {
        let Some(Some(member)) = self.members.get(id as usize) else { return };
        if member.phase != Phase::New {
            self.fail(id, "it said twice who it is");
            return;
        }
        let opened = first_key(body).and_then(|key| {
            let nonce: &[u8; NONCE_BYTES] = body.get(KEY_BYTES..)?.first_chunk()?;
            let shared = SalsaBox::new(&PublicKey::from(*key), &self.secret);
            let text = shared.decrypt(&(*nonce).into(), &body[KEY_BYTES + NONCE_BYTES..]).ok()?;
            let info: ClientInfo = serde_json::from_slice(&text).ok()?;
            (info.version == 2).then_some((*key, shared))
        });
        let Some((key, shared)) = opened else {
            self.fail(id, "its greeting does not open with its key, or is of another version");
            return;
        };
        if self.admitted.as_ref().is_some_and(|admitted| !admitted.contains(&key)) {
            self.counters.clients_refused += 1;
            self.close(id, "its node key may not use this relay");
            return;
        }
        let mut nonce = [0u8; NONCE_BYTES];
        (self.entropy)(&mut nonce);
        let Ok(sealed) = shared.encrypt(&nonce.into(), PROTOCOL) else {
            self.fail(id, "our greeting cannot be sealed");
            return;
        };
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            member.key = key;
            member.phase = Phase::Up;
        }
        self.by_key.entry(key).or_default().push(id);
        self.say(id, SERVER_INFO, &[&nonce, &sealed]);
        self.plan_keepalive(id, now);
    }

    fn packet(&mut self, id: ClientId, now: Instant, body: &[u8]) {
        let Some((to, packet)) = body.split_first_chunk::<KEY_BYTES>() else {
            self.fail(id, "it sent a packet to nobody");
            return;
        };
        let disco = is_disco(packet);
        self.counters.packets_received += 1;
        self.counters.packets_received_disco += u64::from(disco);
        let Some(Some(sender)) = self.members.get(id as usize) else { return };
        let from = sender.key;
        if let Some(ids) = self.by_key.get_mut(&from) {
            if ids.len() > 1 && ids.last() != Some(&id) {
                ids.retain(|other| *other != id);
                ids.push(id);
            }
        }
        let Some(peer) = self.active(to) else {
            self.counters.packets_dropped_unknown_dest += 1;
            self.waste(id, now, packet.len());
            if disco {
                self.tell_not_here(id, now, to);
            }
            return;
        };
        if let Some(Some(sender)) = self.members.get_mut(id as usize) {
            if !sender.write_to(to, now) {
                let rest = sender.monologue(now, packet.len());
                self.let_rest(id, rest);
            }
        }
        let Some(Some(receiver)) = self.members.get_mut(peer as usize) else { return };
        if is_cookie(packet) {
            // Who is asked to prove its address has not been answered.
            receiver.write_to(&from, now);
        } else {
            receiver.hear_from(&from, now);
        }
        let head = build_header(RECV_PACKET, KEY_BYTES + packet.len());
        let dropped = receiver.relay(disco, &from, &[&head, &from, packet]);
        self.counters.packets_dropped_queue_head += dropped.frames;
        if dropped.own_bytes > 0 {
            self.waste(id, now, dropped.own_bytes);
        }
        self.counters.packets_sent += 1;
        self.soil(peer);
    }

    /// Only disco asks: WireGuard's own retries would make a relay chatter.
    fn tell_not_here(&mut self, id: ClientId, now: Instant, peer: &Key) {
        let Some(Some(member)) = self.members.get_mut(id as usize) else { return };
        if member.may_hear_gone(now) {
            self.say(id, PEER_GONE, &[peer, &[GONE_NOT_HERE]]);
            self.counters.peer_gone_not_here_frames += 1;
        }
    }

    fn note_preferred(&mut self, id: ClientId, preferred: bool) {
        let Some(Some(member)) = self.members.get_mut(id as usize) else { return };
        if member.preferred != preferred {
            member.preferred = preferred;
            if preferred {
                self.counters.home_moves_in += 1;
            } else {
                self.counters.home_moves_out += 1;
            }
        }
    }

    fn active(&self, key: &Key) -> Option<ClientId> {
        self.by_key.get(key)?.last().copied()
    }

    fn say(&mut self, id: ClientId, kind: u8, parts: &[&[u8]]) -> bool {
        let Some(Some(member)) = self.members.get_mut(id as usize) else { return false };
        let said = member.say(kind, parts);
        self.soil(id);
        said
    }

    fn soil(&mut self, id: ClientId) {
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            if !member.dirty {
                member.dirty = true;
                self.dirty.push(id);
            }
        }
    }

    fn fail(&mut self, id: ClientId, why: &'static str) {
        self.counters.clients_closed_protocol += 1;
        self.close(id, why);
    }

    fn close(&mut self, id: ClientId, why: &'static str) {
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            if member.phase == Phase::Up {
                if let Some(ids) = self.by_key.get_mut(&member.key) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_key.remove(&member.key);
                    }
                }
            }
            member.phase = if member.phase == Phase::New { Phase::New } else { Phase::Closing };
            member.partial = Vec::new();
            member.skip = usize::MAX;
            self.closing.push((id, why));
        }
    }

    fn plan_keepalive(&mut self, id: ClientId, now: Instant) {
        let mut dice = [0u8; 2];
        (self.entropy)(&mut dice);
        let jitter = u64::from(u16::from_le_bytes(dice)) * KEEP_ALIVE_JITTER_MS / 65_536;
        let at = now + KEEP_ALIVE + Duration::from_millis(jitter);
        if let Some(Some(member)) = self.members.get_mut(id as usize) {
            member.keepalive_at = at;
        }
        self.due(at);
    }

    fn due(&mut self, at: Instant) {
        if self.next_sweep.is_none_or(|next| at < next) {
            self.next_sweep = Some(at);
        }
    }
}

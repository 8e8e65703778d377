//! Network → device: tell datagrams apart, open, check the source, filter, glue, write.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::events::Event;
use super::node::Node;
use super::relays::{News, Relayed};
use crate::filter::{Headers, Refusal};
use crate::routes::PeerIndex;
use crate::udp::receive::{Message, Receiver};
use crate::udp::{classify, Class};
use crate::wireguard::Source;

/// Calls for datagrams in one turn; each brings up to eight trains.
const RECEIVES_A_TURN: usize = 2;

/// The longest disco message is a ping padded to a path's MTU, jumbo frames included.
const LONGEST_CALL_BYTES: usize = 9216;

/// A relay that complains more often, or at greater length, is not listened to.
const HEALTH_A_SECOND: u32 = 8;
const LONGEST_PROBLEM: usize = 300;

impl Node {
    /// Take in what waits at one socket, at most a turn's worth; whether anything came.
    pub(super) fn pump_udp(&mut self, ipv6: bool) -> bool {
        // Moved out for the while, so that the rest of the node can be used beside it; a move of a pointer.
        let Some(mut receiver) = self.receiver.take() else { return false };
        let mut came = false;
        for _ in 0..RECEIVES_A_TURN {
            let socket = if ipv6 { self.sockets.ipv6.as_ref() } else { self.sockets.ipv4.as_ref() };
            // An error other than "nothing there" is an old fault of something sent (ICMP): reading it cleared it.
            let Some(Ok(count)) = socket.map(|socket| receiver.receive(socket)) else { break };
            came |= count > 0;
            self.take_messages(&mut receiver, count);
            if count < crate::udp::receive::MESSAGES {
                break;
            }
        }
        self.receiver = Some(receiver);
        came
    }

    fn take_messages(&mut self, receiver: &mut Receiver, count: usize) {
        for number in 0..count {
            let Some(message) = receiver.message(number) else { continue };
            self.counters.udp_rx_messages += 1;
            self.counters.udp_rx_bytes += message.len as u64;
            self.take_message(receiver.arena(), &message);
        }
        self.write_out(receiver.arena());
    }

    pub(super) fn take_message(&mut self, arena: &mut [u8], message: &Message) {
        let Message { source, start, len, segment } = *message;
        let end = start + len;
        self.counters.udp_rx_datagrams += len.div_ceil(segment) as u64;
        // A train has one sender and, but for the last, one length: what its first datagram is, all are, as a rule.
        let mut at = start;
        while at < end {
            let stop = (at + segment).min(end);
            match classify(&arena[at..stop]) {
                Class::WireGuard => {
                    let run = at..self.wireguard_end(arena, at, end, segment);
                    at = run.end;
                    self.take_wireguard(arena, run, segment, Source::Udp(source));
                    continue;
                }
                Class::Disco => {
                    self.counters.disco_rx += 1;
                    if self.may_call(&source, stop - at) {
                        self.events.push(Event::DiscoByUdp { source, data: Box::from(&arena[at..stop]) });
                    }
                }
                Class::Stun => {
                    self.counters.stun_rx += 1;
                    if self.may_call(&source, stop - at) {
                        self.events.push(Event::Stun { source, data: Box::from(&arena[at..stop]) });
                    }
                }
                Class::Unknown => self.counters.drop_in_unknown += 1,
            }
            at = stop;
        }
    }

    /// Whether a datagram goes to Python; counted when not.
    fn may_call(&mut self, source: &SocketAddr, len: usize) -> bool {
        let may = len <= LONGEST_CALL_BYTES && self.callers.may_call(source, self.now);
        self.counters.drop_in_callers += u64::from(!may);
        may
    }

    /// Where a run of WireGuard messages that begins at `at` ends.
    #[inline]
    fn wireguard_end(&self, arena: &[u8], at: usize, end: usize, segment: usize) -> usize {
        let mut next = at;
        while next < end {
            let stop = (next + segment).min(end);
            if classify(&arena[next..stop]) != Class::WireGuard {
                break;
            }
            next = stop;
        }
        next
    }

    /// Handle what relays brought and said; whether packets came.
    pub(super) fn handle_inbox(&mut self) -> bool {
        if self.relays.inbox.packets.is_empty() && self.relays.inbox.news.is_empty() {
            return false;
        }
        // Moved out for the while; a move of pointers.
        let mut inbox = std::mem::take(&mut self.relays.inbox);
        for Relayed { region, key, start, len } in inbox.packets.iter().copied() {
            self.counters.relay_rx_packets += 1;
            let packet = &inbox.arena[start..start + len];
            match classify(packet) {
                Class::WireGuard => {
                    self.take_wireguard(&mut inbox.arena, start..start + len, len, Source::Relay { region, key });
                }
                Class::Disco => {
                    self.counters.disco_rx += 1;
                    let known = self.peers.find(&key).is_some();
                    if packet.len() <= LONGEST_CALL_BYTES && self.callers.spend(known, self.now) {
                        self.events.push(Event::DiscoByRelay { region, key, data: Box::from(packet) });
                    } else {
                        self.counters.drop_in_callers += 1;
                    }
                }
                Class::Stun | Class::Unknown => self.counters.drop_in_unknown += 1,
            }
        }
        self.write_out(&mut inbox.arena);
        let came = !inbox.packets.is_empty();
        inbox.packets.clear();
        inbox.arena.clear();
        for news in inbox.news.drain(..) {
            self.tell(news);
        }
        // What was said meanwhile (a connection given up) is few and kept.
        inbox.news.append(&mut self.relays.inbox.news);
        self.relays.inbox = inbox;
        came
    }

    fn tell(&mut self, news: News) {
        let event = match news {
            News::Up { region, server_key } => Event::RelayUp { region, server_key },
            News::Down { region, reason } => {
                self.forget_ways_back(region);
                Event::RelayDown { region, reason }
            }
            News::PeerGone { region, key, was_here } => {
                // Of strangers nobody wants to know, however many a relay makes up.
                let Some(peer) = self.peers.find(&key).and_then(|index| self.peers.get_mut(index)) else { return };
                peer.seen_by.retain(|seen| *seen != region);
                Event::RelayPeerGone { region, key, was_here }
            }
            News::Health { region, problem } => {
                if self.now.duration_since(self.health_since) >= Duration::from_secs(1) {
                    (self.health_since, self.health_told) = (self.now, 0);
                }
                self.health_told += 1;
                if self.health_told > HEALTH_A_SECOND {
                    return;
                }
                Event::RelayHealth { region, problem: problem.chars().take(LONGEST_PROBLEM).collect() }
            }
        };
        self.events.push(event);
    }

    /// An authentic inner packet at `place` of the arena: check, filter, and let it wait for its like.
    #[inline]
    pub(super) fn deliver(&mut self, arena: &mut [u8], place: Range<usize>, index: PeerIndex) {
        let Some(headers) = Headers::parse(&arena[place.clone()]) else {
            self.counters.drop_in_malformed += 1;
            return;
        };
        if self.routes.lookup(headers.ipv6, headers.source) != Some(index) {
            self.counters.drop_in_wrong_source += 1;
            return;
        }
        if let Some(peer) = self.peers.get_mut(index) {
            peer.rx_bytes += u64::from(headers.len);
        }
        match self.filter.inbound(&headers) {
            Ok(()) => {}
            Err(Refusal::Scope) => {
                self.counters.drop_in_filter_scope += 1;
                return;
            }
            Err(Refusal::NotLocal) => {
                self.counters.drop_in_filter_not_local += 1;
                return;
            }
            Err(Refusal::NoRule) => {
                self.counters.drop_in_filter_no_rule += 1;
                return;
            }
        }
        if self.coalescer.is_full() {
            self.write_out(arena);
        }
        self.counters.tun_tx_packets += 1;
        self.coalescer.push(arena, place.start, &headers);
    }

    /// Write every waiting packet to the device.
    fn write_out(&mut self, arena: &mut [u8]) {
        if self.coalescer.is_empty() {
            return;
        }
        // Who sees a packet come out has been told already why it could.
        self.tell_sessions();
        let (tun, counters) = (&self.tun, &mut self.counters);
        self.coalescer.drain(arena, |parts| {
            counters.tun_tx_writes += 1;
            // A device that is down or full refuses: the packet is lost like on any link.
            if tun.as_ref().is_none_or(|tun| tun.write(parts).is_err()) {
                counters.drop_in_tun_refused += 1;
            }
        });
    }
}

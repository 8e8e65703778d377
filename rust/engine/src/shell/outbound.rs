//! Device → network: route, cut, seal in place, by UDP, by relay, or by both.

use super::events::Event;
use super::node::{Node, OVERHEAD_BYTES};
use super::peers::Path;
use super::sessions::HEADER_BYTES;
use crate::filter::headers::Headers;
use crate::routes::PeerIndex;
use crate::tun::{virtio, Segments};
use crate::udp::send::Route;

/// What waits before it is sent although the turn goes on: about two full trains, so that the other end can begin.
const FLUSH_BYTES: usize = 128 << 10;
/// The same for relays: four TLS records.
const RELAY_FLUSH_BYTES: usize = 64 << 10;

impl Node {
    /// Handle what was just read from the device: `len` bytes, virtio header first.
    pub(super) fn forward(&mut self, len: usize) {
        // Moved out for the while, so that the rest of the node can be used beside it; a move of a pointer.
        let packet = std::mem::take(&mut self.packet);
        self.forward_packet(&packet[..len]);
        self.packet = packet;
        if self.outbox.bytes() >= FLUSH_BYTES {
            self.flush();
        }
        if self.relays.waiting_bytes() >= RELAY_FLUSH_BYTES {
            self.relays.flush(self.now, &self.poller);
        }
    }

    fn forward_packet(&mut self, read: &[u8]) {
        self.counters.tun_rx_reads += 1;
        let parsed = virtio::Header::parse(read).and_then(|header| {
            let packet = &read[virtio::HEADER_BYTES..];
            Some((Headers::parse(packet)?, Segments::new(&header, packet).ok()?))
        });
        let Some((headers, segments)) = parsed else {
            self.counters.drop_out_malformed += 1;
            return;
        };
        let count = segments.count() as u64;
        self.counters.tun_rx_packets += count;
        let Some(index) = self.routes.lookup(headers.ipv6, headers.destination) else {
            self.counters.drop_out_no_peer += count;
            return;
        };
        let Some(peer) = self.peers.get_mut(index) else { return };
        if peer.tell_active(self.now) {
            self.events.push(Event::PeerActive(peer.key));
        }
        self.filter.outbound(&headers);
        let path = peer.path;
        if path.is_none() {
            self.counters.drop_out_no_path += count;
            return;
        }
        if !self.has_session(index) {
            self.stage(index, &segments);
            return;
        }
        if let Some(route) = path.udp {
            self.send_by_udp(index, &route, path.relay, &segments);
        } else if let Some(region) = path.relay {
            self.send_segments_by_relay(index, region, &segments);
        }
    }

    /// Length on the wire of an inner packet: padded to 16 bytes, but not beyond the MTU (WireGuard, section 5.4.6).
    #[inline]
    pub(super) fn wire_len(&self, inner: usize) -> usize {
        inner.next_multiple_of(16).min(self.mtu.max(inner)) + OVERHEAD_BYTES
    }

    fn send_by_udp(&mut self, index: PeerIndex, route: &Route, also: Option<u32>, segments: &Segments<'_>) {
        let count = segments.count();
        let segment = self.wire_len(segments.len_of(0));
        let last = self.wire_len(segments.len_of(count - 1));
        let mut at = 0;
        while at < count {
            let Some((granted, place)) = self.outbox.reserve(route, segment, count - at, last) else {
                self.flush();
                continue;
            };
            let mut inner = 0;
            for (number, slot) in place.chunks_mut(segment).enumerate() {
                let len = segments.len_of(at + number);
                fill(segments, at + number, len, slot);
                inner += len;
            }
            if !self.sessions.seal(index, place, segment) {
                let bytes = place.len();
                self.outbox.give_back(route, granted, bytes);
                self.counters.drop_out_no_session += (count - at) as u64;
                return;
            }
            if let (Some(region), Some(peer)) = (also, self.peers.get(index)) {
                for slot in place.chunks(segment) {
                    self.relays.send(region, &peer.key, slot, false, &mut self.counters);
                }
            }
            self.count_sent(index, inner);
            at += granted;
        }
    }

    fn send_segments_by_relay(&mut self, index: PeerIndex, region: u32, segments: &Segments<'_>) {
        let mut sealed = std::mem::take(&mut self.sealed);
        let mut inner = 0;
        for number in 0..segments.count() {
            let len = segments.len_of(number);
            let wire = self.wire_len(len);
            let slot = &mut sealed[..wire];
            fill(segments, number, len, slot);
            if !self.sessions.seal(index, slot, wire) {
                self.counters.drop_out_no_session += (segments.count() - number) as u64;
                break;
            }
            inner += len;
            if let Some(peer) = self.peers.get(index) {
                self.relays.send(region, &peer.key, slot, false, &mut self.counters);
            }
        }
        self.sealed = sealed;
        self.count_sent(index, inner);
    }

    fn count_sent(&mut self, index: PeerIndex, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(index) {
            peer.tx_bytes += bytes as u64;
            peer.last_tx = Some(self.now);
        }
    }

    /// Send a WireGuard message that is sealed already, by every leg of the path.
    pub(super) fn send_sealed(&mut self, path: &Path, peer: PeerIndex, message: &[u8]) {
        if let Some(route) = path.udp {
            if !self.outbox.push(&route, message) {
                self.flush();
                self.outbox.push(&route, message);
            }
        }
        if let (Some(region), Some(peer)) = (path.relay, self.peers.get(peer)) {
            self.relays.send(region, &peer.key, message, false, &mut self.counters);
        }
    }
}

/// Put segment `number` where it will be sealed: behind the room for the header, zeroes after it.
#[inline]
fn fill(segments: &Segments<'_>, number: usize, len: usize, slot: &mut [u8]) {
    let end = HEADER_BYTES + len;
    segments.write(number, &mut slot[HEADER_BYTES..end]);
    slot[end..].fill(0);
}

//! Device → network: route, cut, seal in place, by UDP, by relay, or by both.

use super::config::Key;
use super::events::Event;
use super::node::{Node, OVERHEAD_BYTES};
use super::peers::Path;
use crate::filter::headers::Headers;
use crate::routes::PeerIndex;
use crate::tun::{virtio, Segments};
use crate::udp::send::Route;
use crate::wireguard::PeerId;

/// What a UDP datagram carries over IPv4.
const LARGEST_DATAGRAM_BYTES: usize = 65_507;

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
        let target = Target { id: peer.id, key: peer.key };
        if self.wire_len(segments.len_of(0)) > LARGEST_DATAGRAM_BYTES {
            self.counters.drop_out_malformed += count;
            return;
        }
        // Without a path, too: it is being looked for, and the first packet is to be what is sent by it.
        if !self.sessions.can_send(self.wireguard_now, target.id) {
            self.stage(index, &segments);
            return;
        }
        if let Some(route) = path.udp {
            self.send_by_udp(&target, &route, path.relay, &segments);
        } else if let Some(region) = path.relay {
            self.send_segments_by_relay(&target, region, &segments);
        } else {
            self.counters.drop_out_no_path += count;
        }
    }

    /// Length on the wire of an inner packet: padded to 16 bytes, but not beyond the MTU (WireGuard, section 5.4.6).
    #[inline]
    fn wire_len(&self, inner: usize) -> usize {
        inner.next_multiple_of(16).min(self.mtu.max(inner)) + OVERHEAD_BYTES
    }

    fn send_by_udp(&mut self, peer: &Target, route: &Route, also: Option<u32>, segments: &Segments<'_>) {
        let count = segments.count();
        let segment = self.wire_len(segments.len_of(0));
        let last = self.wire_len(segments.len_of(count - 1));
        let mut plain = std::mem::take(&mut self.plain_packets);
        let mut at = 0;
        while at < count {
            let Some((granted, place)) = self.outbox.reserve(route, segment, count - at, last) else {
                self.flush();
                continue;
            };
            let (len, stride) = lay_out(segments, at..at + granted, &mut plain);
            if !self.sessions.seal(self.wireguard_now, peer.id, &plain[..len], stride, place, segment) {
                let bytes = place.len();
                self.outbox.give_back(route, granted, bytes);
                self.counters.drop_out_no_session += (count - at) as u64;
                break;
            }
            if let Some(region) = also {
                for datagram in place.chunks(segment) {
                    self.relays.send(region, &peer.key, datagram, false, &mut self.counters);
                }
            }
            self.count_sent(peer, len);
            at += granted;
        }
        self.plain_packets = plain;
    }

    fn send_segments_by_relay(&mut self, peer: &Target, region: u32, segments: &Segments<'_>) {
        let count = segments.count();
        let segment = self.wire_len(segments.len_of(0));
        let last = self.wire_len(segments.len_of(count - 1));
        let mut plain = std::mem::take(&mut self.plain_packets);
        let mut sealed = std::mem::take(&mut self.sealed);
        let a_time = (sealed.len() / segment).max(1);
        let mut at = 0;
        while at < count {
            let granted = a_time.min(count - at);
            let bytes = if at + granted == count { (granted - 1) * segment + last } else { granted * segment };
            let (len, stride) = lay_out(segments, at..at + granted, &mut plain);
            let train = &mut sealed[..bytes];
            if !self.sessions.seal(self.wireguard_now, peer.id, &plain[..len], stride, train, segment) {
                self.counters.drop_out_no_session += (count - at) as u64;
                break;
            }
            for datagram in train.chunks(segment) {
                self.relays.send(region, &peer.key, datagram, false, &mut self.counters);
            }
            self.count_sent(peer, len);
            at += granted;
        }
        self.plain_packets = plain;
        self.sealed = sealed;
    }

    fn count_sent(&mut self, target: &Target, bytes: usize) {
        if let Some(peer) = self.peers.get_mut(target.id.index() as PeerIndex) {
            peer.tx_bytes += bytes as u64;
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

/// Who a packet is for, as sealing and relays name it.
struct Target {
    id: PeerId,
    key: Key,
}

/// Write a range of segments one after the other; their bytes together, and how far apart they begin.
#[inline]
fn lay_out(segments: &Segments<'_>, range: std::ops::Range<usize>, plain: &mut [u8]) -> (usize, usize) {
    let stride = segments.len_of(range.start);
    let mut end = 0;
    for number in range {
        let start = end;
        end += segments.len_of(number);
        segments.write(number, &mut plain[start..end]);
    }
    (end, stride)
}

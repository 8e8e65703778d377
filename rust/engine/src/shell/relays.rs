//! Connections to relays.

use super::config::Key;
use super::counters::Counters;
use super::events::Event;
use super::node::Node;
use super::orders::RelaySpec;

/// The connections, by region.
#[derive(Default)]
pub(super) struct Relays {}

impl Relays {
    /// Queue a packet for `key` at a region's relay; dropped and counted when that is not connected.
    pub fn send(&mut self, _region: u32, _key: &Key, _packet: &[u8], counters: &mut Counters) {
        counters.drop_out_no_relay += 1;
    }
}

impl Node {
    pub(super) fn connect_relay(&mut self, spec: RelaySpec) {
        let reason = "this engine cannot reach relays yet".to_owned();
        self.events.push(Event::RelayDown { region: spec.region, reason });
    }

    pub(super) fn prefer_relay(&mut self, _region: u32, _preferred: bool) {}

    pub(super) fn close_relay(&mut self, _region: u32) {}

    pub(super) fn send_by_relay(&mut self, region: u32, key: &Key, packet: &[u8]) {
        self.relays.send(region, key, packet, &mut self.counters);
    }
}

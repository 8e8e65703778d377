//! What orders do to the tables, between two batches of packets.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::config::Key;
use super::events::Event;
use super::node::Node;
use super::orders::{Order, PeerSpec};
use super::peers::Path;
use crate::routes::PeerIndex;
use crate::udp::send::Route;
use crate::udp::{BindError, Pair};

/// The owner of datagrams that belong to no peer.
pub(super) const NOBODY: PeerIndex = PeerIndex::MAX;

impl Node {
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::SetPrivateKey(key) => self.set_private_key(&key),
            Order::SetPeers(specs) => self.set_peers(specs),
            Order::UpsertPeer(spec) => self.upsert_peer(spec),
            Order::RemovePeer(key) => {
                if let Some(index) = self.peers.find(&key) {
                    self.remove_peer(index);
                }
            }
            Order::SetPath { key, udp, relay, gso } => self.set_path(&key, udp, relay, gso),
            Order::SetFilter { table, shields_up } => self.filter.replace(*table, shields_up),
            Order::ConnectRelay(spec) => {
                self.forget_ways_back(spec.region);
                self.relays.connect(spec, self.now, &self.poller);
            }
            Order::PreferRelay { region, preferred } => self.relays.prefer(region, preferred),
            Order::CloseRelay(region) => {
                self.forget_ways_back(region);
                self.relays.close(region);
            }
            Order::SendUdp { to, data, whole } => {
                self.callers.wrote(to, self.now);
                self.send_datagram(to, &data, whole);
            }
            Order::SendRelay { region, key, data } => {
                self.relays.send(region, &key, &data, true, &mut self.counters);
            }
            Order::Rebind => self.rebind(),
            #[cfg(test)]
            Order::Panic(why) => panic!("{why}"),
        }
    }

    /// A region's connection ends: who was heard through it will be told anew.
    pub(super) fn forget_ways_back(&mut self, region: u32) {
        for peer in self.peers.iter_mut() {
            peer.seen_by.retain(|seen| *seen != region);
        }
    }

    fn set_peers(&mut self, specs: Vec<PeerSpec>) {
        let wanted: HashSet<Key> = specs.iter().map(|spec| spec.key).collect();
        let gone: Vec<PeerIndex> =
            self.peers.iter().filter(|(_, peer)| !wanted.contains(&peer.key)).map(|(index, _)| index).collect();
        for index in gone {
            self.remove_peer(index);
        }
        for spec in specs {
            self.upsert_peer(spec);
        }
    }

    fn upsert_peer(&mut self, spec: PeerSpec) {
        let index = match self.peers.find(&spec.key) {
            Some(index) => index,
            None => {
                // Keys of small order are nobody's: such a peer could never be reached.
                let Some(id) = self.sessions.add(spec.key) else {
                    self.counters.peers_refused += 1;
                    return;
                };
                self.peers.insert(spec.key, id)
            }
        };
        let Some(peer) = self.peers.get_mut(index) else { return };
        let before = std::mem::replace(&mut peer.allowed_ips, spec.allowed_ips);
        for prefix in before {
            self.routes.remove(prefix, index);
        }
        if let Some(peer) = self.peers.get(index) {
            for prefix in &peer.allowed_ips {
                self.routes.insert(*prefix, index);
            }
        }
    }

    fn remove_peer(&mut self, index: PeerIndex) {
        let Some(peer) = self.peers.remove(index) else { return };
        for prefix in &peer.allowed_ips {
            self.routes.remove(*prefix, index);
        }
        self.sessions.remove(peer.id);
        self.callers.path_moved(index, peer.path.udp.map(|route| route.to), None);
    }

    fn set_path(&mut self, key: &Key, udp: Option<SocketAddr>, relay: Option<u32>, gso: bool) {
        let Some(index) = self.peers.find(key) else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        self.callers.path_moved(index, peer.path.udp.map(|route| route.to), udp);
        let path = Path { udp: udp.map(|to| Route { to, owner: index, plain: !gso }), relay };
        let before = std::mem::replace(&mut peer.path, path);
        // Until a relay carried it, an initiation was sent nowhere, or to an address that did not answer.
        let opened = before.relay.is_none() && (relay.is_some() || (before.udp.is_none() && udp.is_some()));
        if opened {
            self.sessions.retry(self.wireguard_now, peer.id);
        }
    }

    /// Put one datagram that belongs to no peer into the outbox; `whole`: with DF.
    pub(super) fn send_datagram(&mut self, to: SocketAddr, data: &[u8], whole: bool) {
        if data.is_empty() || data.len() > 65_507 {
            self.counters.drop_out_malformed += 1;
            return;
        }
        let route = Route { to, owner: NOBODY, plain: !whole };
        if !self.outbox.push(&route, data) {
            self.flush();
            self.outbox.push(&route, data);
        }
    }

    fn rebind(&mut self) {
        self.flush();
        let port = self.port;
        // The old sockets hold the port: they go first.
        self.sockets = Pair { ipv4: None, ipv6: None };
        let bound = match Pair::bind(port, &self.socket_options) {
            Err(BindError::PortsTaken(_)) => Pair::bind(0, &self.socket_options),
            other => other,
        };
        match bound.map_err(|error| format!("{error:?}")).and_then(|sockets| {
            self.port = sockets.port();
            self.sockets = sockets;
            self.watch_sockets().map_err(|error| error.to_string())
        }) {
            Ok(()) => {}
            // Without sockets the node lives on by its relays; the next Rebind tries again.
            Err(_) => {
                self.counters.rebinds_failed += 1;
                self.events.push(Event::Bound { port_ipv4: None, port_ipv6: None });
            }
        }
    }
}

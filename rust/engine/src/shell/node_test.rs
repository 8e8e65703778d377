//! A node without an interface, whose thread is the test's: what hostile datagrams do to it.

use std::net::SocketAddr;
use std::ops::Range;

use zeroize::Zeroizing;

use super::super::config::{Key, Offloads};
use super::super::orders::{Order, PeerSpec};
use super::*;
use crate::wireguard::{Device as WireGuard, Out, PeerId, Source, Tai64N};

const OURS: Key = [7; 32];
const THEIRS: Key = [8; 32];

fn public(private: Key) -> Key {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(private)).to_bytes()
}

fn node() -> Node {
    let offloads = Offloads { tun_tso: true, tun_uso: true, tun_gro: true, udp_gso: true, udp_gro: true };
    let config = Config {
        private_key: Zeroizing::new(OURS),
        tun_name: None,
        mtu: 1280,
        udp_port: 0,
        mark: 0,
        offloads,
        spin: Duration::ZERO,
        event_capacity: 16,
    };
    let shared = Arc::new(Shared::new(16).expect("two eventfds"));
    let mut node = Node::open(config, shared).expect("sockets without an interface need no rights");
    node.obey(Order::UpsertPeer(PeerSpec { key: public(THEIRS), allowed_ips: Vec::new() }));
    node.events.clear();
    node
}

/// The peer's own WireGuard, and the messages it makes.
struct Peer {
    device: WireGuard,
    id: PeerId,
    out: Out,
}

impl Peer {
    fn new() -> Peer {
        let mut device = WireGuard::new(wireguard::Config {
            private_key: THEIRS,
            seed: [1; 32],
            mtu: 1280,
            under_load_per_second: 200,
        });
        let id = device.add_peer(public(OURS), None).expect("a key of full order");
        Peer { device, id, out: Out::new() }
    }

    fn initiation(&mut self, second: u64) -> Vec<u8> {
        let now = wireguard::Instant::from_nanos(second * 1_000_000_000);
        self.device.start_handshake(now, self.id);
        self.device.handle_timeout(now, Tai64N::from_unix(Duration::from_secs(second)), &mut self.out);
        self.out.packets.pop_front().expect("an initiation").bytes
    }
}

fn take(node: &mut Node, message: &[u8], source: Source) {
    let mut arena = message.to_vec();
    let whole: Range<usize> = 0..arena.len();
    let stride = arena.len();
    node.take_wireguard(&mut arena, whole, stride, source);
}

#[test]
fn who_passes_on_anothers_packets_by_a_relay_is_not_seen_there_in_its_place() {
    let (mut node, mut peer) = (node(), Peer::new());
    take(&mut node, &peer.initiation(100), Source::Relay { region: 3, key: [9; 32] });
    assert_eq!(node.events, []);
    node.wireguard_now = node.wireguard_now + Duration::from_secs(10);
    take(&mut node, &peer.initiation(110), Source::Relay { region: 3, key: public(THEIRS) });
    assert_eq!(node.events, [Event::RelayPeerSeen { region: 3, key: public(THEIRS) }]);
}

#[test]
fn an_answer_goes_by_the_path_too_but_each_answer_once() {
    let (mut node, mut peer) = (node(), Peer::new());
    let path = SocketAddr::from(([127, 0, 0, 1], 9));
    node.obey(Order::SetPath { key: public(THEIRS), udp: Some(path), relay: None, gso: true });
    let elsewhere = Source::Udp(SocketAddr::from(([127, 0, 0, 2], 9)));
    for round in 1..4 {
        node.wireguard_now = node.wireguard_now + Duration::from_secs(10);
        take(&mut node, &peer.initiation(100 + 10 * round as u64), elsewhere);
        assert_eq!(node.outbox.bytes(), 92 * round);
    }
}

#[test]
fn a_flood_of_disco_by_strangers_reaches_python_in_small_doses_and_a_paths_disco_still_does() {
    let mut node = node();
    let mut disco = [0u8; 100];
    disco[..6].copy_from_slice("TS💬".as_bytes());
    let path = SocketAddr::from(([192, 0, 2, 1], 1));
    node.obey(Order::SetPath { key: public(THEIRS), udp: Some(path), relay: None, gso: true });
    let hear = |node: &mut Node, source: SocketAddr, bytes: &[u8]| {
        let before = node.events.len();
        let message = crate::udp::receive::Message { source, start: 0, len: bytes.len(), segment: bytes.len() };
        node.take_message(&mut bytes.to_vec(), &message);
        node.events.len() - before
    };
    let heard: usize = (0..10_000).map(|port| hear(&mut node, ([198, 51, 100, 1], port).into(), &disco)).sum();
    assert_eq!(heard, 500);
    assert_eq!(hear(&mut node, path, &disco), 1);
    let mut long = vec![0u8; 60_000];
    long[..6].copy_from_slice("TS💬".as_bytes());
    assert_eq!(hear(&mut node, path, &long), 0, "longer than any disco message");
    assert_eq!((node.counters.disco_rx, node.counters.drop_in_callers), (10_002, 9501));
}

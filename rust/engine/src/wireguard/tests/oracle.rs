//! A device against boringtun, an independent implementation of the protocol. It reads its own clock; ours jumps.

use std::sync::Arc;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use super::*;

struct Oracle(Tunn);

impl Oracle {
    fn new(private: u8, peer_private: u8, preshared: Option<[u8; 32]>, handshakes_per_second: u64) -> Self {
        let private = StaticSecret::from([private; 32]);
        let limiter = Arc::new(RateLimiter::new(&PublicKey::from(&private), handshakes_per_second));
        let peer = PublicKey::from(public_of(peer_private));
        Oracle(Tunn::new(private, peer, preshared, None, 5, Some(limiter)))
    }

    fn send(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 2048];
        match self.0.encapsulate(packet, &mut buffer) {
            TunnResult::WriteToNetwork(bytes) => Some(bytes.to_vec()),
            TunnResult::Err(error) => panic!("{error:?}"),
            _ => None,
        }
    }

    /// Takes a datagram; what goes back, and the inner packet.
    fn receive(&mut self, datagram: &[u8]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut replies, mut datagram) = (Vec::new(), datagram.to_vec());
        loop {
            let mut buffer = vec![0; 2048];
            match self.0.decapsulate(Some([192, 0, 2, 9].into()), &datagram, &mut buffer) {
                TunnResult::WriteToNetwork(bytes) => replies.push(bytes.to_vec()),
                TunnResult::WriteToTunnelV4(bytes, _) => return (replies, Some(bytes.to_vec())),
                _ => return (replies, None),
            }
            datagram.clear();
        }
    }
}

/// Carries everything both ways until nothing moves; what we got and what the oracle got.
fn settle(now: Instant, us: &mut End, oracle: &mut Oracle, first: Option<Vec<u8>>) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut to_us, mut to_oracle, mut wire) = (Vec::new(), Vec::new(), Vec::from_iter(first));
    loop {
        to_us.extend(wire.drain(..).filter_map(|bytes| us.receive(now, bytes)).filter(|packet| !packet.is_empty()));
        let ours = us.turn(now);
        if ours.is_empty() {
            return (to_us, to_oracle);
        }
        for bytes in ours {
            let (replies, inner) = oracle.receive(&bytes);
            wire.extend(replies);
            to_oracle.extend(inner);
        }
    }
}

fn ends() -> (End, Oracle) {
    (End::new(1, 11, public_of(2), 1000), Oracle::new(2, 1, None, 1000))
}

#[test]
fn we_initiate_and_data_flows_both_ways() {
    let (mut us, mut oracle) = ends();
    us.send(seconds(1), &packet(1));
    assert_eq!(settle(seconds(1), &mut us, &mut oracle, None), (vec![], vec![packet(1)]));
    let back = oracle.send(&packet(2));
    assert_eq!(settle(seconds(1), &mut us, &mut oracle, back).0, [packet(2)]);
    assert_eq!(us.events, [Event::HandshakeDone { peer: us.peer, initiator: true }]);
}

#[test]
fn the_oracle_initiates_and_data_flows_both_ways() {
    let (mut us, mut oracle) = ends();
    let initiation = oracle.send(&packet(1));
    assert_eq!(settle(seconds(1), &mut us, &mut oracle, initiation).0, [packet(1)]);
    us.send(seconds(1), &packet(2));
    assert_eq!(settle(seconds(1), &mut us, &mut oracle, None).1, [packet(2)]);
    assert_eq!(us.events, [Event::HandshakeDone { peer: us.peer, initiator: false }]);
}

#[test]
fn a_preshared_key_must_agree() {
    for (theirs, agrees) in [([9; 32], true), ([8; 32], false)] {
        let (mut us, mut oracle) = (End::new(1, 11, public_of(2), 1000), Oracle::new(2, 1, Some(theirs), 1000));
        assert_eq!(us.device.add_peer(public_of(2), Some([9; 32])), Some(us.peer));
        us.send(seconds(1), &packet(1));
        assert_eq!(!settle(seconds(1), &mut us, &mut oracle, None).1.is_empty(), agrees);
    }
}

#[test]
fn we_renew_at_120_seconds_and_it_follows() {
    let (mut us, mut oracle) = ends();
    us.send(seconds(1), &packet(1));
    settle(seconds(1), &mut us, &mut oracle, None);
    let back = oracle.send(&packet(2));
    settle(seconds(1), &mut us, &mut oracle, back);
    us.send(seconds(121), &packet(3));
    assert_eq!(settle(seconds(121), &mut us, &mut oracle, None).1, [packet(3)]);
    assert_eq!(us.handshakes_done(), 2);
    let back = oracle.send(&packet(4));
    assert_eq!(settle(seconds(122), &mut us, &mut oracle, back).0, [packet(4)]);
}

#[test]
fn its_packets_open_in_any_order_once_and_ours_do_there() {
    let (mut us, mut oracle) = ends();
    us.send(seconds(1), &packet(0));
    settle(seconds(1), &mut us, &mut oracle, None);
    let mut theirs: Vec<_> = (0..50).filter_map(|i| oracle.send(&packet(i))).collect();
    theirs.reverse();
    for (i, bytes) in (0..50).rev().zip(&theirs) {
        assert_eq!(us.receive(seconds(1), bytes.clone()), Some(packet(i)));
        assert_eq!(us.refusal(seconds(1), bytes.clone()), Some(Refusal::Replay));
    }
    for i in 0..50 {
        us.send(seconds(1), &packet(i));
    }
    for (i, bytes) in us.turn(seconds(1)).iter().enumerate().rev() {
        assert_eq!(oracle.receive(bytes).1, Some(packet(i as u8)));
        assert_eq!(oracle.receive(bytes).1, None);
    }
}

#[test]
fn under_load_it_hands_us_a_cookie_and_takes_it_back() {
    let (mut us, mut oracle) = (End::new(1, 11, public_of(2), 1000), Oracle::new(2, 1, None, 0));
    us.send(seconds(1), &packet(1));
    assert!(settle(seconds(1), &mut us, &mut oracle, None).1.is_empty());
    assert_eq!(us.device.counters().cookies_received, 1);
    assert_eq!(settle(seconds(7), &mut us, &mut oracle, None).1, [packet(1)]);
}

#[test]
fn under_load_we_hand_it_a_cookie_and_take_it_back() {
    let (mut us, mut oracle) = (End::new(1, 11, public_of(2), 0), Oracle::new(2, 1, None, 1000));
    let initiation = oracle.send(&packet(1));
    settle(seconds(1), &mut us, &mut oracle, initiation);
    assert_eq!((us.device.counters().cookies_sent, us.handshakes_done()), (1, 0));
    let mut buffer = vec![0; 2048];
    let TunnResult::WriteToNetwork(again) = oracle.0.format_handshake_initiation(&mut buffer, true) else {
        panic!("no second initiation");
    };
    let again = Some(again.to_vec());
    assert_eq!(settle(seconds(2), &mut us, &mut oracle, again).0, [packet(1)]);
    assert_eq!(us.handshakes_done(), 1);
}

#[test]
fn it_takes_our_keepalive() {
    let (mut us, mut oracle) = ends();
    let initiation = oracle.send(&packet(1));
    settle(seconds(1), &mut us, &mut oracle, initiation);
    let keepalive = us.turn(seconds(12));
    assert_eq!(keepalive.iter().map(Vec::len).collect::<Vec<_>>(), [32]);
    let mut buffer = vec![0; 2048];
    let taken = oracle.0.decapsulate(None, &keepalive[0], &mut buffer);
    assert!(matches!(taken, TunnResult::Done), "{taken:?}");
}

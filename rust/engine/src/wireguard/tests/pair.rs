//! Two devices, a clock that jumps and a wire that loses and reorders.

use proptest::prelude::*;

use super::*;
use crate::wireguard::replay::WINDOW;

fn pair() -> (End, End) {
    (End::new(1, 11, public_of(2), 1000), End::new(2, 22, public_of(1), 1000))
}

/// Carries everything both ways until nothing moves; what each side got.
fn settle(now: Instant, a: &mut End, b: &mut End) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut to_a, mut to_b) = (Vec::new(), Vec::new());
    loop {
        let (from_a, from_b) = (a.turn(now), b.turn(now));
        if from_a.is_empty() && from_b.is_empty() {
            return (to_a, to_b);
        }
        to_b.extend(from_a.into_iter().filter_map(|bytes| b.receive(now, bytes)).filter(|p| !p.is_empty()));
        to_a.extend(from_b.into_iter().filter_map(|bytes| a.receive(now, bytes)).filter(|p| !p.is_empty()));
    }
}

fn connected(now: Instant) -> (End, End) {
    let (mut a, mut b) = pair();
    a.send(now, &packet(0));
    assert_eq!(settle(now, &mut a, &mut b).1, [packet(0)]);
    (a, b)
}

#[test]
fn a_staged_packet_starts_the_handshake_and_arrives_with_it() {
    let now = seconds(1);
    let (mut a, mut b) = connected(now);
    assert_eq!(a.events, [Event::HandshakeDone { peer: a.peer, initiator: true }]);
    assert_eq!(b.events, [Event::HandshakeDone { peer: b.peer, initiator: false }]);
    b.send(now, &packet(1));
    assert_eq!(settle(now, &mut a, &mut b).0, [packet(1)]);
    let stats = b.device.peer_stats(now, b.peer).unwrap();
    assert_eq!((stats.sent_bytes, stats.received_bytes, stats.has_session), (64, 64, true));
}

#[test]
fn a_handshake_lost_for_want_of_a_way_is_tried_again_as_soon_as_there_is_one() {
    let (mut a, mut b) = pair();
    let now = seconds(1);
    a.device.retry_handshake(now, a.peer);
    assert_eq!(a.turn(now).len(), 0, "nothing is wanted yet");
    a.send(now, &packet(7));
    assert_eq!(a.turn(now).len(), 1, "and lost");

    a.device.retry_handshake(now, a.peer);
    assert_eq!(a.turn(now + Duration::from_millis(50)).len(), 0, "a responder would not hear it so soon");
    let later = now + Duration::from_millis(100);
    assert_eq!(settle(later, &mut a, &mut b).1, [packet(7)]);
    a.device.retry_handshake(later + Duration::from_secs(1), a.peer);
    assert_eq!(a.turn(later + Duration::from_secs(1)).len(), 0, "a session stands");
}

#[test]
fn packets_are_padded_to_sixteen_but_never_past_the_mtu() {
    let now = seconds(1);
    let (mut a, _) = connected(now);
    let sealer = a.device.sealer(now, a.peer).unwrap();
    assert_eq!(
        [0, 1, 16, 17, 1279, 1280, 1300].map(|len| sealer.sealed_bytes(len) - 32),
        [0, 16, 16, 32, 1280, 1280, 1300]
    );
}

#[test]
fn a_counter_opens_once_and_only_within_the_window() {
    let now = seconds(1);
    let (mut a, mut b) = connected(now);
    let mut sealed = Vec::new();
    for i in 0..WINDOW + 130 {
        a.send(now, &packet(i as u8));
        sealed.extend(a.turn(now));
    }
    let last = sealed.pop().unwrap();
    assert!(b.receive(now, last.clone()).is_some());
    assert_eq!(b.refusal(now, last), Some(Refusal::Replay));
    assert_eq!(b.refusal(now, sealed[0].clone()), Some(Refusal::Replay), "behind the window");
    assert_eq!(b.refusal(now, sealed[200].clone()), None, "late but within it");
    let twice = sealed[300].clone();
    let Some(Kind::Data(receiver)) = classify(&twice) else { panic!("data") };
    let (mut one, mut two) = (twice.clone(), twice);
    let mut jobs = [OpenJob::new(&mut one), OpenJob::new(&mut two)];
    b.device.open(now, receiver, &mut jobs, &mut b.out);
    assert!(jobs[0].plaintext().is_some());
    assert_eq!(jobs[1].result, Opened::Refused(Refusal::Replay), "twins within one run");
    assert!(b.device.counters().replayed >= 3);
}

#[test]
fn a_tampered_packet_is_refused_and_does_not_burn_its_counter() {
    let now = seconds(1);
    let (mut a, mut b) = connected(now);
    a.send(now, &packet(9));
    let good = a.turn(now).remove(0);
    let mut bad = good.clone();
    bad[20] ^= 1;
    assert_eq!(b.refusal(now, bad), Some(Refusal::BadTag));
    assert_eq!(b.receive(now, good), Some(packet(9)));
}

#[test]
fn the_initiator_renews_after_120_seconds_and_the_responder_does_not() {
    let (mut a, mut b) = connected(seconds(1));
    settle(seconds(11), &mut a, &mut b);
    b.send(seconds(122), &packet(1));
    settle(seconds(122), &mut a, &mut b);
    assert_eq!(a.handshakes_done(), 1);
    a.send(seconds(122), &packet(2));
    assert_eq!(settle(seconds(122), &mut a, &mut b).1, [packet(2)]);
    assert_eq!((a.handshakes_done(), b.handshakes_done()), (2, 2));
}

#[test]
fn receiving_alone_renews_after_165_seconds() {
    let (mut a, mut b) = connected(seconds(1));
    settle(seconds(11), &mut a, &mut b);
    b.send(seconds(167), &packet(1));
    assert_eq!(settle(seconds(167), &mut a, &mut b).0, [packet(1)]);
    assert_eq!((a.handshakes_done(), b.handshakes_done()), (2, 2));
}

#[test]
fn after_180_seconds_nothing_is_sent_or_taken_under_old_keys() {
    let (mut a, mut b) = connected(seconds(1));
    a.send(seconds(180), &packet(1));
    let old = a.turn(seconds(180)).remove(0);
    assert_eq!(b.refusal(seconds(181), old), Some(Refusal::Expired));
    assert!(a.device.sealer(seconds(181), a.peer).is_none());
    a.send(seconds(186), &packet(2));
    assert_eq!(settle(seconds(186), &mut a, &mut b).1, [packet(2)]);
}

#[test]
fn keys_are_zeroed_after_540_seconds_and_the_timers_fall_silent() {
    let (mut a, mut b) = connected(seconds(1));
    settle(seconds(12), &mut a, &mut b);
    settle(seconds(600), &mut a, &mut b);
    assert!(a.events.contains(&Event::SessionsZeroed { peer: a.peer }));
    assert!(b.events.contains(&Event::SessionsZeroed { peer: b.peer }));
    assert_eq!((a.device.next_timeout(), a.device.timers.len()), (None, 0));
}

#[test]
fn who_only_hears_sends_a_keepalive_after_ten_seconds() {
    let (mut a, mut b) = connected(seconds(1));
    assert!(b.turn(seconds(10)).is_empty());
    let keepalive = b.turn(seconds(11));
    assert_eq!(keepalive.len(), 1);
    assert_eq!(keepalive[0].len(), 32);
    assert_eq!(a.receive(seconds(11), keepalive[0].clone()), Some(Vec::new()));
    assert!(a.turn(seconds(30)).is_empty(), "a keepalive is not answered");
}

#[test]
fn silence_after_sending_calls_for_a_handshake() {
    let (mut a, _) = connected(seconds(1));
    assert!(a.turn(seconds(15)).is_empty());
    let renewed = a.turn(seconds(17));
    assert_eq!(renewed.iter().map(Vec::len).collect::<Vec<_>>(), [148]);
}

#[test]
fn attempts_end_after_90_seconds_and_start_anew_with_the_next_packet() {
    let (mut a, _) = pair();
    a.send(seconds(1), &packet(1));
    let (mut now, mut tries) = (seconds(1), 0);
    while let Some(due) = a.device.next_timeout() {
        now = now.max(due);
        tries += a.turn(now).len();
        assert!(tries <= 18);
    }
    assert_eq!(a.events, [Event::HandshakeExpired { peer: a.peer }]);
    assert!(tries >= 17 && now.since(seconds(1)).as_secs() >= 90);
    assert_eq!((a.device.staged_bytes, a.device.counters().staged_dropped), (0, 1));
    a.send(now, &packet(1));
    let again = a.device.next_timeout().unwrap();
    assert_eq!(a.turn(again).len(), 1);
}

#[test]
fn staging_is_bounded_and_keeps_the_newest() {
    let (mut a, mut b) = pair();
    for i in 0..40 {
        a.send(seconds(1), &packet(i));
    }
    let got = settle(seconds(1), &mut a, &mut b).1;
    assert_eq!(got, (24..40).map(packet).collect::<Vec<_>>());
    assert!(!a.device.stage(seconds(1), a.peer, &vec![0; 70_000]));
}

#[test]
fn both_starting_at_once_end_up_talking() {
    let now = seconds(1);
    let (mut a, mut b) = pair();
    a.send(now, &packet(1));
    b.send(now, &packet(2));
    let (from_a, from_b) = (a.turn(now), b.turn(now));
    for bytes in from_a {
        b.receive(now, bytes);
    }
    for bytes in from_b {
        a.receive(now, bytes);
    }
    assert_eq!(settle(now, &mut a, &mut b), (vec![packet(2)], vec![packet(1)]));
    a.send(now, &packet(3));
    b.send(now, &packet(4));
    assert_eq!(settle(now, &mut a, &mut b), (vec![packet(4)], vec![packet(3)]));
}

#[test]
fn a_replayed_initiation_and_a_stranger_get_no_answer() {
    let now = seconds(1);
    let (mut a, mut b) = pair();
    a.send(now, &packet(1));
    let initiation = a.turn(now).remove(0);
    b.receive(now, initiation.clone());
    assert_eq!(b.turn(now).len(), 1);
    b.receive(seconds(2), initiation);
    assert!(b.turn(seconds(2)).is_empty());
    let mut stranger = End::new(3, 33, public_of(2), 1000);
    stranger.send(now, &packet(1));
    b.receive(seconds(3), stranger.turn(now).remove(0));
    assert!(b.turn(seconds(3)).is_empty());
    let counters = b.device.counters();
    assert_eq!((counters.stale_initiation, counters.unknown_initiator), (1, 1));
}

#[test]
fn under_load_a_cookie_bound_to_address_and_port_is_asked_for() {
    let now = seconds(1);
    let (mut a, mut b) = (End::new(1, 11, public_of(2), 1000), End::new(2, 22, public_of(1), 0));
    a.send(now, &packet(1));
    b.receive(now, a.turn(now).remove(0));
    let reply = b.turn(now).remove(0);
    assert_eq!(reply.len(), 64);
    a.receive(now, reply);
    let due = a.device.next_timeout().unwrap();
    let with_cookie = a.turn(due).remove(0);
    b.receive_from(due, 9, with_cookie.clone());
    assert_eq!(b.turn(due).remove(0).len(), 64, "another port: another cookie");
    b.receive(due, with_cookie);
    assert_eq!(b.turn(due).remove(0).len(), 92);
    assert_eq!((a.device.counters().cookies_received, b.device.counters().cookies_sent), (1, 2));
}

#[test]
fn hours_of_traffic_leave_the_timers_small_and_the_session_up() {
    let (mut a, mut b) = connected(seconds(1));
    for second in (2..7200).step_by(3) {
        a.send(seconds(second), &packet(1));
        b.send(seconds(second), &packet(2));
        let got = settle(seconds(second), &mut a, &mut b);
        assert_eq!((got.0.len(), got.1.len()), (1, 1), "second {second}");
        assert!(a.device.timers.len() <= 80 && b.device.timers.len() <= 80);
    }
    assert!(a.handshakes_done() >= 7200 / 130);
    assert!(b.events.iter().all(|event| matches!(event, Event::HandshakeDone { initiator: false, .. })));
}

#[test]
fn another_private_key_ends_every_session_and_a_removed_peers_id_is_dead() {
    let now = seconds(1);
    let (mut a, mut b) = connected(now);
    a.send(now, &packet(1));
    let sealed = a.turn(now).remove(0);
    b.device.set_private_key([7; 32]);
    assert_eq!(b.refusal(now, sealed), Some(Refusal::UnknownIndex));
    assert!(b.device.sealer(now, b.peer).is_none());
    assert!(a.device.remove_peer(a.peer) && !a.device.remove_peer(a.peer));
    let new = a.device.add_peer(public_of(7), None).unwrap();
    assert_eq!((new.index(), new == a.peer), (a.peer.index(), false));
    assert!(a.device.sealer(now, a.peer).is_none() && !a.device.stage(now, a.peer, b"x"));
    assert_eq!(a.device.add_peer([0; 32], None), None, "a key of small order");
    a.device.handle_timeout(seconds(700), wall(seconds(700)), &mut a.out);
    assert!(a.out.packets.is_empty());
}

#[test]
fn what_waits_while_our_key_changes_goes_out_under_the_new_one() {
    let (mut a, mut b) = (End::new(1, 11, public_of(2), 1000), End::new(2, 22, public_of(7), 1000));
    a.send(seconds(1), &packet(5));
    let old = a.turn(seconds(1)).remove(0);
    a.device.set_private_key([7; 32]);
    b.receive(seconds(1), old);
    assert_eq!(b.turn(seconds(1)), Vec::<Vec<u8>>::new(), "the old key is nobody's");
    assert_eq!(settle(seconds(7), &mut a, &mut b).1, [packet(5)]);
}

#[test]
fn a_used_up_counter_stops_the_session_and_asks_for_another() {
    let now = seconds(10);
    let (mut a, mut b) = connected(seconds(1));
    let id = a.peer;
    let session = a.device.peer_mut(id).unwrap().current.as_deref_mut().unwrap();
    session.skip_to_counter(crate::wireguard::timers::REJECT_AFTER_MESSAGES - 1);
    a.send(now, &packet(1));
    assert!(a.device.sealer(now, id).is_none());
    assert_eq!(settle(now, &mut a, &mut b).1, [packet(1)]);
    assert_eq!(a.handshakes_done(), 2);
}

#[derive(Clone, Debug)]
enum Step {
    Send(bool, u8),
    Carry { from_a: bool, pick: usize, lose: bool, duplicate: bool },
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), any::<u8>()).prop_map(|(a, n)| Step::Send(a, n)),
        6 => (any::<bool>(), any::<usize>(), prop::bool::weighted(0.2), prop::bool::weighted(0.1))
            .prop_map(|(from_a, pick, lose, duplicate)| Step::Carry { from_a, pick, lose, duplicate }),
        1 => prop_oneof![1u64..2000, 1000u64..20_000, 60_000u64..700_000].prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn whatever_the_wire_did_two_devices_find_each_other_again(steps in prop::collection::vec(step(), 0..120)) {
        let (mut a, mut b) = pair();
        let mut now = seconds(1);
        let (mut wire_a, mut wire_b): (Vec<Vec<u8>>, Vec<Vec<u8>>) = Default::default();
        for step in steps {
            match step {
                Step::Send(true, n) => a.send(now, &packet(n)),
                Step::Send(false, n) => b.send(now, &packet(n)),
                Step::Carry { from_a, pick, lose, duplicate } => {
                    let (wire, to) = if from_a { (&mut wire_a, &mut b) } else { (&mut wire_b, &mut a) };
                    if !wire.is_empty() {
                        let at = pick % wire.len();
                        let bytes = if duplicate { wire[at].clone() } else { wire.remove(at) };
                        if !lose {
                            if let Some(inner) = to.receive(now, bytes) {
                                prop_assert!(inner.is_empty() || inner[..31] == packet(0)[..31]);
                            }
                        }
                    }
                }
                Step::Pass(ms) => now = now + Duration::from_millis(ms),
            }
            wire_a.extend(a.turn(now));
            wire_b.extend(b.turn(now));
            prop_assert!(a.device.next_timeout().is_none_or(|at| at > now), "nothing due is left");
        }
        // The wire heals: within a few retries a packet gets through each way.
        let (mut to_a, mut to_b) = (false, false);
        for _ in 0..8 {
            now = now + Duration::from_secs(30);
            a.send(now, &packet(201));
            b.send(now, &packet(202));
            let got = settle(now, &mut a, &mut b);
            to_a |= got.0.contains(&packet(202));
            to_b |= got.1.contains(&packet(201));
        }
        prop_assert!(to_a && to_b);
    }
}

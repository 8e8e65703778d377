//! The relay's rules, told by clients that speak frames.

use std::time::{Duration, Instant};

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};
use proptest::prelude::*;

use super::frames::*;
use super::hub::{ClientId, Hub};

struct Node {
    id: ClientId,
    key: Key,
}

struct Relay {
    hub: Hub,
    now: Instant,
}

type Frames = Vec<(u8, Vec<u8>)>;

fn parse(mut bytes: &[u8]) -> Frames {
    let mut frames = Vec::new();
    while let Some((kind, len)) = parse_header(bytes) {
        frames.push((kind, bytes[HEADER_BYTES..HEADER_BYTES + len].to_vec()));
        bytes = &bytes[HEADER_BYTES + len..];
    }
    assert!(bytes.is_empty(), "only whole frames are sent");
    frames
}

fn hello(secret: &SecretKey, relay: &Key, text: &[u8]) -> Vec<u8> {
    let nonce = [7u8; NONCE_BYTES];
    let sealed = SalsaBox::new(&PublicKey::from(*relay), secret).encrypt(&nonce.into(), text).expect("seals");
    let mut out = Vec::new();
    push_frame(&mut out, CLIENT_INFO, &[secret.public_key().as_bytes(), &nonce, &sealed]);
    out
}

fn packet(to: &Key, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(&mut out, SEND_PACKET, &[to, body]);
    out
}

fn disco() -> Vec<u8> {
    let mut body = vec![0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
    body.resize(100, 1);
    body
}

impl Relay {
    fn new() -> Relay {
        Relay { hub: Hub::new([9; 32], Box::new(|buffer| buffer.fill(5))), now: Instant::now() }
    }

    fn say(&mut self, id: ClientId, bytes: &[u8]) {
        self.hub.handle_bytes(id, self.now, bytes);
    }

    fn heard(&mut self, id: ClientId) -> Frames {
        let mut out = Vec::new();
        while self.hub.has_output(id) {
            self.hub.drain(id, &mut out, 1 << 20);
        }
        parse(&out)
    }

    fn join(&mut self, seed: u8) -> Node {
        let secret = SecretKey::from([seed; 32]);
        let id = self.hub.accept(self.now);
        assert_eq!(self.heard(id)[0].0, SERVER_KEY);
        let key = self.hub.public_key();
        self.say(id, &hello(&secret, &key, br#"{"version":2,"CanAckPings":true}"#));
        let answer = self.heard(id);
        assert_eq!(answer[0].0, SERVER_INFO);
        Node { id, key: *secret.public_key().as_bytes() }
    }

    fn closing(&mut self) -> Vec<ClientId> {
        self.hub.take_closing().into_iter().map(|(id, _)| id).collect()
    }
}

#[test]
fn a_packet_reaches_its_peer_with_the_senders_key() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    relay.say(alice.id, &packet(&bob.key, b"hello"));
    assert_eq!(relay.heard(bob.id), [(RECV_PACKET, [&alice.key[..], b"hello"].concat())]);
}

#[test]
fn bytes_may_come_chopped_anywhere() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    let bytes = [packet(&bob.key, b"one"), packet(&bob.key, b"two")].concat();
    for byte in &bytes {
        relay.say(alice.id, &[*byte]);
    }
    assert_eq!(relay.heard(bob.id).len(), 2);
}

#[test]
fn an_unknown_frame_is_skipped_however_long() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    relay.say(alice.id, &build_header(0x77, 1 << 30));
    for _ in 0..64 {
        relay.say(alice.id, &[0; 1 << 16]);
    }
    assert!(relay.closing().is_empty());
    let mut short = Vec::new();
    push_frame(&mut short, 0x78, &[b"short"]);
    let other = relay.join(3);
    relay.say(other.id, &[short, packet(&bob.key, b"after")].concat());
    assert_eq!(relay.heard(bob.id).len(), 1);
}

#[test]
fn only_disco_to_a_stranger_is_answered_and_sparingly() {
    let mut relay = Relay::new();
    let alice = relay.join(1);
    relay.say(alice.id, &packet(&[8; 32], b"wireguard"));
    assert!(relay.heard(alice.id).is_empty());
    for _ in 0..10 {
        relay.say(alice.id, &packet(&[8; 32], &disco()));
    }
    let heard = relay.heard(alice.id);
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[0], (PEER_GONE, [&[8u8; 32][..], &[GONE_NOT_HERE]].concat()));
    relay.now += Duration::from_secs(1);
    relay.say(alice.id, &packet(&[8; 32], &disco()));
    assert_eq!(relay.heard(alice.id).len(), 1);
}

#[test]
fn who_talked_with_a_leaver_hears_of_it_and_nobody_else() {
    let mut relay = Relay::new();
    let (alice, bob, carol) = (relay.join(1), relay.join(2), relay.join(3));
    relay.say(alice.id, &packet(&bob.key, b"x"));
    relay.heard(bob.id);
    relay.hub.remove(alice.id);
    assert_eq!(relay.heard(bob.id), [(PEER_GONE, [&alice.key[..], &[GONE_DISCONNECTED]].concat())]);
    assert!(relay.heard(carol.id).is_empty());
}

#[test]
fn the_connection_that_wrote_last_is_a_keys_active_one() {
    let mut relay = Relay::new();
    let (old, bob) = (relay.join(1), relay.join(2));
    let new = relay.join(1);
    relay.say(bob.id, &packet(&old.key, b"to the newer"));
    assert_eq!((relay.heard(old.id).len(), relay.heard(new.id).len()), (0, 1));
    relay.say(old.id, &packet(&bob.key, b"I am active"));
    relay.say(bob.id, &packet(&old.key, b"to the older"));
    assert_eq!((relay.heard(old.id).len(), relay.heard(new.id).len()), (1, 0));
    relay.heard(bob.id);
    relay.hub.remove(old.id);
    assert!(relay.heard(bob.id).is_empty(), "the key is still here");
    relay.say(bob.id, &packet(&old.key, b"once more"));
    assert_eq!(relay.heard(new.id).len(), 1);
}

#[test]
fn a_full_queue_drops_its_oldest_packets() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    for round in 0..1000u16 {
        relay.say(alice.id, &packet(&bob.key, &[&round.to_be_bytes()[..], &[0; 1300]].concat()));
    }
    let heard = relay.heard(bob.id);
    assert!(heard.len() > 100 && heard.len() < 300);
    assert_eq!(heard.last().expect("some").1[32..34], 999u16.to_be_bytes());
    assert_eq!(relay.hub.counters.packets_dropped_queue_head as usize, 1000 - heard.len());
}

#[test]
fn disco_passes_waiting_data() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    relay.say(alice.id, &packet(&bob.key, &[1; 1300]));
    relay.say(alice.id, &packet(&bob.key, &disco()));
    assert!(is_disco(&relay.heard(bob.id)[0].1[32..]));
}

#[test]
fn only_admitted_keys_come_in_and_others_are_put_out() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    relay.hub.admit([alice.key]);
    assert_eq!(relay.closing(), [bob.id]);
    relay.say(alice.id, &packet(&bob.key, b"x"));
    assert!(relay.heard(bob.id).is_empty());
    let secret = SecretKey::from([3; 32]);
    let carol = relay.hub.accept(relay.now);
    let key = relay.hub.public_key();
    relay.say(carol, &hello(&secret, &key, br#"{"version":2}"#));
    assert_eq!(relay.closing(), [carol]);
}

#[test]
fn a_ping_is_answered_and_keepalives_come() {
    let mut relay = Relay::new();
    let alice = relay.join(1);
    let mut ping = Vec::new();
    push_frame(&mut ping, PING, &[b"12345678"]);
    relay.say(alice.id, &ping);
    assert_eq!(relay.heard(alice.id), [(PONG, b"12345678".to_vec())]);
    relay.now += Duration::from_secs(66);
    relay.hub.handle_timeout(relay.now);
    assert_eq!(relay.heard(alice.id), [(KEEP_ALIVE, vec![])]);
    assert!(relay.hub.next_timeout().is_some_and(|at| at > relay.now));
}

#[test]
fn a_client_that_says_nothing_or_nonsense_is_closed() {
    let mut relay = Relay::new();
    let silent = relay.hub.accept(relay.now);
    relay.now += Duration::from_secs(11);
    relay.hub.handle_timeout(relay.now);
    assert_eq!(relay.closing(), [silent]);
    let alice = relay.join(1);
    let mut frame = Vec::new();
    push_frame(&mut frame, WATCH_CONNECTIONS, &[]);
    relay.say(alice.id, &frame);
    assert_eq!(relay.closing(), [alice.id]);
    let bob = relay.join(2);
    relay.say(bob.id, &build_header(SEND_PACKET, 1 << 24));
    assert_eq!(relay.closing(), [bob.id]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_stumble(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20), joined: bool) {
        let mut relay = Relay::new();
        let id = if joined { relay.join(1).id } else { relay.hub.accept(relay.now) };
        for chunk in chunks {
            relay.say(id, &chunk);
        }
        relay.hub.remove(id);
        prop_assert_eq!(relay.hub.connections(), 0);
    }
}

#[test]
fn whoever_takes_a_closed_clients_place_is_not_closed_for_it() {
    let mut relay = Relay::new();
    let bad = relay.join(1);
    relay.say(bad.id, &build_header(SEND_PACKET, 1 << 20));
    relay.hub.remove(bad.id); // its connection broke before the shell asked whom to close
    let next = relay.join(2);
    assert_eq!(next.id, bad.id);
    assert!(relay.closing().is_empty());
}

#[test]
fn nobody_is_told_of_a_peer_that_never_reached_it() {
    let mut relay = Relay::new();
    let alice = relay.join(1);
    let bob = *SecretKey::from([2; 32]).public_key().as_bytes();
    relay.say(alice.id, &packet(&bob, b"too early"));
    let bob = relay.join(2);
    relay.hub.remove(alice.id);
    assert!(relay.heard(bob.id).is_empty());
}

#[test]
fn who_floods_a_peer_displaces_nobody_elses_packets_and_is_left_to_rest() {
    let mut relay = Relay::new();
    let (honest, flooder, bob) = (relay.join(1), relay.join(2), relay.join(3));
    for number in 0..100u8 {
        for _ in 0..40 {
            relay.say(flooder.id, &packet(&bob.key, &[0xff; 1000]));
        }
        relay.say(honest.id, &packet(&bob.key, &[number; 1000]));
    }
    let now = relay.now;
    let resting: Vec<_> = relay.hub.take_resting(now).collect();
    assert_eq!(resting.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [flooder.id]);
    assert!(resting[0].1 > now);
    let heard = relay.heard(bob.id);
    let honests: Vec<u8> =
        heard.iter().filter(|(_, body)| body[..32] == honest.key).map(|(_, body)| body[32]).collect();
    assert_eq!(honests, (0..100).collect::<Vec<u8>>());
    assert!(heard.len() < 300);
}

#[test]
fn packets_to_nobody_and_pings_without_end_are_waste_and_a_little_of_it_is_forgiven() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    let mut ping = Vec::new();
    push_frame(&mut ping, PING, &[&[7; 8]]);
    for frame in [packet(&[9; 32], &[0; 1000]), ping] {
        let now = relay.now;
        for _ in 0..100 {
            relay.say(alice.id, &frame);
        }
        assert_eq!(relay.hub.take_resting(now).count(), 0);
        for _ in 0..10_000 {
            relay.say(alice.id, &frame);
        }
        assert_eq!(relay.hub.take_resting(now).map(|(id, _)| id).collect::<Vec<_>>(), [alice.id]);
        relay.now += Duration::from_secs(1);
    }
    for _ in 0..100 {
        relay.say(alice.id, &packet(&bob.key, &[0; 1000]));
        relay.heard(bob.id);
    }
    let now = relay.now;
    assert_eq!(relay.hub.take_resting(now).count(), 0, "what is delivered is no waste");
    for _ in 0..10_000 {
        relay.say(alice.id, &packet(&[9; 32], &[0; 1000]));
    }
    relay.hub.remove(alice.id);
    assert_eq!(relay.hub.take_resting(now).count(), 0, "who has left rests already");
}

#[test]
fn who_talks_to_a_peer_that_does_not_answer_is_slowed_and_a_conversation_is_not() {
    let mut relay = Relay::new();
    let (alice, bob) = (relay.join(1), relay.join(2));
    let cookie = [[3, 0, 0, 0].as_slice(), &[0; 60]].concat();
    let stream = |relay: &mut Relay, megabytes: usize| {
        let now = relay.now;
        for _ in 0..megabytes * 1024 {
            relay.say(alice.id, &packet(&bob.key, &[0; 1024]));
            relay.heard(bob.id);
        }
        relay.hub.take_resting(now).map(|(_, until)| until - now).sum::<Duration>()
    };
    assert_eq!(stream(&mut relay, 1), Duration::ZERO, "a burst is let through");
    let rest = stream(&mut relay, 8);
    assert!(rest.abs_diff(Duration::from_secs(1)) < Duration::from_millis(10), "{rest:?} for 8 MiB");
    relay.now += Duration::from_secs(5);
    relay.say(bob.id, &packet(&alice.key, &cookie));
    assert!(stream(&mut relay, 8) > Duration::from_millis(500), "to be asked who one is is no answer");
    relay.say(bob.id, &packet(&alice.key, b"an answer"));
    assert_eq!(stream(&mut relay, 64), Duration::ZERO);
    relay.now += Duration::from_secs(31);
    assert!(stream(&mut relay, 8) > Duration::ZERO, "an answer is no answer for ever");
}

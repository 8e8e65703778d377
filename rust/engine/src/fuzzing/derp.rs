//! DERP, both ends: a hostile relay for the client, hostile clients for the relay.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use super::{piece, Input};
use crate::derp::client::{Client, Heard};
use crate::derp::frames::*;
use crate::derp::hub::{ClientId, Hub};

const US: Key = [1; 32];
const RELAY: Key = [2; 32];

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(&mut out, kind, parts);
    out
}

/// What an honest relay says first, in three parts.
fn greeting() -> &'static [Vec<u8>; 3] {
    static GREETING: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    GREETING.get_or_init(|| {
        let relay = SecretKey::from(RELAY);
        let shared = SalsaBox::new(&SecretKey::from(US).public_key(), &relay);
        let info = shared.encrypt(&[7; 24].into(), br#"{"version":2}"#.as_slice()).expect("sealed");
        [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n".to_vec(),
            frame(SERVER_KEY, &[&MAGIC, relay.public_key().as_bytes()]),
            frame(SERVER_INFO, &[&[7; 24], &info]),
        ]
    })
}

/// What was heard, in an order that can be compared, and how it ended.
fn listen<'a>(honest: usize, pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<String>, Result<(), String>, Vec<u8>) {
    let mut client = Client::new(&US, "relay.example", [3; 24]);
    client.output.clear();
    let mut heard = Vec::new();
    for bytes in greeting()[..honest].iter().map(Vec::as_slice).chain(pieces) {
        let result = client.feed(bytes, &mut |what| {
            heard.push(match what {
                Heard::Up { server_key } => format!("up {server_key:?}"),
                Heard::Packet { source, packet } => format!("{source:?} {packet:?}"),
                Heard::PeerGone { key, was_here } => format!("gone {key:?} {was_here}"),
                Heard::Health(problem) => problem.to_owned(),
            })
        });
        if result.is_err() {
            return (heard, result, client.output);
        }
    }
    (heard, Ok(()), client.output)
}

/// A relay that says anything, from the first byte, after its key, or after its greeting.
pub fn client(data: &[u8]) {
    let mut input = Input(data);
    let honest = usize::from(input.byte() % 4);
    let size = usize::from(input.byte()).max(1);
    let said = input.0;
    let whole = listen(honest, std::iter::once(said));
    let cut = listen(honest, said.chunks(size));
    // How the bytes were cut may not change what was heard, though a limit may show earlier.
    let both = whole.0.len().min(cut.0.len());
    assert_eq!(whole.0[..both], cut.0[..both]);
    if whole.1.is_ok() && cut.1.is_ok() {
        assert_eq!(whole, cut);
    }
    assert!(whole.2.len() <= 1024 + said.len(), "the client answers with more than it was sent");
}

pub fn client_seeds() -> Vec<Vec<u8>> {
    let talk = [
        frame(RECV_PACKET, &[&[9; 32], b"hello"]),
        frame(0x77, &[b"of the future"]),
        frame(PING, &[&[5; 8]]),
        frame(PEER_GONE, &[&[9; 32], &[1]]),
        frame(0x14, &[b"tired"]),
        frame(KEEP_ALIVE, &[]),
    ]
    .concat();
    let [upgrade, key, info] = greeting();
    vec![
        [&[0, 7][..], upgrade, key, info, &talk].concat(),
        [&[1, 50][..], key, info, &talk].concat(),
        [&[2, 0][..], info, &talk].concat(),
        [&[3, 3][..], &talk].concat(),
        [&[3, 1][..], &[RECV_PACKET, 0, 16, 0, 1]].concat(),
        b"\0\x10HTTP/1.1 404 Not Found\r\n\r\n".to_vec(),
    ]
}

const NODES: u8 = 3;
/// The most a client may have waiting: urgent answers, disco, data (at least 32 packets of the longest), heads.
const MOST_WAITING_BYTES: usize = 3 << 20;

/// Greets as node `number`.
fn hello(number: u8, relay: &Key) -> Vec<u8> {
    let secret = SecretKey::from([number + 10; 32]);
    let sealed = SalsaBox::new(&PublicKey::from(*relay), &secret)
        .encrypt(&[7; NONCE_BYTES].into(), br#"{"version":2}"#.as_slice())
        .expect("sealed");
    frame(CLIENT_INFO, &[secret.public_key().as_bytes(), &[7; NONCE_BYTES], &sealed])
}

fn hellos() -> &'static (Vec<Vec<u8>>, Vec<Key>) {
    static HELLOS: OnceLock<(Vec<Vec<u8>>, Vec<Key>)> = OnceLock::new();
    HELLOS.get_or_init(|| {
        let relay = *SecretKey::from(RELAY).public_key().as_bytes();
        let keys = (0..NODES).map(|n| *SecretKey::from([n + 10; 32]).public_key().as_bytes());
        ((0..NODES).map(|n| hello(n, &relay)).collect(), keys.collect())
    })
}

/// Clients that say anything in any order, come and go: whole frames alone go out, no sender is invented, nothing grows.
pub fn relay(data: &[u8]) {
    let mut input = Input(data);
    let (hellos, keys) = hellos();
    let mut hub = Hub::new(RELAY, Box::new(|buffer| buffer.fill(5)));
    let mut now = Instant::now();
    let mut ids: Vec<ClientId> = Vec::new();
    let mut accepted = 0;
    let mut gone = 0;
    while !input.is_empty() {
        let action = input.byte();
        let which = input.byte();
        let id = ids.get(usize::from(which) % ids.len().max(1)).copied();
        match (action % 8, id) {
            (0, _) if ids.len() < 8 => {
                accepted += 1;
                ids.push(hub.accept(now));
            }
            (1, Some(id)) => hub.handle_bytes(id, now, &hellos[usize::from(input.byte() % NODES)]),
            (2 | 3, Some(id)) => hub.handle_bytes(id, now, input.piece()),
            (4, Some(id)) => {
                let to = keys[usize::from(input.byte() % NODES)];
                let body = input.piece();
                hub.handle_bytes(id, now, &frame(SEND_PACKET, &[&to, body]));
            }
            (5, Some(id)) => {
                ids.retain(|other| *other != id);
                gone += 1;
                hub.remove(id);
            }
            (6, _) => {
                now += Duration::from_millis(u64::from(input.word()));
                hub.handle_timeout(now);
            }
            (7, _) if which & 1 == 0 => hub.admit_all(),
            (7, _) => hub.admit(keys[..usize::from(which / 2) % keys.len()].iter().copied()),
            _ => {}
        }
        for (id, _) in hub.take_closing() {
            ids.retain(|other| *other != id);
            gone += 1;
            hub.remove(id);
        }
        assert_eq!(hub.connections(), accepted - gone);
        if action & 0x80 != 0 {
            drain(&mut hub, keys);
        }
    }
    drain(&mut hub, keys);
}

/// Take what waits for everyone.
fn drain(hub: &mut Hub, keys: &[Key]) {
    let mut dirty = Vec::new();
    hub.take_dirty(&mut dirty);
    for id in dirty {
        let mut out = Vec::new();
        hub.drain(id, &mut out, usize::MAX);
        assert!(out.len() <= MOST_WAITING_BYTES);
        assert!(!hub.has_output(id));
        let mut bytes = &out[..];
        while let Some((kind, len)) = parse_header(bytes) {
            let body = &bytes[HEADER_BYTES..HEADER_BYTES + len];
            if kind == RECV_PACKET {
                let from = first_key(body).expect("a sender");
                assert!(keys.contains(from), "a packet from nobody");
            }
            bytes = &bytes[HEADER_BYTES + len..];
        }
        assert!(bytes.is_empty(), "only whole frames are sent");
    }
}

pub fn relay_seeds() -> Vec<Vec<u8>> {
    let both_up = [&[0, 0, 0, 0][..], &[1, 0, 0], &[1, 1, 1]].concat();
    let mut disco = vec![0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];
    disco.resize(100, 1);
    let ping = frame(PING, &[&[1; 8]]);
    let relayed = frame(WATCH_CONNECTIONS, &[]);
    vec![
        [&both_up[..], &[0x84, 0, 1], &piece(b"a packet")].concat(),
        [&both_up[..], &[4, 0, 2], &piece(&disco), &[0x86, 0, 0xff, 0xff]].concat(),
        [&both_up[..], &[0x82, 1], &piece(&ping), &[0x83, 0], &piece(&ping[..4]), &[0x83, 0], &piece(&ping[4..])]
            .concat(),
        [&both_up[..], &[2, 0], &piece(&relayed), &[5, 1]].concat(),
        [&both_up[..], &[7, 3, 7, 2, 0, 0, 1, 2, 0], &[0x83, 0], &piece(&frame(0x55, &[b"unknown"]))].concat(),
        [&both_up[..], &[1, 0, 0], &[6, 0, 0xff, 0xff]].concat(),
        [&both_up[..], &[2, 0], &piece(&frame(NOTE_PREFERRED, &[&[1]])), &[2, 1], &piece(&[SEND_PACKET, 0, 1, 0, 32])]
            .concat(),
    ]
}

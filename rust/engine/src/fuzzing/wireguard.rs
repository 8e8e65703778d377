//! WireGuard's sessions under a script: an honest peer, a stranger who knows our public key, and a network that does anything.

use std::sync::OnceLock;
use std::time::Duration;

use super::Input;
use crate::aead::OpenJob;
use crate::wireguard::cookie::write_macs;
use crate::wireguard::{classify, Config, Destination, Device, Instant, Kind, Out, Outgoing, PeerId, Source, Tai64N};

const STEPS: usize = 64;
/// What may wait to be sent after one step: a handshake, its answer, and what was staged.
const MOST_WAITING: usize = 64;

struct End {
    device: Device,
    peer: PeerId,
    out: Out,
}

fn public_of(private: u8) -> [u8; 32] {
    static PUBLIC: OnceLock<[[u8; 32]; 3]> = OnceLock::new();
    PUBLIC.get_or_init(|| std::array::from_fn(|private| compute_public(private as u8)))[usize::from(private)]
}

fn compute_public(private: u8) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([private; 32])).to_bytes()
}

impl End {
    fn new(private: u8, peer_private: u8) -> End {
        let config = Config { private_key: [private; 32], seed: [private; 32], mtu: 1280, under_load_per_second: 20 };
        let mut device = Device::new(config);
        let peer = device.add_peer(public_of(peer_private), None).expect("an honest key");
        End { device, peer, out: Out::new() }
    }

    fn send(&mut self, now: Instant, packet: &[u8]) {
        let sealed = self.device.sealer(now, self.peer).map(|mut sealer| {
            let mut bytes = vec![0; sealer.sealed_bytes(packet.len())];
            let len = sealer.seal_one(packet, &mut bytes).unwrap_or(0);
            bytes.truncate(len);
            bytes
        });
        match sealed {
            Some(bytes) => self.out.packets.push_back(Outgoing { to: Destination::Peer(self.peer), bytes }),
            None => {
                self.device.stage(now, self.peer, packet);
            }
        }
    }

    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.device.next_timeout().is_some_and(|at| at <= now) {
            let wall = Tai64N::from_unix(Duration::from_secs(1_700_000_000) + now.since(Instant::ZERO));
            self.device.handle_timeout(now, wall, &mut self.out);
        }
        self.out.events.clear();
        assert!(self.out.packets.len() <= MOST_WAITING);
        self.out.packets.drain(..).map(|packet| packet.bytes).collect()
    }

    fn receive(&mut self, now: Instant, source: Source, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        match classify(&datagram)? {
            Kind::Handshake => {
                self.device.handle_handshake(now, source, &datagram, &mut self.out);
                None
            }
            Kind::Data(receiver) => {
                let mut jobs = [OpenJob::new(&mut datagram)];
                self.device.open(now, receiver, &mut jobs, &mut self.out);
                jobs[0].plaintext().map(<[u8]>::to_vec)
            }
        }
    }
}

/// An inner packet nobody else sends.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xb5; len.max(4)];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// Only what the honest peer sent comes out, each at most once, however its datagrams were mixed, changed or invented.
pub fn sessions(data: &[u8]) {
    let mut input = Input(data);
    let mut ours = End::new(1, 2);
    let mut theirs = End::new(2, 1);
    let mut now = Instant::from_nanos(1_000_000_000);
    // Datagrams on their way to us and to them; and what each side sent and did not get yet.
    let mut to_us: Vec<Vec<u8>> = Vec::new();
    let mut to_them: Vec<Vec<u8>> = Vec::new();
    let mut sent_to_us: Vec<Vec<u8>> = Vec::new();
    let mut sent_to_them: Vec<Vec<u8>> = Vec::new();
    for number in 0..STEPS as u32 {
        if input.is_empty() {
            break;
        }
        let action = input.byte();
        let stranger = Source::Udp(([192, 0, 2, action >> 4], 7).into());
        let friend = Source::Udp(([192, 0, 2, 99], 7).into());
        match action & 0x0f {
            0 | 1 => {
                let made = packet(number, usize::from(input.byte()) * 5);
                sent_to_us.push(made.clone());
                theirs.send(now, &made);
            }
            2 => {
                let made = packet(number, usize::from(input.byte()) * 5);
                sent_to_them.push(made.clone());
                ours.send(now, &made);
            }
            // Deliver in order, out of order, twice.
            3..=5 if !to_us.is_empty() => {
                let at = if action & 0x0f == 3 { 0 } else { usize::from(input.byte()) % to_us.len() };
                let datagram = if action & 0x0f == 5 { to_us[at].clone() } else { to_us.remove(at) };
                check(ours.receive(now, friend, datagram), &mut sent_to_us);
            }
            6 if !to_them.is_empty() => {
                let datagram = to_them.remove(0);
                check(theirs.receive(now, friend, datagram), &mut sent_to_them);
            }
            // A datagram of the peer, changed on its way; a handshake's mac1 made to fit again.
            7 | 8 if !to_us.is_empty() => {
                let mut datagram = to_us[usize::from(input.byte()) % to_us.len()].clone();
                let at = usize::from(input.word()) % datagram.len();
                datagram[at] ^= input.byte().max(1);
                if action & 0x0f == 8 && matches!(datagram.len(), 92 | 148) {
                    write_macs(&mut datagram, &public_of(1), None);
                }
                check(ours.receive(now, stranger, datagram), &mut sent_to_us);
            }
            // A stranger's own bytes, with a fitting mac1 or none.
            9 | 10 => {
                let mut datagram = input.piece().to_vec();
                if action & 0x0f == 10 && datagram.len() >= 32 {
                    write_macs(&mut datagram, &public_of(1), None);
                }
                check(ours.receive(now, stranger, datagram), &mut sent_to_us);
            }
            11 => now = now + Duration::from_millis(u64::from(input.word())),
            12 => now = now + Duration::from_secs(u64::from(input.byte())),
            13 => ours.device.start_handshake(now, ours.peer),
            14 => {
                ours.device.set_mtu(1280 + usize::from(input.byte()));
            }
            _ => {
                assert!(ours.device.remove_peer(ours.peer));
                ours.peer = ours.device.add_peer(public_of(2), None).expect("an honest key");
            }
        }
        to_them.extend(ours.turn(now));
        to_us.extend(theirs.turn(now));
        to_us.truncate(64);
        to_them.truncate(64);
    }
}

/// A plaintext is empty, or a packet that was sent and not delivered yet, with zeros behind it.
fn check(plaintext: Option<Vec<u8>>, sent: &mut Vec<Vec<u8>>) {
    let Some(plaintext) = plaintext.filter(|bytes| !bytes.is_empty()) else { return };
    let at = sent
        .iter()
        .position(|packet| plaintext.starts_with(packet) && plaintext[packet.len()..].iter().all(|byte| *byte == 0));
    sent.remove(at.expect("a packet that nobody sent, or sent once and delivered twice"));
}

pub fn sessions_seeds() -> Vec<Vec<u8>> {
    let handshake = [0, 9, 3, 6, 3, 3];
    let mut initiation = vec![10, 0, 148, 1, 0, 0, 0];
    initiation.resize(3 + 148, 7);
    let mut cookie = vec![9, 0, 64, 3, 0, 0, 0];
    cookie.resize(3 + 64, 7);
    vec![
        [&handshake[..], &[0, 20, 0, 3, 5, 0, 4, 1, 3]].concat(),
        [&[2, 9, 6, 3, 6, 6], &handshake[..], &[2, 40, 6, 0, 1, 3]].concat(),
        [&handshake[..], &[0, 5, 7, 0, 0, 20, 1, 8, 0, 0, 0, 1, 3]].concat(),
        [&handshake[..], &[12, 130, 0, 1, 3, 6, 3, 12, 200, 12, 200, 12, 200, 0, 1]].concat(),
        [&initiation[..], &cookie, &[13, 6, 3]].concat(),
        initiation.repeat(30),
        [&handshake[..], &[14, 9, 0, 255, 3, 15, 0, 1, 3, 11, 20, 0]].concat(),
    ]
}

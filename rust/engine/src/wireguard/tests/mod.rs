//! Devices against each other, against a second implementation, and against noise.

mod hostile;
mod oracle;
mod pair;

use std::time::Duration;

use crate::aead::{OpenJob, Opened, Refusal};

use super::*;

pub(super) fn address(port: u16) -> Source {
    Source::Udp(([192, 0, 2, 1], port).into())
}

pub(super) fn wall(now: Instant) -> Tai64N {
    Tai64N::from_unix(Duration::from_secs(1_700_000_000) + now.since(Instant::ZERO))
}

/// A device with one peer, whose messages are bytes in and bytes out.
pub(super) struct End {
    pub(super) device: Device,
    pub(super) peer: PeerId,
    pub(super) out: Out,
    pub(super) events: Vec<Event>,
}

impl End {
    pub(super) fn new(private: u8, seed: u8, peer_public: [u8; 32], under_load_per_second: u32) -> Self {
        let config = Config { private_key: [private; 32], seed: [seed; 32], mtu: 1280, under_load_per_second };
        let mut device = Device::new(config);
        let peer = device.add_peer(peer_public, None).unwrap();
        End { device, peer, out: Out::new(), events: Vec::new() }
    }

    /// Sends or stages one packet.
    pub(super) fn send(&mut self, now: Instant, packet: &[u8]) {
        let sealed = self.device.sealer(now, self.peer).map(|mut sealer| {
            let mut bytes = vec![0; sealer.sealed_bytes(packet.len())];
            let len = sealer.seal_one(packet, &mut bytes).unwrap();
            assert_eq!(len, bytes.len());
            bytes
        });
        match sealed {
            Some(bytes) => self.out.packets.push_back(Outgoing { to: Destination::Peer(self.peer), bytes }),
            None => assert!(self.device.stage(now, self.peer, packet)),
        }
    }

    /// Ends a turn: what is due, then all that is to be sent.
    pub(super) fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.device.next_timeout().is_some_and(|at| at <= now) {
            self.device.handle_timeout(now, wall(now), &mut self.out);
        }
        self.events.extend(self.out.events.drain(..));
        self.out.packets.drain(..).map(|packet| packet.bytes).collect()
    }

    /// Takes a datagram from a port; the plaintext when it was data.
    pub(super) fn receive_from(&mut self, now: Instant, port: u16, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        match classify(&datagram)? {
            Kind::Handshake => {
                self.device.handle_handshake(now, address(port), &datagram, &mut self.out);
                None
            }
            Kind::Data(receiver) => {
                let mut jobs = [OpenJob::new(&mut datagram)];
                self.device.open(now, receiver, &mut jobs, &mut self.out);
                jobs[0].plaintext().map(<[u8]>::to_vec)
            }
        }
    }

    pub(super) fn receive(&mut self, now: Instant, datagram: Vec<u8>) -> Option<Vec<u8>> {
        self.receive_from(now, 51820, datagram)
    }

    pub(super) fn refusal(&mut self, now: Instant, mut datagram: Vec<u8>) -> Option<Refusal> {
        let Some(Kind::Data(receiver)) = classify(&datagram) else { panic!("no data message") };
        let mut jobs = [OpenJob::new(&mut datagram)];
        self.device.open(now, receiver, &mut jobs, &mut self.out);
        match jobs[0].result {
            Opened::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    pub(super) fn handshakes_done(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::HandshakeDone { .. })).count()
    }
}

pub(super) fn public_of(private: u8) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from([private; 32])).to_bytes()
}

pub(super) fn seconds(s: u64) -> Instant {
    Instant::from_nanos(s * 1_000_000_000)
}

pub(super) fn packet(number: u8) -> Vec<u8> {
    // An IPv4 header of 32 bytes in all, which an implementation that looks inside takes for one.
    let mut bytes = vec![0u8; 32];
    bytes[0] = 0x45;
    bytes[3] = 32;
    bytes[12..16].copy_from_slice(&[100, 64, 0, 1]);
    bytes[16..20].copy_from_slice(&[100, 64, 0, 2]);
    bytes[31] = number;
    bytes
}

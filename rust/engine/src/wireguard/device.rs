//! The device: a private key, its peers, and everything they share.

use crate::aead::{OpenJob, Opened, Refusal, SealJob, OVERHEAD_BYTES};

use super::{Counters, Instant, Out, PeerId, PeerStats, Source, Tai64N};

/// What a device is made of.
pub struct Config {
    /// The node's private key.
    pub private_key: [u8; 32],
    /// Seed of the device's generator: 32 bytes of the operating system's randomness.
    pub seed: [u8; 32],
    /// Largest inner packet; padding never exceeds it.
    pub mtu: usize,
    /// Handshake messages a second above which a source must prove its address by a cookie.
    pub under_load_per_second: u32,
}

/// A peer's identity.
pub struct PeerInfo {
    /// Its public key.
    pub public_key: [u8; 32],
}

/// See the module's documentation for the order of calls.
pub struct Device {
    mtu: usize,
    counters: Counters,
}

/// Seals packets of one peer's current session.
pub struct Sealer<'a> {
    mtu: usize,
    _device: &'a mut Device,
}

impl Sealer<'_> {
    /// Length of the datagram that a packet of `plaintext_bytes` becomes.
    pub fn sealed_bytes(&self, plaintext_bytes: usize) -> usize {
        plaintext_bytes
            .next_multiple_of(16)
            .min(self.mtu.max(plaintext_bytes))
            + OVERHEAD_BYTES
    }

    /// Seals one packet into `out` and returns the datagram's length; `None` once the session's counters are used up.
    pub fn seal_one(&mut self, plaintext: &[u8], out: &mut [u8]) -> Option<usize> {
        let mut jobs = [SealJob::new(plaintext, out)];
        self.seal(&mut jobs).then(|| jobs[0].sealed_bytes())
    }

    /// Seals a run: fills each job's counter, padding, header and ciphertext. `false`: the session's counters do not suffice, nothing was sealed.
    pub fn seal(&mut self, _jobs: &mut [SealJob<'_>]) -> bool {
        false
    }
}

impl Device {
    /// A device without peers.
    pub fn new(config: Config) -> Self {
        Device {
            mtu: config.mtu,
            counters: Counters::default(),
        }
    }

    /// Puts another private key in place; drops every session and handshake.
    pub fn set_private_key(&mut self, _private_key: [u8; 32]) {}

    /// The public key of the private one.
    pub fn public_key(&self) -> [u8; 32] {
        [0; 32]
    }

    /// Changes the largest inner packet.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Adds a peer; a key that is there already keeps its id. `None` for a key that is no point of use (of small order).
    pub fn add_peer(
        &mut self,
        _public_key: [u8; 32],
        _preshared_key: Option<[u8; 32]>,
    ) -> Option<PeerId> {
        None
    }

    /// Removes a peer with its sessions. `false` when it was not there.
    pub fn remove_peer(&mut self, _peer: PeerId) -> bool {
        false
    }

    /// The id of a public key's peer.
    pub fn peer_by_key(&self, _public_key: &[u8; 32]) -> Option<PeerId> {
        None
    }

    /// A peer's identity.
    pub fn peer(&self, _peer: PeerId) -> Option<PeerInfo> {
        None
    }

    /// What a peer has done.
    pub fn peer_stats(&self, _now: Instant, _peer: PeerId) -> Option<PeerStats> {
        None
    }

    /// The session to send by, if the peer has one that may send now.
    pub fn sealer(&mut self, _now: Instant, _peer: PeerId) -> Option<Sealer<'_>> {
        None
    }

    /// Keeps a packet until a session stands, and starts a handshake unless one runs. `false`: no such peer, or no room at all.
    pub fn stage(&mut self, _now: Instant, _peer: PeerId, _packet: &[u8]) -> bool {
        false
    }

    /// Asks for a handshake at the next `handle_timeout`, unless one runs.
    pub fn start_handshake(&mut self, _now: Instant, _peer: PeerId) {}

    /// Takes an initiation, a response or a cookie reply. The answer is the peer that it authenticated.
    pub fn handle_handshake(
        &mut self,
        _now: Instant,
        _source: Source,
        _message: &[u8],
        _out: &mut Out,
    ) -> Option<PeerId> {
        None
    }

    /// Opens a run of data messages to one receiver index; the answer is the peer when at least one was authentic.
    pub fn open(
        &mut self,
        _now: Instant,
        _receiver: u32,
        jobs: &mut [OpenJob<'_>],
        _out: &mut Out,
    ) -> Option<PeerId> {
        for job in jobs {
            job.result = Opened::Refused(Refusal::UnknownIndex);
        }
        None
    }

    /// When `handle_timeout` is due next; `None` when nothing waits.
    pub fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// Does what is due: handshakes, retries, keepalives, the end of old keys.
    pub fn handle_timeout(&mut self, _now: Instant, _wall: Tai64N, _out: &mut Out) {}

    /// The fates of datagrams so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

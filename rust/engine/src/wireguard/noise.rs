//! Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s as WireGuard runs it (paper, section 5.4): the two messages, made and taken, without macs.
//!
//! Pure functions of keys and bytes. All secrets are zeroed when dropped; a Diffie-Hellman result of zero fails the handshake.

use x25519_dalek::{PublicKey, StaticSecret};

use super::primitives::{derive, hash, open_field, seal_field, Secret};
use super::Tai64N;

pub(crate) const INITIATION_BYTES: usize = 148;
pub(crate) const RESPONSE_BYTES: usize = 92;
const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// The keys of a finished handshake, as its owner uses them.
pub(crate) struct TransportKeys {
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
}

/// Chaining key and transcript hash.
struct Transcript {
    chaining_key: Secret,
    hash: [u8; 32],
}

impl Transcript {
    fn new(responder_public: &[u8; 32]) -> Self {
        let chaining_key = hash(&[CONSTRUCTION]);
        let first = hash(&[&chaining_key, IDENTIFIER]);
        Transcript { chaining_key: Secret::new(chaining_key), hash: hash(&[&first, responder_public]) }
    }

    fn mix_hash(&mut self, bytes: &[u8]) {
        self.hash = hash(&[&self.hash, bytes]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key] = derive::<1>(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    fn mix_key_and_derive(&mut self, input: &[u8]) -> Secret {
        let [chaining_key, key] = derive::<2>(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        key
    }

    fn mix_preshared(&mut self, preshared: &[u8; 32]) -> Secret {
        let [chaining_key, mixed, key] = derive::<3>(&self.chaining_key, preshared);
        self.chaining_key = chaining_key;
        self.mix_hash(&mixed[..]);
        key
    }
}

/// X25519, refused when the result is zero.
pub(crate) fn diffie_hellman(private: &StaticSecret, public: &[u8; 32]) -> Option<Secret> {
    let shared = private.diffie_hellman(&PublicKey::from(*public));
    shared.was_contributory().then(|| Secret::new(*shared.as_bytes()))
}

/// An initiation that waits for its response.
pub(crate) struct Pending {
    pub(crate) local_index: u32,
    ephemeral: StaticSecret,
    transcript: Transcript,
}

/// Makes an initiation (macs left zero) and what is needed to take its response.
pub(crate) fn initiate(
    local_index: u32,
    own_public: &[u8; 32],
    peer_public: &[u8; 32],
    static_shared: &Secret,
    ephemeral: &Secret,
    timestamp: Tai64N,
) -> Option<([u8; INITIATION_BYTES], Pending)> {
    let ephemeral = StaticSecret::from(**ephemeral);
    let ephemeral_public = PublicKey::from(&ephemeral).to_bytes();
    let mut transcript = Transcript::new(peer_public);
    let mut message = [0u8; INITIATION_BYTES];
    message[0] = 1;
    message[4..8].copy_from_slice(&local_index.to_le_bytes());
    message[8..40].copy_from_slice(&ephemeral_public);
    transcript.mix_key(&ephemeral_public);
    transcript.mix_hash(&ephemeral_public);
    let key = transcript.mix_key_and_derive(&diffie_hellman(&ephemeral, peer_public)?[..]);
    seal_field(&key, &transcript.hash, own_public, &mut message[40..88]);
    transcript.mix_hash(&message[40..88]);
    let key = transcript.mix_key_and_derive(&static_shared[..]);
    seal_field(&key, &transcript.hash, timestamp.as_bytes(), &mut message[88..116]);
    transcript.mix_hash(&message[88..116]);
    Some((message, Pending { local_index, ephemeral, transcript }))
}

/// An initiation whose sender is known by key but not yet authenticated.
pub(crate) struct Received {
    pub(crate) initiator_public: [u8; 32],
    remote_index: u32,
    remote_ephemeral: [u8; 32],
    transcript: Transcript,
    sealed_timestamp: [u8; 28],
}

/// An initiation proven to be its sender's.
pub(crate) struct Authenticated {
    pub(crate) timestamp: Tai64N,
    received: Received,
}

/// Takes an initiation as far as the sender's key (one Diffie-Hellman).
pub(crate) fn receive(
    message: &[u8; INITIATION_BYTES],
    private: &StaticSecret,
    own_public: &[u8; 32],
) -> Option<Received> {
    let mut transcript = Transcript::new(own_public);
    let remote_ephemeral: [u8; 32] = array(&message[8..40])?;
    transcript.mix_key(&remote_ephemeral);
    transcript.mix_hash(&remote_ephemeral);
    let key = transcript.mix_key_and_derive(&diffie_hellman(private, &remote_ephemeral)?[..]);
    let initiator_public = open_field::<32>(&key, &transcript.hash, &message[40..88])?;
    transcript.mix_hash(&message[40..88]);
    Some(Received {
        initiator_public,
        remote_index: u32::from_le_bytes(array(&message[4..8])?),
        remote_ephemeral,
        transcript,
        sealed_timestamp: array(&message[88..116])?,
    })
}

impl Received {
    /// Proves the sender by the static-static secret.
    pub(crate) fn authenticate(mut self, static_shared: &Secret) -> Option<Authenticated> {
        let key = self.transcript.mix_key_and_derive(&static_shared[..]);
        let timestamp = open_field::<12>(&key, &self.transcript.hash, &self.sealed_timestamp)?;
        self.transcript.mix_hash(&self.sealed_timestamp);
        Some(Authenticated { timestamp: Tai64N::from_bytes(timestamp), received: self })
    }
}

impl Authenticated {
    /// Makes the response (macs left zero), the keys, and the index the initiator receives under.
    pub(crate) fn respond(
        self,
        local_index: u32,
        ephemeral: &Secret,
        preshared: &[u8; 32],
    ) -> Option<([u8; RESPONSE_BYTES], TransportKeys, u32)> {
        let Received { initiator_public, remote_index, remote_ephemeral, mut transcript, .. } = self.received;
        let ephemeral = StaticSecret::from(**ephemeral);
        let ephemeral_public = PublicKey::from(&ephemeral).to_bytes();
        let mut message = [0u8; RESPONSE_BYTES];
        message[0] = 2;
        message[4..8].copy_from_slice(&local_index.to_le_bytes());
        message[8..12].copy_from_slice(&remote_index.to_le_bytes());
        message[12..44].copy_from_slice(&ephemeral_public);
        transcript.mix_key(&ephemeral_public);
        transcript.mix_hash(&ephemeral_public);
        transcript.mix_key(&diffie_hellman(&ephemeral, &remote_ephemeral)?[..]);
        transcript.mix_key(&diffie_hellman(&ephemeral, &initiator_public)?[..]);
        let key = transcript.mix_preshared(preshared);
        seal_field(&key, &transcript.hash, &[], &mut message[44..60]);
        let [receive, send] = derive::<2>(&transcript.chaining_key, &[]);
        Some((message, TransportKeys { send, receive }, remote_index))
    }
}

impl Pending {
    /// Takes the response: the keys and the index the responder receives under. `None` leaves the initiation waiting.
    pub(crate) fn finish(
        &self,
        message: &[u8; RESPONSE_BYTES],
        private: &StaticSecret,
        preshared: &[u8; 32],
    ) -> Option<(TransportKeys, u32)> {
        let mut transcript =
            Transcript { chaining_key: self.transcript.chaining_key.clone(), hash: self.transcript.hash };
        let remote_ephemeral: [u8; 32] = array(&message[12..44])?;
        transcript.mix_key(&remote_ephemeral);
        transcript.mix_hash(&remote_ephemeral);
        transcript.mix_key(&diffie_hellman(&self.ephemeral, &remote_ephemeral)?[..]);
        transcript.mix_key(&diffie_hellman(private, &remote_ephemeral)?[..]);
        let key = transcript.mix_preshared(preshared);
        open_field::<0>(&key, &transcript.hash, &message[44..60])?;
        let [send, receive] = derive::<2>(&transcript.chaining_key, &[]);
        Some((TransportKeys { send, receive }, u32::from_le_bytes(array(&message[4..8])?)))
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

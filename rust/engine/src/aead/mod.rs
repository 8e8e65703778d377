//! Authenticated encryption of packets, a batch at a time.
//!
//! [`BatchAead`] is the seam between the packet path and the cipher: ChaCha20-Poly1305 (RFC 8439) with WireGuard's nonce
//! (4 zero bytes, then the little-endian 64-bit counter) and no additional data. [`ring_backend::RingAead`] stands behind it; a
//! backend that seals several packets in one pass of wide lanes takes the same jobs. [`xchacha`] is the cookie reply's
//! cipher, [`chacha`] the permutation both it and the engine's generator stand on.

pub mod chacha;
pub mod ring_backend;
pub mod xchacha;

pub use ring_backend::RingAead;

use std::ops::Range;

use zeroize::Zeroizing;

/// Bytes of the data message header in front of the ciphertext: type, receiver index, counter.
pub const HEADER_BYTES: usize = 16;
/// Bytes of the Poly1305 tag behind the ciphertext.
pub const TAG_BYTES: usize = 16;
/// Bytes a sealed packet is longer than its padded plaintext.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// A 256-bit key, zeroed when dropped.
pub type AeadKey = Zeroizing<[u8; 32]>;

/// One packet to seal: `plaintext`, zero-padded to `padded_bytes`, becomes `out[16..16 + padded_bytes + 16]`.
///
/// `out` must hold `padded_bytes + OVERHEAD_BYTES`. The first 16 bytes are the caller's (the session writes the header).
pub struct SealJob<'a> {
    /// The inner packet.
    pub plaintext: &'a [u8],
    /// The whole datagram's buffer.
    pub out: &'a mut [u8],
    /// Length of the plaintext with its padding; at least `plaintext.len()`. A `Sealer` fills it.
    pub padded_bytes: usize,
    /// The nonce's counter. A `Sealer` fills it.
    pub counter: u64,
}

impl<'a> SealJob<'a> {
    /// A job whose counter and padding the session will fill in.
    pub fn new(plaintext: &'a [u8], out: &'a mut [u8]) -> Self {
        SealJob { padded_bytes: plaintext.len(), plaintext, out, counter: 0 }
    }

    /// Length of the sealed datagram, known once the session has sealed it.
    pub fn sealed_bytes(&self) -> usize {
        self.padded_bytes + OVERHEAD_BYTES
    }
}

/// What became of a packet that was to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Not tried yet; a backend skips jobs that are in any other state.
    Pending,
    /// The plaintext lies in this range of the datagram (empty range: a keepalive).
    Plaintext(Range<usize>),
    /// Refused; the datagram's bytes are worthless and hold no plaintext.
    Refused(Refusal),
}

/// Why a data message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too short, not of type 4, or of another receiver index than its batch.
    Malformed,
    /// No session has this receiver index.
    UnknownIndex,
    /// The session is past its time or its number of messages.
    Expired,
    /// The counter was seen before or lies behind the window.
    Replay,
    /// The tag does not fit.
    BadTag,
}

/// One datagram to open in place.
pub struct OpenJob<'a> {
    /// The whole data message, header included; the plaintext replaces the ciphertext.
    pub datagram: &'a mut [u8],
    /// The nonce's counter. The session fills it from the header.
    pub counter: u64,
    /// The outcome.
    pub result: Opened,
}

impl<'a> OpenJob<'a> {
    /// A job not tried yet.
    pub fn new(datagram: &'a mut [u8]) -> Self {
        OpenJob { datagram, counter: 0, result: Opened::Pending }
    }

    /// The plaintext, when the packet was opened.
    pub fn plaintext(&self) -> Option<&[u8]> {
        match &self.result {
            Opened::Plaintext(range) => self.datagram.get(range.clone()),
            _ => None,
        }
    }
}

/// ChaCha20-Poly1305 over runs of packets under one key.
pub trait BatchAead: Send + Sync {
    /// Seals every job. Panics when a job's buffer is too small: that is the caller's fault, never the network's.
    fn seal(&self, key: &AeadKey, jobs: &mut [SealJob<'_>]);

    /// Opens every `Pending` job and sets its result. A datagram whose tag does not fit is left without plaintext.
    fn open(&self, key: &AeadKey, jobs: &mut [OpenJob<'_>]);
}

/// The fastest backend of this machine.
pub fn best_backend() -> &'static dyn BatchAead {
    &RingAead
}

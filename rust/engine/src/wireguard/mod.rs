//! WireGuard without sockets or clock: Noise_IKpsk2 handshakes, sessions, cookies, timers (wireguard.com/papers/wireguard.pdf).
//!
//! [`Device`] owns the private key and all peers. It never reads a clock or a socket: every call takes `now`, randomness comes
//! from a generator seeded once. Which path a packet takes is the shell's business; so is the allowed-IPs check.
//!
//! # How a shell calls it, in order
//!
//! 1. `Device::new(Config)`, then `add_peer(public_key, psk)` for each peer: the answer is its [`PeerId`], whose `index()` may index
//!    the shell's own tables (path, routes).
//! 2. *A packet from the TUN*: `device.sealer(now, peer)`. `Some(sealer)`: make buffers of `sealer.sealed_bytes(len)`, seal one by one with
//!    `seal_one(plaintext, out)` or in runs with `seal(&mut [SealJob])`; the datagram is `out[..returned]`, header and padding included
//!    (zeros up to a multiple of 16, never past `Config::mtu`). `None`: `device.stage(now, peer, packet)`; the device keeps at most 16 packets or 64 KiB a peer
//!    (oldest dropped first), 4 MiB in all, starts a handshake, and *itself* seals what is staged into `out.packets` once the
//!    session stands.
//! 3. *A datagram from the network*: [`classify`]. `Handshake`: `device.handle_handshake(now, source, bytes, &mut out)`, whose answer is the peer
//!    it authenticated, if any. `Data(receiver)`: collect the run of datagrams with the same receiver (a whole GRO train, as a rule) as
//!    [`OpenJob`](crate::aead::OpenJob)s, `device.open(now, receiver, &mut jobs, &mut out)`; then each job's `plaintext()` is an IP packet with possible padding
//!    behind it, or empty: a keepalive. The answer names the peer when at least one packet was authentic.
//! 4. *End of a turn*: if `device.next_timeout()` is at or before `now`: `device.handle_timeout(now, wall, &mut out)`. Handshakes that sealing,
//!    opening or staging called for start here (they are due at once), so do this every turn, before sleeping. Then drain `out.packets`
//!    and `out.events`, and sleep until `next_timeout()`.
//!
//! Invariants: one session slot each for next, current and previous; a counter is never reused; a data message moves no state before its tag fits;
//! an idle peer is in no timer and costs well under 1 KB; keys are zeroed when dropped.

pub(crate) mod cookie;
pub mod device;
mod generator;
mod handshakes;
mod index;
mod limiter;
mod noise;
pub mod output;
mod peer;
mod primitives;
mod replay;
mod schedule;
mod session;
pub mod time;
mod timers;
pub mod transport;

#[cfg(test)]
mod tests;

pub use device::{Config, Device, PeerInfo};
pub use output::{Counters, Destination, Event, Out, Outgoing, PeerId, PeerStats, Source};
pub use time::{Instant, Tai64N};
pub use transport::Sealer;

/// What a datagram is, by its first bytes and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Initiation, response or cookie reply.
    Handshake,
    /// A data message to this receiver index.
    Data(u32),
}

/// Tells WireGuard's messages from everything else; `None` for what is none of them.
pub fn classify(datagram: &[u8]) -> Option<Kind> {
    let kind = u32::from_le_bytes(datagram.get(..4)?.try_into().ok()?);
    match (kind, datagram.len()) {
        (1, 148) | (2, 92) | (3, 64) => Some(Kind::Handshake),
        (4, 32..) => Some(Kind::Data(u32::from_le_bytes(datagram.get(4..8)?.try_into().ok()?))),
        _ => None,
    }
}

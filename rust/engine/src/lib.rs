//! Buri's packet engine. Python decides, this crate moves packets.
//!
//! Rooms: `wireguard` (sans-IO Noise IKpsk2 sessions), `aead` (batch AEAD trait, `ring` behind it), `tun` and `udp`
//! (offloaded IO), `filter` and `routes` (compiled tables), `derp` (frames, client connections, relay server), `front`
//! (public TCP listeners, STUN responder), `shell` (the one thread that owns a node's packets),
//! `os` (epoll, streams, socket options), `fuzzing` (targets, in tests and by feature only).

pub mod aead;
pub mod derp;
pub mod filter;
pub mod front;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod os;
pub mod routes;
pub mod shell;
pub mod tun;
pub mod udp;
pub mod wireguard;

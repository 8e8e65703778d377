//! The shell: one thread that owns a node's device, sockets, relay connections and WireGuard sessions.
//!
//! `engine` is the handle with mailbox and event queue, `node` the thread's state and its turn, `tables` what orders do to it,
//! `outbound` device → network, `inbound` network → device, `peers` the slab, `relays` the connections to
//! relays (`stream` their TCP and TLS, `trust` whom they must convince, `backlog` what waits for them), `sessions` the seam to WireGuard, `poller` epoll and eventfd.
//! Everything the packet path reads lives in the thread and changes only between two batches.

pub(crate) mod backlog;
mod config;
mod counters;
mod engine;
mod events;
mod inbound;
mod node;
mod orders;
mod outbound;
mod peers;
pub(crate) mod poller;
mod relays;
mod sessions;
pub(crate) mod stream;
mod tables;
mod trust;

pub use config::{Config, Key, Offloads};
pub use engine::{Engine, PeerStats, StartError, Stats, Stopped};
pub use events::Event;
pub use orders::{Order, PeerSpec, RelaySpec};

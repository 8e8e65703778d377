//! The shell: one thread that owns a node's device, sockets, relay connections and WireGuard sessions.
//!
//! `engine` is the handle with mailbox and event queue, `node` the thread's state and its turn, `tables` what orders do to it,
//! `outbound` device → network, `inbound` network → device, `peers` the slab, `relays` the connections to
//! relays (`trust` whom they must convince), `sessions` the seam to WireGuard,
//! `callers` whose datagrams Python sees, `vigil` when it stays awake.
//! Everything the packet path reads lives in the thread and changes only between two batches.

mod callers;
mod config;
mod counters;
mod engine;
mod events;
mod inbound;
mod node;
mod orders;
mod outbound;
mod peers;
mod relays;
mod sessions;
mod tables;
mod trust;
mod vigil;

pub use config::{Config, Key, Offloads};
pub use engine::{Engine, PeerStats, StartError, Stats, Stopped};
pub use events::Event;
pub use orders::{Order, PeerSpec, RelaySpec};

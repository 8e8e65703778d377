//! The engine's UDP sockets and the offloads that make one system call carry a train of datagrams.
//!
//! `socket` opens a pair of sockets (IPv4, IPv6) on one port, `receive` takes trains in (UDP_GRO), `send` builds and flushes
//! trains (UDP_SEGMENT), `classify` tells WireGuard, disco and STUN apart.

pub mod classify;
pub mod receive;
pub mod send;
pub mod socket;

pub use classify::{classify, Class};
pub use receive::Receiver;
pub use send::{Outbox, SendFault};
pub use socket::{BindError, Options, Pair, Socket};

//! The front door: the public TCP listeners of a server or relay, its DERP relay, and its STUN responder.
//!
//! `door` is the handle and `turn` the thread's loop; `connection` one client from its first byte on; `head` reads a request's
//! head and answers what is answered here; `handoff` gives any other connection whole to Python; `tls` holds the certificate;
//! `stun` answers binding requests; `sockets` opens listeners.

mod connection;
mod door;
mod handoff;
mod head;
mod sockets;
mod stun;
mod tls;
mod turn;

pub use door::{FrontConfig, FrontDoor, FrontError, FrontStats};

//! DERP, the relay protocol: its frames, a client's and a relay's core without sockets (upstream: `derp/`; wire reference 1d).

pub(crate) mod backlog;
pub mod client;
mod fair;
pub mod frames;
pub mod hub;
mod member;
pub(crate) mod silence;

#[cfg(test)]
mod hub_test;

pub use hub::{ClientId, Hub};

//! What an engine is started with; mirrors `EngineConfig` of src/buri/engine/port.py.

use std::time::Duration;
use zeroize::Zeroizing;

/// A Curve25519 key.
pub type Key = [u8; 32];

/// One switch per kernel offload.
#[derive(Clone, Copy, Debug)]
pub struct Offloads {
    pub tun_tso: bool,
    pub tun_uso: bool,
    pub tun_gro: bool,
    pub udp_gso: bool,
    pub udp_gro: bool,
}

pub struct Config {
    pub private_key: Zeroizing<Key>,
    pub tun_name: Option<String>,
    pub mtu: u16,
    pub udp_port: u16,
    pub mark: u32,
    pub offloads: Offloads,
    pub spin: Duration,
    pub event_capacity: usize,
}

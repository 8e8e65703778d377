//! What Python tells the engine; each variant mirrors a struct of src/buri/engine/port.py.

use std::net::{IpAddr, SocketAddr};
use zeroize::Zeroizing;

use super::config::Key;
use crate::filter::Table;
use crate::routes::Prefix;

/// A WireGuard peer and the prefixes behind it.
pub struct PeerSpec {
    pub key: Key,
    pub allowed_ips: Vec<Prefix>,
}

/// Where to find a region's relay and whom to expect there.
#[derive(Clone, Debug)]
pub struct RelaySpec {
    pub region: u32,
    pub addresses: Vec<IpAddr>,
    pub port: u16,
    pub server_name: String,
    pub certificate: String,
    pub insecure: bool,
    pub plain: bool,
    pub preferred: bool,
}

pub enum Order {
    SetPrivateKey(Zeroizing<Key>),
    SetPeers(Vec<PeerSpec>),
    UpsertPeer(PeerSpec),
    RemovePeer(Key),
    SetPath {
        key: Key,
        udp: Option<SocketAddr>,
        relay: Option<u32>,
        gso: bool,
    },
    SetFilter {
        table: Box<Table>,
        shields_up: bool,
    },
    ConnectRelay(RelaySpec),
    PreferRelay {
        region: u32,
        preferred: bool,
    },
    CloseRelay(u32),
    SendUdp {
        to: SocketAddr,
        data: Vec<u8>,
        whole: bool,
    },
    SendRelay {
        region: u32,
        key: Key,
        data: Vec<u8>,
    },
    Rebind,
    /// A fault of our own, to see what becomes of it.
    #[cfg(test)]
    Panic(&'static str),
}

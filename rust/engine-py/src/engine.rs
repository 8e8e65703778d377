//! Class `Engine`: src/buri/engine/native.py turns port.py's structs into the tuples read here.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use buri_engine::filter::{IpRange, Rule, Table};
use buri_engine::routes::Prefix;
use buri_engine::shell::{self, Config, Event, Key, Offloads, Order, PeerSpec, RelaySpec};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};
use zeroize::Zeroizing;

use crate::errors;

type PlainPrefix = (Vec<u8>, u8);
type PlainRule = (Vec<PlainPrefix>, Vec<PlainPrefix>, Vec<(u16, u16)>, Vec<u8>);
type PlainPeerStats<'py> = (Bound<'py, PyBytes>, u64, u64, Option<f64>, Option<f64>, Option<f64>);
type PlainStats<'py> = (Vec<PlainPeerStats<'py>>, Vec<(&'static str, u64)>);

/// One engine thread.
#[pyclass(frozen, module = "buri.engine._engine")]
pub struct Engine(shell::Engine);

#[pymethods]
impl Engine {
    #[new]
    #[expect(clippy::too_many_arguments, reason = "the fields of EngineConfig")]
    fn new(
        py: Python<'_>,
        private_key: &[u8],
        tun_name: Option<String>,
        mtu: u16,
        udp_port: u16,
        mark: u32,
        offloads: (bool, bool, bool, bool, bool),
        spin_us: u64,
        event_capacity: usize,
    ) -> PyResult<Engine> {
        let (tun_tso, tun_uso, tun_gro, udp_gso, udp_gro) = offloads;
        let config = Config {
            private_key: Zeroizing::new(key(private_key)?),
            tun_name,
            mtu,
            udp_port,
            mark,
            offloads: Offloads { tun_tso, tun_uso, tun_gro, udp_gso, udp_gro },
            spin: Duration::from_micros(spin_us),
            event_capacity,
        };
        py.detach(|| shell::Engine::start(config)).map(Engine).map_err(|error| errors::from_start(py, &error))
    }

    fn apply(&self, py: Python<'_>, orders: &Bound<'_, PyList>) -> PyResult<()> {
        let orders = orders.iter().map(|order| read_order(order.cast::<PyTuple>()?)).collect::<PyResult<Vec<_>>>()?;
        self.0.apply(orders).map_err(|stopped| errors::from_stopped(py, &stopped))
    }

    fn poll_events<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let events =
            self.0.poll_events(limit).into_iter().map(|event| write_event(py, event)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, events)
    }

    fn fileno(&self) -> i32 {
        self.0.fileno()
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<PlainStats<'py>> {
        let stats = py.detach(|| self.0.stats()).map_err(|stopped| errors::from_stopped(py, &stopped))?;
        let peers = stats
            .peers
            .iter()
            .map(|peer| {
                let key = PyBytes::new(py, &peer.key);
                (key, peer.rx_bytes, peer.tx_bytes, peer.handshake_age_s, peer.rx_age_s, peer.tx_age_s)
            })
            .collect();
        Ok((peers, stats.counters))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.0.close());
    }
}

fn key(bytes: &[u8]) -> PyResult<Key> {
    bytes.try_into().map_err(|_| PyValueError::new_err("a key has 32 bytes"))
}

fn address(bytes: &[u8]) -> PyResult<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(octets));
    }
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| PyValueError::new_err("an address has 4 or 16 bytes"))?;
    Ok(IpAddr::from(octets))
}

fn addr_port(plain: &(Vec<u8>, u16)) -> PyResult<SocketAddr> {
    Ok(SocketAddr::new(address(&plain.0)?, plain.1))
}

fn too_long() -> PyErr {
    PyValueError::new_err("the prefix is longer than its address")
}

fn ranges(plain: &[PlainPrefix]) -> PyResult<Vec<IpRange>> {
    plain.iter().map(|(bytes, bits)| IpRange::from_prefix(address(bytes)?, *bits).ok_or_else(too_long)).collect()
}

fn peer((public, prefixes): (Vec<u8>, Vec<PlainPrefix>)) -> PyResult<PeerSpec> {
    let allowed_ips = prefixes
        .iter()
        .map(|(bytes, bits)| Prefix::new(address(bytes)?, *bits).ok_or_else(too_long))
        .collect::<PyResult<_>>()?;
    Ok(PeerSpec { key: key(&public)?, allowed_ips })
}

fn rule((sources, destinations, ports, protocols): PlainRule) -> PyResult<Rule> {
    Ok(Rule { sources: ranges(&sources)?, destinations: ranges(&destinations)?, ports, protocols })
}

fn read_order(order: &Bound<'_, PyTuple>) -> PyResult<Order> {
    /// Item `at`, as whatever the row below needs.
    fn item<'py, T: for<'a> FromPyObject<'a, 'py, Error = PyErr>>(
        order: &Bound<'py, PyTuple>,
        at: usize,
    ) -> PyResult<T> {
        order.get_item(at)?.extract()
    }
    let kind: String = item(order, 0)?;
    Ok(match kind.as_str() {
        "set_private_key" => Order::SetPrivateKey(Zeroizing::new(key(&item::<Vec<u8>>(order, 1)?)?)),
        "set_peers" => {
            let peers: Vec<(Vec<u8>, Vec<PlainPrefix>)> = item(order, 1)?;
            Order::SetPeers(peers.into_iter().map(peer).collect::<PyResult<_>>()?)
        }
        "upsert_peer" => Order::UpsertPeer(peer(item(order, 1)?)?),
        "remove_peer" => Order::RemovePeer(key(&item::<Vec<u8>>(order, 1)?)?),
        "set_path" => Order::SetPath {
            key: key(&item::<Vec<u8>>(order, 1)?)?,
            udp: item::<Option<(Vec<u8>, u16)>>(order, 2)?.as_ref().map(addr_port).transpose()?,
            relay: item(order, 3)?,
            gso: item(order, 4)?,
        },
        "set_filter" => {
            let local = ranges(&item::<Vec<PlainPrefix>>(order, 1)?)?;
            let rules: Vec<Rule> = item::<Vec<PlainRule>>(order, 2)?.into_iter().map(rule).collect::<PyResult<_>>()?;
            Order::SetFilter { table: Box::new(Table::new(&local, &rules)), shields_up: item(order, 3)? }
        }
        "connect_relay" => Order::ConnectRelay(RelaySpec {
            region: item(order, 1)?,
            addresses: item::<Vec<Vec<u8>>>(order, 2)?.iter().map(|one| address(one)).collect::<PyResult<_>>()?,
            port: item(order, 3)?,
            server_name: item(order, 4)?,
            certificate: item(order, 5)?,
            insecure: item(order, 6)?,
            plain: item(order, 7)?,
            preferred: item(order, 8)?,
        }),
        "prefer_relay" => Order::PreferRelay { region: item(order, 1)?, preferred: item(order, 2)? },
        "close_relay" => Order::CloseRelay(item(order, 1)?),
        "send_udp" => {
            Order::SendUdp { to: addr_port(&item(order, 1)?)?, data: item(order, 2)?, whole: item(order, 3)? }
        }
        "send_relay" => {
            Order::SendRelay { region: item(order, 1)?, key: key(&item::<Vec<u8>>(order, 2)?)?, data: item(order, 3)? }
        }
        "rebind" => Order::Rebind,
        other => return Err(PyValueError::new_err(format!("no order is called {other:?}"))),
    })
}

fn named<'py>(py: Python<'py>, address: SocketAddr) -> (Bound<'py, PyBytes>, u16) {
    let packed = match address.ip() {
        IpAddr::V4(address) => PyBytes::new(py, &address.octets()),
        IpAddr::V6(address) => PyBytes::new(py, &address.octets()),
    };
    (packed, address.port())
}

fn write_event(py: Python<'_>, event: Event) -> PyResult<Bound<'_, PyTuple>> {
    let bytes = |bytes: &[u8]| PyBytes::new(py, bytes);
    match event {
        Event::Bound { port_ipv4, port_ipv6 } => ("bound", port_ipv4, port_ipv6).into_pyobject(py),
        Event::DiscoByUdp { source, data } => ("disco_udp", named(py, source), bytes(&data)).into_pyobject(py),
        Event::DiscoByRelay { region, key, data } => {
            ("disco_relay", region, bytes(&key), bytes(&data)).into_pyobject(py)
        }
        Event::Stun { source, data } => ("stun", named(py, source), bytes(&data)).into_pyobject(py),
        Event::PeerActive(key) => ("peer_active", bytes(&key)).into_pyobject(py),
        Event::HandshakeDone(key) => ("handshake_done", bytes(&key)).into_pyobject(py),
        Event::HandshakeFailed(key) => ("handshake_failed", bytes(&key)).into_pyobject(py),
        Event::PathFault { key, address, errno } => {
            ("path_fault", bytes(&key), named(py, address), errno).into_pyobject(py)
        }
        Event::RelayUp { region, server_key } => ("relay_up", region, bytes(&server_key)).into_pyobject(py),
        Event::RelayDown { region, reason } => ("relay_down", region, reason).into_pyobject(py),
        Event::RelayPeerGone { region, key, was_here } => {
            ("relay_peer_gone", region, bytes(&key), was_here).into_pyobject(py)
        }
        Event::RelayPeerSeen { region, key } => ("relay_peer_seen", region, bytes(&key)).into_pyobject(py),
        Event::RelayHealth { region, problem } => ("relay_health", region, problem).into_pyobject(py),
        Event::Fatal(reason) => ("fatal", reason).into_pyobject(py),
    }
}

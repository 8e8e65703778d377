//! The engine thread's state, and its turn: device, sockets, relays, letters, timers, then sleep.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::callers::Callers;
use super::config::Config;
use super::counters::Counters;
use super::engine::{PeerStats, Shared, StartError, Stats};
use super::events::Event;
use super::peers::Peers;
use super::relays::Relays;
use super::sessions::{wireguard_now, Sessions};
use super::vigil::Vigil;
use crate::filter::Filter;
use crate::os::poller::{Interest, Poller, Ready};
use crate::routes::Routes;
use crate::tun::coalesce::{Allowed, Coalescer};
use crate::tun::device::READ_BYTES;
use crate::tun::{Device, Features};
use crate::udp::send::Report;
use crate::udp::{Options, Outbox, Pair, Receiver};
use crate::wireguard;

/// What WireGuard adds to a packet: header and tag.
pub(super) const OVERHEAD_BYTES: usize = 32;

const TOKEN_WAKE: u64 = 0;
const TOKEN_TUN: u64 = 1;
const TOKEN_IPV4: u64 = 2;
const TOKEN_IPV6: u64 = 3;

/// Super-packets read from the device in one turn.
const READS_A_TURN: usize = 64;

/// Fields are dropped in this order: the device goes last.
pub struct Node {
    pub(super) shared: Arc<Shared>,
    pub(super) poller: Poller,
    pub(super) sockets: Pair,
    pub(super) socket_options: Options,
    /// The port to have again after Rebind.
    pub(super) port: u16,
    /// None while it is being read from.
    pub(super) receiver: Option<Box<Receiver>>,
    pub(super) outbox: Outbox,
    pub(super) coalescer: Coalescer,
    pub(super) filter: Filter,
    pub(super) routes: Routes,
    pub(super) peers: Peers,
    pub(super) sessions: Sessions,
    pub(super) relays: Relays,
    pub(super) callers: Callers,
    pub(super) counters: Counters,
    pub(super) events: Vec<Event>,
    pub(super) report: Report,
    pub(super) mtu: usize,
    /// Relays' complaints told since then.
    pub(super) health_since: Instant,
    pub(super) health_told: u32,
    pub(super) now: Instant,
    pub(super) wireguard_now: wireguard::Instant,
    vigil: Vigil,
    /// What was read from the device; empty while in use.
    pub(super) packet: Vec<u8>,
    /// Segments before they are sealed; empty while in use.
    pub(super) plain_packets: Vec<u8>,
    /// A packet on its way to a relay alone; empty while in use.
    pub(super) sealed: Vec<u8>,
    pub(super) tun: Option<Device>,
}

impl Node {
    pub fn open(config: Config, shared: Arc<Shared>) -> Result<Node, StartError> {
        let offloads = config.offloads;
        let wanted = Features { tso: offloads.tun_tso, uso: offloads.tun_uso };
        let tun = match &config.tun_name {
            Some(name) => Some(Device::open(name, config.mtu, wanted, OVERHEAD_BYTES).map_err(StartError::Tun)?),
            None => None,
        };
        let socket_options = Options { mark: config.mark, gro: offloads.udp_gro, gso: offloads.udp_gso };
        let sockets = Pair::bind(config.udp_port, &socket_options).map_err(StartError::Udp)?;
        let mut counters = Counters::default();
        let mut allowed = Allowed { tcp: offloads.tun_gro, udp: offloads.tun_gro && offloads.tun_uso };
        if let Some(tun) = &tun {
            let features = tun.features();
            counters.offload_tun_tso_missing = u64::from(wanted.tso && !features.tso);
            counters.offload_tun_uso_missing = u64::from(wanted.uso && !features.uso);
            counters.offload_tun_queue_limit_missing = u64::from(!tun.queue_limited());
            // A kernel that makes no UDP super-packets does not take them either.
            allowed.udp &= features.uso;
        }
        let poller = Poller::new()?;
        poller.add(shared.wake.raw(), TOKEN_WAKE, Interest::READ)?;
        if let Some(tun) = &tun {
            poller.add(tun.as_raw_fd(), TOKEN_TUN, Interest::READ)?;
        }
        let alone = std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1);
        let mut node = Node {
            shared,
            poller,
            port: sockets.port(),
            sockets,
            socket_options,
            receiver: Some(Box::default()),
            outbox: Outbox::default(),
            coalescer: Coalescer::new(allowed),
            filter: Filter::default(),
            routes: Routes::default(),
            peers: Peers::default(),
            sessions: Sessions::new(&config.private_key, usize::from(config.mtu))?,
            relays: Relays::new(&config.private_key, config.mark),
            callers: Callers::default(),
            counters,
            events: Vec::with_capacity(64),
            report: Report::default(),
            mtu: usize::from(config.mtu),
            health_since: Instant::now(),
            health_told: 0,
            now: Instant::now(),
            wireguard_now: wireguard_now(),
            // Staying awake on the only core would keep away whom we wait for.
            vigil: Vigil::new(if alone { Duration::ZERO } else { config.spin }),
            packet: vec![0; READ_BYTES],
            sealed: vec![0; READ_BYTES + OVERHEAD_BYTES],
            plain_packets: vec![0; 2 * READ_BYTES],
            tun,
        };
        node.watch_sockets()?;
        Ok(node)
    }

    /// Register freshly bound sockets and tell their port.
    pub(super) fn watch_sockets(&mut self) -> io::Result<()> {
        for (socket, token) in [(&self.sockets.ipv4, TOKEN_IPV4), (&self.sockets.ipv6, TOKEN_IPV6)] {
            if let Some(socket) = socket {
                self.poller.add(socket.as_raw_fd(), token, Interest::READ)?;
                self.counters.offload_udp_gro_missing += u64::from(self.socket_options.gro && !socket.gro);
                self.counters.offload_udp_gso_missing += u64::from(self.socket_options.gso && !socket.gso);
            }
        }
        self.events.push(Event::Bound {
            port_ipv4: self.sockets.ipv4.as_ref().map(|socket| socket.port()),
            port_ipv6: self.sockets.ipv6.as_ref().map(|socket| socket.port()),
        });
        Ok(())
    }

    /// Turn until told to stop; an error is a sentence for Python's `Fatal`.
    pub fn run(&mut self) -> Result<(), String> {
        let mut offered: Option<Instant> = None;
        loop {
            self.shared.events.push_all(&mut self.events);
            // Looked at after `wake` was cleared, so that the call to stop is never slept through.
            if self.shared.should_stop() {
                self.flush();
                self.relays.close_all();
                return Ok(());
            }
            let awake = self.vigil.holds(self.now);
            let timeout = if awake { Some(Duration::ZERO) } else { self.time_left() };
            let ready = self
                .poller
                .wait(timeout)
                .map_err(|error| format!("The packet engine cannot wait for packets ({error})."))?;
            self.now = Instant::now();
            self.wireguard_now = wireguard_now();
            if let Some(before) = offered.take() {
                self.vigil.note_offer(before, self.now);
            }
            if (0..ready).any(|index| self.poller.ready(index).token == TOKEN_WAKE) {
                self.shared.wake.clear();
            }
            // First: what was ordered before a packet came holds for it.
            self.take_letters();
            let mut packets = false;
            for index in 0..ready {
                packets |= self.serve(self.poller.ready(index))?;
            }
            if self.relays.next_deadline().is_some_and(|at| at <= self.now) {
                self.relays.run_timers(self.now, &self.poller);
            }
            self.drive_sessions();
            self.flush();
            self.relays.flush(self.now, &self.poller);
            self.handle_inbox();
            if packets {
                self.vigil.note_packets(self.now);
            } else if awake {
                offered = Some(Instant::now());
                std::thread::yield_now();
            }
        }
    }

    /// Serve one ready descriptor; whether packets moved.
    fn serve(&mut self, ready: Ready) -> Result<bool, String> {
        match ready.token {
            TOKEN_WAKE => Ok(false),
            TOKEN_TUN => self.pump_tun(),
            TOKEN_IPV4 => Ok(self.pump_udp(false)),
            TOKEN_IPV6 => Ok(self.pump_udp(true)),
            _ => {
                self.relays.serve(ready, self.now, &self.poller);
                Ok(self.handle_inbox())
            }
        }
    }

    /// Device → network, at most a turn's worth.
    fn pump_tun(&mut self) -> Result<bool, String> {
        for reads in 0..READS_A_TURN {
            let Some(tun) = &self.tun else { return Ok(false) };
            match tun.read(&mut self.packet) {
                Ok(len) => self.forward(len),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(reads > 0),
                    Some(libc::EINTR) => {}
                    // One packet that the kernel could not put before us (it says so by EINVAL) is lost, not the device.
                    Some(libc::EINVAL | libc::ENOMEM | libc::ENOBUFS) => self.counters.drop_out_malformed += 1,
                    _ => return Err(format!("The interface {} is gone ({error}).", tun.name())),
                },
            }
        }
        Ok(true)
    }

    /// Send what the turn has gathered, and count.
    pub(super) fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        self.outbox.flush(&mut self.sockets, &mut self.report);
        let report = &mut self.report;
        self.counters.udp_tx_datagrams += std::mem::take(&mut report.datagrams);
        self.counters.udp_tx_bytes += std::mem::take(&mut report.bytes);
        self.counters.udp_tx_calls += std::mem::take(&mut report.calls);
        self.counters.drop_out_congested += std::mem::take(&mut report.congested);
        self.counters.drop_out_refused += std::mem::take(&mut report.refused);
        self.counters.offload_udp_gso_given_up += std::mem::take(&mut report.gso_given_up);
        for fault in report.faults.drain(..) {
            if let Some(peer) = self.peers.get_mut(fault.owner) {
                if peer.tell_fault(fault.to, fault.errno, self.now) {
                    self.events.push(Event::PathFault { key: peer.key, address: fault.to, errno: fault.errno });
                }
            }
        }
    }

    fn take_letters(&mut self) {
        let Some(letters) = self.shared.take_letters() else { return };
        for order in letters.orders.into_iter().flatten() {
            self.obey(order);
        }
        for reader in letters.stats {
            // A reader that gave up waiting needs no answer.
            let _ = reader.try_send(self.stats());
        }
    }

    /// How long the thread may sleep; None: until something comes.
    fn time_left(&self) -> Option<Duration> {
        let relays = self.relays.next_deadline().map(|at| at.saturating_duration_since(self.now));
        match (self.sessions_left(), relays) {
            (Some(sessions), Some(relays)) => Some(sessions.min(relays)),
            (sessions, relays) => sessions.or(relays),
        }
    }

    fn stats(&self) -> Stats {
        let age = |at: Option<wireguard::Instant>| at.map(|at| self.wireguard_now.since(at).as_secs_f64());
        let peers = self
            .peers
            .iter()
            .map(|(_, peer)| {
                let stats = self.sessions.stats(self.wireguard_now, peer.id);
                PeerStats {
                    key: peer.key,
                    rx_bytes: peer.rx_bytes,
                    tx_bytes: peer.tx_bytes,
                    handshake_age_s: age(stats.last_handshake),
                    rx_age_s: age(stats.last_received),
                    tx_age_s: age(stats.last_sent),
                }
            })
            .collect();
        let mut counters = self.counters.list();
        counters.push(("drop_events", self.shared.events.dropped()));
        let core = self.sessions.counters();
        counters.extend([
            ("wireguard_initiations_sent", core.initiations_sent),
            ("wireguard_responses_sent", core.responses_sent),
            ("wireguard_cookies_sent", core.cookies_sent),
            ("wireguard_cookies_received", core.cookies_received),
            ("wireguard_keepalives_sent", core.keepalives_sent),
            ("drop_wireguard_malformed", core.malformed),
            ("drop_wireguard_bad_mac1", core.bad_mac1),
            ("drop_wireguard_rate_limited", core.rate_limited),
            ("drop_wireguard_bad_handshake", core.bad_handshake),
            ("drop_wireguard_unknown_initiator", core.unknown_initiator),
            ("drop_wireguard_stale_initiation", core.stale_initiation),
            ("drop_wireguard_unknown_index", core.unknown_index),
            ("drop_wireguard_expired_session", core.expired_session),
            ("drop_wireguard_replayed", core.replayed),
            ("drop_wireguard_bad_tag", core.bad_tag),
            ("drop_wireguard_staged", core.staged_dropped),
        ]);
        Stats { peers, counters }
    }
}

#[cfg(test)]
#[path = "node_test.rs"]
mod tests;

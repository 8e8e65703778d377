//! Connections to relays: dialled without blocking, bounded on the way out, one batch at a time on the way in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use super::config::Key;
use super::counters::Counters;
use super::orders::RelaySpec;
use super::trust;
use crate::derp::backlog::Backlog;
use crate::derp::client::{note_preferred, send_packet_head, Client, Heard};
use crate::derp::frames::LONGEST_PACKET_BYTES;
use crate::derp::silence::{Due, Silence};
use crate::os::poller::{Interest, Poller, Ready};
use crate::os::stream::{Scratch, Stream};

/// For one address, and for all of a relay's.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Some 40 ms of a 60 Mbit/s uplink, four super-packets of a fast one.
const DATA_BACKLOG_BYTES: usize = 256 << 10;
const DISCO_BACKLOG_BYTES: usize = 32 << 10;
/// Given to the connection at a time: four TLS records.
const GIVE_BYTES: usize = 64 << 10;

/// Relays' tokens have this bit; below it the dialling's number.
pub(super) const TOKEN_BIT: u64 = 1 << 63;

/// What relays said since the inbox was emptied.
pub(super) enum News {
    Up { region: u32, server_key: Key },
    Down { region: u32, reason: String },
    PeerGone { region: u32, key: Key, was_here: bool },
    Health { region: u32, problem: String },
}

/// A packet in the inbox's arena.
#[derive(Clone, Copy)]
pub(super) struct Relayed {
    pub region: u32,
    pub key: Key,
    pub start: usize,
    pub len: usize,
}

/// What came from relays and waits to be handled; keeps its buffers.
#[derive(Default)]
pub(super) struct Inbox {
    pub arena: Vec<u8>,
    pub packets: Vec<Relayed>,
    pub news: Vec<News>,
}

struct Link {
    spec: RelaySpec,
    /// Changes with every dialling, so that an event of an old descriptor finds nobody.
    token: u64,
    stream: Stream,
    connected: bool,
    client: Client,
    /// Which address is tried.
    attempt: usize,
    /// This attempt's end, all attempts' end.
    attempt_until: Instant,
    open_until: Instant,
    silence: Silence,
    watched: Interest,
    told_preferred: bool,
    data: Backlog,
    disco: Backlog,
}

/// The connections, a handful.
pub(super) struct Relays {
    links: Vec<Link>,
    private: Zeroizing<Key>,
    mark: u32,
    next_token: u64,
    random: SystemRandom,
    scratch: Scratch,
    pub inbox: Inbox,
}

impl Relays {
    pub fn new(private: &Key, mark: u32) -> Relays {
        Relays {
            links: Vec::new(),
            private: Zeroizing::new(*private),
            mark,
            next_token: TOKEN_BIT,
            random: SystemRandom::new(),
            scratch: Scratch::default(),
            inbox: Inbox::default(),
        }
    }

    /// Our name at relays changes: every connection ends.
    pub fn set_private_key(&mut self, private: &Key) {
        self.private = Zeroizing::new(*private);
        for mut link in self.links.drain(..) {
            link.stream.finish();
            self.inbox.news.push(News::Down { region: link.spec.region, reason: "our node key changed".to_owned() });
        }
    }

    pub fn connect(&mut self, spec: RelaySpec, now: Instant, poller: &Poller) {
        self.close(spec.region);
        let region = spec.region;
        match self.dial(spec, 0, now, now + OPEN_TIMEOUT, poller) {
            Ok(link) => self.links.push(link),
            Err(reason) => self.inbox.news.push(News::Down { region, reason }),
        }
    }

    /// Dial the first address from `attempt` on that can be dialled.
    fn dial(
        &mut self,
        spec: RelaySpec,
        mut attempt: usize,
        now: Instant,
        open_until: Instant,
        poller: &Poller,
    ) -> Result<Link, String> {
        let mut reason = "the relay has no address".to_owned();
        while let Some(&address) = spec.addresses.get(attempt) {
            let tls = if spec.plain {
                None
            } else {
                let name = ServerName::try_from(spec.server_name.clone())
                    .map_err(|_| format!("{:?} is no host name", spec.server_name))?;
                Some((trust::config(&spec.certificate, spec.insecure)?, name))
            };
            self.next_token += 1;
            let token = self.next_token;
            let watched = Interest { read: true, write: true };
            let dialled = Stream::dial(SocketAddr::new(address, spec.port), self.mark, tls).and_then(|stream| {
                poller.add(stream.as_raw_fd(), token, watched)?;
                Ok(stream)
            });
            match dialled {
                Ok(stream) => {
                    let mut nonce = [0u8; 24];
                    self.random.fill(&mut nonce).map_err(|_| "the system gives no random bytes")?;
                    let client = Client::new(&self.private, &spec.server_name, nonce);
                    return Ok(Link {
                        spec,
                        token,
                        stream,
                        connected: false,
                        client,
                        attempt,
                        attempt_until: (now + DIAL_TIMEOUT).min(open_until),
                        open_until,
                        silence: Silence::new(now),
                        watched,
                        told_preferred: false,
                        data: Backlog::new(DATA_BACKLOG_BYTES),
                        disco: Backlog::new(DISCO_BACKLOG_BYTES),
                    });
                }
                Err(error) => {
                    reason = phrase(&error, Some(address));
                    attempt += 1;
                }
            }
        }
        Err(reason)
    }

    pub fn prefer(&mut self, region: u32, preferred: bool) {
        if let Some(link) = self.links.iter_mut().find(|link| link.spec.region == region) {
            link.spec.preferred = preferred;
        }
    }

    /// Close a region's connection; nobody is told, for who closes knows.
    pub fn close(&mut self, region: u32) {
        if let Some(at) = self.links.iter().position(|link| link.spec.region == region) {
            self.links.swap_remove(at).stream.finish();
        }
    }

    /// Flush and close everything.
    pub fn close_all(&mut self) {
        for link in &mut self.links {
            // What cannot be sent now never will be.
            let _ = link.pump();
            link.stream.finish();
        }
        self.links.clear();
    }

    /// Queue a packet for `key` at a region's relay; dropped and counted when that is not connected.
    #[inline]
    pub fn send(&mut self, region: u32, key: &Key, packet: &[u8], urgent: bool, counters: &mut Counters) {
        let up = self.links.iter_mut().find(|link| link.spec.region == region && link.client.is_up());
        let Some(link) = up.filter(|_| packet.len() <= LONGEST_PACKET_BYTES) else {
            counters.drop_out_no_relay += 1;
            return;
        };
        counters.relay_tx_packets += 1;
        let backlog = if urgent { &mut link.disco } else { &mut link.data };
        counters.drop_out_relay_congested += backlog.push(&[&send_packet_head(key, packet.len()), packet]);
    }

    /// A descriptor is ready: take what came into the inbox.
    pub fn serve(&mut self, ready: Ready, now: Instant, poller: &Poller) {
        let Some(at) = self.links.iter().position(|link| link.token == ready.token) else { return };
        if let Err(reason) = self.links[at].serve(ready, now, &mut self.scratch, &mut self.inbox) {
            self.fail(at, reason, now, poller);
        }
    }

    /// A connection failed: try the next address while it was never up, else tell.
    fn fail(&mut self, at: usize, reason: String, now: Instant, poller: &Poller) {
        let link = self.links.swap_remove(at);
        let region = link.spec.region;
        if link.client.is_up() || now >= link.open_until || link.attempt + 1 >= link.spec.addresses.len() {
            self.inbox.news.push(News::Down { region, reason });
            return;
        }
        let (spec, attempt, open_until) = (link.spec, link.attempt + 1, link.open_until);
        match self.dial(spec, attempt, now, open_until, poller) {
            Ok(link) => self.links.push(link),
            Err(reason) => self.inbox.news.push(News::Down { region, reason }),
        }
    }

    /// Send what waits, as far as the connections take it.
    pub fn flush(&mut self, now: Instant, poller: &Poller) {
        let mut at = 0;
        while at < self.links.len() {
            match self.links[at].flush(now, poller) {
                Ok(()) => at += 1,
                // The last link has come to this place; a new attempt, if any, is at the end and has nothing to send.
                Err(reason) => self.fail(at, reason, now, poller),
            }
        }
    }

    /// Bytes that wait for connections.
    pub fn waiting_bytes(&self) -> usize {
        self.links.iter().map(|link| link.data.len_bytes()).sum()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.links.iter().map(Link::deadline).min()
    }

    pub fn run_timers(&mut self, now: Instant, poller: &Poller) {
        let mut at = 0;
        while at < self.links.len() {
            let link = &mut self.links[at];
            let reason = if !link.client.is_up() {
                let address = link.spec.addresses.get(link.attempt).copied();
                (link.attempt_until <= now).then(|| phrase(&io::ErrorKind::TimedOut.into(), address))
            } else {
                match link.silence.due(now, link.spec.preferred) {
                    Due::Nothing => None,
                    Due::Ask => {
                        link.client.ask();
                        None
                    }
                    Due::GiveUp => Some("the relay fell silent".to_owned()),
                }
            };
            match reason {
                Some(reason) => self.fail(at, reason, now, poller),
                None => at += 1,
            }
        }
    }
}

impl Link {
    fn deadline(&self) -> Instant {
        if self.client.is_up() {
            self.silence.deadline(self.spec.preferred)
        } else {
            self.attempt_until
        }
    }

    fn serve(&mut self, ready: Ready, now: Instant, scratch: &mut Scratch, inbox: &mut Inbox) -> Result<(), String> {
        let address = self.spec.addresses.get(self.attempt).copied();
        if !self.connected {
            if !ready.writable && !ready.broken {
                return Ok(());
            }
            self.stream.connected().map_err(|error| phrase(&error, address))?;
            self.connected = true;
            // The relay has its own time to answer now, within what is left for all.
            self.attempt_until = self.open_until;
        }
        if !ready.readable && !ready.broken {
            return Ok(());
        }
        self.silence.heard(now);
        let (region, client) = (self.spec.region, &mut self.client);
        let mut outcome = Ok(());
        let read = self.stream.read(scratch, |bytes| {
            if outcome.is_ok() {
                outcome = client.feed(bytes, &mut |heard| inbox.take(region, &heard));
            }
        });
        outcome?;
        read.map_err(|error| phrase(&error, address))
    }

    /// Give the connection what it takes.
    fn pump(&mut self) -> io::Result<()> {
        if !self.connected {
            return Ok(());
        }
        if self.client.is_up() && self.told_preferred != self.spec.preferred {
            self.client.output.extend_from_slice(&note_preferred(self.spec.preferred));
            self.told_preferred = self.spec.preferred;
        }
        self.stream.flush()?;
        // Not before the last was taken: a relay that does not read must not make us hoard.
        if self.stream.idle() && !self.client.output.is_empty() {
            self.stream.give(&self.client.output)?;
            self.client.output.clear();
            self.stream.flush()?;
        }
        while self.stream.idle() && !(self.disco.is_empty() && self.data.is_empty()) {
            let stream = &mut self.stream;
            self.disco.take(GIVE_BYTES, |bytes| stream.give(bytes))?;
            self.data.take(GIVE_BYTES, |bytes| stream.give(bytes))?;
            self.stream.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self, now: Instant, poller: &Poller) -> Result<(), String> {
        if self.client.is_up() && !(self.disco.is_empty() && self.data.is_empty()) {
            self.silence.said(now);
        }
        let address = self.spec.addresses.get(self.attempt).copied();
        self.pump().map_err(|error| phrase(&error, address))?;
        let wanted = Interest { read: true, write: !self.connected || self.stream.wants_write() };
        if wanted != self.watched {
            poller.modify(self.stream.as_raw_fd(), self.token, wanted).map_err(|error| phrase(&error, address))?;
            self.watched = wanted;
        }
        Ok(())
    }
}

impl Inbox {
    fn take(&mut self, region: u32, heard: &Heard<'_>) {
        match *heard {
            Heard::Packet { source, packet } => {
                let start = self.arena.len();
                self.arena.extend_from_slice(packet);
                self.packets.push(Relayed { region, key: source, start, len: packet.len() });
            }
            Heard::Up { server_key } => self.news.push(News::Up { region, server_key }),
            Heard::PeerGone { key, was_here } => self.news.push(News::PeerGone { region, key, was_here }),
            Heard::Health(problem) => self.news.push(News::Health { region, problem: problem.to_owned() }),
        }
    }
}

/// One phrase for a person why connecting or reading failed.
fn phrase(error: &io::Error, to: Option<IpAddr>) -> String {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "the relay closed the connection".to_owned(),
        io::ErrorKind::ConnectionRefused => "the relay's host refused the connection".to_owned(),
        io::ErrorKind::TimedOut => "the relay did not answer in time".to_owned(),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(error)) => {
                format!("the relay's certificate is not the expected one ({error})")
            }
            Some(error) => format!("TLS with the relay failed ({error})"),
            None => error.to_string(),
        },
    };
    match to {
        Some(address) => format!("{what} ({address})"),
        None => what,
    }
}

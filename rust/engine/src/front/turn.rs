//! The front door's thread: one turn takes in what came, lets the relay sort it, and sends what is due to whom it changed.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

use super::connection::*;
use super::door::{Command, FrontStats};
use super::head::{self, Head, Verdict};
use super::stun::Responder;
use super::{handoff, sockets};
use crate::derp::{ClientId, Hub};
use crate::os::poller::{EventFd, Interest, Poller, Ready};
use crate::os::stream::{Scratch, Stream};

const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const STUN: u64 = 2;
const CLIENT: u64 = 3;
const PYTHON: u64 = 4;
const KIND_SHIFT: u32 = 56;
const GENERATION_SHIFT: u32 = 32;

const ACCEPT_AT_A_TIME: usize = 64;
const TLS_RECORD: u8 = 0x16;
/// Given to a client at a time: four TLS records.
const GIVE_BYTES: usize = 64 << 10;
/// How long clients wait outside when descriptors are spent.
const REST: Duration = Duration::from_millis(100);
const DIAL_RETRY: Duration = Duration::from_millis(50);
const GATEWAY: &str = "The control server behind this door does not answer; its administrator can tell why.\n";

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

pub(super) struct Turn {
    poller: Poller,
    wake: Arc<EventFd>,
    inbox: Receiver<Command>,
    listeners: Vec<OwnedFd>,
    stun: Vec<Responder>,
    hub: Option<Hub>,
    relay_hex: Option<String>,
    tls: Option<Arc<ServerConfig>>,
    handoff: Option<PathBuf>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The slot of each of the hub's clients.
    places: Vec<u32>,
    scratch: Scratch,
    buffer: Vec<u8>,
    dirty: Vec<ClientId>,
    settling: Vec<u32>,
    next_sweep: Option<Instant>,
    /// No client is accepted until then.
    resting_until: Option<Instant>,
    accepted: u64,
    rests: u64,
    handed_over: u64,
}

impl Turn {
    pub fn new(
        listeners: Vec<OwnedFd>,
        stun: Vec<Responder>,
        hub: Option<Hub>,
        tls: Option<Arc<ServerConfig>>,
        handoff: Option<PathBuf>,
        inbox: Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Turn> {
        let poller = Poller::new()?;
        poller.add(wake.raw(), token(WAKE, 0, 0), Interest::READ)?;
        for (index, listener) in listeners.iter().enumerate() {
            poller.add(listener.as_raw_fd(), token(LISTENER, 0, index as u32), Interest::READ)?;
        }
        for (index, responder) in stun.iter().enumerate() {
            poller.add(responder.fd.as_raw_fd(), token(STUN, 0, index as u32), Interest::READ)?;
        }
        let relay_hex = hub.as_ref().map(|hub| hub.public_key().iter().map(|byte| format!("{byte:02x}")).collect());
        Ok(Turn {
            poller,
            wake,
            inbox,
            listeners,
            stun,
            hub,
            relay_hex,
            tls,
            handoff,
            slots: Vec::new(),
            free: Vec::new(),
            places: Vec::new(),
            scratch: Scratch::default(),
            buffer: Vec::new(),
            dirty: Vec::new(),
            settling: Vec::new(),
            next_sweep: None,
            resting_until: None,
            accepted: 0,
            rests: 0,
            handed_over: 0,
        })
    }

    pub fn run(&mut self) {
        loop {
            let now = Instant::now();
            let hub = self.hub.as_ref().and_then(Hub::next_timeout);
            let deadline = [self.next_sweep, self.resting_until, hub].into_iter().flatten().min();
            let timeout = deadline.map(|at| at.saturating_duration_since(now));
            let Ok(ready) = self.poller.wait(timeout) else { return };
            let now = Instant::now();
            for index in 0..ready {
                let event = self.poller.ready(index);
                if !self.handle(event, now) {
                    return;
                }
            }
            if self.next_sweep.is_some_and(|at| at <= now) {
                self.sweep(now);
            }
            if self.resting_until.is_some_and(|at| at <= now) {
                self.resting_until = None;
                self.watch_listeners(true);
            }
            self.serve_relay(now);
        }
    }

    /// One ready descriptor; false when the door is to be closed.
    fn handle(&mut self, event: Ready, now: Instant) -> bool {
        let index = (event.token & 0xffff_ffff) as u32;
        let generation = (event.token >> GENERATION_SHIFT) as u32 & 0xff_ffff;
        match event.token >> KIND_SHIFT {
            WAKE => return self.commands(),
            LISTENER => self.accept(index as usize, now),
            STUN => self.stun[index as usize].serve(),
            kind => {
                if self.slots.get(index as usize).is_some_and(|slot| slot.generation == generation) {
                    self.serve(index, kind == PYTHON, event, now);
                }
            }
        }
        true
    }

    fn commands(&mut self) -> bool {
        self.wake.clear();
        while let Ok(command) = self.inbox.try_recv() {
            match (command, &mut self.hub) {
                (Command::Stop, _) => return false,
                (Command::AdmitAll, Some(hub)) => hub.admit_all(),
                (Command::Admit(keys), Some(hub)) => hub.admit(keys),
                (Command::Stats(reply), _) => {
                    // Whoever asked and left needs no answer.
                    let _ = reply.send(self.stats());
                }
                (Command::AdmitAll | Command::Admit(_), None) => {}
            }
        }
        true
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPT_AT_A_TIME {
            let (fd, peer) = match sockets::accept(&self.listeners[listener]) {
                Ok(accepted) => accepted,
                Err(error) if sockets::is_exhausted(&error) => return self.rest(now),
                // None waits, or one left already: whoever comes next wakes us.
                Err(_) => return,
            };
            let Ok(local) = sockets::local(&fd) else { continue };
            self.accepted += 1;
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot { generation: 0, connection: None });
                (self.slots.len() - 1) as u32
            });
            let raw = fd.as_raw_fd();
            let slot = &mut self.slots[index as usize];
            slot.connection = Some(Connection::new(Stream::open(fd), peer, local, now));
            if self.poller.add(raw, token(CLIENT, slot.generation, index), Interest::READ).is_err() {
                self.close(index);
                continue;
            }
            self.due(now + HEAD_TIMEOUT);
        }
    }

    /// Descriptors or memory are spent: let clients wait outside for a moment instead of asking for them in a circle.
    fn rest(&mut self, now: Instant) {
        self.rests += 1;
        self.resting_until = Some(now + REST);
        self.watch_listeners(false);
    }

    fn watch_listeners(&self, read: bool) {
        for (index, listener) in self.listeners.iter().enumerate() {
            // A descriptor that epoll knows takes any interest; there is no other way for this to fail.
            let _ = watch(
                &self.poller,
                listener.as_raw_fd(),
                token(LISTENER, 0, index as u32),
                Interest { read, write: false },
            );
        }
    }

    fn serve(&mut self, index: u32, python: bool, event: Ready, now: Instant) {
        let result = if python { self.serve_python(index, event, now) } else { self.serve_client(index, event, now) };
        match result {
            Ok(()) => self.settle(index),
            Err(_) => self.close(index), // whatever ended it, the other side learns it from the closed connection
        }
    }

    fn serve_client(&mut self, index: u32, event: Ready, now: Instant) -> io::Result<()> {
        let Some(connection) = &mut self.slots[index as usize].connection else { return Ok(()) };
        if event.writable {
            connection.flush(now)?;
            if let Stage::Relay(id) = connection.stage {
                self.pump(index, id, now)?;
            }
        }
        if !event.readable && !event.broken {
            return Ok(());
        }
        let Some(connection) = &mut self.slots[index as usize].connection else { return Ok(()) };
        if matches!(connection.stage, Stage::First) {
            match (connection.stream.peek()?, &self.tls) {
                (None, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Some(TLS_RECORD), Some(config)) => {
                    let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                    connection.stream.begin_tls(session);
                }
                _ => {}
            }
            connection.stage = Stage::Head(Vec::new());
        }
        match &mut connection.stage {
            Stage::Head(bytes) => {
                connection.stream.read(&mut self.scratch, |plain| bytes.extend_from_slice(plain))?;
                self.head(index, now)
            }
            Stage::Relay(id) => match &mut self.hub {
                Some(hub) => connection.stream.read(&mut self.scratch, |plain| hub.handle_bytes(*id, now, plain)),
                None => Ok(()),
            },
            Stage::Handoff(python) => {
                let mut given = Ok(());
                let got = connection.stream.read(&mut self.scratch, |plain| {
                    if given.is_ok() {
                        given = python.give(plain);
                    }
                });
                given?;
                if matches!(&got, Err(error) if error.kind() == io::ErrorKind::UnexpectedEof) {
                    connection.client_ended = true;
                } else {
                    got?;
                }
                python.flush()
            }
            _ if event.broken => Err(io::ErrorKind::ConnectionReset.into()),
            _ => Ok(()),
        }
    }

    fn serve_python(&mut self, index: u32, event: Ready, now: Instant) -> io::Result<()> {
        let Some(connection) = &mut self.slots[index as usize].connection else { return Ok(()) };
        let Stage::Handoff(python) = &mut connection.stage else { return Ok(()) };
        if event.writable {
            python.flush()?;
        }
        if event.readable || event.broken {
            let stream = &mut connection.stream;
            let mut given = Ok(());
            let got = python.read(&mut self.scratch, |bytes| {
                if given.is_ok() {
                    given = stream.give(bytes);
                }
            });
            given?;
            if got.is_err() {
                connection.stage = Stage::Ending; // an answer's end, however it came; what was given still goes out
            }
            connection.flush(now)?;
        }
        Ok(())
    }

    /// Act on a head once it is whole.
    fn head(&mut self, index: u32, now: Instant) -> io::Result<()> {
        let Some(connection) = &mut self.slots[index as usize].connection else { return Ok(()) };
        let Stage::Head(bytes) = &mut connection.stage else { return Ok(()) };
        let Some(end) = head::end(bytes) else {
            if bytes.len() > LONGEST_HEAD_BYTES {
                return self.answer(index, head::answer("431 Request Header Fields Too Large", &[], ""), now);
            }
            return connection.flush(now);
        };
        let bytes = std::mem::take(bytes);
        let verdict = match Head::parse(&bytes[..end]) {
            Some(head) => head.judge(self.relay_hex.as_deref()),
            None => Verdict::Answer(head::answer("400 Bad Request", &[], "That is not an HTTP request.\n")),
        };
        match verdict {
            Verdict::Answer(answer) => self.answer(index, answer, now),
            Verdict::Relay(answer) => {
                let Some(hub) = &mut self.hub else { return Ok(()) };
                connection.stream.give(&answer)?;
                let id = hub.accept(now);
                connection.stage = Stage::Relay(id);
                connection.deadline = None;
                if self.places.len() <= id as usize {
                    self.places.resize(id as usize + 1, u32::MAX);
                }
                self.places[id as usize] = index;
                hub.handle_bytes(id, now, &bytes[end + 4..]);
                connection.flush(now)
            }
            Verdict::Handoff => {
                let mut first = handoff::proxy_header(connection.peer, connection.local, connection.stream.is_tls());
                first.extend_from_slice(&bytes);
                connection.stage = Stage::Dialling(first);
                self.dial(index, now)
            }
        }
    }

    fn dial(&mut self, index: u32, now: Instant) -> io::Result<()> {
        let slot = &mut self.slots[index as usize];
        let Some(connection) = &mut slot.connection else { return Ok(()) };
        let Stage::Dialling(first) = &mut connection.stage else { return Ok(()) };
        let Some(path) = &self.handoff else {
            return self.answer(index, head::answer("404 Not Found", &[], "There is nothing here.\n"), now);
        };
        match sockets::connect_unix(path) {
            Ok(fd) => {
                let raw = fd.as_raw_fd();
                let mut python = Stream::open(fd);
                python.give(first)?;
                python.flush()?;
                self.poller.add(raw, token(PYTHON, slot.generation, index), Interest::READ)?;
                connection.watched.2 = true;
                connection.stage = Stage::Handoff(Box::new(python));
                connection.deadline = None;
                self.handed_over += 1;
                connection.flush(now)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.due(now + DIAL_RETRY); // its backlog is full: the head's deadline is how long we try
                Ok(())
            }
            Err(_) => self.answer(index, head::answer("502 Bad Gateway", &[], GATEWAY), now),
        }
    }

    fn answer(&mut self, index: u32, answer: Vec<u8>, now: Instant) -> io::Result<()> {
        let Some(connection) = &mut self.slots[index as usize].connection else { return Ok(()) };
        connection.stream.give(&answer)?;
        connection.stage = Stage::Ending;
        connection.deadline = Some(now + WRITE_TIMEOUT);
        connection.flush(now)
    }

    /// Give a relay's client what waits for it, as long as its connection takes it.
    fn pump(&mut self, index: u32, id: ClientId, now: Instant) -> io::Result<()> {
        let (Some(hub), Some(connection)) = (&mut self.hub, &mut self.slots[index as usize].connection) else {
            return Ok(());
        };
        while connection.stream.idle() && hub.has_output(id) {
            self.buffer.clear();
            hub.drain(id, &mut self.buffer, GIVE_BYTES);
            connection.stream.give(&self.buffer)?;
            connection.flush(now)?;
        }
        Ok(())
    }

    /// Let the relay's timers run, close whom it closes, send what it has.
    fn serve_relay(&mut self, now: Instant) {
        let Some(hub) = &mut self.hub else { return };
        hub.handle_timeout(now);
        let closing = hub.take_closing();
        let mut slowed = None;
        for (id, until) in hub.take_resting(now) {
            if let Some(connection) = &mut self.slots[self.places[id as usize] as usize].connection {
                connection.unread_until = Some(until);
                slowed = Some(until);
                self.settling.push(self.places[id as usize]);
            }
        }
        if let Some(until) = slowed {
            self.due(until);
        }
        for (id, _why) in closing {
            self.close(self.places[id as usize]);
        }
        while let Some(index) = self.settling.pop() {
            self.settle(index);
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        if let Some(hub) = &mut self.hub {
            hub.take_dirty(&mut dirty);
        }
        for id in dirty.drain(..) {
            let index = self.places[id as usize];
            match self.pump(index, id, now) {
                Ok(()) => self.settle(index),
                Err(_) => self.close(index),
            }
        }
        self.dirty = dirty;
    }

    /// After a connection was served: close what has ended, watch what it waits for.
    fn settle(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        let Some(connection) = &mut slot.connection else { return };
        if let Stage::Handoff(python) = &mut connection.stage {
            if connection.client_ended && !python.wants_write() {
                python.shut_write();
            }
        }
        let drained = !connection.stream.wants_write();
        if drained && matches!(connection.stage, Stage::Ending) {
            connection.stream.shut_write();
            return self.close(index);
        }
        if let Some(deadline) = connection.deadline {
            if self.next_sweep.is_none_or(|at| deadline < at) {
                self.next_sweep = Some(deadline);
            }
        }
        let wanted = connection.wanted();
        if wanted == connection.watched {
            return;
        }
        let client = Interest { read: wanted.0, write: wanted.1 };
        let generation = slot.generation;
        let mut result = watch(&self.poller, connection.stream.as_raw_fd(), token(CLIENT, generation, index), client);
        if let Stage::Handoff(python) = &connection.stage {
            let interest = Interest { read: wanted.2, write: wanted.3 };
            result = result.and(watch(&self.poller, python.as_raw_fd(), token(PYTHON, generation, index), interest));
        }
        connection.watched = wanted;
        if result.is_err() {
            self.close(index);
        }
    }

    /// End connections whose patience is over, try again to hand over, and plan the next sweep.
    fn sweep(&mut self, now: Instant) {
        self.next_sweep = None;
        for index in 0..self.slots.len() as u32 {
            let Some(connection) = &mut self.slots[index as usize].connection else { continue };
            if connection.deadline.is_some_and(|at| at <= now) && !connection.still_drains(now) {
                self.close(index);
                continue;
            }
            if let Some(at) = connection.unread_until {
                if at <= now {
                    connection.unread_until = None;
                    self.settle(index);
                } else {
                    self.due(at);
                }
            }
            let Some(connection) = &mut self.slots[index as usize].connection else { continue };
            if matches!(connection.stage, Stage::Dialling(_)) {
                match self.dial(index, now) {
                    Ok(()) => self.settle(index),
                    Err(_) => self.close(index),
                }
            } else if let Some(at) = connection.deadline {
                self.due(at);
            }
        }
    }

    fn due(&mut self, at: Instant) {
        if self.next_sweep.is_none_or(|next| at < next) {
            self.next_sweep = Some(at);
        }
    }

    fn close(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let Some(connection) = slot.connection.take() else { return };
        slot.generation = (slot.generation + 1) & 0xff_ffff;
        self.free.push(index);
        if let (Stage::Relay(id), Some(hub)) = (&connection.stage, &mut self.hub) {
            hub.remove(*id);
        }
    }

    fn stats(&self) -> FrontStats {
        let mut counters = vec![
            ("front_accepts", self.accepted),
            ("front_rests", self.rests),
            ("front_connections", (self.slots.len() - self.free.len()) as u64),
            ("front_handed_over", self.handed_over),
            ("stun_answered", self.stun.iter().map(|responder| responder.answered).sum()),
            ("stun_ignored", self.stun.iter().map(|responder| responder.ignored).sum()),
        ];
        let Some(hub) = &self.hub else { return (counters, Vec::new()) };
        let relay = &hub.counters;
        counters.extend([
            ("accepts", relay.accepts),
            ("curr_connections", hub.connections() as u64),
            ("curr_home_connections", hub.homes() as u64),
            ("bytes_received", relay.bytes_received),
            ("bytes_sent", relay.bytes_sent),
            ("packets_received", relay.packets_received),
            ("packets_received_disco", relay.packets_received_disco),
            ("packets_sent", relay.packets_sent),
            ("packets_dropped_queue_head", relay.packets_dropped_queue_head),
            ("packets_dropped_unknown_dest", relay.packets_dropped_unknown_dest),
            ("unknown_frames", relay.unknown_frames),
            ("got_ping", relay.got_ping),
            ("sent_pong", relay.sent_pong),
            ("home_moves_in", relay.home_moves_in),
            ("home_moves_out", relay.home_moves_out),
            ("peer_gone_disconnected_frames", relay.peer_gone_disconnected_frames),
            ("peer_gone_not_here_frames", relay.peer_gone_not_here_frames),
            ("clients_refused", relay.clients_refused),
            ("clients_slowed", relay.clients_slowed),
            ("clients_closed_protocol", relay.clients_closed_protocol),
            ("clients_closed_hello", relay.clients_closed_hello),
        ]);
        (counters, hub.keys().copied().collect())
    }
}

fn token(kind: u64, generation: u32, index: u32) -> u64 {
    kind << KIND_SHIFT | u64::from(generation) << GENERATION_SHIFT | u64::from(index)
}

fn watch(poller: &Poller, fd: RawFd, token: u64, interest: Interest) -> io::Result<()> {
    poller.modify(fd, token, interest)
}

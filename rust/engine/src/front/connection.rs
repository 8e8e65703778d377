//! One client from its first byte on: TLS or plain, a head, then relay frames, a hand-off, or a last answer.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::derp::ClientId;
use crate::os::stream::Stream;

/// For the first byte, TLS and the head together.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is closed (derper's default).
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Python's side may take its time: a person reads a page, a node's netmap waits.
pub(super) const HANDOFF_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
pub(super) const LONGEST_HEAD_BYTES: usize = 64 << 10;
/// What one side of a hand-off may have waiting before the other is not read.
pub(super) const HANDOFF_BYTES: usize = 256 << 10;

/// How far a client is.
pub(super) enum Stage {
    First,
    Head(Vec<u8>),
    Relay(ClientId),
    /// Waiting for room in the backlog of Python's socket; what goes there first.
    Dialling(Vec<u8>),
    /// Both sides flow.
    Handoff(Box<Stream>),
    /// The last answer is on its way.
    Ending,
}

pub(super) struct Connection {
    pub stream: Stream,
    pub stage: Stage,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// In a hand-off: the client will send nothing more.
    pub client_ended: bool,
    /// When patience ends: for the head, or for room to write.
    pub deadline: Option<Instant>,
    /// It is not read from before this.
    pub unread_until: Option<Instant>,
    moved: u64,
    /// Bytes that the peer had not acknowledged when patience began.
    unacknowledged: usize,
    stalled: bool,
    /// What epoll watches now: (client read, client write, python read, python write).
    pub watched: (bool, bool, bool, bool),
}

impl Connection {
    pub fn new(stream: Stream, peer: SocketAddr, local: SocketAddr, now: Instant) -> Connection {
        Connection {
            stream,
            stage: Stage::First,
            peer,
            local,
            client_ended: false,
            deadline: Some(now + HEAD_TIMEOUT),
            unread_until: None,
            moved: 0,
            unacknowledged: 0,
            stalled: false,
            watched: (true, false, false, false),
        }
    }

    /// Send what can be sent, and keep watch over a standstill.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        self.stream.flush()?;
        let patience = match self.stage {
            Stage::First | Stage::Head(_) | Stage::Dialling(_) => return Ok(()), // the head's own deadline stands
            Stage::Handoff(_) => HANDOFF_WRITE_TIMEOUT,
            Stage::Relay(_) | Stage::Ending => WRITE_TIMEOUT,
        };
        let waits = self.stream.wants_write();
        if !waits {
            self.deadline = None;
        } else if !self.stalled || self.stream.moved != self.moved {
            self.deadline = Some(now + patience);
            self.unacknowledged = self.stream.unacknowledged()?;
        }
        self.stalled = waits;
        self.moved = self.stream.moved;
        Ok(())
    }

    /// Patience is over: whether the peer nevertheless took something meanwhile, and so gets as much time again.
    ///
    /// The kernel asks for more only when most of what it holds is gone, and on a slow line that takes longer than
    /// patience lasts; what the peer acknowledges shows earlier that it lives.
    pub fn still_drains(&mut self, now: Instant) -> bool {
        if !self.stalled || !matches!(self.stage, Stage::Relay(_) | Stage::Ending) {
            return false;
        }
        let Ok(unacknowledged) = self.stream.unacknowledged() else { return false };
        let drains = unacknowledged < self.unacknowledged;
        self.unacknowledged = unacknowledged;
        self.deadline = Some(now + WRITE_TIMEOUT);
        drains
    }

    /// What epoll is to watch.
    pub fn wanted(&self) -> (bool, bool, bool, bool) {
        let write = self.stream.wants_write();
        match &self.stage {
            Stage::Handoff(python) => {
                (!self.client_ended && python.waiting_bytes() < HANDOFF_BYTES, write, !write, python.wants_write())
            }
            Stage::Dialling(_) => (false, write, false, false),
            Stage::Ending => (false, write, false, false),
            _ => (self.unread_until.is_none(), write, false, false),
        }
    }
}

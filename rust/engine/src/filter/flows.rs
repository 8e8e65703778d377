//! The 512 UDP and SCTP flows that this node used last, so that answers to them pass.

use foldhash::fast::RandomState;
use std::collections::HashMap;

use super::headers::{Headers, Number};

const CAPACITY: usize = 512;
const NONE: u16 = u16::MAX;

/// A flow as its outgoing packets show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    ipv6: bool,
    protocol: u8,
    source: Number,
    destination: Number,
    source_port: u16,
    destination_port: u16,
}

impl Flow {
    #[inline]
    pub fn of(headers: &Headers) -> Flow {
        Flow {
            ipv6: headers.ipv6,
            protocol: headers.protocol,
            source: headers.source,
            destination: headers.destination,
            source_port: headers.source_port,
            destination_port: headers.destination_port,
        }
    }

    #[inline]
    fn reversed(&self) -> Flow {
        Flow {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }
}

#[derive(Clone, Copy)]
struct Entry {
    flow: Flow,
    newer: u16,
    older: u16,
}

/// Least recently used goes first: a doubly linked list through a fixed slab, and an index into it.
pub struct FlowCache {
    index: HashMap<Flow, u16, RandomState>,
    entries: Vec<Entry>,
    newest: u16,
    oldest: u16,
}

impl Default for FlowCache {
    fn default() -> FlowCache {
        FlowCache {
            index: HashMap::with_capacity_and_hasher(CAPACITY, RandomState::default()),
            entries: Vec::with_capacity(CAPACITY),
            newest: NONE,
            oldest: NONE,
        }
    }
}

impl FlowCache {
    /// Remember a flow as the newest; true when it was not known.
    #[inline]
    pub fn remember(&mut self, flow: &Flow) -> bool {
        if self.newest != NONE && self.entries[usize::from(self.newest)].flow == *flow {
            return false;
        }
        if let Some(&at) = self.index.get(flow) {
            self.unlink(at);
            self.link_newest(at);
            return false;
        }
        let at = if self.entries.len() < CAPACITY {
            self.entries.push(Entry { flow: *flow, newer: NONE, older: NONE });
            (self.entries.len() - 1) as u16
        } else {
            let at = self.oldest;
            self.unlink(at);
            self.index.remove(&self.entries[usize::from(at)].flow);
            self.entries[usize::from(at)].flow = *flow;
            at
        };
        self.link_newest(at);
        self.index.insert(*flow, at);
        true
    }

    /// Whether an incoming flow answers one that we began; that one is then the newest again.
    #[inline]
    pub fn answers(&mut self, incoming: &Flow) -> bool {
        let Some(&at) = self.index.get(&incoming.reversed()) else {
            return false;
        };
        if at != self.newest {
            self.unlink(at);
            self.link_newest(at);
        }
        true
    }

    fn unlink(&mut self, at: u16) {
        let Entry { newer, older, .. } = self.entries[usize::from(at)];
        match newer {
            NONE => self.newest = older,
            newer => self.entries[usize::from(newer)].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[usize::from(older)].newer = newer,
        }
    }

    fn link_newest(&mut self, at: u16) {
        let older = self.newest;
        self.entries[usize::from(at)].newer = NONE;
        self.entries[usize::from(at)].older = older;
        match older {
            NONE => self.oldest = at,
            older => self.entries[usize::from(older)].newer = at,
        }
        self.newest = at;
    }
}

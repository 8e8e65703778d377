//! What the engine tells Python, and the queue it waits in.
//!
//! Datagrams (disco, STUN) are bounded: the oldest is dropped and counted. Other events are few by nature and never dropped;
//! of those that a relay or a busy peer could repeat at will, one waits at a time.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::config::Key;
use crate::os::poller::EventFd;

/// Each variant mirrors a struct of src/buri/engine/port.py.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event {
    Bound { port_ipv4: Option<u16>, port_ipv6: Option<u16> },
    DiscoByUdp { source: SocketAddr, data: Box<[u8]> },
    DiscoByRelay { region: u32, key: Key, data: Box<[u8]> },
    Stun { source: SocketAddr, data: Box<[u8]> },
    PeerActive(Key),
    HandshakeDone(Key),
    HandshakeFailed(Key),
    PathFault { key: Key, address: SocketAddr, errno: i32 },
    RelayUp { region: u32, server_key: Key },
    RelayDown { region: u32, reason: String },
    RelayPeerGone { region: u32, key: Key, was_here: bool },
    RelayPeerSeen { region: u32, key: Key },
    RelayHealth { region: u32, problem: String },
    Fatal(String),
}

impl Event {
    fn is_repeatable(&self) -> bool {
        matches!(self, Event::PeerActive(_) | Event::RelayPeerGone { .. } | Event::RelayHealth { .. })
    }

    fn is_datagram(&self) -> bool {
        matches!(self, Event::DiscoByUdp { .. } | Event::DiscoByRelay { .. } | Event::Stun { .. })
    }
}

#[derive(Default)]
struct Waiting {
    /// Both by rising sequence number.
    datagrams: VecDeque<(u64, Event)>,
    others: VecDeque<(u64, Event)>,
    /// Those of `others` that would say nothing new a second time.
    repeatable: HashSet<Event>,
    sequence: u64,
    dropped: u64,
}

pub struct EventQueue {
    waiting: Mutex<Waiting>,
    capacity: usize,
    wake: EventFd,
}

impl EventQueue {
    pub fn new(capacity: usize) -> std::io::Result<EventQueue> {
        Ok(EventQueue { waiting: Mutex::default(), capacity: capacity.max(1), wake: EventFd::new()? })
    }

    /// Readable while events wait.
    pub fn fileno(&self) -> RawFd {
        self.wake.raw()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole after every statement: a panic elsewhere spoils nothing in it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Put a turn's events in, under one lock and with at most one wake-up.
    pub fn push_all(&self, events: &mut Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        for event in events.drain(..) {
            if event.is_repeatable() && !waiting.repeatable.insert(event.clone()) {
                continue;
            }
            if let Event::RelayPeerSeen { region, key } = event {
                // What was said before it came back is no longer the last word: leaving once more is news.
                for was_here in [false, true] {
                    waiting.repeatable.remove(&Event::RelayPeerGone { region, key, was_here });
                }
            }
            waiting.sequence += 1;
            let item = (waiting.sequence, event);
            if item.1.is_datagram() {
                if waiting.datagrams.len() == self.capacity {
                    waiting.datagrams.pop_front();
                    waiting.dropped += 1;
                }
                waiting.datagrams.push_back(item);
            } else {
                waiting.others.push_back(item);
            }
        }
        self.wake.signal();
    }

    /// Take up to `limit` events, oldest first.
    pub fn take(&self, limit: usize) -> Vec<Event> {
        let mut waiting = self.lock();
        let mut events = Vec::with_capacity(limit.min(waiting.datagrams.len() + waiting.others.len()));
        while events.len() < limit {
            let datagram_first = match (waiting.datagrams.front(), waiting.others.front()) {
                (Some(datagram), Some(other)) => datagram.0 < other.0,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            let queue = if datagram_first { &mut waiting.datagrams } else { &mut waiting.others };
            let Some((_, event)) = queue.pop_front() else { break };
            if event.is_repeatable() {
                waiting.repeatable.remove(&event);
            }
            events.push(event);
        }
        if waiting.datagrams.is_empty() && waiting.others.is_empty() {
            self.wake.clear();
        }
        events
    }

    /// Datagrams dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(number: u8) -> Event {
        Event::Stun { source: SocketAddr::from(([127, 0, 0, 1], 1)), data: Box::new([number]) }
    }

    fn queue(capacity: usize, events: impl IntoIterator<Item = Event>) -> EventQueue {
        let queue = EventQueue::new(capacity).expect("an eventfd");
        queue.push_all(&mut events.into_iter().collect());
        queue
    }

    #[test]
    fn events_come_out_in_the_order_they_went_in() {
        let events = [stun(1), Event::PeerActive([1; 32]), stun(2), Event::HandshakeDone([1; 32])];
        assert_eq!(queue(8, events.clone()).take(9), events);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_datagram_and_nothing_else() {
        let queue = queue(2, [stun(1), Event::HandshakeDone([1; 32]), stun(2), stun(3)]);
        assert_eq!(queue.take(9), [Event::HandshakeDone([1; 32]), stun(2), stun(3)]);
        assert_eq!(queue.dropped(), 1);
    }

    #[test]
    fn one_active_event_of_a_peer_waits_at_a_time() {
        let active = Event::PeerActive([1; 32]);
        let queue = queue(2, [active.clone(), active.clone()]);
        assert_eq!(queue.take(9), std::slice::from_ref(&active));
        queue.push_all(&mut vec![active.clone()]);
        assert_eq!(queue.take(9), [active]);
    }

    #[test]
    fn who_comes_back_to_a_relay_and_leaves_again_has_left() {
        let gone = Event::RelayPeerGone { region: 1, key: [1; 32], was_here: true };
        let seen = Event::RelayPeerSeen { region: 1, key: [1; 32] };
        let queue = queue(2, [gone.clone(), gone.clone(), seen.clone(), gone.clone()]);
        assert_eq!(queue.take(9), [gone.clone(), seen, gone]);
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_events_wait() {
        let queue = queue(8, [stun(1), stun(2)]);
        assert!(queue.wake.is_readable());
        queue.take(1);
        assert!(queue.wake.is_readable());
        queue.take(1);
        assert!(!queue.wake.is_readable());
    }
}

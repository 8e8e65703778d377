//! What a device gives back: packets to send, events to tell, counters to show.

use std::collections::VecDeque;
use std::net::SocketAddr;

/// A peer of one device: an index for the shell's own tables, and a generation that tells a removed peer from its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl PeerId {
    /// The peer's place in a dense table; reused after the peer is removed.
    pub fn index(self) -> usize {
        self.slot as usize
    }
}

/// Where a datagram came from; cookies and rate limits are bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A UDP address and port.
    Udp(SocketAddr),
    /// A relay's region and the sender's node key there.
    Relay { region: u32, key: [u8; 32] },
}

/// Where a packet is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// By the path the shell has for this peer now.
    Peer(PeerId),
    /// Back to where the datagram that caused it came from.
    Source(Source),
}

/// A finished datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Whereto.
    pub to: Destination,
    /// The datagram, ready for the wire.
    pub bytes: Vec<u8>,
}

/// Something the shell's owner may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session is confirmed by both sides and sends. As responder this comes with the initiator's first data message.
    HandshakeDone { peer: PeerId, initiator: bool },
    /// 90 s of attempts got no answer; the staged packets are dropped. The next packet to the peer tries anew.
    HandshakeExpired { peer: PeerId },
    /// The peer's sessions were zeroed: 540 s without a new one.
    SessionsZeroed { peer: PeerId },
}

/// Queues a device writes into; the shell drains them after every call (or every turn).
#[derive(Debug, Default)]
pub struct Out {
    /// Datagrams to send, in order.
    pub packets: VecDeque<Outgoing>,
    /// Events, in order.
    pub events: VecDeque<Event>,
}

impl Out {
    /// Empty queues.
    pub fn new() -> Self {
        Self::default()
    }
}

/// How many datagrams and packets met each fate since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Handshake initiations sent.
    pub initiations_sent: u64,
    /// Handshake responses sent.
    pub responses_sent: u64,
    /// Cookie replies sent.
    pub cookies_sent: u64,
    /// Cookie replies taken.
    pub cookies_received: u64,
    /// Sessions made, both roles.
    pub sessions: u64,
    /// Keepalives sent.
    pub keepalives_sent: u64,
    /// Dropped: a message of a wrong length or type.
    pub malformed: u64,
    /// Dropped: mac1 does not fit (not meant for us).
    pub bad_mac1: u64,
    /// Dropped under load: the source is over its rate, or too many were told to come again with a cookie.
    pub rate_limited: u64,
    /// Dropped: the handshake did not authenticate.
    pub bad_handshake: u64,
    /// Dropped: the initiator is not a peer.
    pub unknown_initiator: u64,
    /// Dropped: a timestamp seen before, or initiations faster than 50 a second.
    pub stale_initiation: u64,
    /// Dropped: no session or handshake has the receiver index.
    pub unknown_index: u64,
    /// Dropped: data under an expired session.
    pub expired_session: u64,
    /// Dropped: a counter seen before or too old.
    pub replayed: u64,
    /// Dropped: a data message whose tag does not fit.
    pub bad_tag: u64,
    /// Dropped: packets that waited for a session in vain, or were too many.
    pub staged_dropped: u64,
}

/// What one peer has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Bytes of data messages sent, header and tag included.
    pub sent_bytes: u64,
    /// Bytes of data messages received and accepted, header and tag included.
    pub received_bytes: u64,
    /// When the last handshake was done.
    pub last_handshake: Option<super::Instant>,
    /// When the last authenticated packet came.
    pub last_received: Option<super::Instant>,
    /// When the last packet was sealed.
    pub last_sent: Option<super::Instant>,
    /// Whether a session is there that may send now.
    pub has_session: bool,
}

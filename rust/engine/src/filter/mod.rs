//! The inbound packet filter: Tailscale's client semantics over a compiled table (wire reference 1f, "Client-side filter").
//!
//! Outbound packets are never refused; those of UDP and SCTP are remembered, so that their answers pass. Only new flows need a rule.

mod axis;
mod flows;
pub mod headers;
mod rules;

pub use headers::Headers;
pub use rules::{IpRange, Rule, Table};

use flows::{Flow, FlowCache};
use headers::{Number, Part, ICMP, ICMPV6, SCTP, TCP, TSMP, UDP};

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

/// 169.254.169.254, the clouds' metadata service, may be a subnet route.
const METADATA: Number = 0xa9fe_a9fe;

/// Why a packet does not pass; each is a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Multicast or link-local: never carried.
    Scope,
    /// Not for an address of ours or a route we serve.
    NotLocal,
    /// No rule allows this flow.
    NoRule,
}

/// The filter with its memory of outgoing flows. Until a table comes, nothing passes.
#[derive(Default)]
pub struct Filter {
    table: Table,
    shields_up: bool,
    flows: FlowCache,
    last: Option<(Headers, Result<(), Refusal>)>,
}

impl Filter {
    /// Replace the table. Flows we began stay known.
    pub fn replace(&mut self, table: Table, shields_up: bool) {
        self.table = table;
        self.shields_up = shields_up;
        self.last = None;
    }

    /// Note an outgoing packet, so that the answer to it passes.
    #[inline]
    pub fn outbound(&mut self, headers: &Headers) {
        if matches!(headers.protocol, UDP | SCTP) && headers.part == Part::First {
            let new = self.flows.remember(&Flow::of(headers));
            if new {
                self.last = None;
            }
        }
    }

    /// Judge an incoming packet. A packet of the same flow as the one before gets the same answer.
    #[inline]
    pub fn inbound(&mut self, headers: &Headers) -> Result<(), Refusal> {
        if let Some((last, verdict)) = &self.last {
            let same = last.source == headers.source
                && last.destination == headers.destination
                && last.source_port == headers.source_port
                && last.destination_port == headers.destination_port
                && last.protocol == headers.protocol
                && last.detail == headers.detail
                && last.part == headers.part
                && last.ipv6 == headers.ipv6;
            if same {
                return *verdict;
            }
        }
        let verdict = self.judge(headers);
        self.last = Some((*headers, verdict));
        verdict
    }

    fn judge(&mut self, headers: &Headers) -> Result<(), Refusal> {
        if never_carried(headers.ipv6, headers.destination) {
            return Err(Refusal::Scope);
        }
        if !self.table.is_local(headers.ipv6, headers.destination) {
            return Err(Refusal::NotLocal);
        }
        // Later fragments have no ports; without the first, which is judged, they are worthless.
        if headers.part == Part::Later {
            return Ok(());
        }
        let allowed = match headers.protocol {
            TCP if headers.detail & (TCP_SYN | TCP_ACK) != TCP_SYN => true,
            ICMP if !headers.ipv6 && is_icmp_answer(headers.detail) => true,
            ICMPV6 if headers.ipv6 && is_icmpv6_answer(headers.detail) => true,
            TSMP => true,
            UDP | SCTP if self.flows.answers(&Flow::of(headers)) => true,
            _ if self.shields_up => false,
            ICMP if !headers.ipv6 => self.table.any_port(headers),
            ICMPV6 if headers.ipv6 => self.table.any_port(headers),
            TCP | UDP | SCTP => self.table.port(headers),
            _ => self.table.all_ports(headers),
        };
        if allowed {
            Ok(())
        } else {
            Err(Refusal::NoRule)
        }
    }
}

/// Multicast, and link-local but the metadata service.
fn never_carried(ipv6: bool, destination: Number) -> bool {
    if ipv6 {
        destination >> 120 == 0xff || destination >> 118 == 0xfe80 >> 6
    } else {
        destination >> 28 == 0xe || (destination >> 16 == 0xa9fe && destination != METADATA)
    }
}

/// Echo reply; unreachable, time exceeded, parameter problem.
fn is_icmp_answer(kind: u8) -> bool {
    matches!(kind, 0 | 3 | 11 | 12)
}

/// Unreachable, packet too big, time exceeded, parameter problem; echo reply.
fn is_icmpv6_answer(kind: u8) -> bool {
    matches!(kind, 1..=4 | 129)
}

#[cfg(test)]
#[path = "filter_test.rs"]
mod tests;

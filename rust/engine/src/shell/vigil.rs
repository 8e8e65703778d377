//! Staying awake for a moment after packets: another is likely, and being woken costs more than the rest of its way.
//!
//! Awake means asking again and again, with the core offered to others between two questions. On a core that others want as
//! well that is worse than sleeping: who offers it waits until they have had their turn, milliseconds later, while who sleeps
//! and is woken by a packet goes first. So a vigil whose offer was taken for long is given up, for longer each time.

use std::time::{Duration, Instant};

/// Packets further apart than this are no conversation.
const CONVERSATION: Duration = Duration::from_millis(1);
/// An offer of the core comes back within this when only those take it who handle the same packets.
const SHORT_OFFER: Duration = Duration::from_micros(100);
const FIRST_REST: Duration = Duration::from_millis(5);
const LONGEST_REST: Duration = Duration::from_millis(2560);
/// So many vigils must pay one after the other before the next rest is shorter.
const PAYING: u32 = 100;

pub(super) struct Vigil {
    /// How long after a packet; zero: never.
    span: Duration,
    last_packet: Option<Instant>,
    until: Option<Instant>,
    resting_until: Option<Instant>,
    next_rest: Duration,
    /// Vigils that ended with a packet since the last that was given up.
    paid: u32,
}

impl Vigil {
    pub fn new(span: Duration) -> Vigil {
        Vigil { span, last_packet: None, until: None, resting_until: None, next_rest: FIRST_REST, paid: 0 }
    }

    /// Packets moved in this turn.
    pub fn note_packets(&mut self, now: Instant) {
        let talking = self.last_packet.is_some_and(|at| now.duration_since(at) <= CONVERSATION);
        self.last_packet = Some(now);
        if self.until.take().is_some() {
            self.paid += 1;
            if self.paid == PAYING {
                self.paid = 0;
                self.next_rest = (self.next_rest / 2).max(FIRST_REST);
            }
        }
        let rested = self.resting_until.is_none_or(|at| at <= now);
        if talking && rested && !self.span.is_zero() {
            self.until = Some(now + self.span);
        }
    }

    /// Whether to ask at once instead of sleeping.
    pub fn holds(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| now >= until) {
            self.until = None;
        }
        self.until.is_some()
    }

    /// The core was offered at `before` and is ours again.
    pub fn note_offer(&mut self, before: Instant, now: Instant) {
        if now.duration_since(before) > SHORT_OFFER {
            self.until = None;
            self.paid = 0;
            self.resting_until = Some(now + self.next_rest);
            self.next_rest = (self.next_rest * 4).min(LONGEST_REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_micros(50);
    const SOON: Duration = Duration::from_micros(10);

    /// A vigil in the midst of a conversation, and the time of its last packet.
    fn awake() -> (Vigil, Instant) {
        let (mut vigil, start) = (Vigil::new(SPAN), Instant::now());
        vigil.note_packets(start);
        vigil.note_packets(start + SOON);
        (vigil, start + SOON)
    }

    #[test]
    fn it_is_held_after_the_packets_of_a_conversation_and_for_its_span_alone() {
        let (mut vigil, start) = (Vigil::new(SPAN), Instant::now());
        assert!(!vigil.holds(start));
        vigil.note_packets(start);
        assert!(!vigil.holds(start), "one packet is no conversation");
        vigil.note_packets(start + SOON);
        assert!(vigil.holds(start + SOON) && vigil.holds(start + SPAN));
        assert!(!vigil.holds(start + SOON + SPAN) && !vigil.holds(start + SOON));
        vigil.note_packets(start + Duration::from_secs(1));
        assert!(!vigil.holds(start + Duration::from_secs(1)), "heartbeats keep nobody awake");
    }

    #[test]
    fn a_span_of_zero_is_never_awake() {
        let (mut vigil, start) = (Vigil::new(Duration::ZERO), Instant::now());
        vigil.note_packets(start);
        vigil.note_packets(start);
        assert!(!vigil.holds(start));
    }

    #[test]
    fn a_core_that_others_want_is_left_to_them_for_longer_each_time() {
        let (mut vigil, mut now) = awake();
        let mut rests = Vec::new();
        for _ in 0..7 {
            assert!(vigil.holds(now));
            vigil.note_offer(now, now + SOON);
            assert!(vigil.holds(now), "a short offer changes nothing");
            now += Duration::from_millis(3);
            vigil.note_offer(now - Duration::from_millis(3), now);
            let given_up = now;
            while !vigil.holds(now) {
                now += Duration::from_millis(1);
                vigil.note_packets(now);
            }
            rests.push(now.duration_since(given_up).as_millis());
        }
        assert_eq!(rests, [5, 20, 80, 320, 1280, 2560, 2560]);
    }

    #[test]
    fn vigils_that_pay_make_the_next_rest_short_again() {
        let (mut vigil, mut now) = awake();
        for _ in 0..3 {
            vigil.note_offer(now, now + SHORT_OFFER * 2);
        }
        let mut rests = Vec::new();
        now += LONGEST_REST;
        for _ in 0..6 {
            rests.push(vigil.next_rest.as_millis());
            for _ in 0..PAYING {
                now += SOON;
                vigil.note_packets(now);
            }
        }
        // The first packets after the rest began no vigil yet.
        assert_eq!(rests, [320, 320, 160, 80, 40, 20]);
    }
}

//! Whether a relay that says nothing still lives: it is asked (PING) before it is given up.
//!
//! A relay's host may take what is sent long after the relay itself has stopped, so only an answer proves that it lives.

use std::time::{Duration, Instant};

/// Relays say something every 60 s by themselves. The home relay is asked sooner: through it others reach us, and nobody
/// else would notice.
const HOME_SILENCE: Duration = Duration::from_secs(20);
const OTHER_SILENCE: Duration = Duration::from_secs(110);
/// After we said something: most of what is sent by a relay is answered by it.
const UNANSWERED: Duration = Duration::from_secs(5);
/// The question stands behind all that waits in a slow uplink.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is due now.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Ask,
    /// It did not even answer when asked.
    GiveUp,
}

/// One connection's.
pub struct Silence {
    heard_at: Instant,
    /// When we first said something after it last did.
    said_at: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Silence {
    pub fn new(now: Instant) -> Silence {
        Silence { heard_at: now, said_at: None, asked_at: None }
    }

    /// Anything at all came.
    pub fn heard(&mut self, now: Instant) {
        *self = Silence::new(now);
    }

    /// Something was sent.
    pub fn said(&mut self, now: Instant) {
        self.said_at.get_or_insert(now);
    }

    /// When `due` wants to be asked again.
    pub fn deadline(&self, home: bool) -> Instant {
        if let Some(asked_at) = self.asked_at {
            return asked_at + PATIENCE;
        }
        let idle = self.heard_at + if home { HOME_SILENCE } else { OTHER_SILENCE };
        self.said_at.map_or(idle, |said_at| idle.min(said_at + UNANSWERED))
    }

    /// What to do at `now`; `Ask` is said once.
    pub fn due(&mut self, now: Instant, home: bool) -> Due {
        if now < self.deadline(home) {
            return Due::Nothing;
        }
        if self.asked_at.is_some() {
            return Due::GiveUp;
        }
        self.asked_at = Some(now);
        Due::Ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_relay_that_answers_nobody_is_asked_and_then_given_up() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        silence.said(start + SECOND);
        silence.said(start + 4 * SECOND);
        assert_eq!(silence.deadline(false), start + 6 * SECOND);
        assert_eq!(silence.due(start + 5 * SECOND, false), Due::Nothing);
        assert_eq!(silence.due(start + 6 * SECOND, false), Due::Ask);
        assert_eq!(silence.due(start + 7 * SECOND, false), Due::Nothing);
        assert_eq!(silence.due(start + 16 * SECOND, false), Due::GiveUp);
    }

    #[test]
    fn any_word_of_it_begins_anew() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        silence.said(start);
        assert_eq!(silence.due(start + 5 * SECOND, false), Due::Ask);
        silence.heard(start + 6 * SECOND);
        assert_eq!(silence.due(start + 60 * SECOND, false), Due::Nothing);
        assert_eq!(silence.deadline(false), start + 6 * SECOND + OTHER_SILENCE);
    }

    #[test]
    fn the_home_relay_is_asked_before_the_others_when_all_is_quiet() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        assert_eq!(silence.deadline(true), start + HOME_SILENCE);
        assert_eq!(silence.due(start + HOME_SILENCE, true), Due::Ask);
        assert_eq!(silence.due(start + HOME_SILENCE + PATIENCE, true), Due::GiveUp);
    }
}

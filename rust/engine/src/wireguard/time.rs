//! The two clocks a device is told: a monotonic one for timers, TAI64N for the handshake's timestamp.

use std::ops::Add;
use std::time::Duration;

/// A point on the shell's monotonic clock, in nanoseconds since any fixed origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin: earlier than or equal to every other instant.
    pub const ZERO: Instant = Instant(0);

    /// From nanoseconds (CLOCK_MONOTONIC or CLOCK_BOOTTIME as it comes).
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`, zero when that lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A TAI64N label (cr.yp.to/libtai/tai64.html): 8 bytes of seconds, 4 of nanoseconds, big-endian, so that labels compare as bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tai64N([u8; 12]);

/// Labels are rounded down to 2^24 ns (16.8 ms), so that a handshake does not tell the sender's clock to the nanosecond.
const GRAIN_NANOS: u32 = 1 << 24;

impl Tai64N {
    /// The label of a time since the Unix epoch, rounded down to the grain.
    pub fn from_unix(since_epoch: Duration) -> Self {
        Self::from_parts((1u64 << 62) + 10 + since_epoch.as_secs(), since_epoch.subsec_nanos() & !(GRAIN_NANOS - 1))
    }

    pub(crate) fn from_bytes(bytes: [u8; 12]) -> Self {
        Tai64N(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    fn from_parts(seconds: u64, nanos: u32) -> Self {
        let mut bytes = [0u8; 12];
        bytes[..8].copy_from_slice(&seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Tai64N(bytes)
    }

    /// The next label after this one, a grain later.
    pub(crate) fn successor(self) -> Self {
        let mut seconds = [0u8; 8];
        seconds.copy_from_slice(&self.0[..8]);
        let mut nanos = [0u8; 4];
        nanos.copy_from_slice(&self.0[8..]);
        let (seconds, nanos) = (u64::from_be_bytes(seconds), u32::from_be_bytes(nanos));
        match nanos.checked_add(GRAIN_NANOS) {
            Some(nanos) if nanos < 1_000_000_000 => Self::from_parts(seconds, nanos),
            _ => Self::from_parts(seconds.saturating_add(1), 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_grow_with_time_and_the_successor_is_later() {
        let a = Tai64N::from_unix(Duration::new(1_700_000_000, 999_999_999));
        let b = Tai64N::from_unix(Duration::new(1_700_000_001, 0));
        assert!(a < b && a < a.successor() && a.successor() <= b);
        assert_eq!(a.as_bytes()[..8], (0x4000_0000_0000_000a_u64 + 1_700_000_000).to_be_bytes());
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(5)), Duration::ZERO);
        assert_eq!(Instant::from_nanos(u64::MAX) + Duration::from_secs(1), Instant::from_nanos(u64::MAX));
    }
}

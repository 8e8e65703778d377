//! How many handshakes are heard: a load gauge for the device, a token bucket for each source.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::{Instant, Source};

const PER_SECOND: u64 = 20;
const BURST: u64 = 5;
const TOKEN_NANOS: u64 = 1_000_000_000 / PER_SECOND;
const MOST_SOURCES: usize = 16_384;
const ONE_SECOND: Duration = Duration::from_secs(1);

/// A sender as far as rates go: an IPv4 address, an IPv6 /64, or a key at a relay.
#[derive(PartialEq, Eq, Hash)]
enum Sender {
    V4([u8; 4]),
    V6([u8; 8]),
    Relay([u8; 32]),
}

impl From<&Source> for Sender {
    fn from(source: &Source) -> Self {
        match source {
            Source::Udp(address) => match address.ip().to_canonical() {
                IpAddr::V4(ip) => Sender::V4(ip.octets()),
                IpAddr::V6(ip) => {
                    let octets = ip.octets();
                    Sender::V6(std::array::from_fn(|i| octets[i]))
                }
            },
            Source::Relay { key, .. } => Sender::Relay(*key),
        }
    }
}

struct Bucket {
    nanos: u64,
    filled: Instant,
}

/// Token buckets: 20 handshakes a second, 5 at once; at most 16,384 sources are remembered.
#[derive(Default)]
pub(crate) struct Limiter {
    buckets: HashMap<Sender, Bucket, foldhash::quality::RandomState>,
    swept: Instant,
}

impl Limiter {
    /// Whether this source may have one handshake more.
    pub(crate) fn allow(&mut self, now: Instant, source: &Source) -> bool {
        let sender = Sender::from(source);
        if let Some(bucket) = self.buckets.get_mut(&sender) {
            let gained = u64::try_from(now.since(bucket.filled).as_nanos()).unwrap_or(u64::MAX);
            bucket.nanos = bucket.nanos.saturating_add(gained).min(BURST * TOKEN_NANOS);
            bucket.filled = now;
            let Some(rest) = bucket.nanos.checked_sub(TOKEN_NANOS) else { return false };
            bucket.nanos = rest;
            return true;
        }
        if self.buckets.len() >= MOST_SOURCES && now.since(self.swept) >= ONE_SECOND {
            self.swept = now;
            self.buckets.retain(|_, bucket| now.since(bucket.filled) < ONE_SECOND);
        }
        if self.buckets.len() >= MOST_SOURCES {
            return false;
        }
        self.buckets.insert(sender, Bucket { nanos: (BURST - 1) * TOKEN_NANOS, filled: now });
        true
    }
}

/// Cookie replies a second. Each costs some five microseconds with its sending: a flood of any size leaves the engine its
/// thread, and an honest peer's share of the replies is still one in a few.
const COOKIES_PER_SECOND: u32 = 20_000;

/// Counts handshake messages; above the threshold the device is under load for the rest of this second and the next.
pub(crate) struct LoadGauge {
    per_second: u32,
    window_start: Instant,
    count: u32,
    cookies: u32,
    loaded_until: Option<Instant>,
}

impl LoadGauge {
    pub(crate) fn new(per_second: u32) -> Self {
        LoadGauge { per_second, window_start: Instant::ZERO, count: 0, cookies: 0, loaded_until: None }
    }

    /// Notes one message; whether the device is under load.
    pub(crate) fn note(&mut self, now: Instant) -> bool {
        if now.since(self.window_start) >= ONE_SECOND {
            self.window_start = now;
            self.count = 0;
            self.cookies = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > self.per_second {
            self.loaded_until = Some(now + ONE_SECOND);
        }
        self.loaded_until.is_some_and(|until| now < until)
    }

    /// Whether one more cookie may be given away in this second.
    pub(crate) fn may_reply(&mut self) -> bool {
        self.cookies = self.cookies.saturating_add(1);
        self.cookies <= COOKIES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(address: &str) -> Source {
        Source::Udp(address.parse().unwrap())
    }

    #[test]
    fn a_source_gets_its_burst_then_its_rate_and_hurts_no_other() {
        let (mut limiter, start) = (Limiter::default(), Instant::from_nanos(7));
        let allowed = (0..10).filter(|_| limiter.allow(start, &udp("192.0.2.1:1"))).count();
        assert_eq!(allowed, 5);
        assert!(limiter.allow(start, &udp("192.0.2.2:1")));
        assert!(!limiter.allow(start, &udp("192.0.2.1:99")), "the port does not make another source");
        assert!(limiter.allow(start + Duration::from_millis(50), &udp("192.0.2.1:1")));
        assert!(!limiter.allow(start + Duration::from_millis(60), &udp("192.0.2.1:1")));
    }

    #[test]
    fn one_slash_64_is_one_source() {
        let (mut limiter, now) = (Limiter::default(), Instant::ZERO);
        let allowed = (0..10).filter(|i| limiter.allow(now, &udp(&format!("[2001:db8::{i}]:5")))).count();
        assert_eq!(allowed, 5);
        assert!(limiter.allow(now, &udp("[2001:db8:0:1::1]:5")));
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let (mut limiter, now) = (Limiter::default(), Instant::from_nanos(1));
        let relay = |i: usize| {
            let mut key = [0u8; 32];
            key[..8].copy_from_slice(&i.to_le_bytes());
            Source::Relay { region: 1, key }
        };
        assert!((0..MOST_SOURCES).all(|i| limiter.allow(now, &relay(i))));
        assert!(!limiter.allow(now, &relay(MOST_SOURCES)));
        assert!(limiter.allow(now + ONE_SECOND * 2, &relay(MOST_SOURCES)));
    }

    #[test]
    fn cookies_are_given_away_at_a_bounded_rate() {
        let (mut gauge, now) = (LoadGauge::new(0), Instant::from_nanos(5));
        let given = (0..100_000).filter(|_| gauge.note(now) && gauge.may_reply()).count();
        assert_eq!(given, COOKIES_PER_SECOND as usize);
        assert!(gauge.note(now + ONE_SECOND) && gauge.may_reply());
    }

    #[test]
    fn load_rises_above_the_threshold_and_falls_after_a_second() {
        let (mut gauge, now) = (LoadGauge::new(2), Instant::from_nanos(5));
        assert!(!gauge.note(now) && !gauge.note(now) && gauge.note(now));
        assert!(!gauge.note(now + ONE_SECOND * 3));
    }
}

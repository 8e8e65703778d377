//! mac1, mac2 and cookies (paper, sections 5.4.4 and 5.4.7), as receiver and as sender.

use std::net::IpAddr;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::aead::xchacha;

use super::generator::Generator;
use super::primitives::{hash, mac};
use super::timers::COOKIE_LIFETIME;
use super::{Instant, Source};

const MAC_BYTES: usize = 16;
pub(crate) const COOKIE_REPLY_BYTES: usize = 64;

/// The key of mac1 in messages to the owner of `public_key`.
pub(crate) fn mac1_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"mac1----", public_key])
}

fn cookie_key(public_key: &[u8; 32]) -> [u8; 32] {
    hash(&[b"cookie--", public_key])
}

/// Writes mac1, and mac2 when there is a cookie, into the last 32 bytes of a handshake message; the answer is mac1.
pub(crate) fn write_macs(message: &mut [u8], peer_public: &[u8; 32], cookie: Option<&[u8; 16]>) -> [u8; 16] {
    let (mac1_at, mac2_at) = (message.len() - 2 * MAC_BYTES, message.len() - MAC_BYTES);
    let mac1 = mac(&mac1_key(peer_public), &[&message[..mac1_at]]);
    message[mac1_at..mac2_at].copy_from_slice(&mac1);
    if let Some(cookie) = cookie {
        let mac2 = mac(cookie, &[&message[..mac2_at]]);
        message[mac2_at..].copy_from_slice(&mac2);
    }
    mac1
}

/// Opens a peer's cookie reply to the message that ended in `mac1`.
pub(crate) fn open_reply(
    reply: &[u8; COOKIE_REPLY_BYTES],
    peer_public: &[u8; 32],
    mac1: &[u8; 16],
) -> Option<[u8; 16]> {
    let nonce: [u8; 24] = reply[8..32].try_into().ok()?;
    xchacha::open(&cookie_key(peer_public), &nonce, mac1, &reply[32..])?.try_into().ok()
}

/// Checks macs of messages to us and bakes cookies.
pub(crate) struct CookieJar {
    mac1_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
    secret_made: Option<Instant>,
}

impl CookieJar {
    pub(crate) fn new(own_public: &[u8; 32]) -> Self {
        CookieJar {
            mac1_key: mac1_key(own_public),
            cookie_key: cookie_key(own_public),
            secret: Zeroizing::new([0; 32]),
            secret_made: None,
        }
    }

    /// Whether mac1 proves that the sender knows our public key.
    pub(crate) fn mac1_fits(&self, message: &[u8]) -> bool {
        let (body, macs) = message.split_at(message.len() - 2 * MAC_BYTES);
        mac(&self.mac1_key, &[body]).ct_eq(&macs[..MAC_BYTES]).into()
    }

    /// Whether mac2 proves that the sender receives at `source`.
    pub(crate) fn mac2_fits(&self, now: Instant, source: &Source, message: &[u8]) -> bool {
        if !self.has_fresh_secret(now) {
            return false;
        }
        let (body, mac2) = message.split_at(message.len() - MAC_BYTES);
        mac(&self.bake(source), &[body]).ct_eq(mac2).into()
    }

    /// The reply that hands `source` its cookie, sealed to its message.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        source: &Source,
        message: &[u8],
        generator: &mut Generator,
    ) -> [u8; COOKIE_REPLY_BYTES] {
        if !self.has_fresh_secret(now) {
            self.secret = generator.bytes32();
            self.secret_made = Some(now);
        }
        let mac1_at = message.len() - 2 * MAC_BYTES;
        let nonce = generator.bytes24();
        let sealed =
            xchacha::seal(&self.cookie_key, &nonce, &message[mac1_at..mac1_at + MAC_BYTES], &self.bake(source));
        let mut reply = [0u8; COOKIE_REPLY_BYTES];
        reply[0] = 3;
        reply[4..8].copy_from_slice(&message[4..8]);
        reply[8..32].copy_from_slice(&nonce);
        reply[32..].copy_from_slice(&sealed);
        reply
    }

    fn has_fresh_secret(&self, now: Instant) -> bool {
        self.secret_made.is_some_and(|made| now.since(made) < COOKIE_LIFETIME)
    }

    /// The cookie of a source: address and port, or relay key, under the secret of these two minutes.
    fn bake(&self, source: &Source) -> [u8; 16] {
        match source {
            Source::Udp(address) => {
                let port = address.port().to_be_bytes();
                match address.ip() {
                    IpAddr::V4(ip) => mac(&self.secret[..], &[b"4", &ip.octets(), &port]),
                    IpAddr::V6(ip) => mac(&self.secret[..], &[b"6", &ip.octets(), &port]),
                }
            }
            Source::Relay { key, .. } => mac(&self.secret[..], &[b"r", key]),
        }
    }
}

//! The device's generator: ChaCha20 with fast key erasure, seeded once, so that a run can be told again from its seed.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::aead::chacha;

/// A cryptographically strong generator.
pub(crate) struct Generator {
    key: Zeroizing<[u8; 32]>,
}

impl Generator {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Generator { key: Zeroizing::new(seed) }
    }

    /// 32 fresh bytes; the key that made them is gone afterwards.
    pub(crate) fn bytes32(&mut self) -> Zeroizing<[u8; 32]> {
        let block = Zeroizing::new(chacha::block(&self.key, &[0; 16]));
        self.key.copy_from_slice(&block[..32]);
        let mut out = Zeroizing::new([0; 32]);
        out.copy_from_slice(&block[32..]);
        out
    }

    pub(crate) fn bytes24(&mut self) -> [u8; 24] {
        let bytes = self.bytes32();
        std::array::from_fn(|i| bytes[i])
    }

    pub(crate) fn u64(&mut self) -> u64 {
        let bytes = self.bytes32();
        u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))
    }

    /// A span from zero up to and without `limit`.
    pub(crate) fn jitter(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(self.u64() % limit)
    }
}

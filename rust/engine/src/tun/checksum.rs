//! The internet checksum (RFC 1071).
//!
//! Sums are of native-order 32-bit words in a u64 that is folded at the end; byte order cancels out as long as the result
//! is stored in native order too. Pieces that are summed one after another must have even lengths, the last excepted.

/// Add `bytes` to an unfolded sum.
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() >= 128 && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU was just asked for AVX2.
        return sum + unsafe { words_avx2(bytes) };
    }
    sum + words(bytes)
}

/// The checksum field's value for an unfolded sum, to be stored with `to_ne_bytes`.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Fold to 16 bits without complementing (what a partial checksum field holds).
#[inline]
pub fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The pseudo-header of an IP packet's upper layer: `addresses` are source and destination as they stand in the packet.
#[inline]
pub fn pseudo(addresses: &[u8], protocol: u8, upper_len: usize) -> u64 {
    let tail = [0, protocol];
    let sum = add(0, addresses) + u64::from(u16::from_ne_bytes(tail));
    // IPv4 has 16 bits for the length, IPv6 has 32: the same sum.
    add(sum, &(upper_len as u32).to_be_bytes())
}

#[inline(always)]
fn words(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
    let mut tail = blocks.remainder().chunks_exact(4);
    for word in &mut tail {
        sum += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let rest = tail.remainder();
    if !rest.is_empty() {
        let mut last = [0u8; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
    }
    sum
}

/// The same loop, compiled for AVX2.
///
/// # Safety
/// The CPU must have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn words_avx2(bytes: &[u8]) -> u64 {
    words(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071_sums_as_printed() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(u16::from_be_bytes(fold(add(0, &bytes)).to_ne_bytes()), 0xddf2);
    }

    proptest! {
        #[test]
        fn any_bytes_sum_as_the_naive_loop_does(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
            prop_assert_eq!(finish(add(0, &bytes)).to_ne_bytes(), naive(&bytes).to_be_bytes());
        }
    }
}

//! [`BatchAead`] on `ring`: one packet after the other, AVX2-class assembly.

use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, CHACHA20_POLY1305};

use super::{AeadKey, BatchAead, OpenJob, Opened, Refusal, SealJob, HEADER_BYTES, OVERHEAD_BYTES, TAG_BYTES};

/// The backend every machine has.
pub struct RingAead;

/// `ring`'s key made afresh: a copy of 32 bytes, so that sessions keep raw keys they can zero.
pub(crate) fn ring_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a ChaCha20-Poly1305 key has 32 bytes"))
}

/// WireGuard's nonce: 4 zero bytes, then the counter, little-endian.
pub(crate) fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0u8; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl BatchAead for RingAead {
    fn seal(&self, key: &AeadKey, jobs: &mut [SealJob<'_>]) {
        let key = ring_key(key);
        for job in jobs {
            let body_end = HEADER_BYTES + job.padded_bytes;
            let (body, tag_room) = job.out[HEADER_BYTES..].split_at_mut(job.padded_bytes);
            let (packet, padding) = body.split_at_mut(job.plaintext.len());
            packet.copy_from_slice(job.plaintext);
            padding.fill(0);
            debug_assert_eq!(body.len() + HEADER_BYTES, body_end);
            let tag = key
                .seal_in_place_separate_tag(nonce(job.counter), Aad::empty(), body)
                .expect("a packet is far below ChaCha20's 256 GiB");
            tag_room[..TAG_BYTES].copy_from_slice(tag.as_ref());
        }
    }

    fn open(&self, key: &AeadKey, jobs: &mut [OpenJob<'_>]) {
        let key = ring_key(key);
        for job in jobs.iter_mut().filter(|job| job.result == Opened::Pending) {
            if job.datagram.len() < OVERHEAD_BYTES {
                job.result = Opened::Refused(Refusal::Malformed);
                continue;
            }
            let body = &mut job.datagram[HEADER_BYTES..];
            job.result = match key.open_in_place(nonce(job.counter), Aad::empty(), body) {
                Ok(plaintext) => Opened::Plaintext(HEADER_BYTES..HEADER_BYTES + plaintext.len()),
                Err(_) => {
                    // ring leaves the content unspecified: make sure that it is nobody's plaintext.
                    body.fill(0);
                    Opened::Refused(Refusal::BadTag)
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AeadKey {
        let mut key = AeadKey::default();
        for (i, byte) in key.iter_mut().enumerate() {
            *byte = 0x80 + i as u8;
        }
        key
    }

    #[test]
    fn every_length_seals_as_ring_alone_does_and_opens_again() {
        let key = key();
        let single = ring_key(&key);
        let data: Vec<u8> = (0..2048u32).map(|i| (i * 31 % 251) as u8).collect();
        for len in 0..=2048usize {
            let counter = len as u64 * 0x1_0000_0001;
            let mut expected = data[..len].to_vec();
            single.seal_in_place_append_tag(nonce(counter), Aad::empty(), &mut expected).unwrap();
            let mut out = vec![0xaa; len + OVERHEAD_BYTES];
            let mut job = SealJob::new(&data[..len], &mut out);
            job.counter = counter;
            RingAead.seal(&key, &mut [job]);
            assert_eq!(out[HEADER_BYTES..], expected[..], "length {len}");
            assert_eq!(out[..HEADER_BYTES], [0xaa; HEADER_BYTES], "the header is the caller's");
            let mut jobs = [OpenJob::new(&mut out)];
            jobs[0].counter = counter;
            RingAead.open(&key, &mut jobs);
            assert_eq!(jobs[0].plaintext(), Some(&data[..len]));
        }
    }

    #[test]
    fn the_empty_packet_under_the_zero_key_has_its_known_tag() {
        let key = AeadKey::new([0; 32]);
        let mut out = [0u8; OVERHEAD_BYTES];
        RingAead.seal(&key, &mut [SealJob::new(&[], &mut out)]);
        let tag = 0x4eb9_72c9_a8fb_3a1b_382b_b4d3_6f5f_fad1_u128;
        assert_eq!(out[16..], tag.to_be_bytes());
    }

    #[test]
    fn padding_is_zero_and_sealed_along() {
        let key = key();
        let mut out = [0xff; 16 + 32 + 16];
        let mut job = SealJob::new(b"seventeen bytes!!", &mut out);
        job.padded_bytes = 32;
        assert_eq!(job.sealed_bytes(), 64);
        RingAead.seal(&key, &mut [job]);
        let mut jobs = [OpenJob::new(&mut out)];
        RingAead.open(&key, &mut jobs);
        assert_eq!(jobs[0].plaintext().unwrap()[..17], *b"seventeen bytes!!");
        assert_eq!(jobs[0].plaintext().unwrap()[17..], [0; 15]);
    }

    #[test]
    fn any_flipped_bit_refuses_and_leaves_no_plaintext() {
        let key = key();
        let text = [0x41u8; 100];
        let mut sealed = [0u8; 100 + OVERHEAD_BYTES];
        RingAead.seal(&key, &mut [SealJob::new(&text, &mut sealed)]);
        for at in HEADER_BYTES..sealed.len() {
            let mut bad = sealed;
            bad[at] ^= 1 << (at % 8);
            let mut jobs = [OpenJob::new(&mut bad)];
            RingAead.open(&key, &mut jobs);
            assert_eq!(jobs[0].result, Opened::Refused(Refusal::BadTag));
            assert_eq!(jobs[0].plaintext(), None);
            assert!(!bad.windows(4).any(|w| w == [0x41; 4]));
        }
    }

    #[test]
    fn a_batch_skips_what_was_refused_already() {
        let key = key();
        let mut sealed = [0u8; 4 + OVERHEAD_BYTES];
        RingAead.seal(&key, &mut [SealJob::new(b"ping", &mut sealed)]);
        let (mut a, mut b, mut short) = (sealed, sealed, [0u8; 31]);
        let mut jobs = [OpenJob::new(&mut a), OpenJob::new(&mut b), OpenJob::new(&mut short)];
        jobs[0].result = Opened::Refused(Refusal::Replay);
        RingAead.open(&key, &mut jobs);
        assert_eq!(jobs[0].result, Opened::Refused(Refusal::Replay));
        assert_eq!(jobs[1].plaintext(), Some(&b"ping"[..]));
        assert_eq!(jobs[2].result, Opened::Refused(Refusal::Malformed));
    }
}

//! The hash functions of the handshake: BLAKE2s, its keyed form as MAC, HMAC as key derivation, and the AEAD of handshake fields.

use blake2::digest::consts::U16;
use blake2::digest::{FixedOutput, KeyInit, Mac, Update};
use blake2::{Blake2s256, Blake2sMac, Digest};
use hmac::SimpleHmac;
use ring::aead::Aad;
use zeroize::Zeroizing;

use crate::aead::ring_backend::{nonce, ring_key};

/// A 32-byte secret, zeroed when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// BLAKE2s-256 of the parts one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// BLAKE2s keyed with up to 32 bytes, 16 bytes of output: `mac1`, `mac2`, and the cookie.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut state = <Blake2sMac<U16> as KeyInit>::new_from_slice(key).expect("BLAKE2s takes keys of up to 32 bytes");
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    let mut state = <SimpleHmac<Blake2s256> as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        Mac::update(&mut state, part);
    }
    Secret::new(state.finalize_fixed().into())
}

/// The paper's KDF1, KDF2, KDF3: the first `N` blocks of HKDF with BLAKE2s.
pub(crate) fn derive<const N: usize>(key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let extracted = hmac(key, &[input]);
    let mut previous: Option<Secret> = None;
    std::array::from_fn(|i| {
        let number = [i as u8 + 1];
        let block = match &previous {
            None => hmac(&extracted, &[&number]),
            Some(before) => hmac(&extracted, &[&before[..], &number]),
        };
        previous = Some(block.clone());
        block
    })
}

/// Seals a handshake field (counter 0) into `out`, which is 16 bytes longer.
pub(crate) fn seal_field(key: &Secret, additional: &[u8], plaintext: &[u8], out: &mut [u8]) {
    let (body, tag_room) = out.split_at_mut(plaintext.len());
    body.copy_from_slice(plaintext);
    let tag = ring_key(key)
        .seal_in_place_separate_tag(nonce(0), Aad::from(additional), body)
        .expect("a handshake field is short");
    tag_room.copy_from_slice(tag.as_ref());
}

/// Opens a handshake field of `N` bytes; `None` when its tag does not fit.
pub(crate) fn open_field<const N: usize>(key: &Secret, additional: &[u8], sealed: &[u8]) -> Option<[u8; N]> {
    let mut buffer = sealed.to_vec();
    let plaintext = ring_key(key).open_in_place(nonce(0), Aad::from(additional), &mut buffer).ok()?;
    (&*plaintext).try_into().ok()
}

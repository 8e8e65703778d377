//! XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), the cipher of WireGuard's cookie reply.

use ring::aead::{Aad, Nonce};
use zeroize::Zeroizing;

use super::chacha::hchacha20;
use super::ring_backend::ring_key;

fn derive(key: &[u8; 32], nonce: &[u8; 24]) -> (Zeroizing<[u8; 32]>, Nonce) {
    let mut head = [0u8; 16];
    head.copy_from_slice(&nonce[..16]);
    let mut tail = [0u8; 12];
    tail[4..].copy_from_slice(&nonce[16..]);
    (Zeroizing::new(hchacha20(key, &head)), Nonce::assume_unique_for_key(tail))
}

/// Seals `plaintext`; the answer is the ciphertext with its 16-byte tag.
pub fn seal(key: &[u8; 32], nonce: &[u8; 24], additional: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let (subkey, nonce) = derive(key, nonce);
    let mut out = plaintext.to_vec();
    ring_key(&subkey)
        .seal_in_place_append_tag(nonce, Aad::from(additional), &mut out)
        .expect("a cookie is far below ChaCha20's 256 GiB");
    out
}

/// Opens ciphertext and tag; `None` when the tag does not fit.
pub fn open(key: &[u8; 32], nonce: &[u8; 24], additional: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (subkey, nonce) = derive(key, nonce);
    let mut out = sealed.to_vec();
    let len = ring_key(&subkey).open_in_place(nonce, Aad::from(additional), &mut out).ok()?.len();
    out.truncate(len);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drafts_example_seals_to_its_bytes() {
        // Appendix A.3.1 of the draft.
        let key: [u8; 32] = std::array::from_fn(|i| 0x80 + i as u8);
        let nonce: [u8; 24] = std::array::from_fn(|i| 0x40 + i as u8);
        let additional = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let text = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
        let sealed = seal(&key, &nonce, &additional, text);
        assert_eq!(sealed[..8], [0xbd, 0x6d, 0x17, 0x9d, 0x3e, 0x83, 0xd4, 0x3b]);
        assert_eq!(
            sealed[text.len()..],
            [0xc0, 0x87, 0x59, 0x24, 0xc1, 0xc7, 0x98, 0x79, 0x47, 0xde, 0xaf, 0xd8, 0x78, 0x0a, 0xcf, 0x49]
        );
        assert_eq!(open(&key, &nonce, &additional, &sealed).as_deref(), Some(&text[..]));
        assert_eq!(open(&key, &nonce, b"other", &sealed), None);
        assert_eq!(open(&key, &nonce, &additional, &sealed[..7]), None);
    }
}

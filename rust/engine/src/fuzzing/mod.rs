//! Fuzz targets: every parser of bytes that a stranger, a peer, a relay or the kernel may send, with what must hold after.
//!
//! A target takes any bytes and panics when a promise is broken. `make fuzz` searches for such bytes, guided by coverage;
//! `cargo test` runs each target over its seeds and over what `rust/fuzz/corpus/<target>` keeps (a finding stays there).

mod derp;
mod front;
mod packets;
mod tables;
mod wireguard;

/// One parser, its seeds, and its name as `make fuzz` shows it.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "derp_client", run: derp::client, seeds: derp::client_seeds },
    Target { name: "derp_relay", run: derp::relay, seeds: derp::relay_seeds },
    Target { name: "front_head", run: front::head, seeds: front::head_seeds },
    Target { name: "front_first_bytes", run: front::first_bytes, seeds: front::first_bytes_seeds },
    Target { name: "front_stun", run: front::stun, seeds: front::stun_seeds },
    Target { name: "udp_demultiplex", run: packets::demultiplex, seeds: packets::demultiplex_seeds },
    Target { name: "wireguard", run: wireguard::sessions, seeds: wireguard::sessions_seeds },
    Target { name: "ip_headers", run: packets::headers, seeds: packets::headers_seeds },
    Target { name: "packet_filter", run: tables::filter, seeds: tables::filter_seeds },
    Target { name: "routes", run: tables::routes, seeds: tables::routes_seeds },
    Target { name: "tun_split", run: packets::split, seeds: packets::split_seeds },
    Target { name: "tun_coalesce", run: packets::coalesce, seeds: packets::coalesce_seeds },
];

/// A target by its name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Choices read from a fuzzer's bytes; when they are used up, every number is 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// The next `len` bytes, or as many as there are.
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece whose length comes first.
    fn piece(&mut self) -> &'a [u8] {
        let len = usize::from(self.word());
        self.take(len)
    }

    fn number(&mut self) -> u128 {
        let mut bytes = [0u8; 16];
        let taken = self.take(16);
        bytes[..taken.len()].copy_from_slice(taken);
        u128::from_be_bytes(bytes)
    }
}

/// The other way round, for seeds: a piece with its length before it.
fn piece(bytes: &[u8]) -> Vec<u8> {
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_target_stands_its_seeds_and_what_was_found_before() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{} has no seeds", target.name);
            for seed in seeds {
                (target.run)(&seed);
            }
            let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
            for entry in std::fs::read_dir(kept).into_iter().flatten() {
                let path = entry.expect("a readable corpus").path();
                println!("{}", path.display());
                (target.run)(&std::fs::read(path).expect("a readable input"));
            }
        }
    }

    #[test]
    fn every_kept_input_belongs_to_a_target() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for entry in std::fs::read_dir(kept).into_iter().flatten() {
            let name = entry.expect("a readable corpus").file_name();
            assert!(target(&name.to_string_lossy()).is_some(), "no target is called {name:?}");
        }
    }
}

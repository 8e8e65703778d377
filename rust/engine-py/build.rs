//! Stamps the binary with the hash of the sources it was built from, so that a checkout can tell a stale one.
//!
//! `src/buri/engine/__init__.py` computes the same hash: SHA-256 over each file's path, length and bytes, paths sorted.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "toml") {
            files.push(path);
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    // Asked when it runs, not when it was compiled: a target directory may be shared by checkouts.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").ok_or(std::io::ErrorKind::NotFound)?;
    let root = Path::new(&here).join("../..").canonicalize()?;
    let mut files = vec![root.join("Cargo.toml"), root.join("Cargo.lock")];
    collect(&root.join("rust"), &mut files)?;
    let mut named = Vec::new();
    for path in files {
        let name = path.strip_prefix(&root).map_err(std::io::Error::other)?.to_string_lossy().replace('\\', "/");
        named.push((name, path));
    }
    named.sort();
    let mut hash = Sha256::new();
    for (name, path) in &named {
        // An sdist may leave out what only the workspace's other members need.
        let Ok(bytes) = fs::read(path) else { continue };
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(&bytes);
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-changed={}", root.join("rust").display());
    let mut text = String::new();
    for byte in hash.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    println!("cargo::rustc-env=BURI_SOURCE_HASH={text}");
    Ok(())
}

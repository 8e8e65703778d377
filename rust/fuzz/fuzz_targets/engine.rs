//! All of the engine's targets in one program: BURI_FUZZ_TARGET says which. With BURI_FUZZ_SEEDS it writes every target's
//! seeds below that directory and ends.

#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use buri_engine::fuzzing::{target, Target, TARGETS};
use libfuzzer_sys::fuzz_target;

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("BURI_FUZZ_TARGET").unwrap_or_default();
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        target(&name).unwrap_or_else(|| panic!("BURI_FUZZ_TARGET={name:?} is none of {names:?}"))
    })
}

fn write_seeds(directory: &Path) -> std::io::Result<()> {
    for target in TARGETS {
        let place = directory.join(target.name);
        std::fs::create_dir_all(&place)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(place.join(format!("seed{number}")), seed)?;
        }
    }
    Ok(())
}

fuzz_target!(
    init: {
        if let Some(directory) = std::env::var_os("BURI_FUZZ_SEEDS") {
            write_seeds(Path::new(&directory)).expect("the seeds can be written");
            std::process::exit(0);
        }
        chosen();
    },
    |data: &[u8]| (chosen().run)(data)
);

//! The thin PyO3 face: values in, values out, nothing decided here.

use pyo3::prelude::*;

mod engine;
mod errors;
mod front;

#[pymodule(gil_used = false)]
mod _engine {
    use super::*;

    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::front::FrontDoor;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("SOURCE_HASH", env!("BURI_SOURCE_HASH"))
    }
}

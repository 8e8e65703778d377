//! The thin PyO3 face: values in, values out, nothing decided here.

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
mod _engine {}

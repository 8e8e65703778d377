//! The engine's refusals as classes of src/buri/core/errors.py, each with a sentence and what to do next.

use buri_engine::shell::{StartError, Stopped};
use buri_engine::tun::OpenError;
use buri_engine::udp::BindError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An error of the named class of buri.core.errors.
pub fn raise(py: Python<'_>, class: &str, message: &str, remedy: &str) -> PyErr {
    let made = || -> PyResult<PyErr> {
        let class = py.import("buri.core.errors")?.getattr(class)?;
        let named = PyDict::new(py);
        named.set_item("remedy", remedy)?;
        Ok(PyErr::from_value(class.call((message,), Some(&named))?))
    };
    made().unwrap_or_else(|error| error)
}

pub fn from_start(py: Python<'_>, error: &StartError) -> PyErr {
    match error {
        StartError::Tun(error) => from_tun(py, error),
        StartError::Udp(error) => from_udp(py, error),
        StartError::Other(error) => {
            raise(py, "SystemFault", &format!("The packet engine could not be started ({error})."), "")
        }
    }
}

pub fn from_stopped(py: Python<'_>, stopped: &Stopped) -> PyErr {
    raise(py, "StateError", &stopped.0, "")
}

fn from_tun(py: Python<'_>, error: &OpenError) -> PyErr {
    match error {
        OpenError::Missing(error) => raise(
            py,
            "SystemFault",
            &format!("This system has no TUN device: /dev/net/tun cannot be opened ({error})."),
            "Load the driver (`modprobe tun`), or in a container pass `--device /dev/net/tun`.",
        ),
        OpenError::NotPermitted(error) => raise(
            py,
            "NotPermittedError",
            &format!("The system does not permit a TUN device ({error})."),
            "Run as root, or give the process CAP_NET_ADMIN.",
        ),
        OpenError::NameTaken(name) => raise(
            py,
            "InUseError",
            &format!("The interface {name} belongs to another program."),
            "Stop that program, or choose another name with --tun.",
        ),
        OpenError::BadName(name) => raise(
            py,
            "ConfigError",
            &format!("{name:?} cannot be an interface's name."),
            "Choose one of 1 to 15 bytes without a slash.",
        ),
        OpenError::Other(what, error) => {
            raise(py, "SystemFault", &format!("The TUN device could not be set up: {what}: {error}."), "")
        }
    }
}

fn from_udp(py: Python<'_>, error: &BindError) -> PyErr {
    match error {
        BindError::MarkNotPermitted(error) => raise(
            py,
            "NotPermittedError",
            &format!("The system does not permit marking packets ({error})."),
            "Run as root, or give the process CAP_NET_ADMIN.",
        ),
        BindError::PortsTaken(port) => raise(
            py,
            "InUseError",
            &format!("UDP port {port} and all tried above it are taken."),
            "Choose another with --port (0: any).",
        ),
        BindError::Other(error) => raise(py, "SystemFault", &format!("No UDP socket could be opened ({error})."), ""),
    }
}

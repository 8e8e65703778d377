//! Class `FrontDoor`: src/buri/engine/frontdoor.py turns frontport.py's structs into what is read here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;

use buri_engine::front::{self, FrontConfig, FrontError};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use zeroize::Zeroizing;

type Address = (String, u16);
type PlainStats<'py> = (Vec<(&'static str, u64)>, Vec<Bound<'py, PyBytes>>);

/// One front door's thread.
#[pyclass(frozen, module = "buri.engine._engine")]
pub struct FrontDoor(Mutex<front::FrontDoor>);

#[pymethods]
impl FrontDoor {
    #[new]
    fn new(
        py: Python<'_>,
        listen: Vec<Address>,
        stun: Vec<Address>,
        certificate: Option<(Vec<u8>, Vec<u8>)>,
        relay_key: Option<[u8; 32]>,
        handoff: Option<PathBuf>,
    ) -> PyResult<FrontDoor> {
        let config = FrontConfig {
            listen: listen.iter().map(address).collect::<PyResult<_>>()?,
            stun: stun.iter().map(address).collect::<PyResult<_>>()?,
            certificate: certificate.map(|(chain, key)| (chain, Zeroizing::new(key))),
            relay_key: relay_key.map(Zeroizing::new),
            handoff,
        };
        py.detach(|| front::FrontDoor::start(config)).map(|door| FrontDoor(Mutex::new(door))).map_err(|error| {
            match error {
                // errno and address: Python's side chooses class and words.
                FrontError::Bind(address, error) => {
                    PyOSError::new_err((error.raw_os_error().unwrap_or(0), error.to_string(), address.to_string()))
                }
                FrontError::System(error) => PyOSError::new_err((error.raw_os_error().unwrap_or(0), error.to_string())),
                FrontError::Certificate(phrase) => PyValueError::new_err(phrase),
            }
        })
    }

    fn listening(&self) -> PyResult<Vec<Address>> {
        Ok(self.lock()?.listening().iter().map(plain).collect())
    }

    fn stun_listening(&self) -> PyResult<Vec<Address>> {
        Ok(self.lock()?.stun_listening().iter().map(plain).collect())
    }

    fn set_certificate(&self, chain_pem: &[u8], key_pem: &[u8]) -> PyResult<()> {
        self.lock()?.set_certificate(chain_pem, key_pem).map_err(PyValueError::new_err)
    }

    fn admit_all(&self) -> PyResult<()> {
        self.lock()?.admit_all();
        Ok(())
    }

    fn admit(&self, keys: Vec<[u8; 32]>) -> PyResult<()> {
        self.lock()?.admit(keys);
        Ok(())
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<PlainStats<'py>> {
        let stats = py.detach(|| self.lock().map(|door| door.stats()))?;
        let (counters, keys) = stats.ok_or_else(|| PyRuntimeError::new_err("the front door has stopped"))?;
        Ok((counters, keys.iter().map(|key| PyBytes::new(py, key)).collect()))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.lock().map(|mut door| door.close()))
    }
}

impl FrontDoor {
    fn lock(&self) -> PyResult<std::sync::MutexGuard<'_, front::FrontDoor>> {
        self.0.lock().map_err(|_| PyRuntimeError::new_err("the front door failed"))
    }
}

fn address((host, port): &Address) -> PyResult<SocketAddr> {
    let ip: IpAddr = host.parse().map_err(|_| PyValueError::new_err(format!("{host:?} is not an IP address")))?;
    Ok(SocketAddr::new(ip, *port))
}

fn plain(address: &SocketAddr) -> Address {
    (address.ip().to_string(), address.port())
}

//! The front door: the public TCP listeners of a server or relay, its DERP relay, and its STUN responder.
//!
//! `door` is the handle and `turn` the thread's loop; `connection` one client from its first byte on; `head` reads a request's
//! head and answers what is answered here; `handoff` gives any other connection whole to Python; `tls` holds the certificate;
//! `stun` answers binding requests; `sockets` opens listeners.

mod connection;
mod door;
mod handoff;
mod head;
mod sockets;
mod stun;
mod tls;
mod turn;

pub use door::{FrontConfig, FrontDoor, FrontError, FrontStats};

/// What the fuzz targets drive without sockets.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed {
    use std::net::SocketAddr;
    use std::sync::Arc;

    pub(crate) use super::head::{end, Head, Verdict};
    use super::{stun, tls};

    /// The answer to a datagram.
    pub(crate) fn stun(request: &[u8], source: SocketAddr) -> Option<([u8; 44], usize)> {
        stun::respond(request, source)
    }

    /// A listener's TLS settings with this certificate.
    pub(crate) fn tls(chain_pem: &[u8], key_pem: &[u8]) -> Result<Arc<rustls::ServerConfig>, String> {
        tls::config(Arc::new(tls::Certificates::new(chain_pem, key_pem, None)?))
    }
}

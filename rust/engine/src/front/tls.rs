//! The listener's TLS: a certificate that can be swapped while running, and the relay's metacert appended to its chain.

use std::sync::{Arc, Mutex};

use rcgen::{date_time_ymd, CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber, PKCS_ED25519};
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::derp::frames::Key;

/// DERP's protocol version; the metacert's serial number says it.
const PROTOCOL_VERSION: u64 = 2;

/// The chain in force, and what is appended to each.
#[derive(Debug)]
pub(super) struct Certificates {
    current: Mutex<Arc<CertifiedKey>>,
    metacert: Option<CertificateDer<'static>>,
}

impl Certificates {
    /// Read a PEM chain and key; with a relay's public key its metacert comes along. Errors are one phrase.
    pub fn new(chain_pem: &[u8], key_pem: &[u8], relay: Option<&Key>) -> Result<Certificates, String> {
        let metacert = relay.map(metacert).transpose()?;
        let current = Mutex::new(Arc::new(load(chain_pem, key_pem, metacert.as_ref())?));
        Ok(Certificates { current, metacert })
    }

    /// Use another chain for connections from now on.
    pub fn set(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), String> {
        let loaded = Arc::new(load(chain_pem, key_pem, self.metacert.as_ref())?);
        *self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = loaded;
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)))
    }
}

/// The listener's TLS settings: HTTP/1.1 alone, since upgrades need it; AES-128 first, the cheapest where AES is in hardware.
pub(super) fn config(certificates: Arc<Certificates>) -> Result<Arc<ServerConfig>, String> {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256 | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        )
    });
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    Ok(Arc::new(config))
}

fn load(chain_pem: &[u8], key_pem: &[u8], metacert: Option<&CertificateDer<'static>>) -> Result<CertifiedKey, String> {
    let mut chain = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificate does not parse ({error})"))?;
    if chain.is_empty() {
        return Err("the certificate's file holds no certificate".to_owned());
    }
    chain.extend(metacert.cloned());
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| format!("the certificate's key does not parse ({error})"))?;
    let loaded = CertifiedKey::from_der(chain, key, &ring::default_provider());
    loaded.map_err(|error| format!("certificate and key do not fit ({error})"))
}

/// A certificate that only carries the relay's key, so that clients need not wait to hear it (upstream: `derpserver`, MetaCert).
fn metacert(relay: &Key) -> Result<CertificateDer<'static>, String> {
    let mut hex = String::with_capacity(64);
    for byte in relay {
        hex.push_str(&format!("{byte:02x}"));
    }
    let problem = |error: rcgen::Error| format!("the relay's metacert cannot be made ({error})");
    let mut params = CertificateParams::new(Vec::new()).map_err(problem)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("derpkey{hex}"));
    params.serial_number = Some(SerialNumber::from(PROTOCOL_VERSION));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(problem)?;
    Ok(params.self_signed(&key).map_err(problem)?.der().clone())
}

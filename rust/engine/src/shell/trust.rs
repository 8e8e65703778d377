//! Whom a relay's certificate must convince: the system's roots, a pin, another name, or nobody (wire reference 1d).

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature, CryptoProvider};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use subtle::ConstantTimeEq;

const PIN_PREFIX: &str = "sha256-raw:";

/// How a certificate is judged.
enum Rule {
    /// By the roots, for this name instead of the one dialled (None: for that one).
    Roots {
        verifier: Arc<WebPkiServerVerifier>,
        name: Option<ServerName<'static>>,
    },
    /// The leaf has this SHA-256.
    Pin([u8; 32]),
    Anything,
}

/// The client configuration for one relay, or one phrase why there is none.
pub(super) fn config(certificate: &str, insecure: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let rule = if insecure {
        Rule::Anything
    } else if let Some(hex) = certificate.strip_prefix(PIN_PREFIX) {
        Rule::Pin(parse_pin(hex).ok_or("the pin of its certificate is not 64 hexadecimal digits")?)
    } else {
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(), Arc::clone(&provider))
            .build()
            .map_err(|error| format!("this system has no usable root certificates ({error})"))?;
        let name = match certificate {
            "" => None,
            name => Some(
                ServerName::try_from(name.to_owned()).map_err(|_| "the name for its certificate is no host name")?,
            ),
        };
        Rule::Roots { verifier, name }
    };
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up ({error})"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { rule, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn parse_pin(hex: &str) -> Option<[u8; 32]> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    let mut pin = [0u8; 32];
    for (byte, pair) in pin.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(pin)
}

/// The system's roots, and Mozilla's beside them for systems that have none; read once.
fn roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(native.certs);
        if store.is_empty() {
            store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        Arc::new(store)
    }))
}

struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        dialled: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.rule {
            Rule::Roots { verifier, name } => {
                verifier.verify_server_cert(leaf, intermediates, name.as_ref().unwrap_or(dialled), ocsp, now)
            }
            Rule::Pin(pin) => {
                let seen = ring::digest::digest(&ring::digest::SHA256, leaf);
                if bool::from(seen.as_ref().ct_eq(pin)) {
                    Ok(ServerCertVerified::assertion())
                } else {
                    Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
                }
            }
            Rule::Anything => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! The front door: a stranger's first bytes, the request's head, and STUN.

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use rustls::{ServerConfig, ServerConnection};

use crate::front::fuzzed::{self, Head, Verdict};
use crate::os::stream::{Scratch, Stream};

const TLS_RECORD: u8 = 0x16;

/// A head: whatever it says, the answer is whole and carries none of the asker's line breaks.
pub fn head(data: &[u8]) {
    judge(data, true);
}

fn judge(bytes: &[u8], relay: bool) {
    let Some(end) = fuzzed::end(bytes) else { return };
    let Some(head) = Head::parse(&bytes[..end]) else { return };
    match head.judge(relay.then_some("abcd")) {
        Verdict::Answer(answer) => {
            let text = std::str::from_utf8(&answer).expect("answers are text");
            let (lines, _) = text.split_once("\r\n\r\n").expect("a whole answer");
            assert!(lines.starts_with("HTTP/1.1 "));
            assert!(lines.contains("\r\nConnection: close"));
            assert!(lines.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
            assert!(lines.split("\r\n").count() <= 6, "a header was smuggled in");
        }
        Verdict::Relay(answer) => assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 101 ")),
        Verdict::Handoff => {}
    }
}

pub fn head_seeds() -> Vec<Vec<u8>> {
    [
        "GET /derp HTTP/1.1\r\nHost: relay.example\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n",
        "GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\nmore",
        "GET /derp HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "HEAD /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /derp/latency-check?x#y HTTP/1.0\r\n\r\n",
        "GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: a.b-c_d\r\n\r\n",
        "GET /robots.txt HTTP/1.1\r\n\r\n",
        "POST /ts2021 HTTP/1.1\r\nUpgrade: tailscale-control-protocol\r\n\r\n",
        "\r\n\r\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn tls() -> &'static Arc<ServerConfig> {
    static TLS: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    TLS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(vec!["relay.example".to_owned()]).expect("a certificate");
        let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fuzzed::tls(chain.as_bytes(), key.as_bytes()).expect("a configuration")
    })
}

/// A connection as the front door takes it in: TLS or plain by the first byte, then a head.
pub fn first_bytes(data: &[u8]) {
    use std::io::Write;
    let (ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.set_nonblocking(true).expect("a flag");
    theirs.set_nonblocking(true).expect("a flag");
    let given = theirs.write(data).unwrap_or(0);
    let mut stream = Stream::open(ours.into());
    let Ok(first) = stream.peek() else { return assert_eq!(given, 0) };
    assert_eq!(first, data.first().copied());
    if first == Some(TLS_RECORD) {
        stream.begin_tls(ServerConnection::new(Arc::clone(tls())).expect("a session"));
    }
    let mut bytes = Vec::new();
    let mut scratch = Scratch::default();
    while stream.read(&mut scratch, |plain| bytes.extend_from_slice(plain)).is_ok() {
        if stream.flush().is_err() || bytes.len() >= given || first == Some(TLS_RECORD) {
            break;
        }
    }
    if first != Some(TLS_RECORD) {
        assert_eq!(bytes, data[..given]);
    }
    judge(&bytes, false);
    stream.finish();
}

pub fn first_bytes_seeds() -> Vec<Vec<u8>> {
    use rustls::client::danger::ServerCertVerifier;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    let verifier: Arc<dyn ServerCertVerifier> = rustls::client::WebPkiServerVerifier::builder_with_provider(
        Arc::new(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }),
        Arc::new(rustls::crypto::ring::default_provider()),
    )
    .build()
    .expect("a verifier");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), "relay.example".try_into().expect("a name"))
        .expect("a session")
        .write_tls(&mut hello)
        .expect("written to memory");
    let mut seeds = head_seeds();
    seeds.push(hello);
    seeds.push(vec![TLS_RECORD, 3, 1, 0, 1, 0]);
    seeds
}

/// A datagram to the STUN responder: the answer is never longer than a small multiple, and tells the asker's address.
pub fn stun(data: &[u8]) {
    for source in ["192.0.2.1:32853", "[2001:db8::1]:7"] {
        let source: SocketAddr = source.parse().expect("an address");
        if let Some((answer, len)) = fuzzed::stun(data, source) {
            assert_eq!(len, if source.is_ipv4() { 32 } else { 44 });
            assert_eq!(answer[4..20], data[4..20]);
            assert_eq!(answer[26..28], (source.port() ^ 0x2112).to_be_bytes());
        }
    }
}

pub fn stun_seeds() -> Vec<Vec<u8>> {
    let mut bare = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    bare.extend_from_slice(b"abcdefghijkl");
    let mut software = bare.clone();
    software[3] = 20;
    software.extend_from_slice(b"\x80\x22\0\x08tailnode\x80\x28\0\x04abcd");
    vec![bare, software]
}

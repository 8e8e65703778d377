//! The handle of a running front door: what Python holds.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use zeroize::Zeroizing;

use super::tls::{self, Certificates};
use super::turn::Turn;
use super::{sockets, stun::Responder};
use crate::derp::frames::Key;
use crate::derp::Hub;
use crate::os::poller::EventFd;

const STATS_TIMEOUT: Duration = Duration::from_secs(2);

/// What a front door is started with; see src/buri/engine/frontport.py.
pub struct FrontConfig {
    pub listen: Vec<SocketAddr>,
    pub stun: Vec<SocketAddr>,
    /// Chain and key, PEM.
    pub certificate: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    pub relay_key: Option<Zeroizing<Key>>,
    pub handoff: Option<PathBuf>,
}

/// Why a front door cannot be opened.
#[derive(Debug)]
pub enum FrontError {
    Bind(SocketAddr, io::Error),
    Certificate(String),
    System(io::Error),
}

/// Named counters, and the keys of the relay's clients.
pub type FrontStats = (Vec<(&'static str, u64)>, Vec<Key>);

pub(super) enum Command {
    AdmitAll,
    Admit(Vec<Key>),
    Stats(Sender<FrontStats>),
    Stop,
}

/// A running front door; closing it (or dropping it) ends every connection.
pub struct FrontDoor {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    certificates: Option<Arc<Certificates>>,
    listening: Vec<SocketAddr>,
    stun_listening: Vec<SocketAddr>,
    thread: Option<JoinHandle<()>>,
}

impl FrontDoor {
    pub fn start(config: FrontConfig) -> Result<FrontDoor, FrontError> {
        // Refused: then with as many clients as there are descriptors.
        let _ = sockets::raise_descriptor_limit();
        let entropy = ring::rand::SystemRandom::new();
        let hub = config.relay_key.as_ref().map(|key| {
            Hub::new(
                **key,
                Box::new(move |buffer| {
                    // Without entropy a nonce could repeat: better no relay than that.
                    ring::rand::SecureRandom::fill(&entropy, buffer).expect("the system gives random bytes");
                }),
            )
        });
        let certificates = match &config.certificate {
            Some((chain, key)) => {
                let relay = hub.as_ref().map(Hub::public_key);
                Some(Arc::new(Certificates::new(chain, key, relay.as_ref()).map_err(FrontError::Certificate)?))
            }
            None => None,
        };
        let tls = certificates.clone().map(tls::config).transpose().map_err(FrontError::Certificate)?;
        let open = |address: &SocketAddr| sockets::listen(*address).map_err(|error| FrontError::Bind(*address, error));
        let listeners = config.listen.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let open =
            |address: &SocketAddr| sockets::listen_stun(*address).map_err(|error| FrontError::Bind(*address, error));
        let stun = config.stun.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let listening = listeners.iter().map(sockets::local).collect::<Result<_, _>>().map_err(FrontError::System)?;
        let stun_listening = stun.iter().map(sockets::local).collect::<Result<_, _>>().map_err(FrontError::System)?;
        let wake = Arc::new(EventFd::new().map_err(FrontError::System)?);
        let (commands, inbox): (Sender<Command>, Receiver<Command>) = mpsc::channel();
        let stun = stun.into_iter().map(Responder::new).collect();
        let mut turn = Turn::new(listeners, stun, hub, tls, config.handoff, inbox, Arc::clone(&wake))
            .map_err(FrontError::System)?;
        let thread = std::thread::Builder::new()
            .name("buri-front".to_owned())
            .spawn(move || turn.run())
            .map_err(FrontError::System)?;
        Ok(FrontDoor { commands, wake, certificates, listening, stun_listening, thread: Some(thread) })
    }

    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    pub fn stun_listening(&self) -> &[SocketAddr] {
        &self.stun_listening
    }

    /// Swap the certificate for connections from now on; an error is one phrase.
    pub fn set_certificate(&self, chain_pem: &[u8], key_pem: &[u8]) -> Result<(), String> {
        match &self.certificates {
            Some(certificates) => certificates.set(chain_pem, key_pem),
            None => Err("this front door was opened without TLS".to_owned()),
        }
    }

    pub fn admit_all(&self) {
        self.send(Command::AdmitAll);
    }

    pub fn admit(&self, keys: Vec<Key>) {
        self.send(Command::Admit(keys));
    }

    /// None when the thread has ended.
    pub fn stats(&self) -> Option<FrontStats> {
        let (reply, answer) = mpsc::channel();
        self.send(Command::Stats(reply));
        answer.recv_timeout(STATS_TIMEOUT).ok()
    }

    pub fn close(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.send(Command::Stop);
            // A thread that panicked has closed everything by unwinding.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) {
        // A thread that has ended needs no orders.
        let _ = self.commands.send(command);
        self.wake.signal();
    }
}

impl Drop for FrontDoor {
    fn drop(&mut self) {
        self.close();
    }
}

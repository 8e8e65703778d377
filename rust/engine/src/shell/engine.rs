//! The handle that Python holds: a mailbox in, a queue of events out, and the thread between them.

use std::io;
use std::os::fd::RawFd;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::config::{Config, Key};
use super::events::{Event, EventQueue};
use super::node::Node;
use super::orders::Order;
use crate::os::poller::EventFd;
use crate::tun::OpenError;
use crate::udp::BindError;

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const STATS_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an engine did not start.
#[derive(Debug)]
pub enum StartError {
    Tun(OpenError),
    Udp(BindError),
    Other(io::Error),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Other(error)
    }
}

/// The thread has ended; the text says why.
#[derive(Debug)]
pub struct Stopped(pub String);

/// One peer's counters; ages in seconds.
#[derive(Clone, Debug)]
pub struct PeerStats {
    pub key: Key,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub handshake_age_s: Option<f64>,
    pub rx_age_s: Option<f64>,
    pub tx_age_s: Option<f64>,
}

#[derive(Clone, Default, Debug)]
pub struct Stats {
    pub peers: Vec<PeerStats>,
    pub counters: Vec<(&'static str, u64)>,
}

/// What waits for the thread.
#[derive(Default)]
pub struct Letters {
    pub orders: Vec<Vec<Order>>,
    pub stats: Vec<SyncSender<Stats>>,
}

/// What the two threads share.
pub struct Shared {
    letters: Mutex<Letters>,
    /// Letters wait: lets the thread look without a lock.
    waiting: AtomicBool,
    stop: AtomicBool,
    /// The thread has ended, with this reason.
    ended: Mutex<Option<String>>,
    pub wake: EventFd,
    pub events: EventQueue,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Plain values that are whole after every statement: a panic elsewhere spoils nothing in them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(event_capacity: usize) -> io::Result<Shared> {
        Ok(Shared {
            letters: Mutex::default(),
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ended: Mutex::default(),
            wake: EventFd::new()?,
            events: EventQueue::new(event_capacity)?,
        })
    }

    pub fn should_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// What has come in since the last call; costs one swap when nothing has. Who is woken clears `wake` first, then looks.
    pub fn take_letters(&self) -> Option<Letters> {
        if !self.waiting.swap(false, Ordering::AcqRel) {
            return None;
        }
        Some(std::mem::take(&mut *lock(&self.letters)))
    }

    fn end(&self, reason: &str, fatal: bool) {
        *lock(&self.ended) = Some(reason.to_owned());
        if fatal {
            self.events.push_all(&mut vec![Event::Fatal(reason.to_owned())]);
        }
        // Who waits for statistics learns that none will come.
        lock(&self.letters).stats.clear();
    }
}

/// A running engine.
pub struct Engine {
    shared: Arc<Shared>,
    thread: Mutex<Option<(JoinHandle<()>, mpsc::Receiver<()>)>>,
}

impl Engine {
    /// Open the device and the sockets here, so that refusals are told at once; then start the thread.
    pub fn start(config: Config) -> Result<Engine, StartError> {
        let shared = Arc::new(Shared::new(config.event_capacity)?);
        let node = Node::open(config, Arc::clone(&shared))?;
        let (done_sender, done) = mpsc::sync_channel(1);
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("buri-engine".to_owned()).spawn(move || {
            run(node, &for_thread);
            // The receiver may have given up waiting; then nobody cares.
            let _ = done_sender.send(());
        })?;
        Ok(Engine { shared, thread: Mutex::new(Some((thread, done))) })
    }

    /// Queue a batch; it is applied whole, between two batches of packets.
    pub fn apply(&self, orders: Vec<Order>) -> Result<(), Stopped> {
        self.alive()?;
        lock(&self.shared.letters).orders.push(orders);
        self.ring();
        Ok(())
    }

    pub fn poll_events(&self, limit: usize) -> Vec<Event> {
        self.shared.events.take(limit)
    }

    /// Readable while events wait.
    pub fn fileno(&self) -> RawFd {
        self.shared.events.fileno()
    }

    /// Ask the thread for a copy of the counters, and wait for it.
    pub fn stats(&self) -> Result<Stats, Stopped> {
        let (sender, receiver) = mpsc::sync_channel(1);
        lock(&self.shared.letters).stats.push(sender);
        // Looked at after the push: a thread that ends in between clears what it finds there.
        self.alive()?;
        self.ring();
        match receiver.recv_timeout(STATS_TIMEOUT) {
            Ok(stats) => Ok(stats),
            Err(RecvTimeoutError::Disconnected) => Err(self.alive().err().unwrap_or_else(closed)),
            Err(RecvTimeoutError::Timeout) => Err(Stopped("The packet engine does not answer.".to_owned())),
        }
    }

    /// End the thread: it flushes, closes relays, and drops the device last. Waits two seconds at most.
    pub fn close(&self) {
        let Some((thread, done)) = lock(&self.thread).take() else { return };
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.signal();
        if done.recv_timeout(CLOSE_TIMEOUT).is_ok() {
            // A panic was caught and told inside the thread: nothing is left to learn from the result.
            let _ = thread.join();
        }
    }

    fn alive(&self) -> Result<(), Stopped> {
        match &*lock(&self.shared.ended) {
            Some(reason) => Err(Stopped(reason.clone())),
            None => Ok(()),
        }
    }

    fn ring(&self) {
        self.shared.waiting.store(true, Ordering::Release);
        self.shared.wake.signal();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

fn closed() -> Stopped {
    Stopped("The packet engine is closed.".to_owned())
}

/// Run the node until it is told to stop or cannot go on; a panic ends it like any other fault.
fn run(mut node: Node, shared: &Shared) {
    let outcome = catch_unwind(AssertUnwindSafe(|| node.run()));
    match outcome {
        Ok(Ok(())) => shared.end(&closed().0, false),
        Ok(Err(reason)) => shared.end(&reason, true),
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            shared.end(&format!("The packet engine failed by a fault of its own: {text}"), true);
        }
    }
    // The node, and with it the device, goes only now: sockets and relays first, see its fields' order.
    drop(node);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use zeroize::Zeroizing;

    use super::super::config::Offloads;
    use super::*;

    fn engine() -> Engine {
        let offloads = Offloads { tun_tso: true, tun_uso: true, tun_gro: true, udp_gso: true, udp_gro: true };
        let config = Config {
            private_key: Zeroizing::new([7; 32]),
            tun_name: None,
            mtu: 1280,
            udp_port: 0,
            mark: 0,
            offloads,
            spin: Duration::ZERO,
            event_capacity: 16,
        };
        Engine::start(config).expect("sockets without an interface need no rights")
    }

    /// The next event, once the descriptor says that there is one.
    fn next_event(engine: &Engine) -> Event {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(event) = engine.poll_events(1).pop() {
                return event;
            }
            let mut poll = libc::pollfd { fd: engine.fileno(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd, as told.
            let ready = unsafe { libc::poll(&mut poll, 1, 10_000) };
            assert!(ready == 1 && Instant::now() < until, "no event came");
        }
    }

    #[test]
    fn a_panic_is_told_as_our_own_fault_and_ends_the_engine_alone() {
        let engine = engine();
        assert!(matches!(next_event(&engine), Event::Bound { .. }));
        engine.apply(vec![Order::Panic("the table caught fire")]).expect("a running engine");
        let Event::Fatal(reason) = next_event(&engine) else { panic!("another event than Fatal") };
        assert!(reason.contains("fault of its own") && reason.contains("the table caught fire"), "{reason}");
        assert_eq!(engine.apply(Vec::new()).expect_err("stopped").0, reason);
        assert_eq!(engine.stats().expect_err("stopped").0, reason);
        engine.close();
        engine.close();
    }

    #[test]
    fn who_waits_for_statistics_while_the_engine_fails_is_told() {
        let engine = engine();
        let (sender, receiver) = mpsc::sync_channel(1);
        lock(&engine.shared.letters).stats.push(sender);
        engine.apply(vec![Order::Panic("midway")]).expect("a running engine");
        assert!(matches!(receiver.recv_timeout(Duration::from_secs(10)), Err(RecvTimeoutError::Disconnected)));
    }

    #[test]
    fn a_closed_engine_says_so() {
        let engine = engine();
        assert!(engine.stats().expect("a running engine").counters.contains(&("handshakes_done", 0)));
        engine.close();
        assert!(engine.apply(Vec::new()).expect_err("closed").0.contains("closed"));
        assert!(engine.stats().expect_err("closed").0.contains("closed"));
    }
}

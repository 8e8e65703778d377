//! One stream connection, plain or TLS, without blocking. Bytes in, bytes out; what they mean is not known here.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, Connection, ServerConnection};
use rustls_pki_types::ServerName;

use super::{get_option, held_bytes, set_option, SockAddr};

/// What the kernel may hold unsent: more would only wait where it cannot be dropped.
const UNSENT_BYTES: libc::c_int = 128 << 10;
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_MS: libc::c_int = 15_000;
/// … and a relay sooner: who sends through it must come to another one while people still wait.
const RELAY_SILENCE_MS: libc::c_int = 4_000;
/// What fits into the least MTU of IPv6, both ways: a network that drops longer packets without a word must not stop the
/// connection that is left when it does, and no peer asks this of its kernel by itself. Costs 1 % of a link's rate.
pub(crate) const SEGMENT_BYTES: libc::c_int = 1220;

/// Ciphertext taken in by one call.
const READ_BYTES: usize = 256 << 10;
const PLAIN_BYTES: usize = 64 << 10;

/// Buffers that all streams of a thread share.
pub struct Scratch {
    cipher: Vec<u8>,
    plain: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { cipher: vec![0; READ_BYTES], plain: vec![0; PLAIN_BYTES] }
    }
}

pub struct Stream {
    fd: OwnedFd,
    tls: Option<Box<Connection>>,
    /// Without TLS: what the kernel has not taken yet, from `sent` on.
    out: Vec<u8>,
    sent: usize,
    /// Bytes that the kernel has taken so far: how a standstill shows.
    pub moved: u64,
}

impl Stream {
    /// A connection that is open already, plain until `begin_tls`.
    pub fn open(fd: OwnedFd) -> Stream {
        Stream { fd, tls: None, out: Vec::new(), sent: 0, moved: 0 }
    }

    /// Speak TLS as its server from the next byte on.
    pub fn begin_tls(&mut self, mut connection: ServerConnection) {
        connection.set_buffer_limit(None);
        self.tls = Some(Box::new(connection.into()));
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Bytes given that the kernel has not taken yet (plain connections only).
    pub fn waiting_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The first byte that waits, left where it is.
    pub fn peek(&self) -> io::Result<Option<u8>> {
        let mut byte = 0u8;
        // SAFETY: one writable byte.
        match unsafe { libc::recv(self.fd.as_raw_fd(), (&mut byte as *mut u8).cast(), 1, libc::MSG_PEEK) } {
            1 => Ok(Some(byte)),
            0 => Ok(None),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Bytes that the kernel has taken and the peer has not acknowledged.
    pub fn unacknowledged(&self) -> io::Result<usize> {
        held_bytes(&self.fd)
    }

    /// Say that nothing more will be written.
    pub fn shut_write(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        let _ = self.flush();
        // SAFETY: no pointers; a peer that is gone already needs no goodbye.
        unsafe { libc::shutdown(self.fd.as_raw_fd(), libc::SHUT_WR) };
    }

    /// Begin to connect. `tls` names whom to expect; None speaks plain.
    pub fn dial(
        to: SocketAddr,
        mark: u32,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> io::Result<Stream> {
        let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        // SAFETY: no pointers; the result is checked before it is owned.
        let raw = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        if mark != 0 {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_MARK, mark as libc::c_int)?;
        }
        set_option(&fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, SEGMENT_BYTES)?;
        tune(&fd)?;
        set_option(&fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, RELAY_SILENCE_MS)?;
        let tls = match tls {
            Some((config, name)) => {
                let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
                // What is given to it is bounded by whoever gives: see `idle`.
                connection.set_buffer_limit(None);
                Some(Box::new(connection.into()))
            }
            None => None,
        };
        let name = SockAddr::from(to);
        // SAFETY: pointer and length are those of `name`.
        if unsafe { libc::connect(fd.as_raw_fd(), name.as_ptr(), name.len()) } < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINPROGRESS) {
                return Err(error);
            }
        }
        Ok(Stream { fd, tls, out: Vec::new(), sent: 0, moved: 0 })
    }

    /// How the connecting ended, once the descriptor is writable.
    pub fn connected(&self) -> io::Result<()> {
        match get_option(&self.fd, libc::SOL_SOCKET, libc::SO_ERROR)? {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Whether everything given has left for the kernel, so that more may be given.
    pub fn idle(&self) -> bool {
        match &self.tls {
            Some(tls) => !tls.wants_write() && !tls.is_handshaking(),
            None => self.sent == self.out.len(),
        }
    }

    /// Whether the descriptor is to be watched for room.
    pub fn wants_write(&self) -> bool {
        match &self.tls {
            Some(tls) => tls.wants_write(),
            None => self.sent < self.out.len(),
        }
    }

    /// Give bytes to be sent; `flush` sends them.
    pub fn give(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes),
            None => {
                self.out.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Send what the kernel takes.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut socket = Socket(self.fd.as_raw_fd());
        while self.wants_write() {
            let result = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut socket),
                None => socket.write(&self.out[self.sent..]).inspect(|sent| self.sent += sent),
            };
            match result {
                Ok(sent) => self.moved += sent as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Take in what waits, once, and hand plaintext to `sink` piece by piece. The end of the stream is `UnexpectedEof`.
    pub fn read(&mut self, scratch: &mut Scratch, mut sink: impl FnMut(&mut [u8])) -> io::Result<()> {
        let got = match Socket(self.fd.as_raw_fd()).read(&mut scratch.cipher) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            // Interrupted: the descriptor is still readable, so the next turn comes back.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(())
            }
            Err(error) => return Err(error),
        };
        let Some(tls) = &mut self.tls else {
            sink(&mut scratch.cipher[..got]);
            return Ok(());
        };
        let mut cipher = &scratch.cipher[..got];
        while !cipher.is_empty() {
            tls.read_tls(&mut cipher)?;
            let state = tls.process_new_packets().map_err(io::Error::other)?;
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let take = left.min(scratch.plain.len());
                tls.reader().read_exact(&mut scratch.plain[..take])?;
                sink(&mut scratch.plain[..take]);
                left -= take;
            }
            if state.peer_has_closed() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Tell the other side that this is the end, as far as that can be done without waiting.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        // A peer that takes no more learns it from the closed connection.
        let _ = self.flush();
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// What every TCP connection of ours gets, dialled or accepted.
pub(crate) fn tune(fd: &OwnedFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, SILENCE_MS)?;
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, UNSENT_BYTES)
}

/// A borrowed descriptor with the standard traits.
struct Socket(RawFd);

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: pointer and length are those of `buffer`.
        let got = unsafe { libc::recv(self.0, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: pointer and length are those of `bytes`.
        let put = unsafe { libc::send(self.0, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        usize::try_from(put).map_err(|_| io::Error::last_os_error())
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        // SAFETY: struct msghdr is plain old data, for which zeroes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = parts.as_ptr().cast_mut().cast();
        message.msg_iovlen = parts.len() as _;
        // SAFETY: IoSlice has the layout of struct iovec, and the slices outlive the call.
        let put = unsafe { libc::sendmsg(self.0, &message, libc::MSG_NOSIGNAL) };
        usize::try_from(put).map_err(|_| io::Error::last_os_error())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

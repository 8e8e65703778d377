//! DERP as a client speaks it, without IO: bytes from the relay in, what they say out, bytes for it in a buffer.
//!
//! Order: HTTP upgrade, ServerKey, our ClientInfo, ServerInfo, then frames (wire reference 1d).

use crypto_box::aead::Aead;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use super::frames::{
    build_header, first_key, parse_header, push_frame, Key, CLIENT_INFO, GONE_NOT_HERE, HEADER_BYTES, KEY_BYTES, MAGIC,
    NONCE_BYTES, NOTE_PREFERRED, PEER_GONE, PING, PONG, RECV_PACKET, SEND_PACKET, SERVER_INFO, SERVER_KEY,
};

/// A problem's text; empty when the relay is well again.
const HEALTH: u8 = 0x14;

const LONGEST_FRAME_BYTES: usize = 1 << 20;
const LONGEST_HEAD_BYTES: usize = 16 << 10;
const PING_BYTES: usize = 8;
/// Answers that may wait for the relay.
const PONGS_BYTES: usize = 1 << 10;

/// What the relay said.
pub enum Heard<'a> {
    Up { server_key: Key },
    Packet { source: Key, packet: &'a [u8] },
    PeerGone { key: Key, was_here: bool },
    Health(&'a str),
}

#[derive(PartialEq, Eq)]
enum Phase {
    Upgrade,
    ServerKey,
    ServerInfo,
    Up,
}

pub struct Client {
    private: SecretKey,
    phase: Phase,
    server_key: Key,
    nonce: [u8; NONCE_BYTES],
    /// An unfinished head or frame.
    partial: Vec<u8>,
    /// For the relay, to be taken by the caller.
    pub output: Vec<u8>,
}

impl Client {
    /// `nonce` is 24 random bytes, used once.
    pub fn new(private: &Key, host: &str, nonce: [u8; NONCE_BYTES]) -> Client {
        let head = format!("GET /derp HTTP/1.1\r\nHost: {host}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n");
        Client {
            private: SecretKey::from(*private),
            phase: Phase::Upgrade,
            server_key: [0; 32],
            nonce,
            partial: Vec::new(),
            output: head.into_bytes(),
        }
    }

    pub fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// Ask the relay whether it lives: it answers a ping, whatever that says.
    pub fn ask(&mut self) {
        push_frame(&mut self.output, PING, &[&[0; PING_BYTES]]);
    }

    /// Take bytes in; an error is one phrase why this is no relay, or no longer one.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Heard<'_>)) -> Result<(), String> {
        if self.partial.is_empty() {
            let used = self.consume(bytes, sink)?;
            self.partial.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut partial = std::mem::take(&mut self.partial);
        partial.extend_from_slice(bytes);
        let used = self.consume(&partial, sink)?;
        partial.drain(..used);
        self.partial = partial;
        Ok(())
    }

    fn consume(&mut self, bytes: &[u8], sink: &mut impl FnMut(Heard<'_>)) -> Result<usize, String> {
        let mut at = 0;
        if self.phase == Phase::Upgrade {
            match self.upgrade(bytes)? {
                Some(used) => at = used,
                None => return Ok(0),
            }
        }
        while let Some((kind, len)) = parse_header(&bytes[at..]) {
            if len > LONGEST_FRAME_BYTES {
                return Err(format!("the relay announced a frame of {len} bytes"));
            }
            let start = at + HEADER_BYTES;
            let Some(body) = bytes.get(start..start + len) else { break };
            self.frame(kind, body, sink)?;
            at = start + len;
        }
        Ok(at)
    }

    fn upgrade(&mut self, bytes: &[u8]) -> Result<Option<usize>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return if bytes.len() > LONGEST_HEAD_BYTES {
                Err("the relay's HTTP answer has no end".to_owned())
            } else {
                Ok(None)
            };
        };
        let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        if words.next() != Some(b"101") {
            let line = String::from_utf8_lossy(&line[..line.len().min(100)]).into_owned();
            return Err(format!("the server there is no relay (it answered {line:?})"));
        }
        self.phase = Phase::ServerKey;
        Ok(Some(end + 4))
    }

    fn frame(&mut self, kind: u8, body: &[u8], sink: &mut impl FnMut(Heard<'_>)) -> Result<(), String> {
        match (&self.phase, kind) {
            (Phase::ServerKey, SERVER_KEY) => {
                let key = body
                    .strip_prefix(&MAGIC)
                    .and_then(first_key)
                    .copied()
                    .ok_or("the relay's first frame is malformed")?;
                self.server_key = key;
                self.introduce()?;
                self.phase = Phase::ServerInfo;
            }
            (Phase::ServerInfo, SERVER_INFO) => {
                let nonce: [u8; NONCE_BYTES] = body
                    .get(..24)
                    .and_then(|nonce| nonce.try_into().ok())
                    .ok_or("the relay's greeting is malformed")?;
                self.shared()
                    .decrypt(&nonce.into(), &body[NONCE_BYTES..])
                    .map_err(|_| "the relay's greeting does not open with its key")?;
                self.phase = Phase::Up;
                sink(Heard::Up { server_key: self.server_key });
            }
            (Phase::ServerKey | Phase::ServerInfo, _) => return Err("the relay does not greet as relays do".to_owned()),
            (_, RECV_PACKET) => {
                if let Some(&source) = first_key(body) {
                    sink(Heard::Packet { source, packet: &body[KEY_BYTES..] });
                }
            }
            (_, PEER_GONE) => {
                if let Some(&key) = first_key(body) {
                    sink(Heard::PeerGone { key, was_here: body.get(KEY_BYTES) != Some(&GONE_NOT_HERE) });
                }
            }
            (_, PING) => {
                // A relay that asks faster than it listens gets no answer.
                if let Some(payload) = body.get(..PING_BYTES).filter(|_| self.output.len() < PONGS_BYTES) {
                    push_frame(&mut self.output, PONG, &[payload]);
                }
            }
            (_, HEALTH) => sink(Heard::Health(std::str::from_utf8(body).unwrap_or("the relay reports a problem"))),
            // Keepalives only show that the relay lives; unknown frames are skipped as upstream skips them.
            _ => {}
        }
        Ok(())
    }

    fn shared(&self) -> SalsaBox {
        SalsaBox::new(&PublicKey::from(self.server_key), &self.private)
    }

    /// Say who we are, sealed so that only the relay learns it.
    fn introduce(&mut self) -> Result<(), String> {
        let sealed = self
            .shared()
            .encrypt(&self.nonce.into(), br#"{"version":2,"CanAckPings":true}"#.as_slice())
            .map_err(|_| "our greeting cannot be sealed")?;
        let public = self.private.public_key();
        push_frame(&mut self.output, CLIENT_INFO, &[public.as_bytes(), &self.nonce, &sealed]);
        Ok(())
    }
}

/// The head of a SendPacket frame: type, length, destination.
pub fn send_packet_head(to: &Key, packet_len: usize) -> [u8; HEADER_BYTES + KEY_BYTES] {
    let mut head = [0u8; HEADER_BYTES + KEY_BYTES];
    head[..HEADER_BYTES].copy_from_slice(&build_header(SEND_PACKET, KEY_BYTES + packet_len));
    head[HEADER_BYTES..].copy_from_slice(to);
    head
}

/// A NotePreferred frame.
pub fn note_preferred(preferred: bool) -> [u8; HEADER_BYTES + 1] {
    let [kind, a, b, c, d] = build_header(NOTE_PREFERRED, 1);
    [kind, a, b, c, d, u8::from(preferred)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Key = [1; 32];
    const RELAY: Key = [2; 32];

    fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        push_frame(&mut out, kind, parts);
        out
    }

    /// Everything a relay says until its greeting is done, and a packet behind it.
    fn conversation() -> Vec<u8> {
        let relay = SecretKey::from(RELAY);
        let shared = SalsaBox::new(&SecretKey::from(US).public_key(), &relay);
        let info = shared.encrypt(&[7; 24].into(), br#"{"version":2}"#.as_slice()).expect("sealed");
        [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n".to_vec(),
            frame(SERVER_KEY, &[&MAGIC, relay.public_key().as_bytes(), b"more"]),
            frame(SERVER_INFO, &[&[7; 24], &info]),
            frame(RECV_PACKET, &[&[9; 32], b"hello"]),
            frame(0x77, &[b"of the future"]),
            frame(PING, &[&[5; 8]]),
            frame(PEER_GONE, &[&[9; 32], &[1]]),
            frame(PEER_GONE, &[&[9; 32], &[0]]),
            frame(HEALTH, &[b"tired"]),
        ]
        .concat()
    }

    fn listen(client: &mut Client, pieces: &[&[u8]]) -> Result<Vec<String>, String> {
        let mut said = Vec::new();
        for piece in pieces {
            client.feed(piece, &mut |heard| {
                said.push(match heard {
                    Heard::Up { server_key } => {
                        assert_eq!(server_key, *SecretKey::from(RELAY).public_key().as_bytes());
                        "up".to_owned()
                    }
                    Heard::Packet { source, packet } => format!("{} {}", source[0], String::from_utf8_lossy(packet)),
                    Heard::PeerGone { was_here, .. } => format!("gone {was_here}"),
                    Heard::Health(problem) => problem.to_owned(),
                })
            })?;
        }
        Ok(said)
    }

    #[test]
    fn a_conversation_is_understood_however_it_is_cut() {
        let all = conversation();
        for size in [1, 3, 50, 1000] {
            let mut client = Client::new(&US, "relay.example", [3; 24]);
            let pieces: Vec<&[u8]> = all.chunks(size).collect();
            let said = listen(&mut client, &pieces).expect("a good relay");
            assert_eq!(said, ["up", "9 hello", "gone false", "gone true", "tired"]);
            let output = client.output;
            assert!(output.starts_with(b"GET /derp HTTP/1.1\r\nHost: relay.example\r\n"));
            assert!(output.ends_with(&frame(PONG, &[&[5; 8]])));
        }
    }

    #[test]
    fn a_relay_that_pings_without_end_makes_us_hoard_nothing() {
        let mut client = Client::new(&US, "relay.example", [3; 24]);
        listen(&mut client, &[&conversation()]).expect("a good relay");
        let flood = frame(PING, &[&[5; 8]]).repeat(10_000);
        listen(&mut client, &[&flood]).expect("still a relay");
        assert!(client.output.len() <= PONGS_BYTES + 16);
        client.output.clear();
        listen(&mut client, &[&frame(PING, &[&[6; 8]])]).expect("still a relay");
        assert_eq!(client.output, frame(PONG, &[&[6; 8]]));
    }

    #[test]
    fn what_is_no_relay_is_refused_with_a_phrase() {
        let talk =
            |bytes: &[u8]| listen(&mut Client::new(&US, "relay.example", [3; 24]), &[bytes]).expect_err("refused");
        assert!(talk(b"HTTP/1.1 404 Not Found\r\n\r\n").contains("no relay"));
        assert!(talk(&[b'x'; 20_000]).contains("no end"));
        let upgraded = b"HTTP/1.1 101 ok\r\n\r\n".to_vec();
        assert!(talk(&[upgraded.clone(), frame(SERVER_KEY, &[b"too short"])].concat()).contains("malformed"));
        assert!(talk(&[upgraded.clone(), frame(HEALTH, &[])].concat()).contains("greet"));
        assert!(talk(&[upgraded, vec![SERVER_KEY, 0xff, 0, 0, 0]].concat()).contains("a frame of"));
    }

    #[test]
    fn a_greeting_sealed_by_another_key_is_refused() {
        let mut client = Client::new(&[8; 32], "relay.example", [3; 24]);
        assert!(listen(&mut client, &[&conversation()]).expect_err("refused").contains("does not open"));
    }
}

//! A request's head, and the few requests that are answered here.

/// What follows a head.
pub(crate) enum Verdict {
    /// Send this and end the connection.
    Answer(Vec<u8>),
    /// Send this (nothing on a fast start); DERP frames follow.
    Relay(Vec<u8>),
    /// Not ours: Python's.
    Handoff,
}

/// A parsed head.
pub(crate) struct Head<'a> {
    method: &'a str,
    path: &'a str,
    lines: std::str::Split<'a, &'static str>,
}

impl<'a> Head<'a> {
    /// Read a head (without its empty line); None when it is no HTTP/1 request.
    pub fn parse(text: &'a [u8]) -> Option<Head<'a>> {
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !version.starts_with("HTTP/1.") {
            return None;
        }
        let path = target.split(['?', '#']).next()?;
        Some(Head { method, path, lines })
    }

    /// A header's value, its name in any case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.lines.clone().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Who answers. `relay` is the relay's public key in hexadecimal, None without a relay.
    pub fn judge(&self, relay: Option<&str>) -> Verdict {
        let reads = self.method == "GET" || self.method == "HEAD";
        match self.path {
            "/derp" => match relay {
                Some(key) => self.upgrade(key),
                None => Verdict::Answer(self.answer("404 Not Found", &[], "There is no relay here.\n")),
            },
            "/derp/probe" | "/derp/latency-check" if reads && relay.is_some() => {
                Verdict::Answer(self.answer("200 OK", &[("Access-Control-Allow-Origin", "*")], ""))
            }
            "/generate_204" if reads => {
                let challenge = self.header("X-Tailscale-Challenge").filter(|text| is_challenge(text));
                let response = challenge.map(|text| format!("response {text}"));
                let headers: Vec<(&str, &str)> =
                    response.iter().map(|text| ("X-Tailscale-Response", text.as_str())).collect();
                Verdict::Answer(self.answer("204 No Content", &headers, ""))
            }
            "/robots.txt" if reads => Verdict::Answer(self.answer("200 OK", &[], "User-agent: *\nDisallow: /\n")),
            _ => Verdict::Handoff,
        }
    }

    fn upgrade(&self, key: &str) -> Verdict {
        if self.method != "GET" || !self.header("Upgrade").is_some_and(|to| to.eq_ignore_ascii_case("DERP")) {
            let text = "This is a DERP relay: connect with a client that upgrades to DERP.\n";
            return Verdict::Answer(self.answer("426 Upgrade Required", &[("Upgrade", "DERP")], text));
        }
        if self.header("Derp-Fast-Start") == Some("1") {
            return Verdict::Relay(Vec::new());
        }
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\nDerp-Public-Key: {key}\r\n\r\n"
        );
        Verdict::Relay(answer.into_bytes())
    }

    fn answer(&self, status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        answer(status, headers, if self.method == "HEAD" { "" } else { body })
    }
}

/// A whole answer that ends its connection.
pub(super) fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !status.starts_with("204") {
        out.push_str(&format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n", body.len()));
    }
    out.push_str("Connection: close\r\n\r\n");
    out.push_str(body);
    out.into_bytes()
}

/// Upstream answers challenges of at most 64 plain characters (`derpserver`, ServeNoContent).
fn is_challenge(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Where a head ends: the number of bytes before and after its empty line.
pub(crate) fn end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(head: &str) -> String {
        match Head::parse(head.as_bytes()).expect("a head").judge(Some("abcd")) {
            Verdict::Answer(bytes) => String::from_utf8(bytes).expect("text"),
            Verdict::Relay(bytes) => format!("RELAY {}", String::from_utf8(bytes).expect("text")),
            Verdict::Handoff => "HANDOFF".to_owned(),
        }
    }

    #[test]
    fn a_derp_upgrade_is_answered_and_a_fast_start_is_not() {
        assert!(judge("GET /derp HTTP/1.1\r\nupgrade: derp").starts_with("RELAY HTTP/1.1 101"));
        assert!(judge("GET /derp HTTP/1.1\r\nUpgrade: DERP").contains("Derp-Public-Key: abcd\r\n"));
        assert_eq!(judge("GET /derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1"), "RELAY ");
        assert!(judge("GET /derp HTTP/1.1\r\nUpgrade: websocket").starts_with("HTTP/1.1 426"));
        assert!(judge("GET /derp HTTP/1.1").starts_with("HTTP/1.1 426"));
    }

    #[test]
    fn probes_are_answered_and_end_the_connection() {
        let probe = judge("GET /derp/probe HTTP/1.1\r\nHost: x");
        assert!(probe.starts_with("HTTP/1.1 200 OK") && probe.contains("Access-Control-Allow-Origin: *"));
        assert!(probe.contains("Connection: close"));
        assert!(judge("GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: a.b")
            .contains("X-Tailscale-Response: response a.b"));
        assert!(!judge("GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: a b").contains("Response"));
    }

    #[test]
    fn all_else_is_pythons() {
        assert_eq!(judge("POST /ts2021 HTTP/1.1\r\nUpgrade: tailscale-control-protocol"), "HANDOFF");
        assert_eq!(judge("GET /key?v=130 HTTP/1.1"), "HANDOFF");
        assert_eq!(judge("GET /derpy HTTP/1.1"), "HANDOFF");
    }

    proptest! {
        #[test]
        fn no_head_makes_it_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Some(head) = Head::parse(&bytes) {
                head.judge(Some("00"));
            }
        }
    }
}

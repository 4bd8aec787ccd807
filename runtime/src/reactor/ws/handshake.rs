//! The HTTP request that opens a WebSocket: any path, version 13, no extension, no sub-protocol.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, SocketAddr};
use tungstenite::handshake::derive_accept_key;

/// Bytes of a request: beyond it the request is refused.
const REQUEST_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;

/// A request that is still arriving.
#[derive(Debug, Default)]
pub struct Handshake {
    received: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    Accepted(Accepted),
    /// Send this and close.
    Refused(String),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    pub response: String,
    /// Frames that came in one piece with the request.
    pub rest: Vec<u8>,
    /// The client, as a proxy in front of us names it.
    pub forwarded_for: Option<SocketAddr>,
}

impl Handshake {
    pub fn feed(&mut self, bytes: &[u8]) -> Progress {
        // Only a request may be long; what follows it is bounded by one read.
        let before = self.received.len();
        self.received.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&self.received) {
            Ok(httparse::Status::Complete(used)) if used <= REQUEST_MAX => match accept(&request) {
                Ok((response, forwarded_for)) => {
                    Progress::Accepted(Accepted { response, rest: self.received[used..].to_vec(), forwarded_for })
                }
                Err(refusal) => Progress::Refused(refusal),
            },
            Ok(httparse::Status::Partial) if before + bytes.len() <= REQUEST_MAX => Progress::More,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => Progress::Refused(refuse(
                "431 Request Header Fields Too Large",
                "",
                "the request head is longer than 8 KiB",
            )),
            Err(_) => Progress::Refused(refuse("400 Bad Request", "", "this is not an HTTP request")),
        }
    }
}

fn accept(request: &httparse::Request<'_, '_>) -> Result<(String, Option<SocketAddr>), String> {
    if request.method != Some("GET") || request.version != Some(1) {
        return Err(refuse("400 Bad Request", "", "a WebSocket is opened with a GET request of HTTP/1.1"));
    }
    if !has_token(request, "upgrade", "websocket") || !has_token(request, "connection", "upgrade") {
        let why = "this port speaks WebSocket; the HTTP API is on a port of its own (5001 unless configured)";
        return Err(refuse("426 Upgrade Required", "Upgrade: websocket\r\n", why));
    }
    if header(request, "sec-websocket-version") != Some("13") {
        let why = "only version 13 of the WebSocket protocol is spoken here";
        return Err(refuse("426 Upgrade Required", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", why));
    }
    let key = header(request, "sec-websocket-key").unwrap_or_default();
    if STANDARD.decode(key).is_ok_and(|k| k.len() == 16) {
        let answer = derive_accept_key(key.as_bytes());
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {answer}\r\n\r\n"
        );
        Ok((response, forwarded_for(request)))
    } else {
        Err(refuse("400 Bad Request", "", "Sec-WebSocket-Key must be the base64 of 16 bytes"))
    }
}

fn refuse(status: &str, headers: &str, why: &str) -> String {
    let length = why.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n{why}\n"
    )
}

fn headers<'r>(request: &'r httparse::Request<'_, '_>, name: &str) -> impl Iterator<Item = &'r str> {
    request
        .headers
        .iter()
        .filter(move |h| h.name.eq_ignore_ascii_case(name))
        .filter_map(|h| std::str::from_utf8(h.value).ok())
        .map(str::trim)
}

fn header<'r>(request: &'r httparse::Request<'_, '_>, name: &str) -> Option<&'r str> {
    headers(request, name).next()
}

fn has_token(request: &httparse::Request<'_, '_>, name: &str, token: &str) -> bool {
    headers(request, name).flat_map(|v| v.split(',')).any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// `X-Forwarded-For` (its first entry), else `X-Real-IP`; the port from `X-Real-Port` (wire-protocol 1.4).
fn forwarded_for(request: &httparse::Request<'_, '_>) -> Option<SocketAddr> {
    let first = header(request, "x-forwarded-for").and_then(|list| list.split(',').next()).map(str::trim);
    let given = first.filter(|a| !a.is_empty()).or_else(|| header(request, "x-real-ip"))?;
    let port = header(request, "x-real-port").and_then(|p| p.parse().ok()).unwrap_or(0);
    let with_port = || given.parse::<SocketAddr>().ok();
    given.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, port)).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /any?path=1 HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Extensions: permessage-deflate\r\n";

    fn whole(text: &str) -> Progress {
        Handshake::default().feed(text.as_bytes())
    }

    fn status(text: &str) -> String {
        match whole(text) {
            Progress::Refused(response) => response.split(' ').nth(1).unwrap().to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_and_what_follows_is_kept() {
        let Progress::Accepted(a) = whole(&format!("{GOOD}\r\nframes")) else { panic!("refused") };
        assert!(a.response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(!a.response.contains("Extensions") && !a.response.contains("Sec-WebSocket-Protocol"));
        assert_eq!((a.rest.as_slice(), a.forwarded_for), (&b"frames"[..], None));
    }

    #[test]
    fn a_request_may_arrive_byte_by_byte() {
        let mut handshake = Handshake::default();
        let bytes = format!("{GOOD}\r\n");
        let (last, front) = bytes.as_bytes().split_last().unwrap();
        for byte in front {
            assert_eq!(handshake.feed(&[*byte]), Progress::More);
        }
        assert!(matches!(handshake.feed(&[*last]), Progress::Accepted(_)));
    }

    #[test]
    fn a_proxy_names_the_client() {
        for (headers, expected) in [
            ("X-Forwarded-For: 10.1.2.3, 10.0.0.1\r\nX-Real-Port: 99\r\n", Some("10.1.2.3:99")),
            ("X-Real-IP: 2001:db8::1\r\n", Some("[2001:db8::1]:0")),
            ("X-Forwarded-For: 10.1.2.3:4567\r\n", Some("10.1.2.3:4567")),
            ("X-Forwarded-For: unknown\r\n", None),
        ] {
            let Progress::Accepted(a) = whole(&format!("{GOOD}{headers}\r\n")) else { panic!("refused") };
            assert_eq!(a.forwarded_for.map(|f| f.to_string()).as_deref(), expected);
        }
    }

    #[test]
    fn everything_else_is_told_what_is_wrong() {
        assert_eq!(status("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "426");
        assert_eq!(status(&format!("{}\r\n", GOOD.replace("Version: 13", "Version: 8"))), "426");
        assert_eq!(status(&format!("{}\r\n", GOOD.replace("GET", "POST"))), "400");
        assert_eq!(status(&format!("{}\r\n", GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"))), "400");
        assert_eq!(status("\x10\x4a\x05nonsense\r\n\r\n"), "400");
        assert_eq!(status(&format!("{GOOD}X-Long: {}\r\n\r\n", "x".repeat(REQUEST_MAX))), "431");
        let mut slow = Handshake::default();
        let filler = format!("{GOOD}X-Long: {}", "x".repeat(REQUEST_MAX));
        assert!(matches!(slow.feed(filler.as_bytes()), Progress::Refused(_)));
    }
}

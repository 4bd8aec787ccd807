//! A raw connection to the server, over either transport: any bytes out, whole frames in.

use bytes::BytesMut;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use wukong_proto::{Decoder, Frame};
use wukong_runtime::client::random;
use wukong_runtime::client::ws::{Ws, WsFault};
use wukong_tests::support::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Ws,
}

/// What came within the time given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Frame(Box<Frame>),
    Closed,
    Nothing,
    /// Bytes that are no frame, or no WebSocket.
    Nonsense(String),
}

pub struct Wire {
    stream: TcpStream,
    ws: Option<Ws>,
    decoder: Decoder,
}

impl Wire {
    pub fn open(server: &Server, transport: Transport, version: u8) -> Wire {
        let addr = if transport == Transport::Tcp { server.tcp() } else { server.ws() };
        let stream = TcpStream::connect(&addr).expect("the server listens");
        stream.set_nodelay(true).expect("an option");
        let mut wire = Wire { stream, ws: None, decoder: Decoder::new(version) };
        if transport == Transport::Ws {
            let mut out = BytesMut::new();
            wire.ws = Some(Ws::begin(&addr, random(), &mut out));
            wire.stream.write_all(&out).expect("an upgrade request");
            let deadline = Instant::now() + Duration::from_secs(5);
            while !wire.ws.as_ref().is_some_and(Ws::is_open) {
                assert!(Instant::now() < deadline, "the upgrade is not answered");
                assert_eq!(wire.next(Duration::from_millis(20)), Got::Nothing, "an answer to nothing");
            }
        }
        wire
    }

    /// Sends bytes; as one message over WebSocket. A server that has closed already is seen by the next read.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut out = BytesMut::new();
        if self.ws.is_some() {
            Ws::write(bytes, random(), &mut out);
        } else {
            out.extend_from_slice(bytes);
        }
        let _ = self.stream.write_all(&out);
    }

    pub fn next(&mut self, most: Duration) -> Got {
        let deadline = Instant::now() + most;
        let mut chunk = [0; 8192];
        loop {
            match self.decoder.next() {
                Ok(Some(frame)) => return Got::Frame(Box::new(frame)),
                Ok(None) => {}
                Err(violation) => return Got::Nonsense(violation.to_string()),
            }
            if let Some(got) = self.unwrap() {
                match got {
                    Got::Nothing => continue,
                    got => return got,
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a time-out");
            match self.stream.read(&mut chunk) {
                Ok(0) => return Got::Closed,
                Ok(n) => match &mut self.ws {
                    Some(ws) => ws.feed(&chunk[..n]),
                    None => self.decoder.feed(bytes::Bytes::copy_from_slice(&chunk[..n])),
                },
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Got::Nothing;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Got::Closed,
            }
        }
    }

    /// Takes one payload out of the WebSocket; `Nothing` if it gave one to the decoder.
    fn unwrap(&mut self) -> Option<Got> {
        let mut out = BytesMut::new();
        match self.ws.as_mut()?.poll(&mut out) {
            Ok(Some(payload)) => {
                self.decoder.feed(payload);
                Some(Got::Nothing)
            }
            Ok(None) => None,
            Err(WsFault::Closed(_)) => Some(Got::Closed),
            Err(fault) => Some(Got::Nonsense(fault.to_string())),
        }
    }
}

//! A blocking client over TCP, for tests and for `wukongim chat`.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use wukong_proto::{Flags, ReasonCode, Recv, Text};

use super::session::{Event, Fault, Login, Outgoing, Session};
use super::{random, wall_ms};

/// How long `connect` waits for the server's answer.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Why there is no session.
#[derive(Debug)]
pub enum ConnectError {
    /// No server can be reached.
    Unreachable(io::Error),
    /// The server refused the login.
    Refused(ReasonCode),
    /// The server closed the connection without an answer: a fault of its own that will pass, or it is stopping.
    ClosedSilently,
    /// The server did not answer in time.
    Silent,
    /// What answers is not this protocol.
    Protocol(Fault),
    /// The login cannot be put on the wire.
    Login(wukong_proto::EncodeError),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unreachable(error) => write!(f, "no server can be reached: {error}"),
            ConnectError::Refused(ReasonCode::AUTH_FAIL) => {
                f.write_str("the server refused the login: wrong or missing token")
            }
            ConnectError::Refused(reason) => write!(f, "the server refused the login: {reason}"),
            ConnectError::ClosedSilently => f.write_str("the server closed the connection without an answer"),
            ConnectError::Silent => write!(f, "the server did not answer within {} s", CONNECT_MAX.as_secs()),
            ConnectError::Protocol(fault) => fault.fmt(f),
            ConnectError::Login(error) => write!(f, "the login does not fit the wire: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl ConnectError {
    /// Whether the same login may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, ConnectError::Unreachable(_) | ConnectError::ClosedSilently | ConnectError::Silent)
    }
}

/// A logged-in connection.
pub struct Client {
    stream: TcpStream,
    session: Session,
    out: BytesMut,
    chunk: Box<[u8]>,
    last_seq: u32,
    encrypted: bool,
    node: u64,
}

impl Client {
    /// Connects to `addr` (`host:port`), logs in and waits for the server's yes.
    ///
    /// # Errors
    /// There is no server, or it says no.
    pub fn connect(addr: &str, login: &Login) -> Result<Client, ConnectError> {
        let stream = dial(addr).map_err(ConnectError::Unreachable)?;
        stream.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        let mut out = BytesMut::new();
        let session = Session::begin(login, random(), wall_ms(), &mut out).map_err(ConnectError::Login)?;
        let chunk = vec![0; 16 * 1024].into_boxed_slice();
        let mut client = Client { stream, session, out, chunk, last_seq: 0, encrypted: false, node: 0 };
        client.flush().map_err(|_| ConnectError::ClosedSilently)?;
        match client.recv(CONNECT_MAX) {
            Ok(Some(Event::Open { encrypted, node, .. })) => {
                (client.encrypted, client.node) = (encrypted, node);
                Ok(client)
            }
            Ok(Some(Event::Refused(reason) | Event::Disconnect { reason, .. })) => Err(ConnectError::Refused(reason)),
            Ok(Some(_)) => unreachable!("the session opens before anything else"),
            Ok(None) => Err(ConnectError::Silent),
            Err(RecvError::Closed(_)) => Err(ConnectError::ClosedSilently),
            Err(RecvError::Protocol(fault)) => Err(ConnectError::Protocol(fault)),
        }
    }

    /// The negotiated version.
    #[must_use]
    pub fn version(&self) -> u8 {
        self.session.version()
    }

    /// Whether payloads are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// The node that holds the connection; 0 below version 4.
    #[must_use]
    pub fn node(&self) -> u64 {
        self.node
    }

    /// Sends a message to a person (a uid, type 1) or a group (type 2), and returns its client seq at once.
    ///
    /// # Errors
    /// The connection is gone: whether the message was stored is unknown; send it again with the same `client_msg_no`.
    pub fn send(&mut self, to: &str, channel_type: u8, client_msg_no: &str, payload: &[u8]) -> io::Result<u32> {
        self.last_seq = self.last_seq.wrapping_add(1);
        let client_seq = self.last_seq;
        let message = Outgoing {
            client_seq,
            client_msg_no: &Text::from(client_msg_no),
            channel_id: &Text::from(to),
            channel_type,
            flags: Flags::RED_DOT,
            payload,
        };
        self.write(&message)?;
        Ok(client_seq)
    }

    /// Sends a message with everything chosen by the caller.
    ///
    /// # Errors
    /// The connection is gone, or a field is too long for the wire (`InvalidInput`).
    pub fn write(&mut self, message: &Outgoing<'_>) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        self.session.send(message, &mut self.out).map_err(invalid)?;
        self.flush()
    }

    /// Tells the server that a message arrived; without it the server sends it again.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn recv_ack(&mut self, recv: &Recv) -> io::Result<()> {
        self.session.recv_ack(recv, &mut self.out).map_err(io::Error::other)?;
        self.flush()
    }

    /// Asks for a [`Event::Pong`]; to be done every minute, or the server takes the client for dead.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn ping(&mut self) -> io::Result<()> {
        self.session.ping(&mut self.out);
        self.flush()
    }

    /// The next event; none if nothing came within `timeout`.
    ///
    /// # Errors
    /// The connection is gone. Events received before that were returned before.
    pub fn recv(&mut self, timeout: Duration) -> Result<Option<Event>, RecvError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.session.poll().map_err(RecvError::Protocol)? {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean for ever.
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1)))).map_err(RecvError::Closed)?;
            match self.stream.read(&mut self.chunk) {
                Ok(0) => return Err(RecvError::Closed(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => self.session.feed(Bytes::copy_from_slice(&self.chunk[..n])),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(RecvError::Closed(e)),
            }
        }
    }

    /// Writes raw bytes, for tests that break the protocol on purpose.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.stream.write_all(&self.out);
        self.out.clear();
        written
    }
}

/// Why nothing more can be received.
#[derive(Debug)]
pub enum RecvError {
    /// The connection is gone.
    Closed(io::Error),
    /// The server broke the protocol.
    Protocol(Fault),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the server closed the connection")
            }
            RecvError::Closed(error) => write!(f, "the connection broke: {error}"),
            RecvError::Protocol(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for RecvError {}

/// Connects to the first address of `addr` that answers.
///
/// # Errors
/// The name does not resolve, or no address answers.
pub fn dial(addr: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, format!("'{addr}' is no host:port"));
    for address in resolve(addr)? {
        match TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The addresses that `host:port` stands for.
///
/// # Errors
/// The name does not resolve.
pub fn resolve(addr: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(addr.to_socket_addrs()?.collect())
}

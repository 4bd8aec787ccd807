//! Many client connections driven by one thread: epoll, non-blocking sockets, one write per connection and turn.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use wukong_proto::{EncodeError, Recv};

use crate::client::session::{Event, Login, Outgoing, Session};
use crate::client::ws::Ws;
use crate::client::{random, wall_ms};

/// Every connection is pinged once in this time, spread evenly; servers drop connections that are silent for minutes.
const PING_EVERY: Duration = Duration::from_secs(60);

/// Sockets looked at before the caller may send again.
const READY_MAX: usize = 128;

/// Which connection, in the order of opening.
pub type ConnNo = usize;

/// What happened on a connection.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "short-lived, and nearly all are the large one")]
pub enum What {
    /// The session says so.
    Event(Event),
    /// The connection is gone, and why.
    Lost(String),
}

/// Something that happened.
#[derive(Debug)]
pub struct Happened {
    pub conn: ConnNo,
    /// When its bytes were read.
    pub at: Instant,
    pub what: What,
}

struct Conn {
    socket: TcpStream,
    session: Session,
    /// None on plain TCP.
    ws: Option<Ws>,
    /// CONNECT, until the WebSocket is open.
    held: BytesMut,
    out: BytesMut,
    dirty: bool,
    waits_to_write: bool,
    lost: bool,
}

/// The connections.
pub struct Net {
    epoll: OwnedFd,
    conns: Vec<Conn>,
    dirty: Vec<ConnNo>,
    ready: Vec<epoll::Event>,
    chunk: Box<[u8]>,
    scratch: BytesMut,
    pings_from: Instant,
    pinged: u64,
    /// Bytes read and written, for the report.
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Net {
    /// No connections yet.
    ///
    /// # Errors
    /// The operating system gives no epoll descriptor.
    pub fn new() -> io::Result<Net> {
        Ok(Net {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            conns: Vec::new(),
            dirty: Vec::new(),
            ready: Vec::with_capacity(READY_MAX),
            chunk: vec![0; 64 * 1024].into_boxed_slice(),
            scratch: BytesMut::new(),
            pings_from: Instant::now(),
            pinged: 0,
            bytes_in: 0,
            bytes_out: 0,
        })
    }

    /// How many connections were opened, lost ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.conns.len()
    }

    /// Connects and sends CONNECT; the answer arrives as an event. `source` is the local address to come from.
    ///
    /// # Errors
    /// The server cannot be reached, or the login does not fit the wire.
    pub fn open(&mut self, to: SocketAddr, source: Option<SocketAddr>, ws: bool, login: &Login) -> io::Result<ConnNo> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(source) = source {
            socket.bind(&SockAddr::from(source))?;
        }
        socket.connect_timeout(&SockAddr::from(to), Duration::from_secs(10))?;
        let socket = TcpStream::from(socket);
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;

        let (mut out, mut held) = (BytesMut::new(), BytesMut::new());
        let ws = ws.then(|| Ws::begin(&to.to_string(), random(), &mut out));
        let first = if ws.is_some() { &mut held } else { &mut out };
        let session = Session::begin(login, random(), wall_ms(), first).map_err(invalid)?;
        let no = self.conns.len();
        epoll::add(&self.epoll, &socket, EventData::new_u64(no as u64), EventFlags::IN)?;
        self.conns.push(Conn { socket, session, ws, held, out, dirty: true, waits_to_write: false, lost: false });
        self.dirty.push(no);
        Ok(no)
    }

    /// Queues a SEND; [`flush`](Net::flush) writes it.
    ///
    /// # Errors
    /// The message does not fit the wire.
    pub fn send(&mut self, no: ConnNo, message: &Outgoing<'_>) -> Result<(), EncodeError> {
        self.queue(no, |session, out| session.send(message, out))
    }

    /// Queues a RECVACK; [`flush`](Net::flush) writes it.
    ///
    /// # Errors
    /// The sequence number does not fit the wire.
    pub fn recv_ack(&mut self, no: ConnNo, recv: &Recv) -> Result<(), EncodeError> {
        self.queue(no, |session, out| session.recv_ack(recv, out))
    }

    fn queue<E>(&mut self, no: ConnNo, add: impl FnOnce(&Session, &mut BytesMut) -> Result<(), E>) -> Result<(), E> {
        let conn = &mut self.conns[no];
        if conn.ws.is_some() {
            self.scratch.clear();
            add(&conn.session, &mut self.scratch)?;
            Ws::write(&self.scratch, random_mask(self.bytes_out), &mut conn.out);
        } else {
            add(&conn.session, &mut conn.out)?;
        }
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(no);
        }
        Ok(())
    }

    /// Writes what was queued, as far as the sockets take it; the rest goes out from [`poll`](Net::poll).
    pub fn flush(&mut self) {
        self.ping();
        let mut dirty = std::mem::take(&mut self.dirty);
        for no in dirty.drain(..) {
            self.conns[no].dirty = false;
            self.write(no);
        }
        self.dirty = dirty;
    }

    /// Waits at most `timeout` for something to happen, and appends it to `happened`.
    ///
    /// # Errors
    /// The wait itself failed.
    pub fn poll(&mut self, timeout: Duration, happened: &mut Vec<Happened>) -> io::Result<()> {
        self.look()?;
        if self.ready.is_empty() && !timeout.is_zero() {
            // epoll rounds its timeout up to milliseconds, which the schedule would show.
            let timeout = Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
            let mut fds = [PollFd::new(&self.epoll, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => return Ok(()),
                Ok(_) => self.look()?,
                Err(error) => return Err(error.into()),
            }
        }
        for i in 0..self.ready.len() {
            let (no, flags) = (self.ready[i].data.u64() as usize, self.ready[i].flags);
            if flags.contains(EventFlags::OUT) {
                self.write(no);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) && !self.conns[no].lost {
                self.read(no, happened);
            }
        }
        Ok(())
    }

    /// What is ready now.
    fn look(&mut self) -> io::Result<()> {
        self.ready.clear();
        let now = Timespec::default();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&now)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn read(&mut self, no: ConnNo, happened: &mut Vec<Happened>) {
        let conn = &mut self.conns[no];
        let read = conn.socket.read(&mut self.chunk);
        let at = Instant::now();
        let lost = match read {
            Ok(0) => Some("the server closed the connection".to_owned()),
            Ok(n) => {
                self.bytes_in += n as u64;
                take(conn, &self.chunk[..n], |event| happened.push(Happened { conn: no, at, what: What::Event(event) }))
                    .err()
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => None,
            Err(e) => Some(format!("the connection broke: {e}")),
        };
        if let Some(why) = lost {
            conn.lost = true;
            let _ = epoll::delete(&self.epoll, &conn.socket);
            let _ = conn.socket.shutdown(std::net::Shutdown::Both);
            happened.push(Happened { conn: no, at, what: What::Lost(why) });
        } else if !conn.out.is_empty() && !conn.dirty {
            conn.dirty = true;
            self.dirty.push(no);
        }
    }

    fn write(&mut self, no: ConnNo) {
        let conn = &mut self.conns[no];
        while !conn.out.is_empty() && !conn.lost {
            match conn.socket.write(&conn.out) {
                Ok(n) => {
                    self.bytes_out += n as u64;
                    if n == conn.out.len() {
                        conn.out.clear();
                    } else {
                        drop(conn.out.split_to(n));
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // The read side tells why.
                Err(_) => conn.out.clear(),
            }
        }
        let waits = !conn.out.is_empty() && !conn.lost;
        if waits != conn.waits_to_write {
            conn.waits_to_write = waits;
            let flags = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let _ = epoll::modify(&self.epoll, &conn.socket, EventData::new_u64(no as u64), flags);
        }
    }

    fn ping(&mut self) {
        let (count, elapsed) = (self.conns.len() as u64, self.pings_from.elapsed());
        if count == 0 || elapsed < PING_EVERY {
            return;
        }
        // The first round begins a minute after the start; after it, everyone once a minute.
        let due = ((elapsed - PING_EVERY).as_secs_f64() / PING_EVERY.as_secs_f64() * count as f64) as u64;
        while self.pinged < due {
            let no = (self.pinged % count) as usize;
            self.pinged += 1;
            self.ping_one(no);
        }
    }

    /// Pings every connection; [`flush`](Net::flush) writes.
    pub fn ping_all(&mut self) {
        for no in 0..self.conns.len() {
            self.ping_one(no);
        }
    }

    fn ping_one(&mut self, no: ConnNo) {
        if self.conns[no].session.is_open() && !self.conns[no].lost {
            let Ok(()) = self.queue(no, |session, out| {
                session.ping(out);
                Ok::<(), std::convert::Infallible>(())
            });
        }
    }
}

/// Hands received bytes to the session and its events to `push`.
fn take(conn: &mut Conn, bytes: &[u8], mut push: impl FnMut(Event)) -> Result<(), String> {
    let Some(ws) = &mut conn.ws else {
        conn.session.feed(Bytes::copy_from_slice(bytes));
        return drain(&mut conn.session, &mut push);
    };
    ws.feed(bytes);
    loop {
        let polled = ws.poll(&mut conn.out);
        if ws.is_open() && !conn.held.is_empty() {
            Ws::write(&conn.held, random_mask(7), &mut conn.out);
            conn.held = BytesMut::new();
        }
        match polled {
            Ok(Some(payload)) => {
                conn.session.feed(payload);
                drain(&mut conn.session, &mut push)?;
            }
            Ok(None) => return Ok(()),
            Err(fault) => return Err(fault.to_string()),
        }
    }
}

fn drain(session: &mut Session, push: &mut impl FnMut(Event)) -> Result<(), String> {
    while let Some(event) = session.poll().map_err(|fault| fault.to_string())? {
        push(event);
    }
    Ok(())
}

/// A mask that changes with each message; nobody between us and the server needs protection from our bytes.
fn random_mask(salt: u64) -> [u8; 4] {
    ((salt as u32).wrapping_mul(0x9E37_79B9) ^ 0xA5C3_1E7F).to_be_bytes()
}

fn invalid(error: EncodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

//! One socket: what waits to be written, the WebSocket layer if it has one, and how far its end has come.

use super::ready::KeyWaker;
use super::ws;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use wukong_core::ids::ConnId;

/// Pieces of one vectored write.
const PIECES_PER_WRITE: usize = 64;
/// A larger queue is given back to the allocator when it runs empty.
const QUEUE_KEPT: usize = 8;

/// What travels over the socket.
pub(super) enum Layer {
    Raw,
    /// The upgrade request is arriving; the machine does not know this connection yet.
    Handshake(Box<ws::Handshake>),
    /// The decoder is there while a part of a message is.
    Web(Option<Box<ws::Decoder>>),
}

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Nothing is read any more; what waits is written, then the write side is closed.
    Flushing,
    /// The write side is closed; what the peer still sends is thrown away until it closes too. Closing at once
    /// would make the kernel send a reset, which can overtake what was written last.
    Lingering,
}

/// Bytes to be written as one unit.
struct Piece {
    head: ws::Head,
    body: Bytes,
    /// The body is a frame of the machine, which wants its credit back.
    credit: bool,
}

impl Piece {
    fn len(&self) -> usize {
        self.head.as_bytes().len() + self.body.len()
    }
}

pub(super) struct Conn {
    pub id: ConnId,
    pub peer: SocketAddr,
    pub layer: Layer,
    pub phase: Phase,
    /// The machine was told `ConnOpened` and not yet `ConnClosed`.
    pub known: bool,
    /// On the reactor's list of connections with something new to write.
    pub dirty: bool,
    /// On the reactor's list of connections that wait until the machine takes input again.
    pub paused: bool,
    stream: TcpStream,
    wake: Arc<KeyWaker>,
    waker: Waker,
    out: VecDeque<Piece>,
    /// How much of the first piece has been written.
    written: usize,
    pong_waits: bool,
}

/// What a flush did.
pub(super) struct Flushed {
    /// Bytes of the machine's frames that left.
    pub credit: usize,
    pub bytes: usize,
    pub calls: u64,
    /// Empty, the kernel takes no more for now, or the connection broke.
    pub outcome: io::Result<bool>,
}

impl Conn {
    pub fn new(id: ConnId, peer: SocketAddr, layer: Layer, stream: TcpStream, wake: Arc<KeyWaker>) -> Self {
        let waker = Waker::from(wake.clone());
        Self {
            id,
            peer,
            layer,
            phase: Phase::Open,
            known: false,
            dirty: false,
            paused: false,
            stream,
            wake,
            waker,
            out: VecDeque::new(),
            written: 0,
            pong_waits: false,
        }
    }

    /// The reactor looks at this connection now.
    pub fn rearm(&self) {
        self.wake.rearm();
    }

    /// Puts the connection on the ready list, as its socket would.
    pub fn fire(&self) {
        self.wake.fire();
    }

    pub fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// A frame of the machine.
    pub fn push_frame(&mut self, body: Bytes) {
        let head = match self.layer {
            Layer::Raw => ws::Head::default(),
            _ => ws::binary_head(body.len()),
        };
        let piece = Piece { head, body, credit: true };
        if piece.len() > 0 {
            self.out.push_back(piece);
        }
    }

    /// Bytes of the shell's own.
    pub fn push_own(&mut self, body: impl Into<Bytes>) {
        self.out.push_back(Piece { head: ws::Head::default(), body: body.into(), credit: false });
    }

    /// Answers a ping; while an answer waits to be written, more pings are not answered.
    pub fn push_pong(&mut self, frame: Vec<u8>) {
        if !self.pong_waits || self.out.is_empty() {
            self.pong_waits = true;
            self.push_own(frame);
        }
    }

    /// Ends the stream of frames with a close frame, if there is such a thing on this connection.
    pub fn push_close(&mut self, code: ws::CloseCode) {
        if let Layer::Web(_) = self.layer {
            self.push_own(ws::close_frame(code));
        }
    }

    /// Reads once into `buf`. Pending: the waker is set.
    pub fn poll_read(&mut self, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(buf.filled().len())),
            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes until nothing waits or the kernel takes no more, which sets the waker.
    pub fn flush(&mut self) -> Flushed {
        let mut flushed = Flushed { credit: 0, bytes: 0, calls: 0, outcome: Ok(true) };
        while !self.out.is_empty() {
            match self.poll_write() {
                Poll::Ready(Ok(0)) => {
                    flushed.outcome = Err(io::ErrorKind::WriteZero.into());
                    return flushed;
                }
                Poll::Ready(Ok(n)) => {
                    flushed.calls += 1;
                    flushed.bytes += n;
                    flushed.credit += self.written(n);
                }
                Poll::Ready(Err(e)) => {
                    flushed.outcome = Err(e);
                    return flushed;
                }
                Poll::Pending => {
                    flushed.outcome = Ok(false);
                    return flushed;
                }
            }
        }
        self.pong_waits = false;
        if flushed.calls > 0
            && let Err(e) = self.push_out()
        {
            flushed.outcome = Err(e);
        }
        if self.out.capacity() > QUEUE_KEPT {
            self.out = VecDeque::new();
        }
        flushed
    }

    /// A real socket has nothing to flush; the simulated one delivers nothing before it is.
    fn push_out(&mut self) -> io::Result<()> {
        let mut cx = Context::from_waker(&self.waker);
        match Pin::new(&mut self.stream).poll_flush(&mut cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_write(&mut self) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); 2 * PIECES_PER_WRITE];
        let mut used = 0;
        let mut skip = self.written;
        for piece in self.out.iter().take(PIECES_PER_WRITE) {
            for part in [piece.head.as_bytes(), &piece.body] {
                let cut = skip.min(part.len());
                skip -= cut;
                let part = &part[cut..];
                if !part.is_empty() {
                    slices[used] = IoSlice::new(part);
                    used += 1;
                }
            }
        }
        let mut cx = Context::from_waker(&self.waker);
        Pin::new(&mut self.stream).poll_write_vectored(&mut cx, &slices[..used])
    }

    /// Takes `n` written bytes off the queue; returns how many of them were the machine's.
    fn written(&mut self, n: usize) -> usize {
        let mut left = n;
        let mut credit = 0;
        while let Some(piece) = self.out.front() {
            let head = piece.head.as_bytes().len();
            let take = left.min(piece.len() - self.written);
            if piece.credit {
                let body = |at: usize| at.saturating_sub(head);
                credit += body(self.written + take) - body(self.written);
            }
            self.written += take;
            left -= take;
            if self.written < piece.len() {
                break;
            }
            self.written = 0;
            self.out.pop_front();
        }
        credit
    }

    /// Closes the write side.
    pub fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        let mut cx = Context::from_waker(&self.waker);
        Pin::new(&mut self.stream).poll_shutdown(&mut cx)
    }
}

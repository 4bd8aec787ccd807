//! Messages over the simulated TCP: length (u32, big-endian), then the bytes. One connection for each stream.

use super::{Accepted, Listener, Wire};
use crate::peers::queue::OutQueue;
use crate::peers::{FRAME_MAX, limit_of_handshakes};
use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use wukong_core::ids::LinkClass;

const HEAD: usize = 4;
const READ: usize = 16 * 1024;

/// The receiving half of a stream.
pub(in crate::peers) struct Incoming {
    stream: ReadHalf<TcpStream>,
    arrived: BytesMut,
}

impl Incoming {
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        loop {
            match self.message() {
                Ok(None) => {}
                other => return Poll::Ready(other.transpose()),
            }
            let mut chunk = [0; READ];
            let mut buf = ReadBuf::new(&mut chunk);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(e)) => return Poll::Ready(Some(Err(e.to_string()))),
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(())) => self.arrived.extend_from_slice(buf.filled()),
            }
        }
    }

    fn message(&mut self) -> Result<Option<Bytes>, String> {
        let Some(head) = self.arrived.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_be_bytes(*head) as usize;
        if length > FRAME_MAX {
            return Err(format!("a message of {length} bytes"));
        }
        if self.arrived.len() < HEAD + length {
            return Ok(None);
        }
        self.arrived.advance(HEAD);
        Ok(Some(self.arrived.split_to(length).freeze()))
    }
}

/// Opens a stream to `addr` (ip:port) for a class.
///
/// # Errors
/// No connection; says why.
pub(in crate::peers) async fn dial(addr: &str, _: LinkClass, out: Arc<OutQueue>) -> Result<Incoming, String> {
    let stream = TcpStream::connect(addr).await.map_err(|e| e.to_string())?;
    Ok(wired(stream, out))
}

/// Accepts streams until it is dropped.
///
/// # Errors
/// The listener cannot be used.
pub(in crate::peers) async fn serve(
    listener: Listener,
    accepted: Accepted,
    _: watch::Receiver<bool>,
) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let out = OutQueue::new(limit_of_handshakes());
        let incoming = wired(stream, out.clone());
        accepted(Wire { out, incoming });
    }
}

fn wired(stream: TcpStream, out: Arc<OutQueue>) -> Incoming {
    let (stream, write) = tokio::io::split(stream);
    tokio::spawn(async move {
        // A stream that broke shows on its reading side.
        let _ = write_all(write, &out).await;
        out.cut();
    });
    Incoming { stream, arrived: BytesMut::new() }
}

/// Writes what waits with one flush, until the queue ends.
async fn write_all(mut stream: WriteHalf<TcpStream>, out: &OutQueue) -> io::Result<()> {
    let mut together = Vec::new();
    loop {
        let Some(first) = poll_fn(|cx| out.poll_next(cx)).await else { return Ok(()) };
        frame(&mut together, &first);
        poll_fn(|cx| {
            while let Poll::Ready(Some(next)) = out.poll_next(cx) {
                frame(&mut together, &next);
            }
            Poll::Ready(())
        })
        .await;
        stream.write_all(&together).await?;
        // The simulated network delivers nothing before a flush.
        stream.flush().await?;
        together.clear();
    }
}

fn frame(to: &mut Vec<u8>, message: &[u8]) {
    to.extend_from_slice(&(message.len() as u32).to_be_bytes());
    to.extend_from_slice(message);
}

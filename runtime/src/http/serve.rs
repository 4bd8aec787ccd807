//! The accept loop of the HTTP API, with its time-outs.

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Sleep;

/// Open connections; beyond it new ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1_024;
/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// A connection without a request is kept this long; longer than most clients' pools keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long requests in flight may take when the node stops.
const STOP: Duration = Duration::from_secs(2);
/// How long accepting rests after it failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` becomes true, then lets requests in flight finish, for a while.
pub async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::select! {
        biased;
        () = stopped(stop.clone()) => {}
        () = accept(&listener, &router, &slots, &stop) => {}
    }
    drop(listener);
    let all_ended = slots.acquire_many(CONNECTIONS_MAX as u32);
    if tokio::time::timeout(STOP, all_ended).await.is_err() {
        tracing::debug!("HTTP connections are cut off");
    }
}

async fn accept(listener: &TcpListener, router: &Router, slots: &Arc<Semaphore>, stop: &watch::Receiver<bool>) {
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, stop) = (router.clone(), stop.clone());
                tokio::spawn(async move {
                    connection(stream, router, stop).await;
                    drop(slot);
                });
            }
            Err(e) => {
                tracing::debug!("HTTP accept: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let busy = Arc::new(AtomicBool::new(false));
    let io = TokioIo::new(Guarded { stream, busy: busy.clone(), timer: None });
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request| {
        busy.store(true, Ordering::Relaxed);
        let (answer, busy) = (router.call(request), busy.clone());
        async move {
            let answer = answer.await;
            busy.store(false, Ordering::Relaxed);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stopped(stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("an HTTP connection ended early: {e}");
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // The sender gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A stream whose reads fail when a request's head takes longer than [`HEAD`]. The server library has one time-out for
/// both the head and the wait for the next request, and idle connections may wait longer.
struct Guarded {
    stream: TcpStream,
    /// A request is being answered.
    busy: Arc<AtomicBool>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Guarded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.busy.load(Ordering::Relaxed) {
            self.timer = None;
            return read;
        }
        if buf.filled().len() > before && self.timer.is_none() {
            self.timer = Some(Box::pin(tokio::time::sleep(HEAD)));
        }
        if self.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

//! The one RPC between nodes, written by hand: `/wukong.peer.Peer/Link (stream bytes) returns (stream bytes)`.
//!
//! A message is its bytes and nothing more: what they mean is decoded in `proto` and `core`.

use super::{Accepted, Listener, Wire};
use crate::peers::queue::OutQueue;
use crate::peers::{CONNECT, FRAME_MAX, SILENCE, WINDOW, limit_of_handshakes};
use bytes::{Buf, BufMut, Bytes};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use wukong_core::ids::LinkClass;

const SERVICE: &str = "wukong.peer.Peer";
const METHOD: &str = "/wukong.peer.Peer/Link";
/// Streams of one connection: each class has a connection of its own.
const STREAMS_PER_CONNECTION: u32 = 4;

/// The receiving half of a stream.
pub(in crate::peers) struct Incoming {
    stream: Streaming<Bytes>,
    /// The connection that was dialled for this stream.
    _channel: Option<Channel>,
}

impl Incoming {
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, String>>> {
        Pin::new(&mut self.stream).poll_next(cx).map(|next| next.map(|message| message.map_err(|e| told(&e))))
    }
}

/// Opens a stream to `addr` (host:port) for a class, on a connection of its own. The answer to it is not there yet.
///
/// # Errors
/// No connection; says why.
pub(in crate::peers) async fn dial(addr: &str, _: LinkClass, out: Arc<OutQueue>) -> Result<Incoming, String> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|e| format!("{addr} is no address: {e}"))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .http2_keep_alive_interval(SILENCE / 3)
        .keep_alive_timeout(SILENCE)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(|e| causes(&e))?;
    let mut grpc = tonic::client::Grpc::new(channel.clone())
        .max_decoding_message_size(FRAME_MAX)
        .max_encoding_message_size(FRAME_MAX);
    grpc.ready().await.map_err(|e| causes(&e))?;
    let path = http::uri::PathAndQuery::from_static(METHOD);
    let response = grpc.streaming(Request::new(Outgoing(out)), path, Raw).await.map_err(|e| told(&e))?;
    Ok(Incoming { stream: response.into_inner(), _channel: Some(channel) })
}

/// Accepts streams until `stop` becomes true.
///
/// # Errors
/// The listener cannot be used.
pub(in crate::peers) async fn serve(
    listener: Listener,
    accepted: Accepted,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener)?).with_nodelay(Some(true));
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(SILENCE / 3))
        .http2_keepalive_timeout(Some(SILENCE))
        .add_service(PeerServer { accepted })
        .serve_with_incoming_shutdown(incoming, stopped)
        .await
        .map_err(io::Error::other)
}

fn told(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => message.to_owned(),
    }
}

/// An error and what caused it: the outermost one alone says "transport error".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The sending half, as the library wants it.
struct Outgoing(Arc<OutQueue>);

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.0.poll_next(cx)
    }
}

/// The same for the answering side.
struct Answering(Outgoing);

impl Stream for Answering {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(Ok))
    }
}

impl Drop for Outgoing {
    /// The stream broke: nothing is taken any more.
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// The accepting side.
#[derive(Clone)]
struct PeerServer {
    accepted: Accepted,
}

impl NamedService for PeerServer {
    const NAME: &'static str = SERVICE;
}

impl Service<http::Request<Body>> for PeerServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.clone();
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("there is only Link").into_http());
            }
            let mut grpc =
                tonic::server::Grpc::new(Raw).max_decoding_message_size(FRAME_MAX).max_encoding_message_size(FRAME_MAX);
            Ok(grpc.streaming(server, request).await)
        })
    }
}

impl StreamingService<Bytes> for PeerServer {
    type Response = Bytes;
    type ResponseStream = Answering;
    type Future = Ready<Result<Response<Answering>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let out = OutQueue::new(limit_of_handshakes());
        let incoming = Incoming { stream: request.into_inner(), _channel: None };
        (self.accepted)(Wire { out: out.clone(), incoming });
        ready(Ok(Response::new(Answering(Outgoing(out)))))
    }
}

//! The life of one stream after its connection is there: greeting, waiting for its sisters, frames and pings.

use super::handshake::{self, Failed, refusal};
use super::hub::{Hub, Phase, Seat};
use super::queue::OutQueue;
use super::wire::{self, Incoming, Wire};
use super::{CONNECT, FORMING, HANDSHAKES_MAX, LINGER, PING, SILENCE, limit_of_handshakes};
use bytes::Bytes;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use wukong_core::ids::{LinkClass, NodeId};
use wukong_proto::hello::{Handshake, RefusalCode, is_transport};

/// Messages handed over together, if so many have arrived.
const BATCH: usize = 256;
/// How often a stream that rests because a shard is behind looks again.
const REST: Duration = Duration::from_millis(2);

/// How a stream ended.
pub(super) struct Ended {
    /// Its link had been up.
    pub was_up: bool,
    pub why: String,
}

impl Ended {
    fn early(why: impl Into<String>) -> Self {
        Self { was_up: false, why: why.into() }
    }
}

/// Opens one stream of a link and serves it to its end.
pub(super) async fn dial(hub: &Arc<Hub>, node: NodeId, addr: &str, class: LinkClass, link: u64) -> Ended {
    let out = OutQueue::new(limit_of_handshakes());
    let incoming = match timeout(CONNECT, wire::dial(addr, class, out.clone())).await {
        Ok(Ok(incoming)) => incoming,
        Ok(Err(why)) => return Ended::early(format!("cannot reach {addr}: {why}")),
        Err(_) => return Ended::early(format!("cannot reach {addr}: no answer")),
    };
    let mut wire = Wire { out, incoming };
    match timeout(FORMING, handshake::dial(hub, &mut wire, node, class, link)).await {
        Ok(Ok(greeted)) => match hub.join(&greeted, &wire.out, None) {
            Ok(seat) => serve(hub, seat, wire.incoming).await,
            Err(refusal) => refuse(hub, wire, Failed::Refuse(refusal)).await,
        },
        Ok(Err(failed)) => refuse(hub, wire, failed).await,
        Err(_) => Ended::early("the handshake took too long"),
    }
}

/// Serves a stream that another node opened.
pub(super) async fn accept(hub: &Arc<Hub>, mut wire: Wire, handshakes: &Semaphore) {
    let Ok(slot) = handshakes.try_acquire() else {
        let busy = refusal(RefusalCode::Busy, format!("{HANDSHAKES_MAX} handshakes are going on"));
        wire.out.push([Handshake::Refused(busy).encode()]);
        wire.out.close();
        return;
    };
    let greeted = match timeout(FORMING, handshake::accept(hub, &mut wire)).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(failed)) => {
            let ended = refuse(hub, wire, failed).await;
            return tracing::warn!("a node that dialled was not linked: {}", ended.why);
        }
        Err(_) => return wire.out.cut(),
    };
    match hub.join(&greeted, &wire.out, Some(&Handshake::Welcome)) {
        Ok(seat) => {
            drop(slot);
            serve(hub, seat, wire.incoming).await;
        }
        Err(refusal) => {
            let ended = refuse(hub, wire, Failed::Refuse(refusal)).await;
            hub.trouble(greeted.process.node, &ended.why);
        }
    }
}

/// Tells the other side, and gives it time to hear it.
async fn refuse(hub: &Hub, mut wire: Wire, failed: Failed) -> Ended {
    if let Failed::Refuse(refusal) = &failed {
        super::stats::add(&hub.stats.peer_streams_refused, 1);
        wire.out.push([Handshake::Refused(refusal.clone()).encode()]);
        wire.out.close();
        let drained = async { while let Ok(Some(_)) = wire.incoming.next().await {} };
        let _ = timeout(LINGER, drained).await;
    }
    wire.out.cut();
    Ended::early(failed.to_string())
}

/// From the seat to the end. What arrives before the link is up waits in the stream.
async fn serve(hub: &Arc<Hub>, seat: Seat, mut incoming: Incoming) -> Ended {
    match timeout(FORMING, seat.link.left(Phase::Forming)).await {
        Ok(Phase::Up) => {}
        Ok(_) => return Ended::early("the link was given up"),
        Err(_) => {
            seat.end("not all of its streams came");
            return Ended::early("not all streams of the link came");
        }
    }
    let why = tokio::select! {
        biased;
        _ = seat.link.left(Phase::Up) => "another stream of the link ended".to_owned(),
        why = carry(hub, &seat, &mut incoming) => why,
    };
    seat.end(&why);
    Ended { was_up: true, why }
}

/// Hands over what arrives, and on the control stream pings and listens for life. Returns why it ended.
async fn carry(hub: &Arc<Hub>, seat: &Seat, incoming: &mut Incoming) -> String {
    let control = seat.class == LinkClass::Control;
    let mut ping = interval(PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut heard, mut pings) = (Instant::now(), 0);
    loop {
        if !control {
            rest(hub).await;
        }
        let batch = tokio::select! {
            biased;
            batch = batch(incoming) => batch,
            _ = ping.tick(), if control => {
                if heard.elapsed() > SILENCE {
                    return format!("nothing was heard for {} s", SILENCE.as_secs());
                }
                pings += 1;
                if !seat.ping(pings) {
                    return "its control queue is full or its stream broke".to_owned();
                }
                continue;
            }
        };
        heard = Instant::now();
        let Batch { mut messages, ended } = batch;
        messages.retain(|message| !is_transport(message));
        if !messages.is_empty()
            && let Err(why) = hub.deliver(&seat.link, messages)
        {
            return why;
        }
        if let Some(why) = ended {
            return why;
        }
        if control && hub.waiting() > 2 * hub.limits.inbox_bytes {
            return "a shard of this node is too far behind".to_owned();
        }
    }
}

/// Back-pressure: data and bulk streams are not read while a shard is far behind; their senders' windows close then.
async fn rest(hub: &Hub) {
    if hub.waiting() > hub.limits.inbox_bytes {
        super::stats::add(&hub.stats.peer_reads_paused, 1);
        while hub.waiting() > hub.limits.inbox_bytes {
            sleep(REST).await;
        }
    }
}

struct Batch {
    messages: Vec<Bytes>,
    /// Why the stream ended after them.
    ended: Option<String>,
}

/// What has arrived, at least one message or the end.
async fn batch(incoming: &mut Incoming) -> Batch {
    let mut messages = Vec::new();
    let ended = poll_fn(|cx| gather(incoming, cx, &mut messages)).await;
    Batch { messages, ended }
}

fn gather(incoming: &mut Incoming, cx: &mut Context<'_>, messages: &mut Vec<Bytes>) -> Poll<Option<String>> {
    while messages.len() < BATCH {
        match incoming.poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => messages.push(message),
            Poll::Ready(Some(Err(why))) => return Poll::Ready(Some(why)),
            Poll::Ready(None) => return Poll::Ready(Some("the other side closed the stream".to_owned())),
            Poll::Pending if messages.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(None)
}

/// Waits until the node stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The sender gone means the same.
    let _ = stop.wait_for(|stop| *stop).await;
}

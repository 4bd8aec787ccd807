//! The sockets of a reactor: accepting, reading, writing, closing.

use super::conn::{Conn, Layer, Phase};
use super::ready::KeyWaker;
use super::ws::CloseCode;
use super::{Listener, Machine, READY_PER_TURN, Reactor, Store, TCP_LISTENER, WEB_LISTENER};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use wukong_core::ids::ConnId;
use wukong_core::limits;
use wukong_core::time::Instant;
use wukong_core::{CloseCause, Input, Transport};

/// Connections accepted in one turn, per listener.
const ACCEPTS_PER_TURN: usize = 64;
/// Reads of one socket in one turn, as long as each fills the buffer.
const READS_PER_TURN: usize = 4;
/// Connections asked for in one turn whether their bytes are wanted again; the others follow.
pub(super) const STALLED_PER_TURN: usize = 256;
/// How long accepting rests after it failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// An upgrade request must be complete within this.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A closing connection is gone after this, whatever waits to be written.
const CLOSE: Duration = Duration::from_secs(2);
/// Sockets of one reactor whose upgrade request is arriving; beyond it the oldest is closed.
const HANDSHAKES_MAX: usize = limits::UNAUTHENTICATED_MAX;
/// Bits of a `ConnId` that are the slot; the others count connections, so that an id is never used twice.
const SLOT_BITS: u32 = 24;

impl<M: Machine, S: Store> Reactor<M, S> {
    /// The slot of a connection that is still there.
    pub(super) fn find(&self, id: ConnId) -> Option<u32> {
        let slot = (id.0 & ((1 << SLOT_BITS) - 1)) as u32;
        self.conns.get(slot as usize).filter(|c| c.id == id).map(|_| slot)
    }

    pub(super) fn mark_dirty(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if !conn.dirty {
            conn.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Looks at the sockets whose wakers fired.
    pub(super) fn take_ready(&mut self) {
        if self.machine.wants_input() {
            for key in self.paused.drain(..) {
                if let Some(conn) = self.conns.get_mut(key as usize) {
                    conn.paused = false;
                }
                self.queue.push_back(key);
            }
        }
        self.resume_stalled();
        let mut ready = std::mem::take(&mut self.ready_scratch);
        self.ready.take(&mut ready);
        self.queue.extend(ready.drain(..));
        self.ready_scratch = ready;
        for _ in 0..READY_PER_TURN {
            let Some(key) = self.queue.pop_front() else { return };
            match key {
                TCP_LISTENER => self.accept(Transport::Tcp),
                WEB_LISTENER => self.accept(Transport::WebSocket),
                slot => self.look_at(slot),
            }
        }
    }

    /// Whether this connection's bytes are wanted again, or it has something else to be looked at for.
    fn may_resume(&self, slot: u32) -> bool {
        self.conns.get(slot as usize).is_none_or(|c| c.phase != Phase::Open || self.wants_bytes(c))
    }

    /// The machine does not know a connection before its upgrade request was answered.
    fn wants_bytes(&self, conn: &Conn) -> bool {
        !conn.known || self.machine.wants_bytes(conn.id)
    }

    /// Whether one of the stalled connections that the next turn asks about goes on.
    pub(super) fn any_stalled_resumes(&self) -> bool {
        self.stalled.iter().take(STALLED_PER_TURN).any(|slot| self.may_resume(*slot))
    }

    fn resume_stalled(&mut self) {
        for _ in 0..self.stalled.len().min(STALLED_PER_TURN) {
            let Some(slot) = self.stalled.pop_front() else { return };
            if !self.may_resume(slot) {
                self.stalled.push_back(slot);
            } else if let Some(conn) = self.conns.get_mut(slot as usize) {
                conn.paused = false;
                self.queue.push_back(slot);
            }
        }
    }

    fn accept(&mut self, transport: Transport) {
        let key = if transport == Transport::Tcp { TCP_LISTENER } else { WEB_LISTENER };
        if self.accept_again.is_some() {
            // The listener is looked at again when the pause ends.
            return;
        }
        if !self.machine.wants_input() {
            self.paused.push(key);
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let listener = if transport == Transport::Tcp { &mut self.tcp } else { &mut self.websocket };
            let Some(Listener { acceptor, wake, waker }) = listener else { return };
            wake.rearm();
            match acceptor.poll_accept(&mut Context::from_waker(waker)) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, peer))) => self.accepted(transport, stream, peer),
                Poll::Ready(Err(e)) if of_the_connection(&e) => self.stats.accept_errors += 1,
                Poll::Ready(Err(e)) => {
                    if self.stats.accept_errors == 0 {
                        tracing::warn!(
                            "cannot accept connections: {e}. If files ran out, raise the limit (ulimit -n, LimitNOFILE)."
                        );
                    }
                    self.stats.accept_errors += 1;
                    self.accept_again = Some(self.now.mono + ACCEPT_PAUSE);
                    return;
                }
            }
        }
        self.queue.push_back(key);
    }

    fn accepted(&mut self, transport: Transport, stream: TcpStream, peer: SocketAddr) {
        if self.conns.len() >= self.sockets_max {
            if self.stats.refused_too_many == 0 {
                tracing::warn!(
                    shard = self.shard.0,
                    "{} connections are all this shard may hold: more are closed at once. Raise the limit of open files.",
                    self.sockets_max
                );
            }
            self.stats.refused_too_many += 1;
            return;
        }
        // Frames are small and answers are waited for. A socket that refuses the option serves all the same.
        let _ = stream.set_nodelay(true);
        let entry = self.conns.vacant_entry();
        let slot = entry.key() as u32;
        self.serial += 1;
        let id = ConnId((self.serial << SLOT_BITS) | u64::from(slot));
        let wake = KeyWaker::new(slot, &self.ready);
        // The socket is looked at once, which sets its waker.
        wake.fire();
        let layer = match transport {
            Transport::Tcp => Layer::Raw,
            Transport::WebSocket => Layer::Handshake(Box::default()),
        };
        entry.insert(Conn::new(id, peer, layer, stream, wake));
        match transport {
            Transport::Tcp => {
                self.stats.accepted_tcp += 1;
                self.open(slot, Transport::Tcp, peer);
            }
            Transport::WebSocket => {
                self.stats.accepted_websocket += 1;
                self.handshakes.push_back((self.now.mono + HANDSHAKE, id));
                if self.handshakes.len() > HANDSHAKES_MAX
                    && let Some((_, oldest)) = self.handshakes.pop_front()
                {
                    self.handshake_overdue(oldest);
                }
            }
        }
    }

    pub(super) fn open(&mut self, slot: u32, transport: Transport, peer: SocketAddr) {
        let conn = &mut self.conns[slot as usize];
        conn.known = true;
        let id = conn.id;
        self.handle(Input::ConnOpened { conn: id, transport, peer });
    }

    fn look_at(&mut self, slot: u32) {
        let wants_input = self.machine.wants_input();
        let Some(conn) = self.conns.get_mut(slot as usize) else { return };
        conn.rearm();
        let blocked = conn.has_output();
        match conn.phase {
            Phase::Open if conn.paused => {}
            Phase::Open if !wants_input => {
                conn.paused = true;
                self.paused.push(slot);
            }
            // Back-pressure of this connection alone: its bytes wait in the socket.
            Phase::Open if conn.known && !self.machine.wants_bytes(conn.id) => {
                conn.paused = true;
                self.stalled.push_back(slot);
            }
            Phase::Open => self.read(slot),
            Phase::Flushing => {}
            Phase::Lingering => self.discard(slot),
        }
        if blocked && self.conns.contains(slot as usize) {
            self.mark_dirty(slot);
        }
    }

    fn read(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for round in 0..=READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(slot as usize).filter(|c| c.phase == Phase::Open) else { break };
            let wanted = self.machine.wants_input() && (!conn.known || self.machine.wants_bytes(conn.id));
            let enough = round > 0 && !wanted;
            if round == READS_PER_TURN || enough {
                conn.fire();
                break;
            }
            match conn.poll_read(&mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.stats.socket_reads += 1;
                    self.stats.socket_read_bytes += n as u64;
                    self.received(slot, &buffer[..n]);
                }
                Poll::Ready(_) => {
                    self.forget(slot, CloseCause::Peer);
                    break;
                }
            }
        }
        self.read_buffer = buffer;
    }

    /// Frames of the machine.
    pub(super) fn write(&mut self, id: ConnId, frames: impl IntoIterator<Item = Bytes>) {
        let Some(slot) = self.find(id) else { return };
        let conn = &mut self.conns[slot as usize];
        if conn.phase == Phase::Open {
            for frame in frames {
                conn.push_frame(frame);
            }
            self.mark_dirty(slot);
        }
    }

    /// The machine asked for the end of a connection.
    pub(super) fn close_asked(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id)
            && self.conns[slot as usize].phase == Phase::Open
        {
            self.close(slot, Some(CloseCode::Normal));
        }
    }

    /// Writes what waits, then closes; both within [`CLOSE`]. With a code, a close frame is the last thing written.
    pub(super) fn close(&mut self, slot: u32, code: Option<CloseCode>) {
        let conn = &mut self.conns[slot as usize];
        conn.phase = Phase::Flushing;
        if let Some(code) = code {
            conn.push_close(code);
        }
        self.closing.push_back((self.now.mono + CLOSE, conn.id));
        self.mark_dirty(slot);
    }

    pub(super) fn tell_closed(&mut self, slot: u32, cause: CloseCause) {
        let conn = &mut self.conns[slot as usize];
        let id = conn.id;
        if std::mem::take(&mut conn.known) {
            self.handle(Input::ConnClosed { conn: id, cause });
        }
    }

    /// The socket is gone.
    fn forget(&mut self, slot: u32, cause: CloseCause) {
        self.tell_closed(slot, cause);
        self.conns.remove(slot as usize);
    }

    /// One vectored write for each connection with something new to write, or with room to write again.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            let Some(conn) = self.conns.get_mut(slot as usize).filter(|c| c.dirty) else { continue };
            conn.dirty = false;
            let (flushed, id, open) = (conn.flush(), conn.id, conn.phase == Phase::Open);
            self.stats.socket_writes += flushed.calls;
            self.stats.socket_written_bytes += flushed.bytes as u64;
            if flushed.credit > 0 && conn.known {
                self.credits.push((id, u32::try_from(flushed.credit).unwrap_or(u32::MAX)));
            }
            match flushed.outcome {
                Ok(false) => {}
                Ok(true) if open => {}
                Ok(true) => self.flushed_last(slot),
                Err(_) => self.forget(slot, if open { CloseCause::Peer } else { CloseCause::Asked }),
            }
        }
        self.dirty = dirty;
    }

    /// Everything before the end was written: closes the write side and waits for the peer's end.
    fn flushed_last(&mut self, slot: u32) {
        let conn = &mut self.conns[slot as usize];
        if conn.phase != Phase::Flushing {
            return;
        }
        if let Poll::Ready(Err(_)) = conn.poll_shutdown() {
            return self.forget(slot, CloseCause::Asked);
        }
        conn.phase = Phase::Lingering;
        self.tell_closed(slot, CloseCause::Asked);
        self.discard(slot);
    }

    /// Throws away what the peer still sends; its end is the end of the socket.
    fn discard(&mut self, slot: u32) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for round in 0..=READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(slot as usize) else { break };
            match conn.poll_read(&mut buffer) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 && round < READS_PER_TURN => {}
                Poll::Ready(Ok(n)) if n > 0 => conn.fire(),
                Poll::Ready(_) => {
                    self.forget(slot, CloseCause::Asked);
                    break;
                }
            }
        }
        self.read_buffer = buffer;
    }

    /// Deadlines of the shell's own.
    pub(super) fn expire(&mut self) {
        let now = self.now.mono;
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            for listener in [&self.tcp, &self.websocket].into_iter().flatten() {
                listener.wake.fire();
            }
        }
        while let Some(id) = pop_due(&mut self.handshakes, now) {
            self.handshake_overdue(id);
        }
        while let Some(id) = pop_due(&mut self.closing, now) {
            if let Some(slot) = self.find(id) {
                self.stats.closes_cut_short += u64::from(self.conns[slot as usize].has_output());
                self.forget(slot, CloseCause::Asked);
            }
        }
    }

    /// Closes the connections that the machine does not know yet.
    pub(super) fn drop_handshakes(&mut self) {
        for (_, id) in std::mem::take(&mut self.handshakes) {
            self.handshake_overdue(id);
        }
    }

    fn handshake_overdue(&mut self, id: ConnId) {
        if let Some(slot) = self.find(id) {
            let conn = &self.conns[slot as usize];
            if matches!(conn.layer, Layer::Handshake(_)) && conn.phase == Phase::Open {
                self.stats.websocket_handshakes_timed_out += 1;
                self.forget(slot, CloseCause::Peer);
            }
        }
    }
}

fn pop_due(list: &mut VecDeque<(Instant, ConnId)>, now: Instant) -> Option<ConnId> {
    list.front().is_some_and(|(at, _)| *at <= now).then(|| list.pop_front()).flatten().map(|(_, id)| id)
}

/// An accept that failed for a reason of that connection; the next one may succeed.
fn of_the_connection(e: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, PermissionDenied};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted | PermissionDenied)
}

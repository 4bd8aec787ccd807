//! What arrived on a socket: bytes for the machine, an upgrade request, WebSocket frames.

use super::conn::Layer;
use super::ws::{Event, Progress};
use super::{Machine, Reactor, Store};
use bytes::Bytes;
use wukong_core::{CloseCause, Input, Transport};

impl<M: Machine, S: Store> Reactor<M, S> {
    pub(super) fn received(&mut self, slot: u32, bytes: &[u8]) {
        let conn = &mut self.conns[slot as usize];
        let id = conn.id;
        match &mut conn.layer {
            Layer::Raw => self.handle(Input::ConnReceived { conn: id, bytes: Bytes::copy_from_slice(bytes) }),
            Layer::Web(_) => self.received_frames(slot, bytes),
            Layer::Handshake(handshake) => match handshake.feed(bytes) {
                Progress::More => {}
                Progress::Refused(response) => {
                    self.stats.websocket_handshakes_refused += 1;
                    conn.push_own(response);
                    self.close(slot, None);
                }
                Progress::Accepted(accepted) => {
                    conn.push_own(accepted.response);
                    conn.layer = Layer::Web(None);
                    let peer = accepted.forwarded_for.unwrap_or(conn.peer);
                    self.mark_dirty(slot);
                    self.open(slot, Transport::WebSocket, peer);
                    self.received_frames(slot, &accepted.rest);
                }
            },
        }
    }

    /// The connection keeps the decoder only if it holds a part of a message; else the next connection uses it.
    fn received_frames(&mut self, slot: u32, bytes: &[u8]) {
        let conn = &mut self.conns[slot as usize];
        let id = conn.id;
        let Layer::Web(kept) = &mut conn.layer else { return };
        let mut decoder = kept.take().or_else(|| self.decoder.take()).unwrap_or_default();
        for event in decoder.decode(bytes) {
            match event {
                Event::Data(payload) => {
                    // The payload shares the decoder's buffer, which the machine must not hold on to.
                    let bytes = Bytes::copy_from_slice(&payload);
                    self.handle(Input::ConnReceived { conn: id, bytes });
                }
                // No bytes for the machine, but a sign of life, which its idle timer wants to know of.
                Event::Pong => self.handle(Input::ConnReceived { conn: id, bytes: Bytes::new() }),
                Event::Ping(pong) => {
                    self.conns[slot as usize].push_pong(pong);
                    self.mark_dirty(slot);
                    self.handle(Input::ConnReceived { conn: id, bytes: Bytes::new() });
                }
                Event::Close(answer) => {
                    self.conns[slot as usize].push_own(answer);
                    self.tell_closed(slot, CloseCause::Peer);
                    return self.close(slot, None);
                }
                Event::Violation(code) => {
                    self.stats.websocket_violations += 1;
                    self.tell_closed(slot, CloseCause::Transport);
                    return self.close(slot, Some(code));
                }
            }
        }
        if decoder.is_reusable() {
            self.decoder = Some(decoder);
        } else if !decoder.is_idle()
            && let Layer::Web(kept) = &mut self.conns[slot as usize].layer
        {
            *kept = Some(decoder);
        }
    }
}

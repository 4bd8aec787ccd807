//! Streams between clients and shards: first in first out, cut anywhere, slow, broken, or not read.

use super::{Event, World};
use crate::client::session::Session;
use crate::clock::{MS, SEC};
use crate::history::{Event as Happened, IntentIx, LinkInfo, LinkIx};
use crate::machine::Machine;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use wukong_core::ids::ConnId;
use wukong_core::output::CloseReason;
use wukong_core::{CloseCause, Input, Transport};
use wukong_proto::Frame;

/// Bytes that a kernel takes for a client that does not read.
const KERNEL_ROOM: u64 = 64 * 1024;

/// Bytes that a shell reads at once.
const READ_MAX: usize = 64 * 1024;

/// Something the server is about to have read completely.
#[derive(Clone, Copy, Debug)]
pub enum Mark {
    Send(IntentIx),
    RecvAck(i64),
    Ping,
    /// The client breaks the protocol or says goodbye: what follows is not read.
    End,
}

#[derive(Clone, Debug)]
enum Up {
    Open,
    Bytes(Bytes),
    Fin,
}

#[derive(Clone, Debug)]
pub enum Down {
    Frames(Vec<Frame>),
    Fin,
}

/// One connection, both ends.
#[derive(Clone, Debug)]
pub struct Link {
    pub device: u32,
    pub shard: u8,
    /// Process it belongs to.
    pub life: u64,
    /// The client still holds it.
    pub client_open: bool,
    /// The shard was told of it and not of its end.
    pub server_open: bool,
    /// The core asked for the close.
    pub closing: bool,
    pub version: u8,
    pub connected: bool,
    pub session: Option<Session>,
    pub frozen: bool,
    /// Inputs of it that the shard has left in the socket.
    pub held: u32,
    /// Its CONNECT carried a token that was never stored.
    pub wrong_token: bool,
    /// After the end of what the server reads.
    pub ended: bool,
    up: VecDeque<Up>,
    up_last: u64,
    down: VecDeque<Down>,
    down_last: u64,
    /// Arrivals that found a client that does not read.
    stuck: u32,
    room: u64,
    /// Written, not taken by the kernel.
    waiting: u64,
    credit: u32,
    credit_waits: bool,
    marks: VecDeque<(u64, Mark)>,
    written: u64,
    read: u64,
    out: BytesMut,
}

impl<M: Machine> World<M> {
    /// A device opens a connection; its first bytes may follow at once.
    pub(crate) fn open(&mut self, device: u32) -> Option<LinkIx> {
        if !self.is_up() || self.process.stopping {
            return None;
        }
        let d = &self.devices[device as usize];
        let shards = self.shards_up();
        let shard = d.shard.map_or_else(|| self.rng.net.below(u64::from(shards)) as u8, |s| s % shards);
        let ix = self.links.len() as LinkIx;
        let life = self.life();
        self.history.links.push(LinkInfo { device, user: d.user, version: d.version, shard, incarnation: life });
        self.links.push(Link {
            device,
            shard,
            life,
            client_open: true,
            server_open: false,
            closing: false,
            version: d.version,
            connected: false,
            session: None,
            frozen: false,
            held: 0,
            wrong_token: false,
            ended: false,
            up: VecDeque::new(),
            up_last: 0,
            down: VecDeque::new(),
            down_last: 0,
            stuck: 0,
            room: KERNEL_ROOM,
            waiting: 0,
            credit: 0,
            credit_waits: false,
            marks: VecDeque::new(),
            written: 0,
            read: 0,
            out: BytesMut::new(),
        });
        self.send_up(ix, Up::Open);
        Some(ix)
    }

    fn latency(&mut self) -> u64 {
        let (from, to) = self.sc.time.net;
        self.rng.net.between(from, to)
    }

    fn send_up(&mut self, link: LinkIx, item: Up) {
        let at = self.now + self.latency();
        let l = &mut self.links[link as usize];
        l.up_last = l.up_last.max(at);
        l.up.push_back(item);
        let at = l.up_last;
        self.heap.add(at, Event::Up { link });
    }

    fn send_down(&mut self, link: LinkIx, item: Down) {
        let at = self.now + self.latency();
        let l = &mut self.links[link as usize];
        l.down_last = l.down_last.max(at);
        l.down.push_back(item);
        let at = l.down_last;
        self.heap.add(at, Event::Down { link });
    }

    /// The buffer a client encodes into; `flush_up` sends it.
    pub(crate) fn out(&mut self, link: LinkIx) -> &mut BytesMut {
        &mut self.links[link as usize].out
    }

    /// What the bytes written so far end with.
    pub(crate) fn mark(&mut self, link: LinkIx, mark: Mark) {
        let l = &mut self.links[link as usize];
        let end = l.written + l.out.len() as u64;
        l.marks.push_back((end, mark));
    }

    /// Sends what was encoded, cut into chunks now and then.
    pub(crate) fn flush_up(&mut self, link: LinkIx) {
        let l = &mut self.links[link as usize];
        if !l.client_open {
            l.out.clear();
            l.marks.clear();
            return;
        }
        let mut bytes = l.out.split().freeze();
        l.written += bytes.len() as u64;
        if self.rng.net.chance(self.sc.time.chunk) {
            self.seen.chunked += 1;
            let mut pieces = 0;
            while bytes.len() > 1 && pieces < 6 {
                let n = 1 + self.rng.net.index(bytes.len() - 1);
                let piece = bytes.split_to(n);
                self.send_up(link, Up::Bytes(piece));
                pieces += 1;
            }
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(READ_MAX));
            self.send_up(link, Up::Bytes(piece));
        }
    }

    pub(super) fn up_arrives(&mut self, link: LinkIx) {
        let l = &mut self.links[link as usize];
        let Some(item) = l.up.pop_front() else { return };
        let (shard, conn, live) = (l.shard, ConnId(u64::from(link)), l.life == self.process.life && self.process.up);
        if !live {
            return;
        }
        match item {
            Up::Open => {
                l.server_open = true;
                let transport = if link.is_multiple_of(2) { Transport::Tcp } else { Transport::WebSocket };
                let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 10_000 + (link % 50_000) as u16);
                self.arrive(shard, Input::ConnOpened { conn, transport, peer });
            }
            Up::Bytes(bytes) if l.server_open && !l.closing => self.arrive(shard, Input::ConnReceived { conn, bytes }),
            Up::Fin if l.server_open => self.server_forgets(link, CloseCause::Peer),
            Up::Bytes(_) | Up::Fin => {}
        }
    }

    fn server_forgets(&mut self, link: LinkIx, cause: CloseCause) {
        let l = &mut self.links[link as usize];
        l.server_open = false;
        let (shard, conn) = (l.shard, ConnId(u64::from(link)));
        // Once the core has asked for the close nothing more is read; a broken connection may lose what was not.
        let closing = l.closing;
        if closing || self.rng.net.chance(300) {
            self.forget_held(shard, conn);
        }
        self.arrive(shard, Input::ConnClosed { conn, cause });
    }

    /// The machine is about to handle an input: what it then knows of clients.
    pub(super) fn note_input(&mut self, shard: u8, input: &Input) {
        match input {
            Input::ConnReceived { conn, bytes } => {
                let link = conn.0 as LinkIx;
                let l = &mut self.links[conn.0 as usize];
                l.read += bytes.len() as u64;
                while let Some((end, mark)) = l.marks.front().copied()
                    && end <= l.read
                {
                    l.marks.pop_front();
                    if l.ended || l.closing {
                        continue;
                    }
                    let happened = match mark {
                        Mark::Send(intent) => Happened::SendIn { link, intent },
                        Mark::RecvAck(id) => Happened::RecvAckIn { link, id },
                        Mark::Ping => Happened::PingIn { link },
                        Mark::End => {
                            l.ended = true;
                            continue;
                        }
                    };
                    if self.mode.oracles {
                        self.history.events.push((self.now, happened));
                    }
                }
            }
            Input::Mail { mail, .. } => self.push_arrives(mail),
            Input::Completed { .. } if self.storage.busy() => self.seen.completions_while_busy += 1,
            _ => {}
        }
        let _ = shard;
    }

    /// The server wrote: decoded frames travel to the client, credit comes back when the kernel took the bytes.
    pub(super) fn frames_leave(&mut self, link: LinkIx, frames: Vec<Frame>, bytes: u32) {
        let l = &mut self.links[link as usize];
        let reads = l.client_open && !l.frozen;
        let taken = if reads {
            bytes
        } else {
            let n = u64::from(bytes).min(l.room);
            l.room -= n;
            l.waiting += u64::from(bytes) - n;
            n as u32
        };
        l.credit += taken;
        if l.credit > 0 && !l.credit_waits {
            l.credit_waits = true;
            let after = self.rng.net.below(100_000);
            self.later(after, Event::Credit { link });
        }
        if self.links[link as usize].client_open {
            self.send_down(link, Down::Frames(frames));
        }
    }

    pub(super) fn credit(&mut self, link: LinkIx) {
        let live = self.process.up && self.links[link as usize].life == self.process.life;
        let l = &mut self.links[link as usize];
        l.credit_waits = false;
        let bytes = std::mem::take(&mut l.credit);
        if live && l.server_open && bytes > 0 {
            let (shard, conn) = (l.shard, ConnId(u64::from(link)));
            self.arrive(shard, Input::ConnDrained { conn, bytes });
        }
    }

    pub(super) fn down_arrives(&mut self, link: LinkIx) {
        let l = &mut self.links[link as usize];
        if l.frozen {
            l.stuck += 1;
            return;
        }
        let Some(item) = l.down.pop_front() else { return };
        if !l.client_open {
            return;
        }
        match item {
            Down::Frames(frames) => self.client_receives(link, frames),
            Down::Fin => {
                self.links[link as usize].client_open = false;
                self.client_lost(link);
            }
        }
    }

    /// The core asked for the close: what was written goes first.
    pub(super) fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let link = conn.0 as LinkIx;
        let Some(l) = self.links.get_mut(link as usize) else {
            self.violation("CONN", format!("Close for connection {conn}, which never was"));
            return;
        };
        if l.closing {
            self.happened(Happened::Illegal { link, what: "a second Close" });
            return;
        }
        l.closing = true;
        let shard = l.shard;
        self.forget_held(shard, conn);
        self.seen.closed(reason);
        self.visible.num(u64::from(link) << 8 | reason as u64);
        self.happened(Happened::CloseOut { link, reason });
        let most = if self.links[link as usize].frozen { 2 * SEC } else { 2 * MS };
        let after = self.rng.net.below(most);
        self.later(after, Event::ServerClose { link });
    }

    pub(super) fn server_closes(&mut self, link: LinkIx) {
        let l = &self.links[link as usize];
        if l.life != self.process.life || !self.process.up || !l.server_open {
            return;
        }
        self.server_forgets(link, CloseCause::Asked);
        if self.links[link as usize].client_open {
            self.send_down(link, Down::Fin);
        }
    }

    /// The client, or its network, ends the connection. `heard`: the server learns of it.
    pub(crate) fn cut(&mut self, link: LinkIx, heard: bool) {
        let l = &mut self.links[link as usize];
        if !l.client_open {
            return;
        }
        l.client_open = false;
        l.down.clear();
        self.happened(Happened::Broken { link });
        if heard {
            self.send_up(link, Up::Fin);
        }
        self.client_lost(link);
    }

    /// The process died: every connection of it breaks.
    pub(super) fn break_all_links(&mut self) {
        let life = self.process.life;
        for link in 0..self.links.len() as LinkIx {
            let l = &mut self.links[link as usize];
            if l.life != life {
                continue;
            }
            l.server_open = false;
            if !l.client_open {
                continue;
            }
            self.happened(Happened::Broken { link });
            // What the kernel had taken may still arrive.
            self.send_down(link, Down::Fin);
        }
    }

    pub(crate) fn freeze(&mut self, link: LinkIx, on: bool) {
        let l = &mut self.links[link as usize];
        if l.frozen == on || !l.client_open {
            return;
        }
        l.frozen = on;
        self.happened(Happened::Frozen { link, on });
        if on {
            return;
        }
        let l = &mut self.links[link as usize];
        let stuck = std::mem::take(&mut l.stuck);
        // Everything that waited is taken at once.
        l.credit += l.waiting as u32;
        l.waiting = 0;
        l.room = KERNEL_ROOM;
        for _ in 0..stuck {
            self.later(1, Event::Down { link });
        }
        if !self.links[link as usize].credit_waits {
            self.links[link as usize].credit_waits = true;
            self.later(1, Event::Credit { link });
        }
    }
}

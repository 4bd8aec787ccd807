//! Connections between clients and shards: bytes up and frames down, each first in first out.

use super::shell::Order;
use super::world::{Event, World};
use crate::client::session::Session;
use crate::clock::{MS, US};
use crate::history::{Event as Happened, IntentIx, LinkInfo};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use wukong_core::ids::ConnId;
use wukong_core::output::CloseReason;
use wukong_core::{CloseCause, Input, Transport};
use wukong_proto::Frame;

/// Toward the server.
#[derive(Debug)]
pub enum Up {
    Open,
    /// With the SENDs that it holds.
    Bytes(Bytes, Vec<IntentIx>),
    Fin,
}

/// Toward the client.
#[derive(Debug)]
pub enum Down {
    Frames(Vec<Frame>),
    Fin,
}

/// One connection, both ends. Its index is its id, over all nodes.
#[derive(Clone, Debug)]
pub struct Conn {
    pub device: u32,
    pub node: usize,
    pub shard: u8,
    pub life: u64,
    /// The client still holds it.
    pub client_open: bool,
    /// The shard was told of it and not of its end.
    pub server_open: bool,
    /// The core asked for the close.
    pub closing: bool,
    pub connected_at: Option<u64>,
    pub session: Option<Session>,
    up_last: u64,
    down_last: u64,
}

impl World {
    /// A device opens a connection to a node.
    pub(super) fn open(&mut self, device: u32, node: usize) -> u32 {
        let conn = self.conns.len() as u32;
        let shard = self.rng.clients.below(self.plan.shards) as u8;
        let life = self.nodes[node].life;
        let user = self.devices[device as usize].user;
        // Oracles know shards only: those of different nodes have different numbers.
        let number = (node as u8) << 3 | shard;
        self.history.links.push(LinkInfo { device, user, version: 5, shard: number, incarnation: life });
        self.conns.push(Conn {
            device,
            node,
            shard,
            life,
            client_open: true,
            server_open: false,
            closing: false,
            connected_at: None,
            session: None,
            up_last: 0,
            down_last: 0,
        });
        self.send_up(conn, Up::Open);
        conn
    }

    pub(super) fn send_up(&mut self, conn: u32, item: Up) {
        let at = self.now + self.rng.clients.below(300 * US);
        let c = &mut self.conns[conn as usize];
        c.up_last = c.up_last.max(at);
        let at = c.up_last;
        self.heap.add(at, Event::Up { conn, item });
    }

    pub(super) fn send_down(&mut self, conn: u32, item: Down) {
        let at = self.now + self.rng.clients.below(300 * US);
        let c = &mut self.conns[conn as usize];
        c.down_last = c.down_last.max(at);
        let at = c.down_last;
        self.heap.add(at, Event::Down { conn, item });
    }

    fn has_process(&self, conn: u32) -> bool {
        let c = &self.conns[conn as usize];
        self.nodes[c.node].alive && self.nodes[c.node].life == c.life
    }

    pub(super) fn up(&mut self, ix: u32, item: Up) {
        if let Some(shell) = &mut self.shell {
            return match item {
                Up::Open => shell.orders.push_back(Order::Open(ix)),
                Up::Bytes(bytes, sends) => shell.leaves(ix, bytes, sends),
                Up::Fin => shell.orders.push_back(Order::HangUp(ix)),
            };
        }
        if !self.has_process(ix) {
            return;
        }
        let conn = ConnId(u64::from(ix));
        let c = &mut self.conns[ix as usize];
        let (node, shard) = (c.node, c.shard);
        match item {
            Up::Open => {
                c.server_open = true;
                let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 10_000 + (ix % 50_000) as u16);
                self.arrive(node, shard, Input::ConnOpened { conn, transport: Transport::Tcp, peer });
            }
            Up::Bytes(bytes, sends) if c.server_open && !c.closing => {
                for intent in sends {
                    self.note_sent(ix, intent);
                    self.happened(Happened::SendIn { link: ix, intent });
                }
                self.arrive(node, shard, Input::ConnReceived { conn, bytes });
            }
            Up::Fin if c.server_open => self.server_forgets(ix, CloseCause::Peer),
            Up::Bytes(..) | Up::Fin => {}
        }
    }

    fn server_forgets(&mut self, conn: u32, cause: CloseCause) {
        let c = &mut self.conns[conn as usize];
        c.server_open = false;
        let (node, shard) = (c.node, c.shard);
        self.nodes[node].conns.retain(|c| *c != conn);
        self.arrive(node, shard, Input::ConnClosed { conn: ConnId(u64::from(conn)), cause });
    }

    /// The server wrote; credit comes back when the kernel took the bytes.
    pub(super) fn frames_leave(&mut self, conn: u32, frames: Vec<Frame>, bytes: u32) {
        if let Some(shell) = &mut self.shell {
            return shell.wrote(conn, frames);
        }
        let after = self.rng.clients.below(100 * US);
        self.later(after, Event::Drained { conn, bytes });
        if self.conns[conn as usize].client_open {
            self.send_down(conn, Down::Frames(frames));
        }
    }

    pub(super) fn drained(&mut self, conn: u32, bytes: u32) {
        let c = &self.conns[conn as usize];
        if c.server_open && self.has_process(conn) {
            let (node, shard) = (c.node, c.shard);
            self.arrive(node, shard, Input::ConnDrained { conn: ConnId(u64::from(conn)), bytes });
        }
    }

    pub fn down(&mut self, conn: u32, item: Down) {
        if !self.conns[conn as usize].client_open {
            return;
        }
        match item {
            Down::Frames(frames) => self.client_receives(conn, frames),
            Down::Fin => {
                self.conns[conn as usize].client_open = false;
                self.client_lost(conn);
            }
        }
    }

    pub fn close(&mut self, conn: ConnId, reason: CloseReason) {
        let ix = conn.0 as u32;
        let Some(c) = self.conns.get_mut(ix as usize) else {
            return self.violation("CONN", format!("Close for connection {conn}, which never was"));
        };
        c.closing = true;
        self.visible.num(conn.0 << 8 | reason as u64);
        self.happened(Happened::CloseOut { link: ix, reason });
        if self.shell.is_some() {
            return;
        }
        let after = self.rng.clients.below(2 * MS);
        self.later(after, Event::ServerClose { conn: ix });
    }

    pub(super) fn server_closes(&mut self, conn: u32) {
        if self.has_process(conn) && self.conns[conn as usize].server_open {
            self.server_forgets(conn, CloseCause::Asked);
            self.send_down(conn, Down::Fin);
        }
    }

    /// The client, or its network, ends the connection.
    pub(super) fn hang_up_client(&mut self, conn: u32) {
        let c = &mut self.conns[conn as usize];
        if !c.client_open {
            return;
        }
        c.client_open = false;
        self.happened(Happened::Broken { link: conn });
        self.send_up(conn, Up::Fin);
        self.client_lost(conn);
    }

    /// The process died: every connection of it breaks.
    pub(super) fn break_conns(&mut self, n: usize) {
        let life = self.nodes[n].life;
        for conn in 0..self.conns.len() as u32 {
            let c = &mut self.conns[conn as usize];
            if c.node != n || c.life != life || !(c.server_open || c.client_open) {
                continue;
            }
            c.server_open = false;
            if c.client_open {
                self.happened(Happened::Broken { link: conn });
                self.send_down(conn, Down::Fin);
            }
        }
    }

    pub(super) fn storm(&mut self, share: u32) {
        for conn in 0..self.conns.len() as u32 {
            if self.conns[conn as usize].client_open && self.rng.clients.chance(share) {
                self.hang_up_client(conn);
            }
        }
    }
}

//! Writing a recording.

use super::{FORMAT, Header, MAGIC, SealKey, cipher, tag};
use crate::api::{ApiRequest, ConversationSync, MessageSync};
use crate::error::StoreFault;
use crate::ids::ShardId;
use crate::input::{CloseCause, Completion, Input, Transport};
use crate::store::Found;
use crate::time::Now;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub(super) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

pub(super) fn signed(out: &mut Vec<u8>, n: i64) {
    varint(out, ((n << 1) ^ (n >> 63)) as u64);
}

fn bytes(out: &mut Vec<u8>, b: &[u8]) {
    varint(out, b.len() as u64);
    out.extend_from_slice(b);
}

fn flag(out: &mut Vec<u8>, b: bool) {
    out.push(u8::from(b));
}

/// Encodes one shard's recording, item by item.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    last: Now,
    /// Mail received so far, by sender.
    mail: BTreeMap<ShardId, u64>,
}

impl Encoder {
    /// Begins a recording: appends the header to `out`.
    #[must_use]
    pub fn begin(header: &Header, key: &SealKey, out: &mut Vec<u8>) -> Self {
        let Header { config, boot, seed, started } = header;
        out.extend_from_slice(MAGIC);
        out.push(FORMAT);
        varint(out, u64::from(config.node.0));
        varint(out, u64::from(config.shard.0));
        varint(out, u64::from(config.shards));
        varint(out, u64::from(config.slots));
        varint(out, u64::from(config.token_auth));
        varint(out, config.overlay_rows_max as u64);
        varint(out, config.dedup_bytes_max as u64);
        varint(out, config.mail_credit as u64);
        varint(out, config.slot_log_suffix);
        varint(out, config.slot_log_max);
        varint(out, u64::from(config.snapshot_rows));
        varint(out, config.link_pause as u64);
        varint(out, config.audit_every.as_millis() as u64);
        varint(out, config.audit_soon.as_millis() as u64);
        out.extend_from_slice(&config.cluster.to_be_bytes());
        varint(out, config.replicas.len() as u64);
        for replica in &config.replicas {
            varint(out, u64::from(replica.node.0));
            out.extend_from_slice(&replica.store.0.to_be_bytes());
        }
        out.extend_from_slice(&boot.store.0.to_be_bytes());
        varint(out, boot.incarnation.0);
        varint(out, started.mono.0);
        varint(out, started.wall.0);
        out.extend_from_slice(&seed.jitter);
        let mut secret = seed.keys.to_vec();
        flag(&mut secret, config.manager_token.is_some());
        bytes(&mut secret, config.manager_token.as_ref().map_or(&[], |t| t.as_bytes()));
        let crc = crc32fast::hash(&secret);
        secret.extend_from_slice(&crc.to_be_bytes());
        cipher(key, config.shard.0, &mut secret);
        bytes(out, &secret);
        Self { last: *started, mail: BTreeMap::new() }
    }

    /// Appends an input, before it is handed to the shard.
    pub fn input(&mut self, now: Now, input: &Input, out: &mut Vec<u8>) {
        out.push(tag_of(input));
        varint(out, now.mono.0.wrapping_sub(self.last.mono.0));
        signed(out, now.wall.0.wrapping_sub(self.last.wall.0) as i64);
        self.last = now;
        match input {
            Input::ConnOpened { conn, transport, peer } => {
                varint(out, conn.0);
                flag(out, *transport == Transport::WebSocket);
                address(out, *peer);
            }
            Input::ConnReceived { conn, bytes: received } => {
                varint(out, conn.0);
                bytes(out, received);
            }
            Input::ConnDrained { conn, bytes } => {
                varint(out, conn.0);
                varint(out, u64::from(*bytes));
            }
            Input::ConnClosed { conn, cause } => {
                varint(out, conn.0);
                out.push(match cause {
                    CloseCause::Peer => 0,
                    CloseCause::Asked => 1,
                    CloseCause::Transport => 2,
                });
            }
            Input::Mail { from, .. } => {
                let ordinal = self.mail.entry(*from).or_default();
                out.push(from.0);
                varint(out, *ordinal);
                *ordinal += 1;
            }
            Input::Completed { op, completion } => {
                varint(out, op.0);
                match completion {
                    Completion::Persisted(result) => out.push(fault(result.err())),
                    Completion::Loaded(Err(e)) => out.push(fault(Some(*e))),
                    Completion::Loaded(Ok(found)) => {
                        out.push(fault(None));
                        varint(out, found.len() as u64);
                        found.iter().for_each(|f| one_found(out, f));
                    }
                }
            }
            Input::Call { call, request: asked } => {
                varint(out, call.0);
                request(out, asked);
            }
            Input::PeerUp { peer } => {
                varint(out, u64::from(peer.node.0));
                out.extend_from_slice(&peer.store.0.to_be_bytes());
                varint(out, peer.incarnation.0);
                out.push(peer.shards);
                varint(out, u64::from(peer.wire));
            }
            Input::PeerDown { node, incarnation } => {
                varint(out, u64::from(node.0));
                varint(out, incarnation.0);
            }
            Input::PeerFrame { node, incarnation, frame } => {
                varint(out, u64::from(node.0));
                varint(out, incarnation.0);
                bytes(out, frame);
            }
            Input::Deadline | Input::Stop => {}
        }
    }

    /// Appends the end of a drain.
    pub fn drained(&mut self, hash: u64, out: &mut Vec<u8>) {
        out.push(tag::DRAINED);
        out.extend_from_slice(&hash.to_be_bytes());
    }
}

fn tag_of(input: &Input) -> u8 {
    match input {
        Input::ConnOpened { .. } => tag::OPENED,
        Input::ConnReceived { .. } => tag::RECEIVED,
        Input::ConnDrained { .. } => tag::CREDIT,
        Input::ConnClosed { .. } => tag::CLOSED,
        Input::Mail { .. } => tag::MAIL,
        Input::Completed { completion: Completion::Persisted(_), .. } => tag::PERSISTED,
        Input::Completed { completion: Completion::Loaded(_), .. } => tag::LOADED,
        Input::Call { .. } => tag::CALL,
        Input::PeerUp { .. } => tag::PEER_UP,
        Input::PeerDown { .. } => tag::PEER_DOWN,
        Input::PeerFrame { .. } => tag::PEER_FRAME,
        Input::Deadline => tag::DEADLINE,
        Input::Stop => tag::STOP,
    }
}

fn fault(fault: Option<StoreFault>) -> u8 {
    match fault {
        None => 0,
        Some(StoreFault::Io) => 1,
        Some(StoreFault::Full) => 2,
        Some(StoreFault::Corrupt) => 3,
    }
}

fn address(out: &mut Vec<u8>, addr: SocketAddr) {
    match addr.ip() {
        IpAddr::V4(ip) => bytes(out, &ip.octets()),
        IpAddr::V6(ip) => bytes(out, &ip.octets()),
    }
    varint(out, u64::from(addr.port()));
}

fn one_found(out: &mut Vec<u8>, found: &Found) {
    match found {
        Found::Unreadable(why) => out.extend_from_slice(&[3, fault(Some(*why))]),
        Found::Point(None) => out.push(0),
        Found::Point(Some(value)) => {
            out.push(1);
            bytes(out, value);
        }
        Found::Page { rows, more } => {
            out.push(2);
            varint(out, rows.len() as u64);
            for (key, value) in rows {
                bytes(out, key);
                bytes(out, value);
            }
            flag(out, *more);
        }
    }
}

fn request(out: &mut Vec<u8>, request: &ApiRequest) {
    match request {
        ApiRequest::SetToken { uid, token, device_flag, device_level } => {
            out.push(0);
            bytes(out, uid.as_bytes());
            bytes(out, token.as_bytes());
            out.extend_from_slice(&[*device_flag, *device_level]);
        }
        ApiRequest::MessageSync(q) => {
            let MessageSync { login_uid, channel_id, channel_type, start, end, limit, up } = q;
            out.push(1);
            bytes(out, login_uid.as_bytes());
            bytes(out, channel_id.as_bytes());
            out.push(*channel_type);
            varint(out, *start);
            varint(out, *end);
            signed(out, *limit);
            flag(out, *up);
        }
        ApiRequest::ConversationSync(q) => {
            let ConversationSync { uid, version, last_seqs, msg_count, only_unread, exclude_types, page, page_size } =
                q;
            out.push(2);
            bytes(out, uid.as_bytes());
            signed(out, *version);
            varint(out, last_seqs.len() as u64);
            for (id, kind, seq) in last_seqs {
                bytes(out, id.as_bytes());
                out.push(*kind);
                varint(out, *seq);
            }
            signed(out, *msg_count);
            flag(out, *only_unread);
            bytes(out, exclude_types);
            signed(out, *page);
            signed(out, *page_size);
        }
        ApiRequest::DeleteChannel { channel_id, channel_type } => {
            out.push(3);
            bytes(out, channel_id.as_bytes());
            out.push(*channel_type);
        }
    }
}

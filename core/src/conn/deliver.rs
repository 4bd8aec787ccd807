//! RECV: the view of one recipient, encrypted and encoded for its connection (semantics 5.6).

use super::{Conns, State, crypto};
use crate::channel::id::{SYSTEM_UID, origin, peer};
use crate::ctx::Ctx;
use crate::event::mail::Delivery;
use crate::ids::{ConnRef, channel_type};
use wukong_proto::{Flags, Recv, Text};

impl Conns {
    /// Writes one RECV to a connection of this shard.
    pub fn deliver(&mut self, ctx: &mut Ctx, conn_ref: ConnRef, delivery: &Delivery, dup: bool) {
        let id = conn_ref.conn;
        let Some(conn) = self.map.get_mut(&id) else {
            return;
        };
        // An expired message is not pushed (semantics 4.7).
        if conn.state != State::Active || delivery.record.expired(ctx.now.wall.0) {
            return;
        }
        let dup = dup || delivery.again;
        let mut recv = view(delivery, &conn.uid, conn.version, dup);
        if let Some(keys) = &conn.keys {
            crypto::seal_recv(keys, &mut recv, &mut self.scratch);
        }
        let version = conn.version;
        ctx.counters.recvs += 1;
        ctx.counters.recv_retries += u64::from(dup);
        self.encode(ctx, id, |out| wukong_proto::encode_recv(&recv, version, out));
    }
}

/// What `uid` sees of a message (wire-protocol 8.4).
fn view(delivery: &Delivery, uid: &Text, version: u8, dup: bool) -> Recv {
    let r = &delivery.record;
    let own = r.from_uid == *uid;
    let mut flags = if own { r.flags.without(Flags::RED_DOT) } else { r.flags }.without(Flags::DUP);
    if dup {
        flags = flags.with(Flags::DUP);
    }
    let from_uid = if r.from_uid == SYSTEM_UID { Text::default() } else { r.from_uid.clone() };
    let channel_id = if delivery.channel.kind != channel_type::PERSON {
        Text::from(origin(&delivery.channel.id))
    } else if own {
        peer(origin(&delivery.channel.id), uid).map_or_else(Text::default, Text::from)
    } else {
        // The peer of a recipient is the sender, the system uid included (INV-20).
        r.from_uid.clone()
    };
    Recv {
        flags,
        setting: r.setting.for_recv(version),
        msg_key: Text::default(),
        from_uid,
        channel_id,
        channel_type: delivery.channel.kind,
        expire: r.expire,
        client_msg_no: r.client_msg_no.clone(),
        stream: None,
        message_id: r.message_id,
        message_seq: r.seq,
        timestamp: r.timestamp(),
        topic: r.topic.clone(),
        payload: r.payload.clone(),
    }
}

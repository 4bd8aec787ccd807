//! The rows of a disk agree with each other whenever it is looked at: indexes name what is in the log, and nothing else.

use super::world::World;
use crate::world::truth::{head, log_of};
use bytes::Bytes;
use std::collections::BTreeMap;
use wukong_core::channel::dedup::payload_hash;
use wukong_core::ids::slot_of;
use wukong_core::store::rows::{Counter, DedupRow, Format, Place};
use wukong_core::store::{Family, keys};

impl World {
    pub(super) fn check_rows(&mut self, n: usize) {
        match self.wrong_row(n) {
            Ok(rows) => self.truth.judged += rows,
            Err((invariant, what)) => self.violation(invariant, format!("n{n} {what}")),
        }
    }

    fn wrong_row(&self, n: usize) -> Result<u64, (&'static str, String)> {
        let (disk, slots) = (&self.nodes[n].storage.disk, self.plan.slots as u16);
        let mut expected: BTreeMap<Bytes, (Bytes, String)> = BTreeMap::new();
        for channel in self.channels() {
            let Some(head) = head(disk, &self.history, slots, channel) else { continue };
            let name = self.history.show_channel(channel);
            let slot = slot_of(&self.history.channels[channel as usize].key.id, slots);
            let no = head.channel_no;
            let log = log_of(disk, &self.history, slots, channel).map_err(|e| ("rows", e))?;
            for (seq, r) in (1..).zip(&log) {
                if r.seq != seq {
                    return Err(("INV-1", format!("{name}: {} where {seq} is due", r.seq)));
                }
                let row = DedupRow { seq, message_id: r.message_id, payload_hash: payload_hash(&r.payload) };
                let what = |kind: &str| format!("{kind} of {name} seq {seq} ({})", r.client_msg_no);
                let key = keys::dedup(slot, no, &r.from_uid, &r.client_msg_no);
                expected.insert(key, (row.to_bytes(), what("dedup row")));
                let place = Place { channel_no: no, seq }.to_bytes();
                let key = Bytes::copy_from_slice(&keys::message_id(slot, r.message_id));
                expected.insert(key, (place, what("id row")));
                let last = Counter { value: seq }.to_bytes();
                expected.insert(keys::sender(slot, no, &r.from_uid), (last, what("sender row")));
            }
        }
        for (key, row) in disk.all(Family::Index) {
            if self.index_is_doomed(n, key, &row.value) {
                continue;
            }
            if expected.get(key).is_none_or(|(value, _)| *value != row.value) {
                let should = expected.get(key).map_or("nothing", |(_, what)| what);
                return Err(("index", format!("an index row differs from its log: {key:?}, should be {should}")));
            }
        }
        // A cut takes a sender's last seq along, and what it was before is not known until the sender writes again.
        let optional = |key: &Bytes| self.truth.cut[n] && key.get(2) == Some(&keys::table::SENDER);
        let missing = expected.iter().find(|(key, _)| disk.row(Family::Index, key).is_none() && !optional(key));
        match missing {
            Some((_, (_, what))) => Err(("index", format!("the {what} is missing"))),
            None => Ok(expected.len() as u64),
        }
    }
}

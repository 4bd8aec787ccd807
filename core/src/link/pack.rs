//! Beats and fetches of many slot groups in a few bytes (cluster-and-raft 4.20).
//!
//! What idle groups say differs from what they said before only by counters that rise together. The sender offers a list of rows
//! now and then; the receiver keeps it under its digest and says so. From then on a pack names the digest, how far the counters
//! of all rows advanced, which rows of the list it speaks of, and the rows that differ. The digest covers every field, so a pack
//! is expanded to exactly what was packed, or not at all: the receiver says which digest it missed, and is offered a new list.

use super::{FrameError, LinkCounters};
use crate::ids::{Epoch, Position, SlotId};
use crate::raft::message::{Fetch, Message};
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::peer as p;

/// What a slot group's beat or fetch says. A beat has no positions, no flags and no `beat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub slot: SlotId,
    pub epoch: Epoch,
    pub hw: u64,
    pub seq: u64,
    pub beat: u64,
    pub pos: Position,
    pub durable: Position,
    pub answer_now: bool,
    pub damaged: bool,
}

/// How far the counters of a row advanced: `seq` and `beat`.
type Advance = (u64, u64);

impl Row {
    pub const fn of_beat(slot: SlotId, epoch: Epoch, seq: u64, hw: u64) -> Self {
        const ZERO: Position = Position { epoch: Epoch(0), index: 0 };
        Self { slot, epoch, hw, seq, beat: 0, pos: ZERO, durable: ZERO, answer_now: false, damaged: false }
    }

    pub const fn of_fetch(slot: SlotId, epoch: Epoch, f: &Fetch) -> Self {
        Self {
            slot,
            epoch,
            hw: f.hw,
            seq: f.seq,
            beat: f.beat,
            pos: f.pos,
            durable: f.durable,
            answer_now: f.answer_now,
            damaged: f.damaged,
        }
    }

    pub const fn beat(&self) -> Message {
        Message::Beat { seq: self.seq, hw: self.hw }
    }

    pub const fn fetch(&self) -> Message {
        Message::Fetch(Fetch {
            seq: self.seq,
            pos: self.pos,
            durable: self.durable,
            hw: self.hw,
            beat: self.beat,
            answer_now: self.answer_now,
            damaged: self.damaged,
        })
    }

    /// How far it is ahead of `base`, when it differs by counters only.
    fn ahead_of(&self, base: &Self) -> Option<Advance> {
        let advance = (self.seq.checked_sub(base.seq)?, self.beat.checked_sub(base.beat)?);
        (Self { seq: base.seq, beat: base.beat, ..*self } == *base).then_some(advance)
    }

    fn advanced(&self, by: Advance) -> Result<Self, FrameError> {
        let seq = self.seq.checked_add(by.0).ok_or(FrameError::Malformed)?;
        let beat = self.beat.checked_add(by.1).ok_or(FrameError::Malformed)?;
        Ok(Self { seq, beat, ..*self })
    }

    fn to_wire(self) -> p::Row {
        p::Row {
            slot: u32::from(self.slot.0),
            epoch: self.epoch.0,
            hw: self.hw,
            seq: self.seq,
            beat: self.beat,
            pos_epoch: self.pos.epoch.0,
            pos_index: self.pos.index,
            durable_epoch: self.durable.epoch.0,
            durable_index: self.durable.index,
            answer_now: self.answer_now,
            damaged: self.damaged,
        }
    }

    fn of_wire(r: &p::Row) -> Result<Self, FrameError> {
        Ok(Self {
            slot: SlotId(u16::try_from(r.slot).map_err(|_| FrameError::Malformed)?),
            epoch: Epoch(r.epoch),
            hw: r.hw,
            seq: r.seq,
            beat: r.beat,
            pos: Position { epoch: Epoch(r.pos_epoch), index: r.pos_index },
            durable: Position { epoch: Epoch(r.durable_epoch), index: r.durable_index },
            answer_now: r.answer_now,
            damaged: r.damaged,
        })
    }
}

/// Rows under the digest of all their fields; 0: there is no list.
#[derive(Clone, Debug, Default)]
struct List {
    rows: Vec<Row>,
    digest: u64,
}

impl List {
    fn seal(&mut self) {
        let mut h = self.rows.len() as u64;
        for r in &self.rows {
            let flags = u64::from(r.slot.0) << 2 | u64::from(r.answer_now) << 1 | u64::from(r.damaged);
            let ends = [r.pos.epoch.0, r.pos.index, r.durable.epoch.0, r.durable.index];
            for word in [flags, r.epoch.0, r.hw, r.seq, r.beat].into_iter().chain(ends) {
                h = (h ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                h ^= h >> 32;
            }
        }
        self.digest = h.max(1);
    }

    fn forget(&mut self) {
        self.rows.clear();
        self.digest = 0;
    }
}

/// About how many bytes a row takes. Only a measure of when a new list pays.
const ROW_BYTES: usize = 16;
/// An offered list that was not acknowledged after so many packs is taken for lost.
const OFFER_PATIENCE: u32 = 16;

/// The sender's side, for beats or for fetches to one shard of a peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Packer {
    /// To be said at the end of this step, ascending by slot, one for each at most.
    due: Vec<Row>,
    /// What was said last of each slot, and whether that was since the last offer. Ascending by slot.
    latest: Vec<(Row, bool)>,
    /// The peer keeps it.
    base: List,
    /// The peer may keep it.
    offered: List,
    /// Packs since the offer.
    unanswered: u32,
    /// Bytes spent since the last list on what it did not cover.
    spent: usize,
}

impl Packer {
    /// A row for this step. False: there is no room for it.
    pub fn add(&mut self, row: Row) -> bool {
        match self.due.binary_search_by_key(&row.slot, |r| r.slot) {
            Err(at) if self.due.len() < p::PACK_ROWS_MAX => {
                self.due.insert(at, row);
                true
            }
            _ => false,
        }
    }

    /// Takes back the row of a slot: something else of that group is to follow it.
    pub fn take(&mut self, slot: SlotId) -> Option<Row> {
        let at = self.due.binary_search_by_key(&slot, |r| r.slot).ok()?;
        Some(self.due.remove(at))
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// The peer keeps the list with this digest.
    pub fn on_have(&mut self, digest: u64) {
        if digest != 0 && digest == self.offered.digest {
            core::mem::swap(&mut self.base, &mut self.offered);
            self.offered.forget();
            self.spent = 0;
        }
    }

    /// The peer does not have the list with this digest.
    pub fn on_missed(&mut self, digest: u64) {
        if digest != 0 && digest == self.base.digest {
            self.base.forget();
            self.offered.forget();
        }
    }

    /// What says everything that is due.
    pub fn pack(&mut self, counters: &mut LinkCounters) -> p::Pack {
        self.note_latest();
        let advance = self.common_advance();
        let covered = self.covered(advance);
        let odd = self.due.len() - covered;
        self.spent += odd * ROW_BYTES;
        self.unanswered += 1;
        let worth = self.base.digest == 0 || self.spent >= self.latest.len() * ROW_BYTES;
        let may_offer = self.offered.digest == 0 || self.unanswered > OFFER_PATIENCE;
        let pack = if worth && may_offer {
            counters.lists_offered += 1;
            self.offer()
        } else if covered * ROW_BYTES > ROW_BYTES + self.base.rows.len() / 8 {
            self.relative(advance, covered)
        } else {
            let rows = p::List(self.due.iter().map(|r| r.to_wire()).collect());
            p::Pack { rows, ..p::Pack::default() }
        };
        counters.rows_packed += self.due.len() as u64;
        self.due.clear();
        pack
    }

    fn note_latest(&mut self) {
        for row in &self.due {
            match self.latest.binary_search_by_key(&row.slot, |(r, _)| r.slot) {
                Ok(at) => self.latest[at] = (*row, true),
                Err(at) => self.latest.insert(at, (*row, true)),
            }
        }
        if self.latest.len() > p::PACK_ROWS_MAX {
            self.latest.clear();
            self.latest.extend(self.due.iter().map(|r| (*r, true)));
        }
    }

    /// The rows that are due, each with the row of its slot in the base.
    fn against_base(&self) -> impl Iterator<Item = (usize, &Row, Option<&Row>)> {
        let mut at = 0;
        self.due.iter().map(move |row| {
            at += self.base.rows[at..].iter().take_while(|b| b.slot < row.slot).count();
            (at, row, self.base.rows.get(at).filter(|b| b.slot == row.slot))
        })
    }

    /// The advance that most rows made, if any did (Boyer and Moore: the only one that can have a majority).
    fn common_advance(&self) -> Advance {
        let (mut advance, mut lead) = ((0, 0), 0_u32);
        for (_, row, base) in self.against_base() {
            let Some(own) = base.and_then(|b| row.ahead_of(b)) else { continue };
            if lead == 0 {
                advance = own;
            }
            lead = if own == advance { lead + 1 } else { lead - 1 };
        }
        advance
    }

    /// How many of the rows that are due follow from the base.
    fn covered(&self, advance: Advance) -> usize {
        self.against_base().filter(|(_, row, base)| base.and_then(|b| row.ahead_of(b)) == Some(advance)).count()
    }

    /// A new list for the peer to keep: all that was said since the last one. What is due is part of it.
    fn offer(&mut self) -> p::Pack {
        self.latest.retain(|(_, fresh)| *fresh);
        self.offered.rows.clear();
        self.offered.rows.extend(self.latest.iter().map(|(r, _)| *r));
        self.offered.seal();
        self.latest.iter_mut().for_each(|(_, fresh)| *fresh = false);
        (self.unanswered, self.spent) = (0, 0);
        let said = |r: &Row| self.due.binary_search_by_key(&r.slot, |d| d.slot).is_ok();
        let present = if self.due.len() == self.offered.rows.len() {
            Bytes::new()
        } else {
            bits(self.offered.rows.len(), self.offered.rows.iter().enumerate().filter(|(_, r)| said(r)).map(|(i, _)| i))
        };
        let rows = p::List(self.offered.rows.iter().map(|r| r.to_wire()).collect());
        p::Pack { keep: true, present, rows, ..p::Pack::default() }
    }

    fn relative(&self, advance: Advance, covered: usize) -> p::Pack {
        let follows = |row: &Row, base: Option<&Row>| base.and_then(|b| row.ahead_of(b)) == Some(advance);
        let present = if covered == self.base.rows.len() {
            Bytes::new()
        } else {
            let said = self.against_base().filter(|(_, row, base)| follows(row, *base)).map(|(at, _, _)| at);
            bits(self.base.rows.len(), said)
        };
        let odd = self.against_base().filter(|(_, row, base)| !follows(row, *base)).map(|(_, row, _)| row.to_wire());
        p::Pack {
            base: self.base.digest,
            seq_advance: advance.0,
            beat_advance: advance.1,
            present,
            keep: false,
            rows: p::List(odd.collect()),
        }
    }
}

/// A bit for each of `count` rows, set at these places.
fn bits(count: usize, set: impl Iterator<Item = usize>) -> Bytes {
    let mut bits = alloc::vec![0_u8; count.div_ceil(8)];
    set.for_each(|at| bits[at / 8] |= 1 << (at % 8));
    Bytes::from(bits)
}

/// The receiver's side.
#[derive(Clone, Debug, Default)]
pub(super) struct Unpacker {
    /// The list that packs refer to.
    current: List,
    /// The list that was offered last, until a pack refers to it.
    next: List,
    /// Digest to acknowledge, as long as no pack refers to it.
    pub have: u64,
    /// Digest to complain about.
    pub missed: u64,
}

impl Unpacker {
    /// The rows that a pack says, in order. None of them, if the pack refers to a list that is not here.
    ///
    /// # Errors
    /// A pack that nobody would write.
    pub fn unpack(
        &mut self,
        pack: &p::Pack,
        counters: &mut LinkCounters,
        mut each: impl FnMut(Row),
    ) -> Result<(), FrameError> {
        if pack.keep {
            self.keep(pack, &mut each)?;
        } else if pack.base != 0 {
            if !self.refer(pack.base) {
                counters.digests_missed += 1;
                self.missed = pack.base;
                return Ok(());
            }
            counters.digests_hit += 1;
            said(&pack.present, self.current.rows.len())?;
            let by = (pack.seq_advance, pack.beat_advance);
            for (_, row) in present(&pack.present, &self.current.rows) {
                each(row.advanced(by)?);
            }
        }
        if !pack.keep {
            pack.rows.0.iter().try_for_each(|r| Row::of_wire(r).map(&mut each))?;
        }
        Ok(())
    }

    fn keep(&mut self, pack: &p::Pack, each: &mut impl FnMut(Row)) -> Result<(), FrameError> {
        said(&pack.present, pack.rows.0.len())?;
        if pack.base != 0 || !pack.rows.0.iter().is_sorted_by(|a, b| a.slot < b.slot) {
            return Err(FrameError::Malformed);
        }
        self.next.forget();
        for r in &pack.rows.0 {
            self.next.rows.push(Row::of_wire(r)?);
        }
        self.next.seal();
        self.have = self.next.digest;
        present(&pack.present, &self.next.rows).for_each(|(_, row)| each(*row));
        Ok(())
    }

    /// Makes the list with this digest the current one.
    fn refer(&mut self, digest: u64) -> bool {
        if self.next.digest == digest {
            core::mem::swap(&mut self.current, &mut self.next);
            self.next.forget();
        }
        if self.have == digest {
            self.have = 0;
        }
        self.current.digest == digest
    }
}

/// Whether a bitmap fits `count` rows.
fn said(bits: &Bytes, count: usize) -> Result<(), FrameError> {
    if bits.is_empty() || bits.len() == count.div_ceil(8) { Ok(()) } else { Err(FrameError::Malformed) }
}

/// The rows whose bit is set; all, if there are no bits.
fn present<'a>(bits: &'a Bytes, rows: &'a [Row]) -> impl Iterator<Item = (usize, &'a Row)> {
    rows.iter().enumerate().filter(|(i, _)| bits.is_empty() || bits[i / 8] & (1 << (i % 8)) != 0)
}

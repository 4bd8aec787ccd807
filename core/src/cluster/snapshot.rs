//! A snapshot of a slot on its way to a follower whose place in the log is gone (cluster-and-raft 4.15): the rows of `meta` as they
//! were at its base. They are read in pages while the slot goes on; what it overwrites meanwhile is remembered here, and put back.

use super::group::Told;
use super::slot::{Slot, Slots};
use crate::ctx::{Ctx, LoadWaiter};
use crate::ids::Position;
use crate::limits;
use crate::map::BTreeMap;
use crate::mutants::Mutant;
use crate::raft::config::{Config, Replica};
use crate::raft::core::Input;
use crate::raft::message::Snapshot;
use crate::store::rows::{Damaged, Row, seal};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;

const CHUNK_FORMAT: u8 = 1;

/// What a slot's replica asks of its owner about snapshots; answered once its step is over.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A follower needs one.
    Wanted(Replica),
    /// It asks for a chunk of one.
    Part { to: Replica, id: u64, offset: u64 },
    /// A chunk that came in is damaged.
    Spoilt { id: u64 },
}

/// Where a chunk begins.
#[derive(Clone, Debug)]
struct Cut {
    offset: u64,
    key: Bytes,
}

/// See the module. One follower at a time: what it has received need not be remembered any more.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    snapshot: Arc<Snapshot>,
    to: Replica,
    /// The chunk that was asked for last, and the one after it, as soon as that is known.
    chunk: Cut,
    next: Option<Cut>,
    /// Rows that may still be sent and were overwritten, as they were at the base. None: absent.
    before: BTreeMap<Bytes, Option<Bytes>>,
    weight: usize,
    /// Given up if nobody asks for a chunk until then.
    until: Instant,
}

/// What an offset means.
enum Sought {
    /// A chunk that can be read.
    Here,
    /// Its follower has it.
    Past,
    Unknown,
}

impl Outgoing {
    /// A command of a later index writes the row, which was `old`.
    pub(super) fn remember(&mut self, key: &Bytes, old: Option<&Bytes>) {
        if *key >= self.chunk.key && !self.before.contains_key(key) {
            self.weight += key.len() + old.map_or(0, Bytes::len);
            self.before.insert(key.clone(), old.cloned());
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now || self.weight > limits::SNAPSHOT_BEFORE_BYTES
    }

    fn seek(&mut self, offset: u64) -> Sought {
        if let Some(next) = self.next.take_if(|n| n.offset == offset) {
            self.before = self.before.split_off(&next.key);
            self.weight = self.before.iter().map(|(k, v)| k.len() + v.as_ref().map_or(0, Bytes::len)).sum();
            self.chunk = next;
        }
        match offset {
            o if o == self.chunk.offset => Sought::Here,
            0 => Sought::Unknown,
            o if o < self.chunk.offset => Sought::Past,
            _ => Sought::Unknown,
        }
    }

    /// The chunk, of a page of today's rows that reaches to `end`.
    fn fill(&mut self, page: Vec<(Bytes, Bytes)>, end: &Bytes) -> Bytes {
        let mut rows: BTreeMap<Bytes, Bytes> = page.into_iter().collect();
        for (key, old) in self.before.range(self.chunk.key.clone()..end.clone()) {
            match old {
                Some(old) => rows.insert(key.clone(), old.clone()),
                None => rows.remove(key),
            };
        }
        let bytes = to_chunk(&rows);
        self.next = Some(Cut { offset: self.chunk.offset + bytes.len() as u64, key: end.clone() });
        bytes
    }
}

/// `u8 format | (u32 length | key | u32 length | row)* | u32 crc32`; keys without the slot.
fn to_chunk(rows: &BTreeMap<Bytes, Bytes>) -> Bytes {
    let room: usize = rows.iter().map(|(k, v)| 8 + k.len() + v.len()).sum();
    let mut out = Vec::with_capacity(room + 5);
    out.push(CHUNK_FORMAT);
    for part in rows.iter().flat_map(|(key, row)| [key.slice(2..), row.clone()]) {
        out.extend_from_slice(&(part.len() as u32).to_be_bytes());
        out.extend_from_slice(&part);
    }
    seal(&mut out, 0);
    Bytes::from(out)
}

/// Keys, without the slot, and rows of a chunk.
pub(super) fn from_chunk(chunk: &Bytes) -> Result<Vec<(Bytes, Bytes)>, Damaged> {
    let mut rest = Row::open(chunk, CHUNK_FORMAT)?.rest();
    let mut part = || {
        if rest.is_empty() {
            return Ok(None);
        }
        let n = u32::from_be_bytes(rest.get(..4).and_then(|n| n.try_into().ok()).ok_or(Damaged)?) as usize;
        if rest.len() - 4 < n {
            return Err(Damaged);
        }
        let part = rest.split_to(4 + n).slice(4..);
        Ok(Some(part))
    };
    let mut rows = Vec::new();
    while let Some(key) = part()? {
        let row = part()?.filter(|_| !key.is_empty()).ok_or(Damaged)?;
        rows.push((key, row));
    }
    Ok(rows)
}

impl Slots {
    /// What the replica of a slot asked for in the steps before.
    pub(super) fn answer_asks(&mut self, ctx: &mut Ctx, id: u16) {
        while let Some(ask) = self.slots.get_mut(&id).and_then(|s| s.asks.pop_front()) {
            let now = ctx.now.mono;
            let open = |s: &&Slot| s.id.0 != id && s.outgoing.as_ref().is_some_and(|o| !o.is_over(now));
            let full = self.slots.values().filter(open).count() >= limits::SNAPSHOTS_OUT_MAX;
            let Self { slots, done, .. } = self;
            let slot = slots.get_mut(&id).expect("it asked");
            slot.answer(ctx, done, &ask, full);
        }
    }

    /// A page of the snapshot that a slot sends.
    pub fn on_snapshot_page(&mut self, ctx: &mut Ctx, id: u16, snapshot: u64, offset: u64, found: Option<Vec<Found>>) {
        let Self { slots, done, .. } = self;
        if let Some(slot) = slots.get_mut(&id) {
            slot.on_page(ctx, done, snapshot, offset, found);
            self.after_step(ctx, id);
        }
    }
}

impl Slot {
    fn answer(&mut self, ctx: &mut Ctx, told: &mut Told, ask: &Ask, full: bool) {
        let open = self.outgoing.as_mut().filter(|o| !o.is_over(ctx.now.mono));
        match *ask {
            Ask::Wanted(to) => {
                if open.is_none() && !full {
                    self.begin_snapshot(ctx, told, to);
                }
            }
            Ask::Part { to, id, offset } => {
                let sought = match open {
                    Some(o) if o.to != to => return,
                    Some(o) if o.snapshot.id == id => o.seek(offset),
                    _ => Sought::Unknown,
                };
                match sought {
                    Sought::Here => self.read_chunk(ctx),
                    Sought::Past => {}
                    // Told of another one, it begins that.
                    Sought::Unknown if !full => {
                        self.begin_snapshot(ctx, told, to);
                        self.step(ctx, told, Input::SnapshotPart { to, id, offset, part: None });
                    }
                    Sought::Unknown => {}
                }
            }
            Ask::Spoilt { id } => self.step(ctx, told, Input::SnapshotWritten { id, outcome: Err(()) }),
        }
    }

    /// A snapshot of what is applied now.
    fn begin_snapshot(&mut self, ctx: &mut Ctx, told: &mut Told, to: Replica) {
        let Some(group) = self.group.as_ref().filter(|g| g.is_leader()) else { return };
        let base = Position { epoch: group.log().epoch_of(self.applied), index: self.applied };
        let config = Arc::new(Config::of(ctx.config.voters(ctx.store)));
        let id = ctx.jitter();
        let snapshot = Arc::new(Snapshot { id, base, config, config_index: 0, size: u64::MAX });
        self.outgoing = Some(Outgoing {
            snapshot: Arc::clone(&snapshot),
            to,
            chunk: Cut { offset: 0, key: keys::applied_rows(self.id).0 },
            next: None,
            before: BTreeMap::new(),
            weight: 0,
            until: ctx.now.mono + limits::SNAPSHOT_IDLE,
        });
        ctx.counters.snapshots_begun += 1;
        self.step(ctx, told, Input::Snapshot { snapshot, keep: u64::MAX });
    }

    fn read_chunk(&mut self, ctx: &mut Ctx) {
        let Some(o) = self.outgoing.as_mut() else { return };
        o.until = ctx.now.mono + limits::SNAPSHOT_IDLE;
        let page = Query::Range {
            family: Family::Meta,
            from: o.chunk.key.clone(),
            to: keys::applied_rows(self.id).1,
            rows_max: limits::SNAPSHOT_CHUNK_ROWS.min(ctx.config.snapshot_rows),
            bytes_max: limits::SNAPSHOT_CHUNK as u32,
            reverse: false,
        };
        ctx.load(LoadWaiter::SlotSnapshot(self.id.0, o.snapshot.id, o.chunk.offset), [page]);
    }

    fn on_page(&mut self, ctx: &mut Ctx, told: &mut Told, id: u64, offset: u64, found: Option<Vec<Found>>) {
        let mine = |o: &&mut Outgoing| o.snapshot.id == id && o.chunk.offset == offset;
        let Some(o) = self.outgoing.as_mut().filter(mine) else { return };
        // One that cannot be read is asked for again.
        let Some(Found::Page { rows, more }) = found.and_then(|f| f.into_iter().next()) else { return };
        let last = rows.last().map(|(k, _)| k.clone()).filter(|_| more);
        let end = last.map_or_else(|| keys::applied_rows(self.id).1, |k| keys::after(&k));
        if ctx.mutant(Mutant::SnapshotOfToday) {
            o.before.clear();
        }
        let bytes = o.fill(rows, &end);
        let to = o.to;
        let part = Some((bytes, !more));
        self.step(ctx, told, Input::SnapshotPart { to, id, offset, part });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(of: &[(&'static str, &'static str)]) -> BTreeMap<Bytes, Bytes> {
        of.iter().map(|(k, v)| (Bytes::from_static(k.as_bytes()), Bytes::from_static(v.as_bytes()))).collect()
    }

    #[test]
    fn a_chunk_gives_back_its_rows_and_notices_damage() {
        let chunk = to_chunk(&rows(&[("s1alpha", "one"), ("s1beta", "")]));
        let read = from_chunk(&chunk).expect("whole");
        assert_eq!(read, [("alpha".into(), "one".into()), ("beta".into(), "".into())]);
        assert_eq!(from_chunk(&to_chunk(&rows(&[]))), Ok(Vec::new()));
        for at in 0..chunk.len() {
            let mut bent = chunk.to_vec();
            bent[at] ^= 1;
            assert_eq!(from_chunk(&Bytes::from(bent)), Err(Damaged), "byte {at}");
        }
        for end in 0..chunk.len() {
            assert_eq!(from_chunk(&chunk.slice(..end)), Err(Damaged), "cut at {end}");
        }
    }

    #[test]
    fn a_page_is_put_back_to_what_it_was() {
        let key = |k: &'static str| Bytes::from_static(k.as_bytes());
        let config = Arc::new(Config::of(Vec::new()));
        let snapshot = Snapshot { id: 1, base: Position::default(), config, config_index: 0, size: u64::MAX };
        let mut o = Outgoing {
            snapshot: Arc::new(snapshot),
            to: Replica::default(),
            chunk: Cut { offset: 0, key: key("s1") },
            next: None,
            before: BTreeMap::new(),
            weight: 0,
            until: Instant::NEVER,
        };
        o.remember(&key("s1b"), Some(&key("old")));
        o.remember(&key("s1b"), Some(&key("newer")));
        o.remember(&key("s1c"), None);
        o.remember(&key("s1x"), Some(&key("later")));
        let page = [("s1a", "same"), ("s1b", "newest"), ("s1c", "made since")];
        let chunk = o.fill(rows(&page).into_iter().collect(), &key("s1d"));
        assert_eq!(from_chunk(&chunk).expect("whole"), [(key("a"), key("same")), (key("b"), key("old"))]);
        let next = chunk.len() as u64;
        assert!(matches!(o.seek(0), Sought::Here) && matches!(o.seek(next + 1), Sought::Unknown));
        assert!(matches!(o.seek(next), Sought::Here), "the next chunk");
        assert_eq!(o.before.len(), 1, "what was received is forgotten");
        assert!(matches!(o.seek(1), Sought::Past) && matches!(o.seek(0), Sought::Unknown));
    }
}

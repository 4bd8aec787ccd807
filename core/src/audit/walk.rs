//! A walk over the head rows of a slot, a page at a time, with what the slot's record says of each channel.

use super::{Row, State};
use crate::channel::Channels;
use crate::cluster::Slots;
use crate::ctx::{Ctx, LoadWaiter};
use crate::ids::{ChannelKey, SlotId};
use crate::limits;
use crate::raft::config::Replica;
use crate::store::rows::{Assignment, ChannelHead, Format};
use crate::store::{Family, Found, Query, keys};
use alloc::vec::Vec;
use bytes::Bytes;

/// A channel on the way.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The key of its head row, by which channels are ordered.
    pub key: Bytes,
    pub channel: ChannelKey,
    /// None: there is none, or it cannot be read.
    head: Option<ChannelHead>,
    dirty: bool,
    record: Option<Assignment>,
}

/// What a read gave.
pub(super) enum Step {
    /// The next one is on its way.
    Wait,
    Page {
        seen: Vec<Seen>,
        more: bool,
    },
    Unreadable,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    slot: SlotId,
    from: Bytes,
    to: Bytes,
    /// Channels of this page whose records are being read, and whether more follow.
    page: Option<(Vec<Seen>, bool)>,
    pub ticket: u64,
}

impl Walk {
    /// From behind `after`; None: from the first.
    pub fn new(slot: SlotId, after: Option<&ChannelKey>) -> Self {
        use keys::table::HEAD;
        let from = after.map_or_else(|| keys::single(slot, HEAD), |c| keys::after(&keys::head(slot, c)));
        Self { slot, from, to: keys::table_end(slot, HEAD), page: None, ticket: 0 }
    }

    /// Up to this one, and no further.
    pub fn end_at(&mut self, upto: Option<&ChannelKey>) {
        if let Some(upto) = upto {
            self.to = keys::after(&keys::head(self.slot, upto));
        }
    }

    /// Asks for the next page.
    pub fn read(&mut self, ctx: &mut Ctx, ticket: u64) {
        self.ticket = ticket;
        let (from, to) = (self.from.clone(), self.to.clone());
        let (rows_max, bytes_max) = (limits::AUDIT_PAGE, limits::APPEND_BYTES_MAX as u32);
        let heads = Query::Range { family: Family::Raft, from, to, rows_max, bytes_max, reverse: false };
        ctx.load(LoadWaiter::Audit(ticket), [heads]);
    }

    /// A read was answered. `others` are channels to look at too, ordered.
    pub fn take(&mut self, ctx: &mut Ctx, found: Option<Vec<Found>>, others: &[Row]) -> Step {
        let Some(found) = found else { return Step::Unreadable };
        if let Some((mut seen, more)) = self.page.take() {
            if found.iter().any(|f| !matches!(f, Found::Point(_))) || found.len() != 2 * seen.len() {
                return Step::Unreadable;
            }
            let mut rows = found.into_iter().map(|f| if let Found::Point(row) = f { row } else { None });
            for s in &mut seen {
                s.dirty = rows.next().flatten().is_some();
                s.record = rows.next().flatten().and_then(|row| Assignment::decode(&row).ok());
            }
            return Step::Page { seen, more };
        }
        let Some(Found::Page { rows, more }) = found.into_iter().next() else { return Step::Unreadable };
        let next = rows.last().filter(|_| more).map_or_else(|| self.to.clone(), |(last, _)| keys::after(last));
        let mut seen: Vec<Seen> = rows.into_iter().filter_map(|(key, row)| Seen::of(key, &row)).collect();
        for other in others {
            let key = keys::head(self.slot, &other.channel);
            let here = key >= self.from && key < next;
            if here && let Err(at) = seen.binary_search_by(|s| s.key.cmp(&key)) {
                let channel = other.channel.clone();
                seen.insert(at, Seen { key, channel, head: None, dirty: false, record: None });
            }
        }
        self.from = next;
        if seen.is_empty() {
            return Step::Page { seen, more };
        }
        let get = |family, key| Query::Get { family, key };
        let points = seen.iter().flat_map(|s| {
            let (dirty, record) = (keys::dirty(self.slot, &s.channel), keys::assignment(self.slot, &s.channel));
            [get(Family::Raft, dirty), get(Family::Meta, record)]
        });
        ctx.load(LoadWaiter::Audit(self.ticket), points.collect::<Vec<_>>());
        self.page = Some((seen, more));
        Step::Wait
    }
}

impl Seen {
    fn of(key: Bytes, row: &Bytes) -> Option<Self> {
        let channel = keys::parse_channel(&key)?;
        let channel = ChannelKey { id: channel.id.detached(), kind: channel.kind };
        Some(Self { key, channel, head: ChannelHead::decode(row).ok(), dirty: false, record: None })
    }

    /// Both have a replica of the channel, as far as the slot's record is applied here.
    pub fn is_shared(&self, a: Replica, b: Replica) -> bool {
        self.record.as_ref().is_some_and(|r| !r.deleted && r.is_member(a) && r.is_member(b))
    }

    /// What is here of the channel. What is left of a generation that is over goes.
    pub fn row(&self, ctx: &mut Ctx, slots: &mut Slots, channels: &mut Channels) -> Option<Row> {
        let (head, record) = (self.head.as_ref()?, self.record.as_ref()?);
        if head.generation <= record.void() {
            channels.on_deleted(ctx, slots, &self.channel, record.void());
            return None;
        }
        let state = match channels.is_awake(&self.channel) {
            true => State::Awake,
            false if self.dirty => State::Dirty,
            false => State::Settled,
        };
        let ChannelHead { generation, epoch, end, hw, .. } = *head;
        Some(Row { channel: self.channel.clone(), generation, epoch, end, hw, state })
    }
}

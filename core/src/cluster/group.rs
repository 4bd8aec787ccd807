//! A slot as the owner of its replica: what the group wants written, sent and applied.

use super::command::{Command, Outcome};
use super::slot::{Slot, Stage, Waiter};
use super::snapshot::Ask;
use crate::ctx::{Ctx, LoadWaiter, PersistWaiter};
use crate::ids::{Epoch, NodeId, Position};
use crate::limits;
use crate::note::Note;
use crate::output::PersistClass;
use crate::raft::core::{Input, Op, Output};
use crate::raft::message::{Body, Entry, Item};
use crate::store::rows::{Format, HardState, Hint, Mark};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bytes::Bytes;

/// Who waits for commands, and what became of them.
pub(super) type Told = VecDeque<(Waiter, Outcome)>;

impl Slot {
    pub(super) fn deadline(&self) -> Instant {
        self.group.as_ref().map_or(Instant::NEVER, |g| g.deadline())
    }

    /// Somebody leads, this replica or another.
    pub(super) fn knows_leader(&self) -> bool {
        match self.stage {
            Stage::Serving => true,
            Stage::Running => self.group.as_ref().is_some_and(|g| !g.is_leader() && g.leader().is_some()),
            Stage::Loading | Stage::Stopped => false,
        }
    }

    /// Serves while it leads and has applied what older epochs left. Some: that has just begun, or ended.
    pub(super) fn judge(&mut self, now: Instant) -> Option<bool> {
        let group = self.group.as_ref()?;
        let leads = group.epoch_committed() && group.mark_at().is_some_and(|at| self.applied >= at);
        match (self.stage, leads) {
            (Stage::Running, true) => {
                self.stage = Stage::Serving;
                self.serving_since = now;
                Some(true)
            }
            (Stage::Serving, _) if !group.is_leader() => {
                self.stage = Stage::Running;
                Some(false)
            }
            _ => None,
        }
    }

    /// Hands an input to the replica, and carries out what it asks for.
    pub(super) fn step(&mut self, ctx: &mut Ctx, told: &mut Told, input: Input) {
        let mut out = core::mem::take(&mut ctx.raft_out);
        if let Some(group) = self.group.as_mut().filter(|_| self.stage != Stage::Stopped) {
            group.pause(ctx.links.full());
            group.step_into(ctx.now.mono, input, &mut out);
        }
        for output in out.drain(..) {
            self.output(ctx, told, output);
        }
        ctx.raft_out = out;
        self.arm(ctx);
    }

    /// Appends a command. False: the group does not take it now.
    pub(super) fn propose(&mut self, ctx: &mut Ctx, told: &mut Told, command: Command, waiter: Waiter) -> bool {
        let Some(group) = &self.group else { return false };
        self.proposals += 1;
        let entry = command.to_entry(group.epoch());
        self.proposing = Some((command, waiter));
        let batch = core::iter::once(entry).collect();
        self.step(ctx, told, Input::Propose { ctx: self.proposals, batch });
        self.proposing.take().is_none()
    }

    fn output(&mut self, ctx: &mut Ctx, told: &mut Told, output: Output) {
        match output {
            Output::Send(envelope) => ctx.post(self.id, None, envelope),
            Output::Persist { token, ops } => {
                for op in ops {
                    self.write(ctx, told, op);
                }
                ctx.persist(PersistWaiter::SlotGroup(self.id.0, token), PersistClass::Sync);
            }
            Output::ReadLog { request, from, to, max_bytes } => self.read_log(ctx, request, from, to, max_bytes),
            Output::Committed { .. } => self.apply(ctx, told),
            Output::Outcome { ctx: proposal, outcome: crate::raft::core::Outcome::Unknown } => {
                // Still in the log, perhaps for good; whoever asked has to ask again.
                for p in self.queue.iter_mut().filter(|p| p.proposal == proposal && p.waiter != Waiter::Nobody) {
                    told.push_back((core::mem::replace(&mut p.waiter, Waiter::Nobody), Outcome::Unknown));
                }
            }
            // A refused one was never queued; a committed one is told when it is applied.
            Output::Outcome { .. } => {}
            Output::Alarm(alarm) => ctx.note(Note::RaftAlarm { slot: self.id, alarm }),
            Output::SnapshotWanted { to } => self.asks.push_back(Ask::Wanted(to)),
            Output::ReadSnapshot { to, id, offset } => self.asks.push_back(Ask::Part { to, id, offset }),
            Output::WriteSnapshot { snapshot, offset, bytes, last } => {
                self.put_aside(ctx, &snapshot, offset, &bytes, last);
            }
            Output::Restore { snapshot } => self.restore(snapshot.base.index),
            // Roles are looked at after the step, and leaders of slots are not assigned.
            Output::Role { .. } | Output::ReadReady { .. } | Output::Report(_) | Output::Settled { .. } => {}
        }
    }

    fn write(&mut self, ctx: &mut Ctx, told: &mut Told, op: Op) {
        use keys::table::{HARD, HINT};
        match op {
            Op::Hard { epoch, voted_for } => {
                let hard = HardState { epoch, voted_for: voted_for.map_or(NodeId(0), |r| r.node) };
                ctx.batch().put_with(Family::Raft, &keys::single(self.id, HARD), |out| hard.encode(out));
            }
            Op::Append(items) => items.into_iter().for_each(|item| self.append(ctx, item)),
            Op::Truncate(keep) => {
                self.cut_queue(keep.index, told);
                let (from, to) =
                    (keys::slot_entry(self.id, keep.index + 1), keys::table_end(self.id, keys::table::ENTRY));
                ctx.batch().delete_range(Family::Raft, &from, &to);
                let (from, to) =
                    (keys::slot_mark(self.id, Epoch(keep.epoch.0 + 1)), keys::table_end(self.id, keys::table::MARK));
                ctx.batch().delete_range(Family::Raft, &from, &to);
            }
            Op::Compact { base, .. } => self.compact(ctx, base),
            Op::Hint { hw } => {
                let hint = Hint { hw, base: self.group.as_ref().map_or(Position::default(), |g| g.log().base) };
                ctx.batch().put_with(Family::Raft, &keys::single(self.id, HINT), |out| hint.encode(out));
            }
            Op::Rebase { snapshot, keep_log } => self.rebase(ctx, told, snapshot.base, keep_log),
        }
    }

    fn append(&mut self, ctx: &mut Ctx, item: Item) {
        match item {
            Item::Mark { epoch, at } => {
                ctx.batch().put_with(Family::Raft, &keys::slot_mark(self.id, epoch), |out| Mark { at }.encode(out));
            }
            Item::Entry(Entry { index, body: Body::Data(row), .. }) => {
                ctx.batch().put(Family::Raft, &keys::slot_entry(self.id, index), &row);
                match self.proposing.take() {
                    Some((command, waiter)) => self.enqueue(ctx, index, command, waiter),
                    // Read in order, once what is before it is.
                    None if self.stage == Stage::Loading => {}
                    None => match Command::from_entry(&row) {
                        Ok((_, command)) => self.enqueue(ctx, index, command, Waiter::Nobody),
                        Err(_) => self.stop(ctx, "an entry of its log is of an unknown kind"),
                    },
                }
            }
            Item::Entry(Entry { body: Body::Config(_), .. }) => {
                self.stop(ctx, "its members changed, which this version cannot store")
            }
        }
    }

    fn stop(&mut self, ctx: &mut Ctx, why: &'static str) {
        self.stage = Stage::Stopped;
        ctx.note(Note::SlotStopped { slot: self.id, why });
    }

    fn compact(&mut self, ctx: &mut Ctx, base: Position) {
        let hw = self.group.as_ref().map_or(0, |g| g.hw());
        let hint = Hint { hw, base };
        self.drop_log(ctx, base);
        ctx.batch().put_with(Family::Raft, &keys::single(self.id, keys::table::HINT), |out| hint.encode(out));
    }

    pub(super) fn drop_log(&self, ctx: &mut Ctx, upto: Position) {
        let (from, to) = (keys::slot_entry(self.id, 0), keys::slot_entry(self.id, upto.index + 1));
        ctx.batch().delete_range(Family::Raft, &from, &to);
        let (from, to) = (keys::slot_mark(self.id, Epoch(0)), keys::slot_mark(self.id, upto.epoch));
        ctx.batch().delete_range(Family::Raft, &from, &to);
    }

    fn read_log(&mut self, ctx: &mut Ctx, request: u64, from: u64, to: u64, max_bytes: usize) {
        let page = Query::Range {
            family: Family::Raft,
            from: keys::slot_entry(self.id, from),
            to: keys::slot_entry(self.id, to.saturating_add(1)),
            rows_max: limits::APPEND_ENTRIES_MAX as u32,
            bytes_max: max_bytes.min(limits::APPEND_BYTES_MAX) as u32,
            reverse: false,
        };
        ctx.load(LoadWaiter::SlotLog(self.id.0, request), [page]);
    }

    /// Entries that a follower lacks were read. None: the store could not.
    pub(super) fn on_log(&mut self, ctx: &mut Ctx, told: &mut Told, request: u64, found: Option<Vec<Found>>) {
        let entries = found.and_then(|f| {
            let Some(Found::Page { rows, .. }) = f.into_iter().next() else { return None };
            rows.into_iter().map(|(key, row)| stored_entry(&key, row)).collect()
        });
        self.step(ctx, told, Input::LogRead { request, entries });
    }
}

/// An entry of a slot's log as it lies on disk.
fn stored_entry(key: &Bytes, row: Bytes) -> Option<Entry> {
    let index = super::boot::index(key)?;
    let (epoch, _) = Command::from_entry(&row).ok()?;
    Some(Entry { index, epoch, body: Body::Data(row) })
}

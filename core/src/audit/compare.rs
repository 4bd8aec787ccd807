//! The leader of a slot: compares what it has with what the others have, and wakes what differs.

use super::walk::{Seen, Step, Walk};
use super::{Around, Audits, Buckets, Row, Said, State, Sums, add, bucket, jittered, no_sums};
use crate::ids::{ChannelKey, SlotId};
use crate::limits;
use crate::mutants::Mutant;
use crate::raft::config::Replica;
use crate::store::Found;
use crate::store::keys;
use crate::time::Instant;
use alloc::vec::Vec;

#[derive(Clone, Debug)]
enum Phase {
    /// Reading the own rows.
    Own,
    /// A member was asked for its sums.
    Sums,
    /// It was asked for rows.
    Rows,
    /// They are compared with the own ones; or were, and what was woken gets its time.
    Merge { rows: Vec<Row>, upto: Option<ChannelKey>, done: bool },
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Comparing {
    slot: SlotId,
    scan: u64,
    /// Members that can be reached, each with the sums of the channels that both have, last one first.
    members: Vec<(Replica, Sums)>,
    differing: Buckets,
    phase: Phase,
    pub walk: Walk,
    /// When the next page is read, or an answer has not come; NEVER while a page is read.
    pub at: Instant,
}

impl Audits {
    pub(super) fn compare_time(&mut self, around: &mut Around) {
        let now = around.ctx.now.mono;
        match self.comparing.as_mut().filter(|c| c.at <= now).map(|c| &c.phase) {
            Some(Phase::Merge { upto: Some(upto), done: true, .. }) => {
                let after = upto.clone();
                self.ask_rows(around, Some(after));
            }
            Some(Phase::Merge { upto: None, done: true, .. }) => self.next_member(around),
            Some(Phase::Own | Phase::Merge { .. }) => self.read_own(around),
            // It does not answer: next time.
            Some(Phase::Sums | Phase::Rows) => self.next_member(around),
            None => {}
        }
        if self.comparing.is_none() {
            self.begin(around);
        }
    }

    /// Begins with what has been due for longest.
    fn begin(&mut self, around: &mut Around) {
        let now = around.ctx.now.mono;
        while let Some((slot, _)) = self.due.iter().filter(|(_, at)| **at <= now).min_by_key(|(_, at)| **at) {
            let slot = SlotId(*slot);
            self.due.insert(slot.0, Instant::NEVER);
            if !around.slots.leads(slot) {
                continue;
            }
            let ctx = &mut *around.ctx;
            let me = ctx.replica();
            let here = |r: &&Replica| **r != me && ctx.peer(r.node).is_some_and(|p| p.store == r.store);
            let members = ctx.config.replicas.iter().rev().filter(here).map(|r| (*r, no_sums())).collect();
            ctx.counters.audits += 1;
            self.comparing = Some(Comparing {
                slot,
                scan: self.number(),
                members,
                differing: Buckets::default(),
                phase: Phase::Own,
                walk: Walk::new(slot, None),
                at: Instant::NEVER,
            });
            return self.read_own(around);
        }
    }

    fn read_own(&mut self, around: &mut Around) {
        let ticket = self.number();
        if let Some(c) = self.comparing.as_mut() {
            c.at = Instant::NEVER;
            c.walk.read(around.ctx, ticket);
        }
    }

    pub(super) fn on_own(&mut self, around: &mut Around, found: Option<Vec<Found>>) {
        let Some(c) = self.comparing.as_mut() else { return };
        let rows = if let Phase::Merge { rows, .. } = &c.phase { rows.as_slice() } else { &[] };
        match c.walk.take(around.ctx, found, rows) {
            Step::Wait => {}
            Step::Page { seen, more } => self.on_page(around, &seen, more),
            Step::Unreadable => {
                let again = jittered(around.ctx, around.ctx.config.audit_soon);
                self.end(around, again);
            }
        }
    }

    fn on_page(&mut self, around: &mut Around, seen: &[Seen], more: bool) {
        let Some(c) = self.comparing.as_mut() else { return };
        let mut pause = limits::AUDIT_PACE;
        if matches!(c.phase, Phase::Own) {
            c.fold(around, seen);
        } else {
            pause = pause.max(limits::AUDIT_WAKE * c.wake(around, seen));
        }
        c.at = around.ctx.now.mono + pause;
        if more {
            return;
        }
        match &mut c.phase {
            Phase::Merge { done, .. } => *done = true,
            Phase::Own | Phase::Sums | Phase::Rows => self.ask_sums(around),
        }
    }

    fn next_member(&mut self, around: &mut Around) {
        if let Some(c) = self.comparing.as_mut() {
            c.members.pop();
        }
        self.ask_sums(around);
    }

    fn ask_sums(&mut self, around: &mut Around) {
        let Some(c) = self.comparing.as_mut() else { return };
        let Some((to, _)) = c.members.last().filter(|_| around.slots.leads(c.slot)) else {
            let every = around.ctx.config.audit_every;
            let jitter = jittered(around.ctx, every / 8);
            // Alone there is nobody to differ from.
            let again = around.ctx.config.replicas.len() > 1;
            return self.end(around, if again { every + jitter } else { core::time::Duration::MAX });
        };
        let (to, slot, scan) = (*to, c.slot, c.scan);
        (c.phase, c.at) = (Phase::Sums, around.ctx.now.mono + limits::AUDIT_ANSWER);
        around.say(to, slot, scan, Said::AskSums);
    }

    fn end(&mut self, around: &mut Around, again: core::time::Duration) {
        let Some(c) = self.comparing.take() else { return };
        let now = around.ctx.now.mono;
        let at = if again == core::time::Duration::MAX { Instant::NEVER } else { now + again };
        let due = self.due.entry(c.slot.0).or_insert(Instant::NEVER);
        *due = (*due).min(at);
        self.begin(around);
    }

    pub(super) fn on_sums(&mut self, around: &mut Around, from: Replica, scan: u64, theirs: &[(u16, u64)]) {
        let Some(c) = self.comparing.as_mut().filter(|c| c.expects(from, scan)) else { return };
        if !matches!(c.phase, Phase::Sums) {
            return;
        }
        let Some((_, mine)) = c.members.last_mut() else { return };
        for (bucket, sum) in theirs {
            if let Some(mine) = mine.get_mut(usize::from(*bucket)) {
                *mine = mine.wrapping_sub(*sum);
            }
        }
        c.differing = Buckets::default();
        mine.iter().enumerate().filter(|(_, rest)| **rest != 0).for_each(|(bucket, _)| c.differing.insert(bucket));
        if c.differing.is_empty() {
            return self.next_member(around);
        }
        around.ctx.counters.audits_differ += 1;
        self.ask_rows(around, None);
    }

    fn ask_rows(&mut self, around: &mut Around, after: Option<ChannelKey>) {
        let Some(c) = self.comparing.as_mut() else { return };
        let Some((to, _)) = c.members.last() else { return };
        let (to, slot, scan, buckets) = (*to, c.slot, c.scan, c.differing);
        c.walk = Walk::new(slot, after.as_ref());
        let until = around.ctx.now.mono + limits::AUDIT_ANSWER;
        (c.phase, c.at) = (Phase::Rows, until);
        around.say(to, slot, scan, Said::AskRows { buckets, after });
    }

    pub(super) fn on_rows(
        &mut self,
        around: &mut Around,
        from: Replica,
        scan: u64,
        rows: Vec<Row>,
        upto: Option<ChannelKey>,
    ) {
        let Some(c) = self.comparing.as_mut().filter(|c| c.expects(from, scan)) else { return };
        if !matches!(c.phase, Phase::Rows) {
            return;
        }
        c.walk.end_at(upto.as_ref());
        c.phase = Phase::Merge { rows, upto, done: false };
        self.read_own(around);
    }
}

impl Comparing {
    fn expects(&self, from: Replica, scan: u64) -> bool {
        self.scan == scan && self.members.last().is_some_and(|(r, _)| *r == from)
    }

    fn fold(&mut self, around: &mut Around, seen: &[Seen]) {
        let Around { ctx, slots, channels } = around;
        let me = ctx.replica();
        for s in seen {
            let Some(row) = s.row(ctx, slots, channels).filter(|r| r.state != State::Awake) else { continue };
            self.members.iter_mut().filter(|(r, _)| s.is_shared(me, *r)).for_each(|(_, sums)| add(sums, &row));
        }
    }

    /// Channels that differ are served again until they do not. Returns how many.
    fn wake(&mut self, around: &mut Around, seen: &[Seen]) -> u32 {
        let Around { ctx, slots, channels } = around;
        let me = ctx.replica();
        let (Phase::Merge { rows, .. }, Some((member, _))) = (&self.phase, self.members.last()) else { return 0 };
        let mut woken = 0;
        for s in seen {
            let mine = s.row(ctx, slots, channels);
            let at = rows.binary_search_by(|r| keys::head(self.slot, &r.channel).cmp(&s.key));
            let theirs = at.ok().map(|at| &rows[at]);
            let awake = [mine.as_ref(), theirs].into_iter().flatten().any(|r| r.state == State::Awake);
            let compared = self.differing.contains(bucket(&s.channel)) && s.is_shared(me, *member);
            if compared && !awake && mine.as_ref() != theirs && !ctx.mutant(Mutant::AntiEntropySkipped) {
                ctx.counters.audits_woken += 1;
                woken += 1;
                channels.rouse(ctx, slots, &s.channel, *member);
            }
        }
        woken
    }
}

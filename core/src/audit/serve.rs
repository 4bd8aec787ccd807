//! The member that is asked: sums, or rows, of its own head rows.

use super::walk::{Step, Walk};
use super::{Around, Audits, Buckets, Row, Said, State, Sums, add, bucket, no_sums};
use crate::ids::{ChannelKey, SlotId};
use crate::limits;
use crate::raft::config::Replica;
use crate::store::Found;
use crate::time::Instant;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What the leader of a slot wants to know.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub from: Replica,
    pub slot: SlotId,
    pub scan: u64,
    /// Rows of these buckets behind this channel; None: sums.
    pub rows: Option<(Buckets, Option<ChannelKey>)>,
}

#[derive(Clone, Debug)]
struct Current {
    ask: Ask,
    walk: Walk,
    sums: Sums,
    rows: Vec<Row>,
    /// When the next page is read; NEVER while one is.
    at: Instant,
}

/// One is answered at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    asks: VecDeque<Ask>,
    current: Option<Current>,
}

impl Serving {
    pub fn at(&self) -> Instant {
        self.current.as_ref().map_or(Instant::NEVER, |c| c.at)
    }
}

impl Audits {
    pub(super) fn on_ask(&mut self, around: &mut Around, ask: Ask) {
        let asks = &mut self.serving.asks;
        // Whoever asks again has given up what it asked before.
        asks.retain(|a| (a.from, a.slot) != (ask.from, ask.slot));
        if asks.len() < limits::AUDIT_ASKS_MAX {
            asks.push_back(ask);
        }
        self.serve_next(around);
    }

    fn serve_next(&mut self, around: &mut Around) {
        if self.serving.current.is_some() {
            return;
        }
        let Some(ask) = self.serving.asks.pop_front() else { return };
        let after = ask.rows.as_ref().and_then(|(_, after)| after.as_ref());
        let mut walk = Walk::new(ask.slot, after);
        walk.read(around.ctx, self.number());
        self.serving.current = Some(Current { ask, walk, sums: no_sums(), rows: Vec::new(), at: Instant::NEVER });
    }

    pub(super) fn serve_time(&mut self, around: &mut Around) {
        let ticket = self.number();
        if let Some(c) = self.serving.current.as_mut().filter(|c| c.at <= around.ctx.now.mono) {
            c.at = Instant::NEVER;
            c.walk.read(around.ctx, ticket);
        }
    }

    pub(super) fn on_served(&mut self, around: &mut Around, ticket: u64, found: Option<Vec<Found>>) {
        let Some(c) = self.serving.current.as_mut().filter(|c| c.walk.ticket == ticket) else { return };
        let Around { ctx, slots, channels } = around;
        let (seen, more) = match c.walk.take(ctx, found, &[]) {
            Step::Wait => return,
            Step::Page { seen, more } => (seen, more),
            Step::Unreadable => {
                // Whoever asked gives up after a while.
                self.serving.current = None;
                return self.serve_next(around);
            }
        };
        let (me, mut last) = (ctx.replica(), None);
        for s in seen {
            let Some(row) = s.row(ctx, slots, channels) else { continue };
            match &c.ask.rows {
                _ if !s.is_shared(me, c.ask.from) => {}
                None if row.state == State::Awake => {}
                None => add(&mut c.sums, &row),
                Some((buckets, _)) if buckets.contains(bucket(&row.channel)) => c.rows.push(row),
                Some(_) => {}
            }
            last = Some(s.channel);
        }
        let full = c.rows.len() >= limits::AUDIT_ROWS;
        if more && !full {
            c.at = ctx.now.mono + limits::AUDIT_PACE;
            return;
        }
        let (to, slot, scan) = (c.ask.from, c.ask.slot, c.ask.scan);
        let said = if c.ask.rows.is_some() {
            Said::Rows { rows: core::mem::take(&mut c.rows), upto: last.filter(|_| more) }
        } else {
            let sums = c.sums.iter().enumerate().filter(|(_, sum)| **sum != 0);
            Said::Sums(sums.map(|(bucket, sum)| (bucket as u16, *sum)).collect())
        };
        self.serving.current = None;
        around.say(to, slot, scan, said);
        self.serve_next(around);
    }
}

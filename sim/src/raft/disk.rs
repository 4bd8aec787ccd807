//! What a node has durably: for each group exactly what its completed writes left. A crash keeps a prefix of the writes in flight.

use super::GroupNo;
use std::collections::VecDeque;
use std::sync::Arc;
use wukong_core::ids::{Epoch, Position};
use wukong_core::raft::Log;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Op, Ops, Stored};
use wukong_core::raft::journal::Token;
use wukong_core::raft::message::{Body, Entry, Item, Snapshot};

/// Items of a log with their content.
#[derive(Clone, Debug, Default)]
pub struct Items {
    pub log: Log,
    /// Entries above the base.
    entries: VecDeque<Entry>,
}

impl Items {
    #[must_use]
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let n = index.checked_sub(self.log.base.index + 1)?;
        self.entries.get(n as usize)
    }

    pub fn append(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            match item {
                Item::Mark { epoch, at } => self.log.mark(epoch, at),
                Item::Entry(e) => {
                    self.log.extend(e.epoch, 1);
                    self.entries.push_back(e);
                }
            }
        }
    }

    pub fn cut(&mut self, keep: Position) {
        self.log.cut(keep);
        self.entries.truncate((self.log.end().index - self.log.base.index) as usize);
    }

    pub fn rebase(&mut self, base: Position) {
        let gone = base.index.saturating_sub(self.log.base.index) as usize;
        self.entries.drain(..gone.min(self.entries.len()));
        self.log.rebase(base);
    }

    pub fn restart_at(&mut self, base: Position) {
        self.log = Log::starting_at(base);
        self.entries.clear();
    }

    #[must_use]
    pub fn range(&self, from: u64, to: u64, max_bytes: usize) -> Vec<Entry> {
        let mut bytes = 0;
        (from..=to)
            .map_while(|i| self.get(i))
            .take_while(|e| {
                let fits = bytes == 0 || bytes + e.size() <= max_bytes;
                bytes += e.size();
                fits
            })
            .cloned()
            .collect()
    }

    /// Applies what a write does to the log.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(items) => self.append(items.iter().cloned()),
            Op::Truncate(keep) => self.cut(*keep),
            Op::Rebase { snapshot, keep_log: true } => self.rebase(snapshot.base),
            Op::Rebase { snapshot, keep_log: false } => self.restart_at(snapshot.base),
            Op::Compact { base, .. } => self.rebase(*base),
            Op::Hard { .. } | Op::Hint { .. } => {}
        }
    }
}

/// One group's durable state.
#[derive(Clone, Debug)]
pub struct Durable {
    pub generation: u64,
    pub epoch: Epoch,
    pub voted_for: Option<Replica>,
    pub items: Items,
    /// Config at the base, and its index.
    pub base_config: (u64, Arc<Config>),
    pub snapshot: Option<Arc<Snapshot>>,
    pub hint: u64,
    /// A record at this index is damaged; found at the next start.
    pub damaged_at: Option<u64>,
    /// Damaged and not yet whole again.
    pub suspect: bool,
    /// Where the log ended before it was damaged: that much may have been acknowledged.
    pub lost: Option<Position>,
}

impl Durable {
    #[must_use]
    pub fn new(generation: u64, config: Arc<Config>) -> Self {
        Self {
            generation,
            epoch: Epoch(0),
            voted_for: None,
            items: Items::default(),
            base_config: (0, config),
            snapshot: None,
            hint: 0,
            damaged_at: None,
            suspect: false,
            lost: None,
        }
    }

    pub fn apply(&mut self, ops: Ops) {
        for op in ops {
            if let Op::Append(items) = op {
                self.items.append(items);
                continue;
            }
            self.items.apply(&op);
            match op {
                Op::Hard { epoch, voted_for } => (self.epoch, self.voted_for) = (epoch, voted_for),
                Op::Rebase { snapshot, .. } => {
                    self.base_config = (snapshot.config_index, Arc::clone(&snapshot.config));
                    self.hint = self.hint.max(snapshot.base.index);
                    self.snapshot = Some(snapshot);
                }
                Op::Compact { config, config_index, .. } => self.base_config = (config_index, config),
                Op::Hint { hw } => self.hint = hw.max(self.hint),
                Op::Append(_) | Op::Truncate(_) => {}
            }
        }
    }

    /// What a process finds at its start. Damage cuts the log below it.
    pub fn recover(&mut self) -> Stored {
        if let Some(at) = self.damaged_at.take()
            && at > self.items.log.base.index
            && at <= self.items.log.end().index
        {
            let keep = Position { epoch: self.items.log.epoch_of(at), index: at - 1 };
            self.lost = Some(self.items.log.end());
            self.items.cut(keep);
            self.hint = self.hint.min(at - 1);
            self.suspect = true;
        }
        let log = self.items.log.clone();
        let mut configs = vec![self.base_config.clone()];
        for i in log.base.index + 1..=log.end().index {
            if let Some(Entry { body: Body::Config(c), .. }) = self.items.get(i) {
                configs.push((i, Arc::clone(c)));
            }
        }
        let hw = self.hint.min(log.end().index).max(log.base.index);
        Stored {
            epoch: self.epoch.max(log.end().epoch),
            voted_for: self.voted_for,
            hw,
            distributed: 0,
            tail: Vec::new(),
            log,
            configs,
            snapshot: self.snapshot.clone(),
            damaged: self.suspect,
        }
    }
}

/// A write that was handed to the disk.
#[derive(Clone, Debug)]
pub struct Write {
    pub group: GroupNo,
    pub generation: u64,
    pub token: Token,
    pub ops: Ops,
}

/// A node's disk: one queue, synced batch by batch.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub queue: VecDeque<Write>,
    /// Writes of the batch being synced, at the front of the queue.
    pub syncing: usize,
    /// Added to each sync, in ns.
    pub slow: u64,
    /// The next sync fails.
    pub fail_next: bool,
    /// Reads of the log fail, in a thousand.
    pub read_faults: u32,
}

//! What a replica's writes leave on a disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use wukong_core::ids::{Epoch, Position};
use wukong_core::raft::Log;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Op, Stored};
use wukong_core::raft::message::{Body, Entry, Item, Snapshot};

/// The durable state of one replica; also the mirror of its log in memory, when writes count before they are durable.
#[derive(Clone, Debug)]
pub struct Disk {
    pub epoch: Epoch,
    pub voted_for: Option<Replica>,
    pub log: Log,
    pub entries: BTreeMap<u64, Entry>,
    pub hw: u64,
    pub configs: Vec<(u64, Arc<Config>)>,
    pub snapshot: Option<Arc<Snapshot>>,
    pub damaged: bool,
    /// What its state machine was restored to; what is before it is not in `entries`.
    pub restored: u64,
}

impl Disk {
    pub fn empty(config: Arc<Config>) -> Self {
        Self {
            epoch: Epoch(0),
            voted_for: None,
            log: Log::default(),
            entries: BTreeMap::new(),
            hw: 0,
            configs: vec![(0, config)],
            snapshot: None,
            damaged: false,
            restored: 0,
        }
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Hard { epoch, voted_for } => (self.epoch, self.voted_for) = (*epoch, *voted_for),
            Op::Append(items) => items.iter().for_each(|item| self.append(item)),
            Op::Truncate(keep) => self.truncate(*keep),
            Op::Rebase { snapshot, keep_log } => {
                if *keep_log {
                    self.log.rebase(snapshot.base);
                } else {
                    self.log = Log::starting_at(snapshot.base);
                    self.entries.clear();
                }
                let end = self.log.end().index;
                self.forget_configs(end);
                self.begin_at(snapshot.base.index, snapshot.config_index, &snapshot.config);
                self.snapshot = Some(Arc::clone(snapshot));
            }
            Op::Compact { base, config, config_index } => {
                self.log.rebase(*base);
                self.begin_at(base.index, *config_index, config);
            }
            Op::Hint { hw } => self.hw = self.hw.max(*hw),
        }
    }

    fn append(&mut self, item: &Item) {
        match item {
            Item::Mark { epoch, at } => self.log.mark(*epoch, *at),
            Item::Entry(e) => {
                self.log.extend(e.epoch, 1);
                assert_eq!(self.log.end().index, e.index, "entries follow each other on disk");
                if let Body::Config(c) = &e.body {
                    self.configs.push((e.index, Arc::clone(c)));
                }
                self.entries.insert(e.index, e.clone());
            }
        }
    }

    pub fn truncate(&mut self, keep: Position) {
        self.log.cut(keep);
        let end = self.log.end().index;
        self.entries.split_off(&(end + 1));
        self.forget_configs(end);
    }

    fn forget_configs(&mut self, end: u64) {
        while self.configs.len() > 1 && self.configs.last().is_some_and(|(at, _)| *at > end) {
            self.configs.pop();
        }
    }

    fn begin_at(&mut self, base: u64, config_index: u64, config: &Arc<Config>) {
        self.entries = self.entries.split_off(&(base + 1));
        self.configs.retain(|(at, _)| *at > config_index);
        self.configs.insert(0, (config_index, Arc::clone(config)));
    }

    pub fn stored(&self) -> Stored {
        Stored {
            epoch: self.epoch,
            voted_for: self.voted_for,
            log: self.log.clone(),
            hw: self.hw.min(self.log.end().index),
            distributed: 0,
            tail: Vec::new(),
            configs: self.configs.clone(),
            snapshot: self.snapshot.clone(),
            damaged: self.damaged,
        }
    }

    /// Entries of an answer to a read of the log; None where one is missing.
    pub fn read(&self, from: u64, to: u64, max_bytes: usize) -> Option<Vec<Entry>> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in from..=to {
            let entry = self.entries.get(&index)?;
            bytes += entry.size();
            if !found.is_empty() && bytes > max_bytes {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }
}

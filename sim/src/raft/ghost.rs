//! What really happened, kept beside the world: who led, what was created, committed and acknowledged.

use super::visible::Visible;
use super::voices::Voices;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use wukong_core::ids::Incarnation;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::store::rows::Assignment;

/// A group of one generation.
pub type GroupId = (usize, u64);

/// One committed entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub epoch: u64,
    pub content: u64,
    /// Epoch of the leader that first covered it.
    pub by: u64,
}

#[derive(Clone, Debug, Default)]
pub struct GroupGhost {
    /// Who led each epoch.
    pub leads: BTreeMap<u64, (Replica, Incarnation)>,
    /// Epoch and content of the entry that was first created at each index, and of all others.
    items: Vec<Option<(u64, u64)>>,
    others: BTreeMap<(u64, u64), u64>,
    /// What readers saw.
    pub visible: Visible,
    pub marks: BTreeMap<u64, u64>,
    /// Newest config that was committed.
    pub config: Option<Arc<Config>>,
    /// Entries 1, 2, … as first covered by any commit index.
    pub committed: Vec<Committed>,
    /// Votes that were told.
    pub votes: BTreeMap<(Replica, u64), Replica>,
    /// Largest index that a client knows to be stored.
    pub acked: u64,
    /// Acknowledged (index, epoch, operation).
    pub acks: Vec<(u64, u64, u64)>,
    /// Highest epoch in which something was committed.
    pub epoch: u64,
    /// Epochs whose mark is committed, as their leaders said.
    pub stable: BTreeSet<u64>,
    /// Newest version of the members that was judged.
    pub left: u64,
    /// Epochs whose leader fenced itself for a handover.
    pub handed: BTreeSet<u64>,
    /// Newest epoch whose leader was assigned.
    pub assigned: u64,
}

/// An operation of a client.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub group: GroupId,
    pub client: usize,
    pub node: usize,
    pub life: u32,
    pub read: bool,
    /// For reads: what was acknowledged before it began.
    pub floor: u64,
    /// For lease reads: the highest committed epoch is checked when it is served.
    pub lease: bool,
    pub open: bool,
    /// Keys of its entries: so many from this one on.
    pub key: u64,
    pub entries: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Ghost {
    pub groups: BTreeMap<GroupId, GroupGhost>,
    pub operations: Vec<Operation>,
    /// State hashes of the slot by applied index.
    pub states: BTreeMap<u64, u64>,
    /// The newest committed assignment of each channel.
    pub table: BTreeMap<usize, Arc<Assignment>>,
    /// Newest entry of the slot that was applied anywhere.
    pub applied: u64,
    pub acked: u64,
    pub judged: u64,
    /// The next key.
    pub keys: u64,
    pub voices: Voices,
}

impl GroupGhost {
    /// What is known as the entry of this epoch at this index: `content`, if nothing was.
    pub fn created(&mut self, epoch: u64, index: u64, content: u64) -> u64 {
        let at = index as usize;
        if self.items.len() <= at {
            self.items.resize(at + 1, None);
        }
        let (first, known) = *self.items[at].get_or_insert((epoch, content));
        if first == epoch { known } else { *self.others.entry((epoch, index)).or_insert(content) }
    }
}

impl Ghost {
    pub fn group(&mut self, id: GroupId) -> &mut GroupGhost {
        self.groups.entry(id).or_default()
    }
}

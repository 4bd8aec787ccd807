//! A node of the cluster: its process, clock, disk, and replicas.

use super::disk::{Disk, Durable, Items};
use super::slot::SlotState;
use super::{GroupNo, SLOT, replica};
use std::collections::BTreeMap;
use wukong_core::cluster::control::Controller;
use wukong_core::ids::Incarnation;
use wukong_core::raft::config::Replica;
use wukong_core::raft::core::GroupCore;
use wukong_core::time::Instant;

/// A replica in a running process.
#[derive(Clone, Debug)]
pub struct Live {
    pub generation: u64,
    pub core: GroupCore,
    /// Its log as it stands in memory, with all content.
    pub items: Items,
    pub hw: u64,
    /// For I15: what the commit index may be without validation.
    pub floor: u64,
    /// It led this epoch when the step began.
    pub led: Option<wukong_core::ids::Epoch>,
    /// The members in force when the step began.
    pub members: std::sync::Arc<wukong_core::raft::config::Config>,
    /// It leads and is not heard, as far as was looked.
    pub alone_since: Option<u64>,
    /// What readers here were shown, as far as it was judged.
    pub seen: u64,
    /// Epoch in which it last cut its log.
    pub cut_in: Option<wukong_core::ids::Epoch>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Node {
    pub no: usize,
    /// How often it lost its disk: part of its store's identity.
    pub wipes: u32,
    pub incarnation: u64,
    /// Rises whenever the process ends: events of an older life are void.
    pub life: u32,
    pub alive: bool,
    /// Faults that keep it down.
    pub down: u32,
    pub paused_until: u64,
    /// Speed of its clock, parts per million off.
    pub drift: i64,
    pub disk: Disk,
    pub durable: Vec<Option<Durable>>,
    pub groups: Vec<Option<Live>>,
    /// When each replica wants to be called, on this node's clock.
    pub deadlines: Vec<Instant>,
    /// The timer that is set, in the world's time and on this node's clock.
    pub timer_at: u64,
    pub timer_for: Instant,
    /// The slot's tables, as applied by this process.
    pub slot: SlotState,
    /// Only at the leader of the slot.
    pub controllers: BTreeMap<GroupNo, Controller>,
    pub controls: bool,
    /// When the leader of the slot last heard of each node, and in which life.
    pub heard: Vec<(u64, u64)>,
}

impl Node {
    #[must_use]
    pub fn new(no: usize, nodes: usize, groups: usize, drift: i64) -> Self {
        Self {
            no,
            wipes: 0,
            incarnation: 0,
            life: 0,
            alive: false,
            down: 0,
            paused_until: 0,
            drift,
            disk: Disk::default(),
            durable: vec![None; groups],
            groups: vec![None; groups],
            deadlines: vec![Instant::NEVER; groups],
            timer_at: u64::MAX,
            timer_for: Instant::NEVER,
            slot: SlotState::default(),
            controllers: BTreeMap::new(),
            controls: false,
            heard: vec![(0, 0); nodes],
        }
    }

    #[must_use]
    pub fn me(&self) -> Replica {
        replica(self.no, self.wipes)
    }

    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation)
    }

    /// What its clock shows at a moment of the world.
    #[must_use]
    pub const fn local(&self, now: u64) -> Instant {
        // 64 bits are enough for hours.
        Instant((now as i64 + now as i64 * self.drift / 1_000_000) as u64)
    }

    /// When its clock will show `at`.
    #[must_use]
    pub const fn world(&self, at: Instant) -> u64 {
        if at.0 == u64::MAX {
            return u64::MAX;
        }
        (at.0 as i64 * 1_000_000 / (1_000_000 + self.drift)) as u64 + 1
    }

    /// When it next wants to be called, on its own clock.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let groups = self.deadlines.iter().copied();
        let controllers = self.controllers.values().map(Controller::deadline);
        groups.chain(controllers).min().unwrap_or(Instant::NEVER)
    }

    #[must_use]
    pub fn leads_slot(&self) -> bool {
        self.groups[SLOT].as_ref().is_some_and(|g| g.core.is_leader() && g.core.epoch_committed())
    }
}

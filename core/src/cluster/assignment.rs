//! Assignments of channel groups in the slot state machine: compare-and-set commands (cluster-and-raft 4.18).

use crate::ids::{Epoch, Incarnation, Position};
use crate::store::rows::{
    Assignment, Damaged, Replica, Row, get_replica, get_replicas, put_replica, put_replicas, put_u64,
};
use alloc::vec::Vec;

/// A change of one channel's assignment. One that is stale changes nothing; it is not an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignCommand {
    /// No live record: generation = index of this entry, epoch 1.
    Create {
        voters: Vec<Replica>,
        leader: Replica,
        incarnation: Incarnation,
    },
    /// The leader is lost: the next epoch, with no leader until a fence round has found one.
    Elect {
        generation: u64,
        epoch: Epoch,
    },
    Lead {
        generation: u64,
        epoch: Epoch,
        leader: Replica,
        incarnation: Incarnation,
    },
    /// The leader of `epoch` fenced itself at `end`, and the target holds all of it.
    Handover {
        generation: u64,
        epoch: Epoch,
        from: Replica,
        end: Position,
        to: Replica,
        incarnation: Incarnation,
    },
    AddLearner {
        generation: u64,
        epoch: Epoch,
        learner: Replica,
    },
    DropLearner {
        generation: u64,
        epoch: Epoch,
        learner: Replica,
    },
    /// Newcomers are learners that caught up.
    EnterJoint {
        generation: u64,
        epoch: Epoch,
        voters: Vec<Replica>,
    },
    /// The leader reported the joint mark as committed.
    LeaveJoint {
        generation: u64,
        epoch: Epoch,
    },
    /// Everything up to `floor` may go; the leader reported it as committed.
    Retain {
        generation: u64,
        epoch: Epoch,
        floor: u64,
    },
    Delete {
        generation: u64,
        last_seq: u64,
    },
}

/// The record after `command`, the entry `index` of the slot's log. None: stale.
#[must_use]
pub fn reduce(current: Option<&Assignment>, command: &AssignCommand, index: u64) -> Option<Assignment> {
    if let AssignCommand::Create { voters, leader, incarnation } = command {
        let last_seq = match current {
            Some(a) if !a.deleted => return None,
            Some(a) => a.last_seq,
            None => 0,
        };
        return (voters.contains(leader)).then(|| Assignment {
            generation: index,
            epoch: Epoch(1),
            config_version: 1,
            leader: Some((*leader, *incarnation)),
            voters: voters.clone(),
            last_seq,
            ..Assignment::default()
        });
    }
    let a = current.filter(|a| !a.deleted && a.generation == command.generation())?;
    if command.epoch().is_some_and(|e| e != a.epoch) {
        return None;
    }
    let mut next = a.clone();
    let electing = a.leader.is_none();
    let joint = !a.voters_out.is_empty();
    let is_voter = |r: &Replica| a.voters.contains(r) || a.voters_out.contains(r);
    let fits = match command {
        AssignCommand::Create { .. } => false,
        AssignCommand::Elect { .. } => {
            next.epoch = Epoch(a.epoch.0 + 1);
            next.leader = None;
            true
        }
        AssignCommand::Lead { leader, incarnation, .. } => {
            next.leader = Some((*leader, *incarnation));
            electing && is_voter(leader)
        }
        AssignCommand::Handover { from, to, incarnation, .. } => {
            next.epoch = Epoch(a.epoch.0 + 1);
            next.leader = Some((*to, *incarnation));
            a.leader.is_some_and(|(r, _)| r == *from) && is_voter(to)
        }
        AssignCommand::AddLearner { learner, .. } => {
            next.learners.push(*learner);
            next.config_version += 1;
            !is_voter(learner) && !a.learners.contains(learner)
        }
        AssignCommand::DropLearner { learner, .. } => {
            next.learners.retain(|r| r != learner);
            next.config_version += 1;
            next.learners.len() < a.learners.len()
        }
        AssignCommand::EnterJoint { voters, .. } => {
            next.epoch = Epoch(a.epoch.0 + 1);
            next.voters_out = core::mem::replace(&mut next.voters, voters.clone());
            next.learners.retain(|r| !voters.contains(r));
            next.config_version += 1;
            let known = voters.iter().all(|r| is_voter(r) || a.learners.contains(r));
            !electing && !joint && known && !voters.is_empty()
        }
        AssignCommand::LeaveJoint { .. } => {
            next.epoch = Epoch(a.epoch.0 + 1);
            next.voters_out.clear();
            next.config_version += 1;
            !electing && joint
        }
        AssignCommand::Retain { floor, .. } => {
            next.retention_floor = *floor;
            *floor > a.retention_floor
        }
        AssignCommand::Delete { last_seq, .. } => {
            next.deleted = true;
            next.last_seq = a.last_seq.max(*last_seq);
            true
        }
    };
    fits.then_some(next)
}

impl AssignCommand {
    /// `u8 kind | u64 generation | u64 epoch | the rest` (docs/storage.md).
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Create { .. } => 1,
            Self::Elect { .. } => 2,
            Self::Lead { .. } => 3,
            Self::Handover { .. } => 4,
            Self::AddLearner { .. } => 5,
            Self::DropLearner { .. } => 6,
            Self::EnterJoint { .. } => 7,
            Self::LeaveJoint { .. } => 8,
            Self::Retain { .. } => 9,
            Self::Delete { .. } => 10,
        });
        put_u64(self.generation(), out);
        put_u64(self.epoch().unwrap_or_default().0, out);
        match self {
            Self::Create { voters, leader, incarnation } => {
                put_replicas(voters, out);
                put_replica(*leader, out);
                put_u64(incarnation.0, out);
            }
            Self::Lead { leader, incarnation, .. } => {
                put_replica(*leader, out);
                put_u64(incarnation.0, out);
            }
            Self::Handover { from, end, to, incarnation, .. } => {
                put_replica(*from, out);
                put_u64(end.epoch.0, out);
                put_u64(end.index, out);
                put_replica(*to, out);
                put_u64(incarnation.0, out);
            }
            Self::AddLearner { learner, .. } | Self::DropLearner { learner, .. } => put_replica(*learner, out),
            Self::EnterJoint { voters, .. } => put_replicas(voters, out),
            Self::Retain { floor, .. } => put_u64(*floor, out),
            Self::Delete { last_seq, .. } => put_u64(*last_seq, out),
            Self::Elect { .. } | Self::LeaveJoint { .. } => {}
        }
    }

    pub(super) fn get(r: &mut Row) -> Result<Self, Damaged> {
        let (kind, generation, epoch) = (r.u8()?, r.u64()?, Epoch(r.u64()?));
        Ok(match kind {
            1 => Self::Create { voters: get_replicas(r)?, leader: get_replica(r)?, incarnation: Incarnation(r.u64()?) },
            2 => Self::Elect { generation, epoch },
            3 => Self::Lead { generation, epoch, leader: get_replica(r)?, incarnation: Incarnation(r.u64()?) },
            4 => Self::Handover {
                generation,
                epoch,
                from: get_replica(r)?,
                end: Position { epoch: Epoch(r.u64()?), index: r.u64()? },
                to: get_replica(r)?,
                incarnation: Incarnation(r.u64()?),
            },
            5 => Self::AddLearner { generation, epoch, learner: get_replica(r)? },
            6 => Self::DropLearner { generation, epoch, learner: get_replica(r)? },
            7 => Self::EnterJoint { generation, epoch, voters: get_replicas(r)? },
            8 => Self::LeaveJoint { generation, epoch },
            9 => Self::Retain { generation, epoch, floor: r.u64()? },
            10 => Self::Delete { generation, last_seq: r.u64()? },
            _ => return Err(Damaged),
        })
    }

    const fn generation(&self) -> u64 {
        match self {
            Self::Create { .. } => 0,
            Self::Elect { generation, .. }
            | Self::Lead { generation, .. }
            | Self::Handover { generation, .. }
            | Self::AddLearner { generation, .. }
            | Self::DropLearner { generation, .. }
            | Self::EnterJoint { generation, .. }
            | Self::LeaveJoint { generation, .. }
            | Self::Retain { generation, .. }
            | Self::Delete { generation, .. } => *generation,
        }
    }

    const fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Create { .. } | Self::Delete { .. } => None,
            Self::Elect { epoch, .. }
            | Self::Lead { epoch, .. }
            | Self::Handover { epoch, .. }
            | Self::AddLearner { epoch, .. }
            | Self::DropLearner { epoch, .. }
            | Self::EnterJoint { epoch, .. }
            | Self::LeaveJoint { epoch, .. }
            | Self::Retain { epoch, .. } => Some(*epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, StoreId};

    fn r(n: u16) -> Replica {
        Replica { node: NodeId(n), store: StoreId(u128::from(n)) }
    }

    fn made() -> Assignment {
        let voters = alloc::vec![r(1), r(2), r(3)];
        reduce(None, &AssignCommand::Create { voters, leader: r(1), incarnation: Incarnation(1) }, 9).expect("created")
    }

    #[test]
    fn an_epoch_has_one_leader_and_stale_commands_change_nothing() {
        let a = made();
        assert_eq!((a.generation, a.epoch), (9, Epoch(1)));
        let elect = AssignCommand::Elect { generation: 9, epoch: Epoch(1) };
        let b = reduce(Some(&a), &elect, 10).expect("elects");
        assert_eq!((b.epoch, b.leader), (Epoch(2), None));
        assert_eq!(reduce(Some(&b), &elect, 11), None);
        let lead =
            |n| AssignCommand::Lead { generation: 9, epoch: Epoch(2), leader: r(n), incarnation: Incarnation(1) };
        let c = reduce(Some(&b), &lead(2), 12).expect("leads");
        assert_eq!(reduce(Some(&c), &lead(3), 13), None);
        assert_eq!(reduce(Some(&b), &lead(7), 12), None, "a stranger leads nothing");
        assert_eq!(reduce(Some(&a), &AssignCommand::Elect { generation: 8, epoch: Epoch(1) }, 14), None);
    }

    #[test]
    fn every_command_survives_the_log() {
        let (generation, epoch, incarnation, end) =
            (9, Epoch(4), Incarnation(7), Position { epoch: Epoch(3), index: 11 });
        let all = [
            AssignCommand::Create { voters: alloc::vec![r(1), r(2)], leader: r(1), incarnation },
            AssignCommand::Elect { generation, epoch },
            AssignCommand::Lead { generation, epoch, leader: r(2), incarnation },
            AssignCommand::Handover { generation, epoch, from: r(1), end, to: r(2), incarnation },
            AssignCommand::AddLearner { generation, epoch, learner: r(4) },
            AssignCommand::DropLearner { generation, epoch, learner: r(4) },
            AssignCommand::EnterJoint { generation, epoch, voters: alloc::vec![r(2)] },
            AssignCommand::LeaveJoint { generation, epoch },
            AssignCommand::Retain { generation, epoch, floor: 5 },
            AssignCommand::Delete { generation, last_seq: 12 },
        ];
        for command in all {
            let mut row = alloc::vec![1];
            command.put(&mut row);
            crate::store::rows::seal(&mut row, 0);
            let mut row = Row::open(&row.into(), 1).expect("sealed");
            assert_eq!(AssignCommand::get(&mut row), Ok(command));
        }
    }

    #[test]
    fn joint_is_entered_with_known_newcomers_and_left_once() {
        let a = made();
        let enter = |voters: &[u16], e| AssignCommand::EnterJoint {
            generation: 9,
            epoch: Epoch(e),
            voters: voters.iter().map(|n| r(*n)).collect(),
        };
        assert_eq!(reduce(Some(&a), &enter(&[2, 3, 4], 1), 10), None);
        let add = AssignCommand::AddLearner { generation: 9, epoch: Epoch(1), learner: r(4) };
        let b = reduce(Some(&a), &add, 10).expect("adds");
        let c = reduce(Some(&b), &enter(&[2, 3, 4], 1), 11).expect("joint");
        assert_eq!((c.epoch, c.voters_out.len(), c.learners.len()), (Epoch(2), 3, 0));
        assert_eq!(reduce(Some(&c), &enter(&[2, 3], 2), 12), None);
        let leave = AssignCommand::LeaveJoint { generation: 9, epoch: Epoch(2) };
        let d = reduce(Some(&c), &leave, 13).expect("leaves");
        assert_eq!((d.epoch, d.voters.clone()), (Epoch(3), alloc::vec![r(2), r(3), r(4)]));
    }

    #[test]
    fn a_channel_made_anew_has_another_generation_and_remembers_its_last_seq() {
        let gone = reduce(Some(&made()), &AssignCommand::Delete { generation: 9, last_seq: 5 }, 20).expect("deleted");
        assert_eq!(reduce(Some(&gone), &AssignCommand::Elect { generation: 9, epoch: Epoch(1) }, 21), None);
        let create = AssignCommand::Create { voters: alloc::vec![r(1)], leader: r(1), incarnation: Incarnation(2) };
        let again = reduce(Some(&gone), &create, 22).expect("created");
        assert_eq!((again.generation, again.last_seq, again.epoch), (22, 5, Epoch(1)));
    }
}

//! Commands of the slot state machine: what they read (from their bytes alone) and what they do.
//!
//! Envelope: `u16 version | u16 type | body` (semantics 8.4). Applying is a pure function of the rows read and the
//! command; times and ids are inside the command (8.5).

use super::assignment::{AssignCommand, reduce};
use crate::ids::{ChannelKey, Epoch, Incarnation, SlotId};
use crate::store::keys;
use crate::store::rows::{
    Assignment, ChannelMeta, Damaged, Device, Format, Membership, Replica, Row, get_replica, put_replica, put_text,
    put_u64, seal,
};
use alloc::vec;
use alloc::vec::Vec;
use bytes::Bytes;
use wukong_proto::Text;

const VERSION: u16 = 1;

/// A command. Type numbers follow semantics 8.4 where one exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// 1: token and level of a device.
    UpsertDevice { uid: Text, flag: u8, device: Device },
    /// 60: a change of a channel's assignment (4.18).
    Assign { channel: ChannelKey, command: AssignCommand },
    /// 61: Elect and Lead in one entry, for voters = {leader}: the fence round of one replica is its own promise.
    ElectSole { channel: ChannelKey, generation: u64, epoch: Epoch, leader: Replica, incarnation: Incarnation },
    /// 62: both participants of a person channel have their rows.
    SetDirectoryReady { channel: ChannelKey },
    /// 63: a user takes part in a channel (semantics 6.2.7).
    UpsertMembership { uid: Text, channel: ChannelKey, version: u64, join_seq: u64, now_ms: u64 },
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The assignment now in force; `stale` = the precondition did not hold and nothing changed.
    Assigned {
        assignment: Assignment,
        stale: bool,
    },
    /// Its leader ended before it was committed: it may be applied or not.
    Unknown,
    /// A row the command needs is damaged: the slot must stop.
    Damaged,
}

/// Rows that a command reads, in the order of [`Command::reads`]; `None` = absent.
pub type ReadRows = [Option<Bytes>];
/// A row that a command writes.
pub type WrittenRow = (Bytes, Bytes);

fn put_channel(c: &ChannelKey, out: &mut Vec<u8>) {
    put_text(out, &c.id);
    out.push(c.kind);
}

fn get_channel(r: &mut Row) -> Result<ChannelKey, Damaged> {
    Ok(ChannelKey { id: r.text()?, kind: r.u8()? })
}

fn put_leader(leader: Replica, incarnation: Incarnation, out: &mut Vec<u8>) {
    put_replica(leader, out);
    put_u64(incarnation.0, out);
}

fn get_leader(r: &mut Row) -> Result<(Replica, Incarnation), Damaged> {
    Ok((get_replica(r)?, Incarnation(r.u64()?)))
}

impl Command {
    /// The entry's value on disk: `u8 format=1 | u64 epoch | u16 version | u16 type | body | crc32`.
    #[must_use]
    pub fn to_entry(&self, epoch: Epoch) -> Bytes {
        let mut out = Vec::with_capacity(96);
        out.push(1);
        out.extend_from_slice(&epoch.0.to_be_bytes());
        out.extend_from_slice(&VERSION.to_be_bytes());
        let kind: u16 = match self {
            Self::UpsertDevice { .. } => 1,
            Self::Assign { .. } => 60,
            Self::ElectSole { .. } => 61,
            Self::SetDirectoryReady { .. } => 62,
            Self::UpsertMembership { .. } => 63,
        };
        out.extend_from_slice(&kind.to_be_bytes());
        match self {
            Self::UpsertDevice { uid, flag, device } => {
                put_text(&mut out, uid);
                out.push(*flag);
                put_text(&mut out, &device.token);
                out.push(device.level);
            }
            Self::Assign { channel, command } => {
                put_channel(channel, &mut out);
                command.put(&mut out);
            }
            Self::ElectSole { channel, generation, epoch, leader, incarnation } => {
                put_channel(channel, &mut out);
                out.extend_from_slice(&generation.to_be_bytes());
                out.extend_from_slice(&epoch.0.to_be_bytes());
                put_leader(*leader, *incarnation, &mut out);
            }
            Self::SetDirectoryReady { channel } => put_channel(channel, &mut out),
            Self::UpsertMembership { uid, channel, version, join_seq, now_ms } => {
                put_text(&mut out, uid);
                put_channel(channel, &mut out);
                for v in [version, join_seq, now_ms] {
                    out.extend_from_slice(&v.to_be_bytes());
                }
            }
        }
        seal(&mut out, 0);
        Bytes::from(out)
    }

    /// # Errors
    /// The entry is damaged, or of a kind this version does not know: the slot must stop (4.13).
    pub fn from_entry(entry: &Bytes) -> Result<(Epoch, Self), Damaged> {
        let mut row = Row::open(entry, 1)?;
        let r = &mut row;
        let epoch = Epoch(r.u64()?);
        if r.u16()? != VERSION {
            return Err(Damaged);
        }
        let command = match r.u16()? {
            1 => Self::UpsertDevice {
                uid: r.text()?,
                flag: r.u8()?,
                device: Device { token: r.text()?, level: r.u8()? },
            },
            60 => Self::Assign { channel: get_channel(r)?, command: AssignCommand::get(r)? },
            61 => {
                let (channel, generation, epoch) = (get_channel(r)?, r.u64()?, Epoch(r.u64()?));
                let (leader, incarnation) = get_leader(r)?;
                Self::ElectSole { channel, generation, epoch, leader, incarnation }
            }
            62 => Self::SetDirectoryReady { channel: get_channel(r)? },
            63 => Self::UpsertMembership {
                uid: r.text()?,
                channel: get_channel(r)?,
                version: r.u64()?,
                join_seq: r.u64()?,
                now_ms: r.u64()?,
            },
            _ => return Err(Damaged),
        };
        Ok((epoch, command))
    }

    /// The `meta` keys that deciding and applying this command need (architecture 2.1).
    #[must_use]
    pub fn reads(&self, slot: SlotId) -> Vec<Bytes> {
        match self {
            Self::UpsertDevice { uid, flag, .. } => vec![keys::device(slot, uid, *flag)],
            Self::Assign { channel, .. } | Self::ElectSole { channel, .. } => {
                vec![keys::assignment(slot, channel)]
            }
            Self::SetDirectoryReady { channel } => vec![keys::channel_meta(slot, channel)],
            Self::UpsertMembership { uid, channel, .. } => {
                vec![keys::membership(slot, uid, channel)]
            }
        }
    }

    /// The channel that it deleted, as `outcome` says, and which generation of it.
    #[must_use]
    pub fn deleted(&self, outcome: &Outcome) -> Option<(ChannelKey, u64)> {
        match (self, outcome) {
            (
                Self::Assign { channel, command: AssignCommand::Delete { generation, .. } },
                Outcome::Assigned { stale: false, .. },
            ) => Some((channel.clone(), *generation)),
            _ => None,
        }
    }

    /// Applies the command of entry `index`. `rows` answers [`Self::reads`].
    #[must_use]
    pub fn apply(&self, slot: SlotId, index: u64, rows: &ReadRows) -> (Outcome, Vec<WrittenRow>) {
        self.try_apply(slot, index, rows).unwrap_or((Outcome::Damaged, Vec::new()))
    }

    fn try_apply(&self, slot: SlotId, index: u64, rows: &ReadRows) -> Result<(Outcome, Vec<WrittenRow>), Damaged> {
        let row = rows.first().cloned().flatten();
        Ok(match self {
            Self::UpsertDevice { uid, flag, device } => {
                (Outcome::Done, vec![(keys::device(slot, uid, *flag), device.to_bytes())])
            }
            Self::Assign { channel, command } => {
                let old = row.map(|r| Assignment::decode(&r)).transpose()?;
                match reduce(old.as_ref(), command, index) {
                    None => (Outcome::Assigned { assignment: old.unwrap_or_default(), stale: true }, Vec::new()),
                    Some(a) => {
                        let written = vec![(keys::assignment(slot, channel), a.to_bytes())];
                        (Outcome::Assigned { assignment: a, stale: false }, written)
                    }
                }
            }
            Self::ElectSole { channel, generation, epoch, leader, incarnation } => {
                let Some(mut a) = row.map(|r| Assignment::decode(&r)).transpose()? else {
                    return Ok((Outcome::Assigned { assignment: Assignment::default(), stale: true }, Vec::new()));
                };
                let holds = a.generation == *generation && a.epoch == *epoch && !a.deleted && a.voters == [*leader];
                if !holds {
                    return Ok((Outcome::Assigned { assignment: a, stale: true }, Vec::new()));
                }
                a.epoch = Epoch(epoch.0 + 1);
                a.leader = Some((*leader, *incarnation));
                let written = vec![(keys::assignment(slot, channel), a.to_bytes())];
                (Outcome::Assigned { assignment: a, stale: false }, written)
            }
            Self::SetDirectoryReady { channel } => {
                let meta = ChannelMeta { directory_ready: true };
                (Outcome::Done, vec![(keys::channel_meta(slot, channel), meta.to_bytes())])
            }
            Self::UpsertMembership { uid, channel, version, join_seq, now_ms } => {
                let old = row.map(|r| Membership::decode(&r)).transpose()?;
                match reduce_membership(old, *version, *join_seq, *now_ms) {
                    Some(m) => (Outcome::Done, vec![(keys::membership(slot, uid, channel), m.to_bytes())]),
                    None => (Outcome::Done, Vec::new()),
                }
            }
        })
    }
}

/// The reducer of semantics 6.2.7 for a live upsert; `None` = nothing changes.
fn reduce_membership(old: Option<Membership>, version: u64, join_seq: u64, now_ms: u64) -> Option<Membership> {
    match old {
        None => Some(Membership { live: true, join_seq, version, updated_ms: now_ms, ..Membership::default() }),
        // A newer source version of a live row keeps the personal cursors.
        Some(m) if m.live && version > m.version => Some(Membership { version, updated_ms: now_ms, ..m }),
        // Rejoin: cursors are reset.
        Some(m) if !m.live && version > m.version => {
            Some(Membership { live: true, join_seq, version, updated_ms: now_ms, ..Membership::default() })
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::ids::{NodeId, StoreId};

    const SLOT: SlotId = SlotId(3);

    fn create(incarnation: u64) -> Command {
        let voters = vec![me()];
        let command = AssignCommand::Create { voters, leader: me(), incarnation: Incarnation(incarnation) };
        Command::Assign { channel: channel(), command }
    }

    fn me() -> Replica {
        Replica { node: NodeId(1), store: StoreId(5) }
    }

    fn channel() -> ChannelKey {
        ChannelKey { id: Text::from("b@a"), kind: 1 }
    }

    #[test]
    fn commands_survive_the_log() {
        let all = [
            Command::UpsertDevice { uid: "u".into(), flag: 1, device: Device { token: "t".into(), level: 1 } },
            create(2),
            Command::ElectSole {
                channel: channel(),
                generation: 4,
                epoch: Epoch(1),
                leader: me(),
                incarnation: Incarnation(2),
            },
            Command::SetDirectoryReady { channel: channel() },
            Command::UpsertMembership { uid: "u".into(), channel: channel(), version: 1, join_seq: 1, now_ms: 5 },
        ];
        for c in all {
            assert_eq!(Command::from_entry(&c.to_entry(Epoch(7))), Ok((Epoch(7), c.clone())));
            assert!(!c.reads(SLOT).is_empty());
        }
    }

    #[test]
    fn a_channel_is_created_once_and_elected_by_compare_and_set() {
        let create = create(1);
        let (outcome, written) = create.apply(SLOT, 9, &[None]);
        let Outcome::Assigned { assignment, stale: false } = outcome else { panic!("{outcome:?}") };
        assert_eq!((assignment.generation, assignment.epoch), (9, Epoch(1)));
        let row = Some(written[0].1.clone());
        let (again, nothing) = create.apply(SLOT, 10, core::slice::from_ref(&row));
        assert_eq!((again, nothing.len()), (Outcome::Assigned { assignment, stale: true }, 0));

        let elect = |epoch| Command::ElectSole {
            channel: channel(),
            generation: 9,
            epoch: Epoch(epoch),
            leader: me(),
            incarnation: Incarnation(2),
        };
        let (outcome, _) = elect(1).apply(SLOT, 11, core::slice::from_ref(&row));
        let Outcome::Assigned { assignment, stale: false } = outcome else { panic!("{outcome:?}") };
        assert_eq!((assignment.epoch, assignment.leader), (Epoch(2), Some((me(), Incarnation(2)))));
        let (outcome, written) = elect(5).apply(SLOT, 12, &[row]);
        assert!(matches!(outcome, Outcome::Assigned { stale: true, .. }) && written.is_empty());
    }

    #[test]
    fn membership_keeps_cursors_over_repeats() {
        let m = reduce_membership(None, 1, 1, 5).unwrap();
        assert_eq!(reduce_membership(Some(m.clone()), 1, 9, 6), None);
        let read = Membership { read_seq: 7, ..m };
        assert_eq!(reduce_membership(Some(read), 2, 1, 8).unwrap().read_seq, 7);
    }

    #[test]
    fn a_damaged_row_stops_rather_than_guesses() {
        let create = create(1);
        assert_eq!(create.apply(SLOT, 1, &[Some(Bytes::from_static(b"junk"))]).0, Outcome::Damaged);
    }
}

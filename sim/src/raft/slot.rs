//! The state machine of the slot group, and what its commands look like in the log.

use super::GroupNo;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use wukong_core::cluster::assignment::{AssignCommand, reduce};
use wukong_core::store::rows::Assignment;

/// What an entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A client's, by its key: each entry of a run has its own.
    Op(u64),
    /// A command of the slot, by its number in the run.
    Command(u64),
}

/// Keys as bytes: copies of them cost nothing.
static KEYS: [[u8; 8]; 1 << 16] = {
    let mut keys = [[0; 8]; 1 << 16];
    let mut n = 0;
    while n < keys.len() {
        keys[n] = (n as u64).to_be_bytes();
        n += 1;
    }
    keys
};

impl Payload {
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        let (tag, n) = match self {
            Self::Op(n) if n < KEYS.len() as u64 => return Bytes::from_static(&KEYS[n as usize]),
            Self::Op(n) => (0_u64, n),
            Self::Command(n) => (1, n),
        };
        Bytes::copy_from_slice(&(tag << 62 | n).to_be_bytes())
    }

    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let n = u64::from_be_bytes(bytes.try_into().ok()?);
        Some(if n >> 62 == 0 { Self::Op(n) } else { Self::Command(n & !(3 << 62)) })
    }
}

/// The tables of the slot, as of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotState {
    pub applied: u64,
    /// Chained over everything applied.
    pub hash: u64,
    pub table: BTreeMap<GroupNo, Arc<Assignment>>,
}

impl SlotState {
    /// Applies the entry `index`; returns the channel that its command was about.
    pub fn apply(
        &mut self,
        index: u64,
        payload: Option<Payload>,
        commands: &[(GroupNo, AssignCommand)],
    ) -> Option<GroupNo> {
        assert_eq!(index, self.applied + 1, "entries are applied in order");
        self.applied = index;
        let Some(payload) = payload else {
            self.mix(3);
            return None;
        };
        match payload {
            Payload::Op(n) => {
                self.mix(n << 2);
                None
            }
            Payload::Command(n) => {
                self.mix(n << 2 | 1);
                let (group, command) = &commands[n as usize];
                if let Some(next) = reduce(self.table.get(group).map(Arc::as_ref), command, index) {
                    self.table.insert(*group, Arc::new(next));
                    self.mix(index);
                }
                Some(*group)
            }
        }
    }

    fn mix(&mut self, v: u64) {
        self.hash = (self.hash ^ v).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    }
}

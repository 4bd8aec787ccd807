//! The business backend changes device tokens at the node that serves their slot: commands of a slot, many of them on few rows.
//! What was answered with success stands; what was not may stand or not, and nothing older comes back.

use super::world::World;
use crate::history::UserIx;
use std::collections::BTreeMap;
use wukong_core::Input;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::ids::{CallId, slot_of};
use wukong_core::store::rows::{Device, Format};
use wukong_core::store::{Family, keys};
use wukong_proto::Text;

/// Calls from this number on are about tokens.
const FIRST: u64 = 1 << 32;
/// No client of the simulation connects with this device.
const FLAG: u8 = 2;

/// One change, by its number.
#[derive(Clone, Debug)]
struct Change {
    user: UserIx,
    acked: bool,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    changes: Vec<Change>,
    /// The last acknowledged one of each user.
    last: BTreeMap<UserIx, usize>,
}

impl World {
    pub(super) fn change_token(&mut self, user: UserIx) {
        let uid = self.history.users[user as usize].clone();
        let Some(n) = self.serving(slot_of(&uid, self.plan.slots as u16)).filter(|n| self.nodes[*n].alive) else {
            return;
        };
        let number = self.tokens.changes.len();
        self.tokens.changes.push(Change { user, acked: false });
        let token = Text::from(format!("t{number}"));
        let request = ApiRequest::SetToken { uid, token, device_flag: FLAG, device_level: 0 };
        let home = request.home(self.plan.slots as u16, self.plan.shards as u8).0;
        self.arrive(n, home, Input::Call { call: CallId(FIRST + number as u64), request });
    }

    /// Whether the call was about a token.
    pub(super) fn token_answered(&mut self, call: CallId, answer: &ApiAnswer) -> bool {
        let Some(number) = call.0.checked_sub(FIRST) else { return false };
        let change = &mut self.tokens.changes[number as usize];
        if *answer == ApiAnswer::Done {
            change.acked = true;
            let last = self.tokens.last.entry(change.user).or_default();
            *last = (*last).max(number as usize);
            self.cover.hit("token changed");
        } else {
            self.cover.hit("token change refused");
        }
        true
    }

    /// A disk whose token is not what it may be.
    pub(super) fn wrong_token(&mut self) -> Option<String> {
        (0..self.nodes.len()).find_map(|n| {
            self.tokens.last.iter().find_map(|(user, last)| {
                let uid = &self.history.users[*user as usize];
                let key = keys::device(slot_of(uid, self.plan.slots as u16), uid, FLAG);
                let row = self.nodes[n].storage.disk.row(Family::Meta, &key);
                let device = row.and_then(|r| Device::decode(&r.value).ok());
                let number = device.as_ref().and_then(|d| d.token.strip_prefix('t')?.parse::<usize>().ok());
                let right = number.is_some_and(|i| {
                    i == *last || self.tokens.changes.get(i).is_some_and(|c| c.user == *user && !c.acked)
                });
                let token = device.map(|d| d.token);
                (!right).then(|| format!("n{n} {uid}: {token:?}, acknowledged last t{last}"))
            })
        })
    }
}

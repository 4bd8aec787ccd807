//! Simulated clients: devices that speak the real codec with their own keys and behave like the published SDKs.

pub mod actor;
pub mod receive;
pub mod session;

use crate::history::{IntentIx, LinkIx, UserIx};
use crate::rng::Rng;
use std::collections::BTreeMap;
use wukong_proto::Text;

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not connected; `wanted` says whether it will come back by itself.
    Off,
    /// CONNECT is on its way.
    Connecting(LinkIx),
    Active(LinkIx),
}

/// One device of a user.
#[derive(Clone, Debug)]
pub struct Device {
    pub user: UserIx,
    pub id: Text,
    pub flag: u8,
    pub version: u8,
    pub token: Text,
    /// Shard that accepts its connections; none = any.
    pub shard: Option<u8>,
    /// Generator it belongs to; none = scripted.
    pub population: Option<usize>,
    pub peers: Vec<UserIx>,
    pub state: State,
    /// It wants to be connected.
    pub wanted: bool,
    pub pings: bool,
    /// Share of RECVs acknowledged at once, per mille.
    pub acks: u32,
    pub rng: Rng,
    /// Which of the world's key pairs it uses.
    pub key: usize,
    /// Intents by client_seq (the first is 1).
    pub sent: Vec<IntentIx>,
    /// Not yet answered, by client_seq as text: the JavaScript SDK repeats them in that order.
    pub pending: BTreeMap<String, IntentIx>,
    /// Refused for a passing reason, to be sent again.
    pub again: u32,
    /// Highest seq received per channel id as the client sees it.
    pub seen: BTreeMap<Text, u64>,
    /// Messages not acknowledged yet.
    pub unacked: Vec<(i64, u64)>,
    /// Distinguishes wake-ups of an earlier life from current ones.
    pub life: u32,
}

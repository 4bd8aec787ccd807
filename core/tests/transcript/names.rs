//! Replicas are letters; a prime names another store of the same node, S is the slot leader.

use wukong_core::ids::{Epoch, NodeId, Position, StoreId};
use wukong_core::raft::config::{Config, Replica};

pub const SLOT: Replica = Replica { node: NodeId(99), store: StoreId(99) };

/// `A`, `B'`, `S`.
pub fn replica(name: &str) -> Replica {
    if name == "S" {
        return SLOT;
    }
    let letter = name.bytes().next().filter(u8::is_ascii_uppercase).unwrap_or_else(|| panic!("no replica: {name}"));
    let node = u16::from(letter - b'A') + 1;
    let primes = name.bytes().filter(|b| *b == b'\'').count() as u128;
    Replica { node: NodeId(node), store: StoreId(u128::from(node) + 100 * primes) }
}

/// `A,B,C`; `-` for none.
pub fn replicas(list: &str) -> Vec<Replica> {
    list.split(',').filter(|n| !n.is_empty() && *n != "-").map(replica).collect()
}

pub fn name(r: Replica) -> String {
    if r == SLOT {
        return "S".to_owned();
    }
    let letter = char::from(b'A' + u8::try_from(r.node.0 - 1).expect("a letter"));
    let primes = usize::try_from(r.store.0 / 100).expect("few stores");
    format!("{letter}{}", "'".repeat(primes))
}

pub fn names(list: &[Replica]) -> String {
    list.iter().map(|r| name(*r)).collect()
}

/// `2.7`: epoch 2, index 7.
pub fn position(text: &str) -> Position {
    let (epoch, index) = text.split_once('.').unwrap_or_else(|| panic!("no position: {text}"));
    Position { epoch: Epoch(epoch.parse().unwrap()), index: index.parse().unwrap() }
}

pub fn at(p: Position) -> String {
    format!("{}.{}", p.epoch.0, p.index)
}

/// `ABC`, joint `BCD/ABC`, with learners `ABC+D`.
pub fn members(c: &Config) -> String {
    let mut text = names(&c.voters);
    if c.is_joint() {
        text += &format!("/{}", names(&c.voters_out));
    }
    if !c.learners.is_empty() {
        text += &format!("+{}", names(&c.learners));
    }
    text
}

/// `250ms`, `3s`.
pub fn duration(text: &str) -> core::time::Duration {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("no duration: {text}"));
    match unit {
        "ms" => core::time::Duration::from_millis(number),
        "s" => core::time::Duration::from_secs(number),
        _ => panic!("no duration: {text}"),
    }
}

//! The only maps of the core: ordered ones, and hash maps whose hasher is seeded by the shard.
//!
//! Hash maps are for lookup; nothing may iterate over them where the order could reach an output.

pub use alloc::collections::{BTreeMap, BTreeSet};

/// Hash map for lookup, seeded from the shard's seed because its keys come from clients.
pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

/// A hasher state with the given seed.
#[must_use]
pub fn hasher(seed: u64) -> foldhash::fast::FixedState {
    foldhash::fast::FixedState::with_seed(seed)
}

//! Recent message keys: those of entries that are not committed yet, and an LRU of committed ones (semantics 4.8,
//! architecture section 9). Keys that fell out of the LRU leave a trace in a filter; of a channel that was created here, a key
//! that is in none of the three is not in the log. For all others its row on disk decides.

use super::filter::Filter;
use crate::limits;
use crate::map::{Map, hasher};
use core::hash::{BuildHasher, Hasher};
use slab::Slab;

/// (channel, sender, client_msg_no) in 128 bits. The lower half is keyed, so that clients cannot make two equal; the upper half
/// is the same in every process, so that what the filter answers does not depend on a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u128);

/// Where the message with a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: u64,
    pub message_id: i64,
    pub payload_hash: u64,
}

/// What memory knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// In a queue or an append in flight.
    Pending {
        payload_hash: u64,
    },
    Committed(Stored),
}

#[derive(Clone, Debug)]
struct Node {
    key: Fingerprint,
    stored: Stored,
    newer: u32,
    older: u32,
}

const NONE: u32 = u32::MAX;
/// Memory of one committed key, map entry included.
const NODE_BYTES: usize = 112;
/// Share of the memory that the filter adds.
const FILTER_PART: usize = 4;

/// See the module.
#[derive(Clone, Debug)]
pub struct Dedup {
    keys: [foldhash::fast::FixedState; 2],
    pending: Map<Fingerprint, u64>,
    map: Map<Fingerprint, u32>,
    nodes: Slab<Node>,
    newest: u32,
    oldest: u32,
    nodes_max: usize,
    /// Keys that fell out of the LRU since the filter was last emptied.
    evicted: Filter,
}

impl Dedup {
    #[must_use]
    pub fn new(seeds: [u64; 2], bytes_max: usize) -> Self {
        Self {
            keys: [hasher(0), hasher(seeds[0])],
            pending: Map::with_hasher(hasher(seeds[1])),
            map: Map::with_hasher(hasher(seeds[1])),
            nodes: Slab::new(),
            newest: NONE,
            oldest: NONE,
            nodes_max: bytes_max.min(limits::DEDUP_BYTES_MAX * 16) / NODE_BYTES,
            evicted: Filter::new(bytes_max.min(limits::DEDUP_BYTES_MAX * 16) / FILTER_PART),
        }
    }

    /// `channel` = (slot, channel number), unique in this store.
    #[must_use]
    pub fn fingerprint(
        &self,
        channel: (u16, u64),
        sender: impl AsRef<[u8]>,
        client_msg_no: impl AsRef<[u8]>,
    ) -> Fingerprint {
        let (sender, client_msg_no) = (sender.as_ref(), client_msg_no.as_ref());
        let half = |state: &foldhash::fast::FixedState| {
            let mut h = state.build_hasher();
            h.write_u16(channel.0);
            h.write_u64(channel.1);
            h.write_u64(sender.len() as u64);
            h.write(sender);
            h.write(client_msg_no);
            h.finish()
        };
        Fingerprint((u128::from(half(&self.keys[0])) << 64) | u128::from(half(&self.keys[1])))
    }

    #[must_use]
    pub fn get(&mut self, key: Fingerprint) -> Option<Known> {
        if let Some(hash) = self.pending.get(&key) {
            return Some(Known::Pending { payload_hash: *hash });
        }
        let at = *self.map.get(&key)?;
        self.unlink(at);
        self.link(at);
        Some(Known::Committed(self.nodes[at as usize].stored))
    }

    /// The key is in a queue from now on.
    pub fn begin(&mut self, key: Fingerprint, payload_hash: u64) {
        self.pending.insert(key, payload_hash);
    }

    /// The entry will not be appended.
    pub fn abandon(&mut self, key: Fingerprint) {
        self.pending.remove(&key);
    }

    /// Whether the key may have been here and fallen out. A no is certain until [`Self::commit`] says that it forgot.
    #[must_use]
    pub fn maybe_evicted(&self, key: Fingerprint) -> bool {
        self.evicted.contains((key.0 >> 64) as u64)
    }

    /// The entry is committed, or was found on disk. True: the traces of evicted keys are gone, so from now on memory holds
    /// all keys of no channel that has any.
    #[must_use]
    pub fn commit(&mut self, key: Fingerprint, stored: Stored) -> bool {
        self.pending.remove(&key);
        if let Some(at) = self.map.get(&key).copied() {
            self.nodes[at as usize].stored = stored;
            self.unlink(at);
            self.link(at);
        } else {
            let at = self.nodes.insert(Node { key, stored, newer: NONE, older: NONE }) as u32;
            self.map.insert(key, at);
            self.link(at);
        }
        let mut forgot = false;
        while self.nodes.len() > self.nodes_max {
            let at = self.oldest;
            self.unlink(at);
            let node = self.nodes.remove(at as usize);
            self.map.remove(&node.key);
            forgot |= self.evicted.insert((node.key.0 >> 64) as u64);
        }
        forgot
    }

    fn link(&mut self, at: u32) {
        let newest = self.newest;
        let node = &mut self.nodes[at as usize];
        node.newer = NONE;
        node.older = newest;
        if newest == NONE {
            self.oldest = at;
        } else {
            self.nodes[newest as usize].newer = at;
        }
        self.newest = at;
    }

    fn unlink(&mut self, at: u32) {
        let Node { newer, older, .. } = self.nodes[at as usize];
        if newer == NONE {
            self.newest = older;
        } else {
            self.nodes[newer as usize].older = older;
        }
        if older == NONE {
            self.oldest = newer;
        } else {
            self.nodes[older as usize].newer = newer;
        }
    }
}

/// FNV-1a 64 of a payload (semantics 4.8.3).
#[must_use]
pub fn payload_hash(payload: &[u8]) -> u64 {
    payload.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seq: u64) -> Stored {
        Stored { seq, message_id: seq as i64, payload_hash: 0 }
    }

    #[test]
    fn the_least_recently_used_key_is_evicted_and_leaves_a_trace() {
        let mut d = Dedup::new([1, 2], 1000 * NODE_BYTES);
        d.nodes_max = 2;
        let key = |n: &str| Dedup::new([1, 2], 0).fingerprint((1, 1), "u", n);
        assert!(!d.commit(key("a"), stored(1)));
        assert!(!d.commit(key("b"), stored(2)));
        assert_eq!(d.get(key("a")), Some(Known::Committed(stored(1))));
        assert!(!d.commit(key("c"), stored(3)));
        assert_eq!((d.get(key("b")), d.maybe_evicted(key("b")), d.maybe_evicted(key("a"))), (None, true, false));
        d.begin(key("d"), 9);
        assert_eq!(d.get(key("d")), Some(Known::Pending { payload_hash: 9 }));
        d.abandon(key("d"));
        assert_eq!(d.get(key("d")), None);
    }

    #[test]
    fn without_memory_every_commit_says_that_it_forgot() {
        let mut d = Dedup::new([1, 2], 0);
        let key = d.fingerprint((1, 1), "u", "a");
        assert!(d.commit(key, stored(1)));
        assert_eq!(d.get(key), None);
    }

    #[test]
    fn keys_differ_by_each_part() {
        let d = Dedup::new([1, 2], 0);
        let base = d.fingerprint((1, 1), "ab", "c");
        for other in
            [d.fingerprint((1, 2), "ab", "c"), d.fingerprint((1, 1), "a", "bc"), d.fingerprint((2, 1), "ab", "c")]
        {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn fnv_matches_its_definition() {
        assert_eq!(payload_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(payload_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}

//! A batch of writes: one flat buffer, so that a message costs no allocation of its own.

use alloc::vec::Vec;

/// Column families (architecture section 6; docs/storage.md lists every key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// Tables of the slot state machines: exactly what a snapshot carries.
    Meta = 0,
    /// Channel logs: the message table.
    Log = 1,
    /// Dedup, message-id and sender rows, derived from the log.
    Index = 2,
    /// Epoch starts of channel logs.
    Marks = 3,
    /// Slot logs, hard state, channel heads, dirty rows, node rows: replica-local.
    Raft = 4,
    /// Work owed to other slots.
    Outbox = 5,
}

impl Family {
    pub const ALL: [Self; 6] = [Self::Meta, Self::Log, Self::Index, Self::Marks, Self::Raft, Self::Outbox];

    /// Name of the column family on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Log => "log",
            Self::Index => "index",
            Self::Marks => "marks",
            Self::Raft => "raft",
            Self::Outbox => "outbox",
        }
    }

    const fn from_u8(v: u8) -> Self {
        match v {
            0 => Self::Meta,
            1 => Self::Log,
            2 => Self::Index,
            3 => Self::Marks,
            4 => Self::Raft,
            _ => Self::Outbox,
        }
    }
}

/// One write, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write<'a> {
    Put {
        family: Family,
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        family: Family,
        key: &'a [u8],
    },
    /// Deletes `from <= key < to`.
    DeleteRange {
        family: Family,
        from: &'a [u8],
        to: &'a [u8],
    },
}

const PUT: u8 = 0;
const DELETE: u8 = 1;
const DELETE_RANGE: u8 = 2;
const HEADER: usize = 10;

/// Writes that become durable together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    buf: Vec<u8>,
    count: u32,
}

impl WriteBatch {
    #[must_use]
    pub const fn new() -> Self {
        Self { buf: Vec::new(), count: 0 }
    }

    /// An empty batch with room for `bytes` of encoded writes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { buf: Vec::with_capacity(bytes), count: 0 }
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Number of writes.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.count
    }

    /// Size of the encoded writes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    fn push(&mut self, kind: u8, family: Family, a: &[u8], b: &[u8]) {
        self.buf.reserve(HEADER + a.len() + b.len());
        self.buf.push(kind);
        self.buf.push(family as u8);
        self.buf.extend_from_slice(&(a.len() as u32).to_be_bytes());
        self.buf.extend_from_slice(&(b.len() as u32).to_be_bytes());
        self.buf.extend_from_slice(a);
        self.buf.extend_from_slice(b);
        self.count += 1;
    }

    pub fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.push(PUT, family, key, value);
    }

    /// Puts a value that `write` appends in place, so that large values are copied once.
    pub fn put_with(&mut self, family: Family, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.buf.len();
        self.push(PUT, family, key, &[]);
        let start = self.buf.len();
        write(&mut self.buf);
        let n = (self.buf.len() - start) as u32;
        self.buf[at + 6..at + 10].copy_from_slice(&n.to_be_bytes());
    }

    pub fn delete(&mut self, family: Family, key: &[u8]) {
        self.push(DELETE, family, key, &[]);
    }

    pub fn delete_range(&mut self, family: Family, from: &[u8], to: &[u8]) {
        self.push(DELETE_RANGE, family, from, to);
    }

    /// Appends all writes of `other`, keeping its memory for reuse.
    pub fn append(&mut self, other: &mut Self) {
        self.buf.extend_from_slice(&other.buf);
        self.count += other.count;
        other.clear();
    }

    pub fn clear(&mut self) {
        self.buf.clear();
        self.count = 0;
    }

    /// The writes, in the order in which they were added.
    #[must_use]
    pub fn iter(&self) -> Writes<'_> {
        Writes { rest: &self.buf }
    }
}

impl<'a> IntoIterator for &'a WriteBatch {
    type Item = Write<'a>;
    type IntoIter = Writes<'a>;
    fn into_iter(self) -> Writes<'a> {
        self.iter()
    }
}

/// Iterator over the writes of a batch.
#[derive(Clone, Debug)]
pub struct Writes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Writes<'a> {
    type Item = Write<'a>;

    fn next(&mut self) -> Option<Write<'a>> {
        let (head, rest) = self.rest.split_at_checked(HEADER)?;
        let family = Family::from_u8(head[1]);
        let n = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let m = u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize;
        let (a, rest) = rest.split_at(n);
        let (b, rest) = rest.split_at(m);
        self.rest = rest;
        Some(match head[0] {
            PUT => Write::Put { family, key: a, value: b },
            DELETE => Write::Delete { family, key: a },
            _ => Write::DeleteRange { family, from: a, to: b },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_come_back_in_order() {
        let mut b = WriteBatch::new();
        b.put(Family::Log, b"k", b"v");
        b.put_with(Family::Meta, b"k2", |out| out.extend_from_slice(b"long value"));
        b.delete(Family::Index, b"d");
        b.delete_range(Family::Raft, b"a", b"z");
        let all: Vec<_> = b.iter().collect();
        assert_eq!(
            all,
            [
                Write::Put { family: Family::Log, key: b"k", value: b"v" },
                Write::Put { family: Family::Meta, key: b"k2", value: b"long value" },
                Write::Delete { family: Family::Index, key: b"d" },
                Write::DeleteRange { family: Family::Raft, from: b"a", to: b"z" },
            ]
        );
        assert_eq!(b.len(), 4);
    }
}

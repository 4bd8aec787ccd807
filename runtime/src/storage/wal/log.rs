//! RocksDB's log format: blocks of 32 KiB with records of `crc u32 | length u16 | type u8 | content`, little endian. A batch
//! is one record, or is split into a first, middle ones and a last one; it begins with `sequence u64 | count u32`.

use super::crc32c::crc32c;

pub const BLOCK: usize = 32 * 1024;
const HEADER: usize = 7;
const BATCH_HEADER: usize = 12;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// Record types with this bit may be skipped by readers that do not know them.
const IGNORABLE: u8 = 0x80;

/// How the scan of one file ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Every byte belongs to a good record.
    #[default]
    End,
    /// Something is wrong.
    Bad(Bad),
    /// Record types that our options do not produce: RocksDB has to judge.
    Unknown,
}

/// The first thing wrong in a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    /// Where the batch begins that is not whole.
    pub at: u64,
    pub what: &'static str,
    /// Where another batch begins behind it that is good.
    pub valid_after: Option<u64>,
}

/// Scan of one file, fed block by block.
#[derive(Debug, Default)]
pub struct Scan {
    pub bytes: u64,
    pub last_seq: Option<u64>,
    pub stop: Stop,
    /// Sequence number that the next batch must have.
    expected: Option<u64>,
    open: Option<Open>,
}

/// A batch of which the last part has not come yet.
#[derive(Debug)]
struct Open {
    at: u64,
    head: Vec<u8>,
}

/// One physical record.
enum Part<'a> {
    Good { kind: u8, content: &'a [u8] },
    Bad { what: &'static str },
}

impl Scan {
    /// Nothing further can change the outcome.
    pub const fn is_decided(&self) -> bool {
        matches!(self.stop, Stop::Unknown | Stop::Bad(Bad { valid_after: Some(_), .. }))
    }

    /// Takes the next block; only the last one of a file may be short.
    pub fn block(&mut self, block: &[u8]) {
        let start = self.bytes;
        self.bytes += block.len() as u64;
        let mut at = 0;
        while at < block.len() && !self.is_decided() {
            let rest = &block[at..];
            let place = start + at as u64;
            if rest.len() < HEADER {
                // Too little room for a header: filled with zeros, unless the file ends here.
                if block.len() < BLOCK {
                    self.bad(place, "an unfinished record");
                }
                return;
            }
            let length = usize::from(u16::from_le_bytes([rest[4], rest[5]]));
            match part(rest, length) {
                Part::Good { kind, content } => self.part(place, kind, content),
                Part::Bad { what } => self.bad(place, what),
            }
            // Behind a bad record its length may be wrong; then nothing valid is found before the next block.
            at += HEADER + length;
        }
    }

    pub fn end(&mut self) {
        if let Some(open) = self.open.take() {
            self.bad(open.at, "an unfinished record");
        }
    }

    fn part(&mut self, place: u64, kind: u8, content: &[u8]) {
        match kind {
            _ if kind & IGNORABLE != 0 => {}
            FULL | FIRST if self.open.is_some() => self.bad(place, "a record that is not finished before the next one"),
            FULL => self.batch(place, content),
            FIRST => self.open = Some(Open { at: place, head: content[..content.len().min(BATCH_HEADER)].to_vec() }),
            MIDDLE | LAST => {
                let Some(mut open) = self.open.take() else {
                    return self.bad(place, "the end of a record without its beginning");
                };
                let missing = BATCH_HEADER.saturating_sub(open.head.len());
                open.head.extend_from_slice(&content[..content.len().min(missing)]);
                if kind == LAST { self.batch(open.at, &open.head) } else { self.open = Some(open) }
            }
            _ => self.stop = Stop::Unknown,
        }
        if let Stop::Bad(bad) = &mut self.stop
            && matches!(kind, FULL | FIRST)
            && place > bad.at
        {
            bad.valid_after = Some(place);
        }
    }

    /// A whole batch, good in itself.
    fn batch(&mut self, at: u64, content: &[u8]) {
        let Some(head) = content.first_chunk::<BATCH_HEADER>() else {
            return self.bad(at, "a record without a sequence number");
        };
        let [s @ .., c0, c1, c2, c3] = *head;
        let (seq, count) = (u64::from_le_bytes(s), u32::from_le_bytes([c0, c1, c2, c3]));
        if self.stop != Stop::End {
            return;
        }
        if self.expected.is_some_and(|expected| expected != seq) {
            self.stop = Stop::Bad(Bad { at, what: "a gap: records are missing", valid_after: Some(at) });
            return;
        }
        if count > 0 {
            self.last_seq = Some(seq + u64::from(count) - 1);
        }
        self.expected = Some(seq + u64::from(count));
    }

    /// Something is wrong at `place`; the batch that it belongs to begins where the open one does.
    fn bad(&mut self, place: u64, what: &'static str) {
        let at = self.open.take().map_or(place, |open| open.at);
        if self.stop == Stop::End {
            self.stop = Stop::Bad(Bad { at, what, valid_after: None });
        }
    }
}

fn part(rest: &[u8], length: usize) -> Part<'_> {
    let kind = rest[6];
    if kind == 0 && length == 0 {
        return Part::Bad { what: "zeros instead of a record" };
    }
    let Some(checked) = rest.get(6..HEADER + length) else {
        return Part::Bad { what: "a record that is longer than its place" };
    };
    let masked = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
    if masked.wrapping_sub(0xa282_ead8).rotate_left(15) != crc32c(checked) {
        return Part::Bad { what: "a record with a wrong checksum" };
    }
    Part::Good { kind, content: &checked[1..] }
}

//! One number for what a drain gave.

use crate::output::{Effect, Output};
use crate::store::Write;
use core::fmt::{self, Write as _};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// FNV-1a over the outputs, in order. Bytes that leave for sockets and disk are hashed as they are, the rest as its
/// debug text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputHash(u64);

impl Default for OutputHash {
    fn default() -> Self {
        Self(OFFSET)
    }
}

impl OutputHash {
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    }

    fn number(&mut self, n: u64) {
        self.bytes(&n.to_be_bytes());
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }

    pub fn add(&mut self, output: &Output) {
        match output {
            Output::Write { conn, frames } => {
                self.number(1);
                self.number(conn.0);
                self.number(frames.len() as u64);
                for frame in frames {
                    self.sized(frame);
                }
            }
            Output::Start { op, effect: Effect::Persist { batch, class } } => {
                self.number(2);
                self.number(op.0);
                self.debug(class);
                self.number(u64::from(batch.len()));
                for write in batch {
                    self.write(write);
                }
            }
            other => {
                self.number(3);
                self.debug(other);
            }
        }
    }

    fn write(&mut self, write: Write<'_>) {
        let (kind, family, a, b) = match write {
            Write::Put { family, key, value } => (0, family, key, value),
            Write::Delete { family, key } => (1, family, key, &[][..]),
            Write::DeleteRange { family, from, to } => (2, family, from, to),
        };
        self.number(kind);
        self.number(family as u64);
        self.sized(a);
        self.sized(b);
    }

    fn debug(&mut self, value: &dyn fmt::Debug) {
        // Hashing does not fail.
        let _ = write!(self, "{value:?}");
        self.number(0);
    }
}

impl fmt::Write for OutputHash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

//! Big-endian primitives (specification section 2.4), shared by client frames and stored records.
//!
//! Reading is total: every outcome is a value, nothing panics, and byte ranges are slices of the source buffer.

use core::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::TEXT_MAX;
use crate::text::Text;

/// Why a read failed. `at` is the offset of the field from the start of the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadError {
    /// The bytes end before or inside the field.
    Truncated {
        /// Where the field begins.
        at: u32,
    },
    /// A text announces more than [`TEXT_MAX`] bytes.
    TextTooLong {
        /// Where the field begins.
        at: u32,
    },
    /// A text is not UTF-8.
    InvalidUtf8 {
        /// Where the field begins.
        at: u32,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Truncated { at } => write!(f, "ends inside the field at offset {at}"),
            ReadError::TextTooLong { at } => write!(f, "text at offset {at} announces more than {TEXT_MAX} bytes"),
            ReadError::InvalidUtf8 { at } => write!(f, "text at offset {at} is not UTF-8"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Reads fields from the front of a buffer.
///
/// After an error the position is unspecified; the caller gives the buffer up.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a Bytes,
    start: usize,
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader over all of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a Bytes) -> Reader<'a> {
        Reader { bytes, start: 0, at: 0 }
    }

    /// A reader over `bytes` without its first `skip` bytes (all of them if there are fewer).
    #[must_use]
    pub fn after(bytes: &'a Bytes, skip: usize) -> Reader<'a> {
        let start = skip.min(bytes.len());
        Reader { bytes, start, at: start }
    }

    /// How many bytes were read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at - self.start
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Whether no bytes are left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    fn here(&self) -> u32 {
        u32::try_from(self.position()).unwrap_or(u32::MAX)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(array) => {
                self.at += N;
                Ok(*array)
            }
            None => Err(ReadError::Truncated { at: self.here() }),
        }
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, ReadError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self) -> Result<u16, ReadError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes, unsigned.
    pub fn u32(&mut self) -> Result<u32, ReadError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes, unsigned.
    pub fn u64(&mut self) -> Result<u64, ReadError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Four bytes, two's complement.
    pub fn i32(&mut self) -> Result<i32, ReadError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self) -> Result<i64, ReadError> {
        self.array().map(i64::from_be_bytes)
    }

    /// The next `len` bytes, shared with the source.
    pub fn take(&mut self, len: usize) -> Result<Bytes, ReadError> {
        if len > self.remaining() {
            return Err(ReadError::Truncated { at: self.here() });
        }
        let taken = self.bytes.slice(self.at..self.at + len);
        self.at += len;
        Ok(taken)
    }

    /// A u16 byte count of at most [`TEXT_MAX`], then that much UTF-8, shared with the source.
    pub fn str16(&mut self) -> Result<Text, ReadError> {
        let at = self.here();
        let len = usize::from(self.u16().map_err(|_| ReadError::Truncated { at })?);
        if len > TEXT_MAX {
            return Err(ReadError::TextTooLong { at });
        }
        let bytes = self.take(len).map_err(|_| ReadError::Truncated { at })?;
        Text::try_from(bytes).map_err(|_| ReadError::InvalidUtf8 { at })
    }

    /// All bytes that are left, possibly none, shared with the source.
    pub fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }
}

/// A text longer than [`TEXT_MAX`] bytes was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TextTooLong {
    /// Its length in bytes.
    pub len: usize,
}

impl fmt::Display for TextTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text of {} bytes, {TEXT_MAX} are allowed", self.len)
    }
}

impl core::error::Error for TextTooLong {}

/// Appends one byte.
pub fn put_u8(out: &mut BytesMut, value: u8) {
    out.put_u8(value);
}

/// Appends two bytes, unsigned.
pub fn put_u16(out: &mut BytesMut, value: u16) {
    out.put_u16(value);
}

/// Appends four bytes, unsigned.
pub fn put_u32(out: &mut BytesMut, value: u32) {
    out.put_u32(value);
}

/// Appends eight bytes, unsigned.
pub fn put_u64(out: &mut BytesMut, value: u64) {
    out.put_u64(value);
}

/// Appends four bytes, two's complement.
pub fn put_i32(out: &mut BytesMut, value: i32) {
    out.put_i32(value);
}

/// Appends eight bytes, two's complement.
pub fn put_i64(out: &mut BytesMut, value: i64) {
    out.put_i64(value);
}

/// Appends a u16 byte count and the text; on refusal appends nothing.
pub fn put_str16(out: &mut BytesMut, text: &[u8]) -> Result<(), TextTooLong> {
    match u16::try_from(text.len()) {
        Ok(len) if text.len() <= TEXT_MAX => {
            out.put_u16(len);
            out.put_slice(text);
            Ok(())
        }
        _ => Err(TextTooLong { len: text.len() }),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn reads_what_was_written() {
        let mut out = BytesMut::new();
        put_u8(&mut out, 1);
        put_u16(&mut out, 0x0203);
        put_u32(&mut out, 0x0405_0607);
        put_u64(&mut out, 0x0809_0A0B_0C0D_0E0F);
        put_i32(&mut out, -2);
        put_i64(&mut out, i64::MIN);
        put_str16(&mut out, "群".as_bytes()).unwrap();
        put_str16(&mut out, b"").unwrap();
        out.put_slice(b"tail");
        let bytes = out.freeze();
        assert_eq!(&bytes[..15], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(0x0809_0A0B_0C0D_0E0F));
        assert_eq!(reader.i32(), Ok(-2));
        assert_eq!(reader.i64(), Ok(i64::MIN));
        assert_eq!(reader.str16().unwrap(), "群");
        assert_eq!(reader.str16().unwrap(), "");
        assert_eq!(reader.remaining(), 4);
        assert_eq!(reader.take(2).unwrap(), "ta");
        let rest = reader.rest();
        assert_eq!(rest, "il");
        assert_eq!(rest.as_ptr(), bytes[bytes.len() - 2..].as_ptr());
        assert!(reader.is_empty());
        assert!(reader.rest().is_empty());
        assert_eq!(reader.position(), bytes.len());
    }

    #[test]
    fn errors_say_where() {
        let bytes = Bytes::from_static(&[0xEE, 0x00, 0x02, 0xFF, 0xFE, 0x80, 0x00, 0x00]);
        let mut reader = Reader::after(&bytes, 1);
        assert_eq!(reader.str16(), Err(ReadError::InvalidUtf8 { at: 0 }));
        let mut reader = Reader::after(&bytes, 5);
        assert_eq!(reader.clone().str16(), Err(ReadError::TextTooLong { at: 0 }));
        assert_eq!(reader.u8(), Ok(0x80));
        assert_eq!(reader.u32(), Err(ReadError::Truncated { at: 1 }));
        assert_eq!(reader.take(3), Err(ReadError::Truncated { at: 1 }));
        assert_eq!(Reader::after(&bytes, 7).str16(), Err(ReadError::Truncated { at: 0 }));
        assert_eq!(Reader::after(&bytes, 99).u8(), Err(ReadError::Truncated { at: 0 }));
        assert_eq!(Reader::after(&bytes, 3).str16(), Err(ReadError::TextTooLong { at: 0 }));
    }

    #[test]
    fn text_limit_is_inclusive() {
        let mut out = BytesMut::new();
        assert_eq!(put_str16(&mut out, &vec![b'x'; TEXT_MAX + 1]), Err(TextTooLong { len: TEXT_MAX + 1 }));
        assert_eq!(put_str16(&mut out, &vec![b'x'; 70_000]), Err(TextTooLong { len: 70_000 }));
        assert!(out.is_empty());
        put_str16(&mut out, &vec![b'x'; TEXT_MAX]).unwrap();
        assert_eq!(Reader::new(&out.freeze()).str16().unwrap().len(), TEXT_MAX);
    }
}

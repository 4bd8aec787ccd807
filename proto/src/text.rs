//! `Text`: validated UTF-8 over a refcounted buffer.

use alloc::string::String;
use core::borrow::Borrow;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;

use bytes::Bytes;

/// Immutable UTF-8 text over refcounted [`Bytes`]: cloning and slicing out of a received chunk copy nothing.
///
/// Equality and order are those of the `str` it holds. Its hash is that of the bytes, so a map keyed by `Text` is searched with them.
/// A `Text` taken from a received frame keeps the whole received chunk alive; what outlives the frame by much should
/// be [`detached`](Text::detached).
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text(Bytes);

/// The bytes offered as a [`Text`] are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8 {
    /// How many leading bytes are valid.
    pub valid_up_to: usize,
}

impl Text {
    /// The empty text.
    pub const EMPTY: Text = Text::from_static("");

    /// A text over a constant; never allocates.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Text {
        Text(Bytes::from_static(text.as_bytes()))
    }

    /// The text as `str`. Re-validates the bytes (the price of forbidding `unsafe`): linear, fast for short ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).expect("a Text is only built from valid UTF-8")
    }

    /// The UTF-8 bytes, without re-validation.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The underlying buffer, still shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the text is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy in an allocation of its own, so that a long-lived text does not keep a received chunk alive.
    #[must_use]
    pub fn detached(&self) -> Text {
        Text(copied(&[&self.0]))
    }

    /// The parts one after the other, in an allocation of its own.
    #[must_use]
    pub fn concat<const N: usize>(parts: [&str; N]) -> Text {
        Text(copied(&parts.map(str::as_bytes)))
    }
}

/// What is kept of most names: the bytes beside their count of references, in one piece of memory.
struct Short {
    len: u8,
    bytes: [u8; Short::MAX],
}

impl Short {
    /// With the count 56 bytes, so that the allocator takes 64.
    const MAX: usize = 47;
}

impl AsRef<[u8]> for Short {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The parts one after the other, in memory of their own.
fn copied(parts: &[&[u8]]) -> Bytes {
    let len = parts.iter().map(|part| part.len()).sum();
    if !(1..=Short::MAX).contains(&len) {
        return Bytes::from(parts.concat());
    }
    let mut short = Short { len: len as u8, bytes: [0; Short::MAX] };
    let mut rest = short.bytes.as_mut_slice();
    for part in parts {
        let (now, after) = rest.split_at_mut(part.len());
        now.copy_from_slice(part);
        rest = after;
    }
    Bytes::from_owner(short)
}

impl TryFrom<Bytes> for Text {
    type Error = InvalidUtf8;

    fn try_from(bytes: Bytes) -> Result<Text, InvalidUtf8> {
        match core::str::from_utf8(&bytes) {
            Ok(_) => Ok(Text(bytes)),
            Err(error) => Err(InvalidUtf8 { valid_up_to: error.valid_up_to() }),
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(copied(&[text.as_bytes()]))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Text {
        Text(Bytes::from(text))
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Bytes {
        text.0
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<[u8]> for Text {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<Text> for str {
    fn eq(&self, other: &Text) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<Text> for &str {
    fn eq(&self, other: &Text) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Display for InvalidUtf8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not UTF-8 after byte {}", self.valid_up_to)
    }
}

impl core::error::Error for InvalidUtf8 {}

#[cfg(test)]
mod tests {
    extern crate std;
    use alloc::collections::BTreeMap;
    use alloc::format;
    use std::collections::HashMap;
    use std::hash::{BuildHasher, RandomState};

    use super::*;

    #[test]
    fn behaves_as_the_str_it_holds() {
        let names = ["", "a", "ab", "b", "群一", "群二", "\u{10FFFF}"];
        let state = RandomState::new();
        for left in names {
            assert_eq!(state.hash_one(Text::from(left)), state.hash_one(left.as_bytes()));
            assert_eq!(format!("{} {:?}", Text::from(left), Text::from(left)), format!("{left} {left:?}"));
            let text = Text::from(left);
            for right in names {
                let other = Text::from(right);
                assert_eq!(text.cmp(&other), left.cmp(right));
                assert_eq!(text == other, left == right);
                assert_eq!(text == right, left == right);
            }
        }
        let hashed: HashMap<Text, usize> = names.iter().map(|n| (Text::from(*n), n.len())).collect();
        let sorted: BTreeMap<Text, usize> = names.iter().map(|n| (Text::from(*n), n.len())).collect();
        for name in names {
            assert_eq!(hashed.get(name.as_bytes()), Some(&name.len()));
            assert_eq!(sorted.get(name.as_bytes()), Some(&name.len()));
        }
    }

    #[test]
    fn shares_the_buffer_until_detached() {
        let bytes = Bytes::from(alloc::vec![b'x'; 100]);
        let text = Text::try_from(bytes.slice(10..20)).unwrap();
        assert_eq!(text.as_bytes().as_ptr(), bytes[10..].as_ptr());
        assert_eq!(text.clone().into_bytes().as_ptr(), bytes[10..].as_ptr());
        assert_ne!(text.detached().as_bytes().as_ptr(), bytes[10..].as_ptr());
        assert_eq!(text.detached(), text);
        for len in [0, 1, Short::MAX, Short::MAX + 1, 100] {
            assert_eq!(Text::try_from(bytes.slice(..len)).unwrap().detached().as_bytes(), &bytes[..len]);
        }
    }

    #[test]
    fn refuses_what_is_not_utf8() {
        let refused = Text::try_from(Bytes::from_static(b"ab\xff"));
        assert_eq!(refused, Err(InvalidUtf8 { valid_up_to: 2 }));
        assert_eq!(Text::try_from(Bytes::from_static(b"\xed\xa0\x80")), Err(InvalidUtf8 { valid_up_to: 0 }));
        assert_eq!(Text::default(), Text::EMPTY);
        assert!(Text::from_static("").is_empty());
    }
}

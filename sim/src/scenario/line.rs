//! Lines of `key=value` words: what is not written is the default, what is the default is not written.

use super::{Quiet, Size};
use crate::clock::{MS, SEC, US};

/// A duration in nanoseconds, written `3s`, `20ms`, `5us`, `7ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

/// Something that can stand after `=`.
pub trait Value: Sized {
    /// # Errors
    /// What is wrong with the word.
    fn parse(word: &str) -> Result<Self, String>;
    fn show(&self) -> String;
}

macro_rules! numbers {
    ($($t:ty)*) => { $(
        impl Value for $t {
            fn parse(word: &str) -> Result<Self, String> {
                let number = match word.strip_prefix("0x") {
                    Some(hex) => <$t>::from_str_radix(hex, 16),
                    None => word.parse(),
                };
                number.map_err(|e| format!("`{word}`: {e}"))
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )* };
}
numbers!(u8 u16 u32 u64 i64);

const UNITS: [(&str, u64); 4] = [("ns", 1), ("us", US), ("ms", MS), ("s", SEC)];

impl Value for Span {
    fn parse(word: &str) -> Result<Self, String> {
        let wrong = || format!("`{word}` is no duration such as 3s, 20ms, 5us or 7ns");
        let digits = word.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, unit) = word.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let (_, scale) = UNITS.iter().find(|(u, _)| *u == unit).ok_or_else(wrong)?;
        number.checked_mul(*scale).map(Self).ok_or_else(wrong)
    }

    fn show(&self) -> String {
        let (unit, scale) = UNITS
            .iter()
            .rev()
            .find(|(_, scale)| self.0 >= *scale && self.0.is_multiple_of(*scale))
            .unwrap_or(&UNITS[0]);
        format!("{}{unit}", self.0 / scale)
    }
}

impl Value for (u64, u64) {
    fn parse(word: &str) -> Result<Self, String> {
        let (a, b) = word.split_once("..").ok_or_else(|| format!("`{word}` is no range such as 1ms..20ms"))?;
        let (a, b) = (Span::parse(a)?.0, Span::parse(b)?.0);
        if a > b { Err(format!("`{word}`: the range runs backwards")) } else { Ok((a, b)) }
    }

    fn show(&self) -> String {
        format!("{}..{}", Span(self.0).show(), Span(self.1).show())
    }
}

macro_rules! words {
    ($($t:ty: $($word:literal = $value:expr),+;)+) => { $(
        impl Value for $t {
            fn parse(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok($value),)+
                    _ => Err(format!("`{word}` is none of {}", [$($word),+].join(", "))),
                }
            }
            fn show(&self) -> String {
                match self {
                    $(v if *v == $value => $word,)+
                    _ => "?",
                }
                .to_owned()
            }
        }
    )+ };
}
pub(crate) use words;

words! {
    bool: "off" = false, "on" = true;
    Size: "0" = Size::Zero, "small" = Size::Small, "large" = Size::Large;
    Quiet: "short" = Quiet::Short, "long" = Quiet::Long;
}

/// A kind of line.
pub trait Line: Default {
    /// # Errors
    /// A word is no known `key=value`.
    fn read(&mut self, words: &[&str]) -> Result<(), String>;
    fn line(&self) -> String;
}

/// # Errors
/// As [`Line::read`].
pub fn made<L: Line>(words: &[&str]) -> Result<L, String> {
    let mut made = L::default();
    made.read(words)?;
    Ok(made)
}

macro_rules! lines {
    ($(#[$doc:meta])* $name:ident $word:literal { $($(#[$fdoc:meta])* $field:ident: $t:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fdoc])* pub $field: $t,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::scenario::line::Line for $name {
            fn read(&mut self, words: &[&str]) -> Result<(), String> {
                for word in words {
                    let (key, value) = word.split_once('=').unwrap_or((word, ""));
                    match key {
                        $(stringify!($field) => {
                            self.$field = $crate::scenario::line::Value::parse(value)
                                .map_err(|e| format!("{}: {key}: {e}", $word))?;
                        })*
                        _ => return Err(format!("{}: `{key}` is none of {}", $word, [$(stringify!($field)),*].join(", "))),
                    }
                }
                Ok(())
            }

            fn line(&self) -> String {
                let mut out = String::from($word);
                let default = Self::default();
                $(if self.$field != default.$field {
                    out.push_str(concat!(" ", stringify!($field), "="));
                    out.push_str(&$crate::scenario::line::Value::show(&self.$field));
                })*
                out
            }
        }
    };
}
pub(crate) use lines;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_use_the_largest_exact_unit() {
        for (ns, text) in
            [(0, "0ns"), (1_500, "1500ns"), (2_000, "2us"), (3_000_000_000, "3s"), (1_500_000_000, "1500ms")]
        {
            assert_eq!(Span(ns).show(), text);
            assert_eq!(Span::parse(text), Ok(Span(ns)));
        }
        assert!(Span::parse("5").is_err() && Span::parse("s").is_err() && Span::parse("1h").is_err());
    }
}

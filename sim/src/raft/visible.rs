//! What readers saw of a group (I25): an index keeps its entry for ever, and an entry has one index.

use std::collections::BTreeMap;

/// Entries by index, as first seen, and the index of each key.
#[derive(Clone, Debug, Default)]
pub struct Visible {
    entries: Vec<Option<u64>>,
    keys: BTreeMap<u64, u64>,
}

impl Visible {
    /// A reader sees `content` at `index`, counted from 1. `keyed`: it is a client's, and its content is its key.
    ///
    /// # Errors
    /// What that contradicts.
    pub fn see(&mut self, index: u64, content: u64, keyed: bool) -> Result<(), String> {
        let at = index as usize;
        if self.entries.len() <= at {
            self.entries.resize(at + 1, None);
        }
        let known = *self.entries[at].get_or_insert(content);
        if known != content {
            return Err(format!("index {index} was seen as {known:x}, and now as {content:x}"));
        }
        let first = if keyed { *self.keys.entry(content).or_insert(index) } else { index };
        if first != index { Err(format!("{content:x} is seen at {first} and at {index}")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(seen: &[(u64, u64)]) -> Result<(), String> {
        let mut visible = Visible::default();
        seen.iter().try_for_each(|(index, content)| visible.see(*index, *content, true))
    }

    #[test]
    fn a_log_that_only_grows_is_stable() {
        assert_eq!(judge(&[(1, 7), (2, 8), (1, 7), (3, 9), (2, 8)]), Ok(()));
        let mut visible = Visible::default();
        assert_eq!(visible.see(1, 5, false), Ok(()));
        assert_eq!(visible.see(2, 5, false), Ok(()), "what is no client's has no key");
    }

    #[test]
    fn an_index_does_not_change_its_entry() {
        assert!(judge(&[(1, 7), (2, 8), (2, 9)]).unwrap_err().contains("index 2"));
    }

    #[test]
    fn an_entry_is_not_stored_twice() {
        assert!(judge(&[(1, 7), (2, 8), (3, 7)]).unwrap_err().contains("at 1 and at 3"));
    }
}

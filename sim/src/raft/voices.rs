//! Which process speaks for a node (I28): none of an older incarnation after one of a newer, none of a store that is gone.

use wukong_core::ids::Incarnation;
use wukong_core::raft::config::Replica;

/// The newest store and incarnation that was heard of each node.
#[derive(Clone, Debug, Default)]
pub struct Voices(Vec<(Option<Replica>, Incarnation)>);

impl Voices {
    /// A message of `from` leaves node `n`, whose store is `store` now.
    ///
    /// # Errors
    /// What that contradicts.
    pub fn speaks(&mut self, n: usize, store: Replica, from: Replica, incarnation: Incarnation) -> Result<(), String> {
        if from != store {
            return Err(format!("n{n} speaks as {from:?} and is {store:?}"));
        }
        if self.0.len() <= n {
            self.0.resize(n + 1, (None, Incarnation(0)));
        }
        let (known, newest) = &mut self.0[n];
        if *known != Some(store) {
            (*known, *newest) = (Some(store), incarnation);
        }
        if incarnation < *newest {
            return Err(format!("n{n} speaks in incarnation {} after {}", incarnation.0, newest.0));
        }
        *newest = incarnation;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::replica;

    #[test]
    fn processes_of_a_store_follow_each_other() {
        let mut v = Voices::default();
        let (old, new) = (replica(2, 0), replica(2, 1));
        for incarnation in [1, 1, 2, 5] {
            assert_eq!(v.speaks(2, old, old, Incarnation(incarnation)), Ok(()));
        }
        assert_eq!(v.speaks(2, new, new, Incarnation(1)), Ok(()), "another store counts from the start");
    }

    #[test]
    fn an_older_process_is_silent() {
        let mut v = Voices::default();
        let store = replica(1, 0);
        assert_eq!(v.speaks(1, store, store, Incarnation(2)), Ok(()));
        assert!(v.speaks(1, store, store, Incarnation(1)).unwrap_err().contains("incarnation 1 after 2"));
    }

    #[test]
    fn a_store_that_is_gone_is_silent() {
        let mut v = Voices::default();
        assert!(v.speaks(0, replica(0, 1), replica(0, 0), Incarnation(9)).unwrap_err().contains("speaks as"));
    }
}

//! INV-9: at most one stored message per channel, sender and client_msg_no.

use super::{Logs, broken};
use crate::history::{History, Violation};
use std::collections::BTreeMap;

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for (channel, log) in logs.iter().enumerate() {
        let mut first = BTreeMap::new();
        for r in log.iter().filter(|r| !r.client_msg_no.is_empty()) {
            judged += 1;
            if let Some(seq) = first.insert((&r.from_uid, &r.client_msg_no), r.seq) {
                let name = h.show_channel(channel as u32);
                let what = format!("{name}: {} of {} is stored as {seq} and as {}", r.client_msg_no, r.from_uid, r.seq);
                return broken("INV-9", u64::MAX, what);
            }
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn repetitions_are_found() {
        good(check, &[], 3);
        let mut twice = log(2);
        twice[0][1].client_msg_no = twice[0][0].client_msg_no.clone();
        assert_eq!(check(&history(&[]), &twice).unwrap_err().invariant, "INV-9");
    }
}

//! INV-17: on one connection the first RECVs of a channel have strictly increasing seqs.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let mut last: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    let mut judged = 0;
    for (at, event) in &h.events {
        let Event::RecvOut { link, channel, seq, id, dup: false, .. } = *event else { continue };
        judged += 1;
        let channel = h.era(channel, id);
        let before = last.entry((link, channel)).or_default();
        if seq <= *before {
            let what = format!("{} on {}: seq {seq} after {before}", h.show_channel(channel), h.show_link(link));
            return broken("INV-17", *at, what);
        }
        *before = seq;
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn first_recvs_increase() {
        good(check, &[(1, recv(0, 1)), (2, recv(2, 3))], 3);
        bad(check, &[(1, recv(1, 2)), (2, recv(0, 1))], 3, "INV-17");
        bad(check, &[(1, recv(1, 2)), (2, recv(1, 2))], 3, "INV-17");
    }
}

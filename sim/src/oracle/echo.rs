//! INV-16: the connection that sent a message never receives it.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};
use std::collections::BTreeMap;

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    // The origin is certain when an intent was read on one connection only.
    let mut origin: BTreeMap<u32, Option<u32>> = BTreeMap::new();
    for (_, event) in &h.events {
        if let Event::SendIn { link, intent } = *event {
            origin.entry(intent).and_modify(|o| *o = o.filter(|l| *l == link)).or_insert(Some(link));
        }
    }
    let mut judged = 0;
    for (at, event) in &h.events {
        let Event::RecvOut { link, intent, channel, seq, .. } = *event else { continue };
        judged += 1;
        if origin.get(&intent) == Some(&Some(link)) {
            let what = format!("{} seq {seq} came back to {}", h.show_channel(channel), h.show_link(link));
            return broken("INV-16", *at, what);
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn only_others_receive() {
        good(check, &[(1, send(0)), (2, recv(0, 1))], 1);
        let other = Event::SendIn { link: 1, intent: 0 };
        bad(check, &[(1, other), (2, recv(0, 1))], 1, "INV-16");
        good(check, &[(1, send(0)), (1, other), (2, recv(0, 1))], 1);
    }
}

//! INV-1 and INV-6: logs are gapless and hold nothing that no client sent.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for (channel, log) in logs.iter().enumerate() {
        for (i, record) in log.iter().enumerate() {
            judged += 1;
            if record.seq != i as u64 + 1 {
                let name = h.show_channel(channel as u32);
                return broken("INV-1", u64::MAX, format!("{name}: row {} has seq {}", i + 1, record.seq));
            }
        }
    }
    for (at, event) in &h.events {
        match event {
            Event::Phantom { what, .. } => return broken("INV-6", *at, format!("a log row holds {what}")),
            Event::EarlyDistributed { channel, distributed, in_flight } => {
                let name = h.show_channel(*channel);
                let what = format!(
                    "{name}: distributed {distributed} was written while the push of {in_flight} was on its way"
                );
                return broken("INV-14", *at, what);
            }
            _ => {}
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::*;
    use super::*;

    #[test]
    fn gaps_and_strangers_are_found() {
        good(check, &[], 3);
        let mut gap = log(3);
        gap[0].remove(1);
        assert_eq!(check(&history(&[]), &gap).unwrap_err().invariant, "INV-1");
        bad(check, &[(1, Event::Phantom { batch: 1, what: "x" })], 1, "INV-6");
    }
}

//! INV-29: one CONNACK per CONNECT, nothing before it, nothing after a close, and no frame a client cannot read.

use super::{Logs, broken};
use crate::history::{Event, History, Violation};

pub fn check(h: &History, _: &Logs) -> Result<u64, Violation> {
    let mut answered = vec![false; h.links.len()];
    let mut judged = 0;
    for (at, event) in &h.events {
        match *event {
            Event::Illegal { link, what } => return broken("INV-29", *at, format!("{what}, on {}", h.show_link(link))),
            Event::Connack { link, .. } => {
                judged += 1;
                if std::mem::replace(&mut answered[link as usize], true) {
                    return broken("INV-29", *at, format!("a second CONNACK on {}", h.show_link(link)));
                }
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
    fn one_answer_per_connect() {
        good(check, &[], 0);
        bad(check, &[(1, Event::Connack { link: 0, reason: 2 })], 0, "INV-29");
        bad(check, &[(1, Event::Illegal { link: 0, what: "x" })], 0, "INV-29");
    }
}

//! INV-35 and INV-38: a message sync returns exactly the window of semantics 6.6, and everything acknowledged before it.

use super::{Logs, broken};
use crate::history::{History, Violation};
use wukong_core::api::{ApiAnswer, ApiRequest, MessageSync};

/// First and last seq that a sync must return when the log ends at `last`; none for an empty answer.
#[must_use]
pub fn window(q: &MessageSync, last: u64) -> Option<(u64, u64)> {
    let n = limit(q);
    let (s, e) = (q.start, q.end);
    let (from, to) = if last == 0 {
        return None;
    } else if s == 0 && e == 0 {
        (last.saturating_sub(n - 1).max(1), last)
    } else if q.up {
        let hi = if e == 0 || e > last { last + 1 } else { e };
        let from = s.max(1);
        (from, (hi - 1).min(from.saturating_add(n - 1)))
    } else if e > s {
        return None;
    } else {
        let to = s.min(last);
        let floor = if e == 0 { 1 } else { e + 1 };
        (to.saturating_sub(n - 1).max(floor).max(1), to)
    };
    (from <= to).then_some((from, to))
}

/// Whether the window holds more than what one answer may carry: then the answer must say so.
fn beyond(q: &MessageSync, last: u64, answered: Option<(u64, u64)>) -> bool {
    let whole = window(&MessageSync { limit: 10_000, ..q.clone() }, last);
    answered.is_some_and(|(a, b)| b - a + 1 >= limit(q)) && whole != answered
}

const fn limit(q: &MessageSync) -> u64 {
    if q.limit <= 0 {
        100
    } else if q.limit > 10_000 {
        10_000
    } else {
        q.limit as u64
    }
}

pub fn check(h: &History, logs: &Logs) -> Result<u64, Violation> {
    let mut judged = 0;
    for call in &h.calls {
        let (ApiRequest::MessageSync(q), Some(ApiAnswer::Messages(page)), Some((channel, low, high))) =
            (&call.request, &call.answer, call.bounds.first().copied())
        else {
            continue;
        };
        judged += 1;
        let at = call.ended.unwrap_or(call.began);
        let name = h.show_channel(channel);
        let seqs: Vec<u64> = page.messages.iter().map(|m| m.seq).collect();
        let fits = |last: u64| {
            let expected = window(q, last);
            let n = expected.map_or(0, |(a, b)| b - a + 1);
            seqs.len() as u64 == n
                && expected.is_none_or(|(a, _)| seqs.iter().zip(a..).all(|(s, e)| *s == e))
                && (!page.more || n >= limit(q))
                && (page.more || !beyond(q, last, expected))
        };
        if !(low..=high.max(low)).any(fits) {
            let what =
                format!("{name}: {q:?} answered {seqs:?} more={} with the log between {low} and {high}", page.more);
            return broken("INV-35", at, what);
        }
        if !call.durable {
            return broken(
                "INV-38",
                at,
                format!("{name}: a read returned what a crash could still take back: {seqs:?}"),
            );
        }
        let log = logs.get(channel as usize).map(Vec::as_slice).unwrap_or_default();
        for m in &page.messages {
            if (m.seq as usize).checked_sub(1).and_then(|i| log.get(i)).is_none_or(|r| r != m) {
                return broken("INV-35", at, format!("{name}: a read returned {m:?}, which is not what the log holds"));
            }
        }
    }
    Ok(judged)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::{history, log};
    use super::*;
    use crate::history::Call;
    use wukong_core::api::MessagePage;

    #[test]
    fn the_table_of_the_specification() {
        let w = |start, end, limit, up, last| {
            window(&MessageSync { start, end, limit, up, ..MessageSync::default() }, last)
        };
        assert_eq!(w(0, 0, 3, false, 10), Some((8, 10)));
        assert_eq!(w(0, 0, 3, true, 2), Some((1, 2)));
        assert_eq!(w(3, 0, 3, true, 10), Some((3, 5)));
        assert_eq!(w(3, 5, 9, true, 10), Some((3, 4)));
        assert_eq!(w(9, 50, 9, true, 10), Some((9, 10)));
        assert_eq!(w(0, 5, 9, false, 10), None);
        assert_eq!(w(4, 5, 9, false, 10), None);
        assert_eq!(w(99, 0, 2, false, 10), Some((9, 10)));
        assert_eq!(w(8, 5, 9, false, 10), Some((6, 8)));
        assert_eq!(w(8, 5, 2, false, 10), Some((7, 8)));
        assert_eq!(w(8, 8, 2, false, 10), None);
        assert_eq!(w(11, 0, 2, true, 10), None);
        assert_eq!(w(1, 0, 0, true, 0), None);
    }

    fn asked(messages: Vec<wukong_core::store::Record>, more: bool, low: u64, durable: bool) -> History {
        let mut h = history(&[]);
        h.calls.push(Call {
            request: ApiRequest::MessageSync(MessageSync { start: 1, limit: 2, up: true, ..MessageSync::default() }),
            began: 0,
            ended: Some(1),
            answer: Some(ApiAnswer::Messages(MessagePage { messages, more, ..MessagePage::default() })),
            bounds: vec![(0, low, 3)],
            durable,
            lost: false,
        });
        h
    }

    #[test]
    fn a_read_sees_what_was_acknowledged() {
        let rows = log(3).remove(0);
        assert_eq!(check(&asked(rows[..2].to_vec(), true, 1, true), &log(3)), Ok(1));
        assert_eq!(check(&asked(rows[..1].to_vec(), false, 1, true), &log(3)), Ok(1));
        for (h, invariant) in [
            (asked(rows[..1].to_vec(), false, 2, true), "INV-35"),
            (asked(rows[1..].to_vec(), true, 2, true), "INV-35"),
            (asked(rows[..2].to_vec(), false, 3, true), "INV-35"),
            (asked(rows[..2].to_vec(), true, 2, false), "INV-38"),
        ] {
            assert_eq!(check(&h, &log(3)).unwrap_err().invariant, invariant);
        }
    }
}

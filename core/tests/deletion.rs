//! A channel that is deleted, on one node: its rows go in steps, and nothing of them comes back.

#![allow(clippy::std_instead_of_alloc, clippy::std_instead_of_core)]

mod support;

use support::{Node, config};
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::channel::id::compose;
use wukong_core::store::{Family, keys};
use wukong_proto::ReasonCode;

/// More than go at once.
const MANY: u64 = 700;

fn deletion() -> ApiRequest {
    ApiRequest::DeleteChannel { channel_id: compose("alice", "bob"), channel_type: 1 }
}

fn with_messages() -> Node {
    let mut n = Node::new(config(1));
    n.connected(0, 1, "alice");
    for i in 1..=MANY {
        n.send(1, "bob", &format!("m{i}"), "old");
        n.run();
    }
    assert_eq!(n.acks(1).last().map(|a| a.1), Some(MANY));
    n
}

/// Rows of logs, of what is derived from them, and of who has them.
fn rows(n: &Node) -> usize {
    let of_log = |(family, key): &&(Family, Vec<u8>)| match family {
        Family::Log | Family::Index | Family::Marks => true,
        Family::Raft => (keys::table::HEAD..=keys::table::DOOMED).contains(&key[2]),
        Family::Meta | Family::Outbox => false,
    };
    n.disk.0.keys().filter(of_log).count()
}

#[test]
fn what_is_deleted_is_gone_and_the_next_message_is_the_first() {
    let mut n = with_messages();
    assert!(rows(&n) > 3 * MANY as usize);
    assert_eq!(n.call(deletion()), ApiAnswer::Done);
    assert_eq!(rows(&n), 0);
    assert_eq!(n.history("bob", "alice"), []);
    // Its key was that of a message that is gone.
    n.send(1, "bob", "m1", "new");
    n.run();
    assert_eq!(n.acks(1).iter().map(|a| (a.0, a.1)).collect::<Vec<_>>(), [(ReasonCode::SUCCESS, 1)]);
    assert_eq!(n.history("bob", "alice"), [(1, "new".to_owned())]);
    n = n.crash();
    assert_eq!(n.history("bob", "alice"), [(1, "new".to_owned())]);
}

#[test]
fn a_crash_at_any_write_brings_nothing_back() {
    for kept in 0..12 {
        let mut n = with_messages();
        n.hold = true;
        n.call_at(0, deletion());
        for _ in 0..kept {
            if n.held.is_empty() {
                break;
            }
            n.sync_one();
        }
        let done = n.answers.pop() == Some(ApiAnswer::Done);
        n.hold = false;
        n = n.crash();
        let seen = n.history("bob", "alice");
        assert!(seen.is_empty() || (!done && seen.len() as u64 == MANY), "{kept}: {} are left", seen.len());
        assert_eq!(n.call(deletion()), ApiAnswer::Done);
        assert_eq!(rows(&n), 0, "{kept}");
        n.connected(0, 2, "alice");
        n.send(2, "bob", "m1", "new");
        n.run();
        assert_eq!(n.acks(2).first().map(|a| a.1), Some(1), "{kept}");
        assert_eq!(n.history("bob", "alice"), [(1, "new".to_owned())], "{kept}");
    }
}

#[test]
fn what_is_no_channel_is_not_deleted() {
    let mut n = Node::new(config(1));
    let mut ask = |id: &str, kind| n.call(ApiRequest::DeleteChannel { channel_id: id.into(), channel_type: kind });
    assert!(matches!(ask("alice", 1), ApiAnswer::Refused(_)));
    assert!(matches!(ask("alice@bob", 2), ApiAnswer::Refused(_)));
    assert!(matches!(ask(&format!("a@{}", "x".repeat(70_000)), 1), ApiAnswer::Refused(_)));
    assert_eq!(ask("bob@alice", 1), ApiAnswer::Done, "one that was never used is gone already");
}

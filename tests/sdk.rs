//! The published SDK (npm package wukongimjssdk 1.0.4), unmodified, against the real server: it logs in, chats, syncs, and
//! comes back by itself after a crash, a stalled disk and a graceful stop, with every message there exactly once.

#[path = "sdk/person.rs"]
mod person;

use person::{Person, RECONNECT_MAX, Received};
use serde_json::json;
use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wukong_tests::support::{Options, Server, Verdict, ledger, wait_for};

/// Between two messages of one person.
const PAUSE: Duration = Duration::from_millis(30);

/// Two people who talk to each other through one server.
struct Chat {
    a: Person,
    b: Person,
}

impl Chat {
    fn start(server: &Server) -> Chat {
        let [a, b] = ["ann", "bob"].map(|uid| {
            server.api().set_token(uid, &format!("token of {uid}"), 1);
            Person::start(uid, &format!("token of {uid}"), &server.http())
        });
        a.wait_connected();
        b.wait_connected();
        Chat { a, b }
    }

    fn people(&self) -> [(&Person, &Person); 2] {
        [(&self.a, &self.b), (&self.b, &self.a)]
    }

    /// Both keep talking while `during` runs.
    fn talk<T>(&self, during: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    for (from, to) in self.people() {
                        from.send(to.uid(), &format!("{} says {n} 你好", from.uid()));
                    }
                    n += 1;
                    std::thread::sleep(PAUSE);
                }
            });
            // Also when it panics, or the other would talk for ever.
            let stop = Stop(&done);
            let value = during();
            drop(stop);
            value
        })
    }

    fn wait_connects(&self, times: usize) {
        self.a.wait_connects(times, RECONNECT_MAX);
        self.b.wait_connects(times, RECONNECT_MAX);
    }

    /// Waits until all is answered, says goodbye, and compares the books.
    fn settle(&self, server: &Server) -> Verdict {
        for (from, to) in self.people() {
            from.wait_settled();
            from.send(to.uid(), "goodbye");
            wait_for("the last message to arrive", Duration::from_secs(10), || {
                to.told().received.last().is_some_and(|r| r.text == "goodbye").then_some(())
            });
            from.wait_settled();
        }
        let (a, b) = (self.a.told(), self.b.told());
        for (person, told) in [(&self.a, &a), (&self.b, &b)] {
            assert!(told.faults.is_empty(), "{}: {:?}", person.uid(), told.faults);
        }
        let stored = server.api().channel("ann", "bob", 1);
        let verdict = ledger::compare(&stored, &[&a.account, &b.account]);
        let by_id: HashMap<i64, u64> = stored.iter().map(|s| (s.id, s.seq)).collect();
        let phantom = |r: &&Received| by_id.get(&r.id) != Some(&r.seq);
        let phantoms: Vec<&Received> = a.received.iter().chain(&b.received).filter(phantom).collect();
        assert!(phantoms.is_empty(), "delivered, but not stored: {phantoms:?}");
        verdict
    }
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn tokens() -> Options {
    Options::default().env("WK_TOKENAUTHON", "true")
}

fn sleep(seconds: f32) {
    std::thread::sleep(Duration::from_secs_f32(seconds));
}

#[test]
fn people_chat_and_one_who_was_away_syncs() {
    let server = Server::start(tokens());
    let chat = Chat::start(&server);
    for n in 0..20 {
        for (from, to) in chat.people() {
            from.send(to.uid(), &format!("{n}: 你好 \u{1F600} \"<&>\" from {}", from.uid()));
        }
    }
    chat.a.send("cid", "are you there?");
    chat.a.send("cid", "then later");
    for (from, to) in chat.people() {
        from.wait_settled();
        wait_for("all to arrive", Duration::from_secs(10), || (to.told().received.len() == 20).then_some(()));
        let (sent, received) = (&from.told().account.sent, &to.told().received);
        for (n, (s, r)) in sent.iter().zip(received).enumerate() {
            assert_eq!((r.from.as_str(), r.client_msg_no.as_str()), (from.uid(), s.client_msg_no.as_str()));
            assert_eq!(Some((r.id, r.seq)), s.ack, "message {n}");
            assert_eq!(json!({"type": 1, "content": r.text}).to_string().len(), s.payload.len());
            assert_eq!(r.text, format!("{n}: 你好 \u{1F600} \"<&>\" from {}", from.uid()));
        }
    }
    let stored = server.api().channel("ann", "bob", 1);
    let mut between = chat.a.told().account.clone();
    between.sent.truncate(20);
    ledger::compare(&stored, &[&between, &chat.b.told().account]).assert_clean("a chat");

    // The wrong token is refused for good, and says why.
    server.api().set_token("cid", "right", 1);
    let wrong = Person::start("cid", "wrong", &server.http());
    let refused = wait_for("a refusal", Duration::from_secs(10), || wrong.told().statuses.first().copied());
    assert_eq!((refused.0, refused.1), (3, 2));
    drop(wrong);

    let cid = Person::start("cid", "right", &server.http());
    cid.wait_connected();
    let list = cid.ask(&json!({"order": "conversations"}));
    let row = &list["rows"][0];
    assert_eq!(list["rows"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!((&row["channel"], &row["type"], &row["unread"]), (&json!("ann"), &json!(1), &json!(2)));
    assert_eq!(row["last"]["text"], "then later");
    let page = cid.ask(&json!({"order": "messages", "peer": "ann", "start": 0, "end": 0, "limit": 30, "mode": 0}));
    let page: Vec<Received> = page["rows"].as_array().expect("rows").iter().map(Received::parse).collect();
    let texts: Vec<&str> = page.iter().map(|m| m.text.as_str()).collect();
    assert_eq!(texts, ["are you there?", "then later"]);
    let acks: Vec<_> = chat.a.told().account.sent[20..].iter().map(|s| s.ack).collect();
    assert_eq!(page.iter().map(|m| Some((m.id, m.seq))).collect::<Vec<_>>(), acks);
}

#[test]
fn a_crash_loses_nothing_and_the_sdk_comes_back() {
    let mut server = Server::start(tokens());
    let chat = Chat::start(&server);
    let back = chat.talk(|| {
        let mut back = Duration::ZERO;
        for crash in 1..=2 {
            sleep(1.5);
            server.kill9();
            sleep(0.5);
            let start = Instant::now();
            server.launch();
            chat.wait_connects(crash + 1);
            back = back.max(start.elapsed());
        }
        sleep(1.0);
        back
    });
    let verdict = chat.settle(&server);
    verdict.assert_clean("after two crashes");
    assert_eq!(verdict.acked, verdict.stored, "each message is stored once");
    assert!(back < RECONNECT_MAX, "back after {back:?}");
    let stale = chat.people().map(|(p, _)| p.told().stale);
    println!("sdk, crash: {verdict}; back within {back:?}; sent with old keys first {stale:?}");
}

#[test]
fn a_stalled_disk_costs_no_promise() {
    let folder = wukong_tests::support::TempDir::new();
    let stall = folder.path().join("stall");
    let server = Server::start(tokens().arg("--test-stall-file").arg(&stall));
    let chat = Chat::start(&server);
    let answered = || chat.people().map(|(p, _)| p.told().account.acked());
    chat.talk(|| {
        sleep(1.0);
        fs::write(&stall, "").expect("the disk stalls");
        sleep(1.0);
        let before = answered();
        sleep(11.0);
        assert_eq!(answered(), before, "nothing is promised that is not synced");
        fs::remove_file(&stall).expect("the disk goes on");
        wait_for("acknowledgements to go on", Duration::from_secs(15), || {
            let now = answered();
            (now[0] > before[0] && now[1] > before[1]).then_some(())
        });
        sleep(1.0);
    });
    let verdict = chat.settle(&server);
    verdict.assert_clean("after a stall");
    let refused = chat.people().map(|(p, _)| p.told().account.sent.iter().filter(|s| s.refused).count());
    let connects = chat.people().map(|(p, _)| p.told().connects());
    println!("sdk, stall: {verdict}; outcome unknown {refused:?}, connections made {connects:?}");
}

#[test]
fn a_graceful_stop_loses_nothing_and_the_sdk_comes_back() {
    let mut server = Server::start(tokens());
    let chat = Chat::start(&server);
    chat.talk(|| {
        sleep(1.0);
        let status = server.sigterm();
        assert_eq!(status.code(), Some(0), "{}", server.log_tail());
        sleep(0.5);
        server.launch();
        chat.wait_connects(2);
        sleep(1.0);
    });
    let verdict = chat.settle(&server);
    verdict.assert_clean("after a graceful stop");
    assert_eq!(verdict.acked, verdict.stored, "each message is stored once");
    for (person, _) in chat.people() {
        let kicked: Vec<_> = person.told().statuses.iter().map(|s| s.0).filter(|s| *s > 1).collect();
        assert!(kicked.is_empty(), "a stop must not look like a kick: {kicked:?}");
    }
    println!("sdk, graceful stop: {verdict}");
}

//! A power cut loses nothing that was acknowledged. kill -9 alone cannot show that: the page cache survives it. So what was
//! not synced is cut away after the kill, and with syncing switched off the same test must find losses.
//!
//! `POWER_CUT_ROUNDS` is the number of cuts in a row (3 if not set).

#[path = "power_cut/disk.rs"]
mod disk;
#[path = "power_cut/talker.rs"]
mod talker;

use disk::Cut;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;
use talker::{Session, Talker};
use wukong_runtime::client::random;
use wukong_tests::support::{Account, Options, Server, Stored, TempDir, Verdict, ledger, wait_for};

const PAIRS: usize = 4;
const CONTROL_ROUNDS: usize = 3;

struct World {
    server: Server,
    /// Where the shim writes; not in the server's own folder.
    log: PathBuf,
    _logs: TempDir,
    talkers: Vec<Talker>,
}

impl World {
    fn new(more: &[&str]) -> World {
        let logs = TempDir::new();
        let log = logs.path().join("synced");
        let mut options = Options::default().env("LD_PRELOAD", disk::shim()).env("POWER_CUT_LOG", &log);
        options.args.extend(more.iter().map(Into::into));
        let pair = |n: usize| {
            [Talker::new(&format!("a{n}"), &format!("b{n}")), Talker::new(&format!("b{n}"), &format!("a{n}"))]
        };
        World { server: Server::start(options), log, _logs: logs, talkers: (0..PAIRS).flat_map(pair).collect() }
    }

    /// Lets all talk, cuts the power at some moment, and makes the disk look like it.
    fn talk_and_cut(&mut self) -> Cut {
        let addr = self.server.tcp();
        let session = Session::default();
        std::thread::scope(|scope| {
            for talker in &mut self.talkers {
                scope.spawn(|| talker.talk(&addr, &session));
            }
            wait_for("everybody to talk", Duration::from_secs(20), || {
                (session.busy.load(Ordering::Relaxed) == PAIRS * 2).then_some(())
            });
            std::thread::sleep(Duration::from_millis(100 + u64::from(u16::from_be_bytes(random())) % 900));
            self.server.kill9();
        });
        disk::cut(&self.server.data_dir(), &self.log)
    }

    fn settle(&mut self) {
        let addr = self.server.tcp();
        let session = Session::default();
        session.settle.store(true, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for talker in &mut self.talkers {
                scope.spawn(|| talker.talk(&addr, &session));
            }
        });
    }

    fn compare(&self) -> Verdict {
        let mut api = self.server.api();
        let mut verdict = Verdict::default();
        for pair in self.talkers.chunks(2) {
            let accounts: Vec<&Account> = pair.iter().map(|t| &t.account).collect();
            let stored = api.channel(&accounts[0].uid, &accounts[1].uid, 1);
            let mut found = ledger::compare(&stored, &accounts);
            let unstored = pair.iter().flat_map(|t| unstored(&t.received, &stored));
            found.altered.extend(unstored);
            verdict.add(found);
        }
        verdict
    }
}

/// What was delivered must be stored, as it was delivered: delivery comes after the commit.
fn unstored(received: &[Stored], stored: &[Stored]) -> Vec<String> {
    let by_id: HashMap<i64, &Stored> = stored.iter().map(|s| (s.id, s)).collect();
    let missing = received.iter().filter(|r| by_id.get(&r.id) != Some(r));
    missing.map(|r| format!("delivered, but not stored so: {} seq {} of {}", r.id, r.seq, r.from)).collect()
}

#[test]
fn a_power_cut_loses_nothing_acknowledged() {
    let rounds = std::env::var("POWER_CUT_ROUNDS").map_or(3, |r| r.parse().expect("POWER_CUT_ROUNDS is a number"));
    let mut world = World::new(&[]);
    let (mut cut, mut acked) = (Cut::default(), 0);
    for round in 1..=rounds {
        let done = world.talk_and_cut();
        cut.bytes += done.bytes;
        cut.files_cut += done.files_cut;
        cut.files_gone += done.files_gone;
        world.server.launch();
        let verdict = world.compare();
        verdict.assert_clean(&format!("after power cut {round}"));
        assert!(verdict.acked > acked, "round {round} acknowledged nothing");
        acked = verdict.acked;
    }
    world.settle();
    let verdict = world.compare();
    verdict.assert_clean("in the end");
    let sent: usize = world.talkers.iter().map(|t| t.account.sent.len()).sum();
    assert_eq!((verdict.acked, verdict.stored), (sent, sent), "each message is stored once");
    println!(
        "power cut: {rounds} rounds; {verdict}; cut {} bytes of {} files, {} files gone",
        cut.bytes, cut.files_cut, cut.files_gone
    );
}

#[test]
fn without_syncing_the_same_test_finds_losses() {
    let mut world = World::new(&["--test-unsafe-no-sync"]);
    for round in 1..=CONTROL_ROUNDS {
        let cut = world.talk_and_cut();
        if let Err(why) = world.server.try_launch() {
            let log = world.server.log();
            assert!(log.contains("damaged"), "{why}\n{}", world.server.log_tail());
            println!("control: {cut:?}; refused to start in round {round}: it knows that data is missing");
            return;
        }
        let verdict = world.compare();
        println!("control, round {round}: {cut:?}; {verdict}");
        if !verdict.lost.is_empty() {
            return;
        }
    }
    panic!("without a single sync nothing was lost in {CONTROL_ROUNDS} power cuts: this test sees nothing");
}

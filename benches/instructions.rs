//! Instructions of one shard per message of W1, counted by valgrind: `cargo bench -p wukong-benches --bench instructions`.
//! The same on every machine with the same compiler, however busy; what the clock says is `micro.rs`. Nothing is asserted.
//!
//! `CALLGRIND_OUT=FILE` keeps the profile of the last line, for `callgrind_annotate`.

use std::process::{Command, Stdio};

use wukong_benches::world::{World, pairs};
use wukong_proto::Text;

const PAIRS: usize = 1000;
const MESSAGES: usize = 20_000;
/// Where counting begins and ends.
const COUNTED: &str = "*in_the_shard*";

/// The rounds that are counted, each of `per_round` messages of 256 bytes; all pairs in turn.
fn workload(per_round: usize, messages: usize) {
    let mut world = World::new();
    let pairs = pairs(&mut world, PAIRS);
    let mut at = 0;
    let mut rounds = |world: &mut World, messages: usize| {
        for _ in 0..messages / per_round {
            let some: Vec<(usize, Text)> = (at..at + per_round).map(|i| pairs[i % PAIRS].clone()).collect();
            world.round(&some, &[0x5A; 256]);
            at += per_round;
        }
    };
    rounds(&mut world, 2 * PAIRS);
    world.take_tally();
    world.count_instructions();
    rounds(&mut world, messages);
    assert_eq!(world.take_tally().acked, messages as u64, "one SENDACK per SEND");
}

/// The instructions of one run; None: there is no valgrind.
fn count(per_round: usize) -> Option<u64> {
    let out = std::env::var("CALLGRIND_OUT").unwrap_or_else(|_| "/dev/null".into());
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}"), &format!("--callgrind-out-file={out}")])
        .args(std::env::var("CALLGRIND_ARGS").iter().flat_map(|more| more.split_whitespace()))
        .arg(std::env::current_exe().expect("the path of this program"))
        .arg(format!("workload={per_round}"))
        .stdout(Stdio::null())
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    if std::env::var_os("CALLGRIND_ARGS").is_some() {
        eprintln!("{said}");
    }
    said.lines().find_map(|line| line.split_once("Collected : ")).map(|(_, counts)| {
        counts.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a count of instructions")
    })
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(per_round) = args.iter().find_map(|arg| arg.strip_prefix("workload=")) {
        return workload(per_round.parse().expect("a number"), MESSAGES);
    }
    // `cargo test` builds this as well and runs it with --test.
    if args.iter().any(|arg| arg == "--test") {
        return;
    }
    println!("one shard, instructions per message");
    for per_round in [1, 10, 100] {
        match count(per_round) {
            Some(n) => println!("{per_round:>4} messages in one wake-up {:>10}", n / MESSAGES as u64),
            None => return println!("valgrind is not installed: nothing is counted"),
        }
    }
}

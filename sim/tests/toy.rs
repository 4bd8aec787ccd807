//! The world with a toy server: crashes lose what was not synced and nothing else, and runs repeat.

use wukong_sim::run::{Outcome, run};
use wukong_sim::scenario::Scenario;
use wukong_sim::toy::Toy;
use wukong_sim::world::{Mode, World};

fn scenario(faults: &str) -> Scenario {
    let text = format!(
        "wukong-scenario 1\nseed 7\nnode shards=2\nrun length=5s\npopulation users=4 devices=2 think=50ms sync=0\n{faults}"
    );
    Scenario::parse(&text).unwrap()
}

fn toy(faults: &str) -> Outcome {
    run::<Toy>(scenario(faults), Mode { oracles: false, ..Mode::default() })
}

#[test]
fn runs_repeat_exactly() {
    let faults = "fault crash at=2s after=3 keep=some";
    assert_eq!(toy(faults).trace, toy(faults).trace);
    assert_ne!(toy(faults).trace, toy("").trace);
}

#[test]
fn crashes_come_between_outputs_and_the_process_comes_back() {
    let o = toy("fault crash at=1s after=2 of=outputs\nfault crash at=2s after=1 of=persists\nfault stop at=3s");
    assert_eq!((o.crashes, o.seen.crash_mid_drain, o.seen.stops), (3, 2, 1));
    assert_eq!(o.seen.starts, 4);
}

#[test]
fn what_was_synced_survives() {
    let mut world = World::<Toy>::new(
        scenario("fault crash at=2s keep=synced\nfault crash at=3s keep=all"),
        Mode { oracles: false, ..Mode::default() },
    );
    let (mut rows, mut life): (Vec<Vec<u8>>, u64) = (Vec::new(), world.life());
    while world.step() {
        if world.life() != life {
            life = world.life();
            for key in &rows {
                assert!(world.storage.disk.row(wukong_core::store::Family::Log, key).is_some());
            }
        }
        let synced = world.storage.disk.synced();
        if world.is_up() && rows.len() < 200 {
            let all = world.storage.disk.all(wukong_core::store::Family::Log);
            rows = all.filter(|(_, r)| r.batch <= synced).map(|(k, _)| k.to_vec()).collect();
        }
        if world.phase > wukong_sim::world::Phase::Active {
            break;
        }
    }
    assert!(life >= 3 && rows.len() > 50, "{life} {}", rows.len());
}

#[test]
fn a_failed_sync_ends_the_process() {
    let o = toy("fault io at=2s span=200ms");
    assert!(o.seen.halts > 0 && o.seen.sync_failed > 0);
}

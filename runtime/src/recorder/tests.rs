//! What the recorder writes can be run again.

use super::{KEY_FILE, Recorded, Recorder};
use crate::reactor::machine::Machine;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use wukong_core::flight::{Header, Recording, SealKey, replay};
use wukong_core::ids::{Incarnation, StoreId};
use wukong_core::rng::Seed;
use wukong_core::store::{Found, Query};
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{Boot, Completion, Effect, Input, Output, Shard, ShardConfig};

#[test]
fn a_start_is_recorded_with_its_secrets_sealed_and_can_be_replayed() {
    let parent = std::env::temp_dir().join(format!("wukongim-recorder-{}", std::process::id()));
    let recorder = Recorder::create(&parent, Incarnation(4)).unwrap();
    let header = Header {
        config: ShardConfig::default(),
        boot: Boot { store: StoreId(1), incarnation: Incarnation(4) },
        seed: Seed { keys: [3; 32], jitter: [4; 32] },
        started: Now { mono: Instant(1), wall: WallTime(1_700_000_000_000) },
    };
    let Header { config, boot, seed, started } = header.clone();
    let shard = Shard::new(config, boot, seed, started).unwrap();
    let mut machine = Recorded::new(shard, recorder.begin(&header).unwrap());
    // The same start again must not write over it.
    assert!(Recorder::create(&parent, Incarnation(4)).is_err());

    let (mut now, mut inputs) = (started, VecDeque::new());
    loop {
        while let Some(output) = machine.poll_output() {
            let Output::Start { op, effect } = output else { continue };
            let completion = match effect {
                Effect::Persist { .. } => Completion::Persisted(Ok(())),
                Effect::Load(load) => Completion::Loaded(Ok(load.queries.iter().map(nothing).collect())),
            };
            inputs.push_back(Input::Completed { op, completion });
        }
        now.mono.0 += 1_000_000;
        match inputs.pop_front() {
            Some(input) => machine.handle(now, input),
            None if !machine.state().ready => machine.handle(now, Input::Deadline),
            None => break,
        }
    }
    drop(machine);

    let file = recorder.folder().join("flight-0.rec");
    for path in [&file, &recorder.folder().join(KEY_FILE)] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let hex = fs::read_to_string(recorder.folder().join(KEY_FILE)).unwrap();
    let key = SealKey::from_hex(&hex).unwrap();
    let recording = Recording::open(fs::read(&file).unwrap().into(), &key).unwrap();
    let summary = replay(vec![recording], &mut |_, _, _| {}).unwrap();
    assert!(summary.inputs > 0 && summary.drains > 1, "{summary:?}");
    fs::remove_dir_all(&parent).unwrap();
}

fn nothing(query: &Query) -> Found {
    match query {
        Query::Get { .. } => Found::Point(None),
        Query::Range { .. } => Found::Page { rows: Vec::new(), more: false },
    }
}

//! Flight recordings of a real server (`wukongim run --record DIR`), run again.

use bytes::Bytes;
use std::path::Path;
use wukong_core::flight::{Recording, SealKey, Seen, replay};

/// First bytes of a recording.
pub const MAGIC: &[u8] = b"WKFLIGHT";
const KEY_FILE: &str = "recorder.key";

/// Replays the run that a recording belongs to: all shards, from the files beside it. True when nothing differs.
#[must_use]
pub fn replay_run(path: &Path, print: Option<(u64, u64)>) -> bool {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    match recordings(folder) {
        Ok(all) => play(all, print),
        Err(e) => {
            eprintln!("{e}");
            false
        }
    }
}

fn play(all: Vec<Recording>, print: Option<(u64, u64)>) -> bool {
    let mut n = 0;
    let result = replay(all, &mut |shard, now, seen| {
        n += u64::from(matches!(seen, Seen::Input(_)));
        if print.is_some_and(|(from, to)| (from..=to).contains(&n)) {
            match seen {
                Seen::Input(i) => println!("{n} {} shard {shard} <- {i:?}", now.mono.0),
                Seen::Output(o) => println!("{n} {} shard {shard} -> {o:?}", now.mono.0),
            }
        }
    });
    match result {
        Ok(s) => {
            println!("ok  {} shards  {} inputs  {} outputs  {} drains", s.shards, s.inputs, s.outputs, s.drains);
            true
        }
        Err(difference) => {
            println!("DIFFERS after {n} inputs: {difference}");
            false
        }
    }
}

fn recordings(folder: &Path) -> Result<Vec<Recording>, String> {
    let key_file = folder.join(KEY_FILE);
    let hex = std::fs::read_to_string(&key_file).map_err(|e| format!("{}: {e}", key_file.display()))?;
    let key =
        SealKey(key(hex.trim()).ok_or_else(|| format!("{}: 64 hexadecimal digits expected", key_file.display()))?);
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "rec"));
    files.sort();
    let open = |file: &std::path::PathBuf| {
        let bytes = std::fs::read(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Recording::open(Bytes::from(bytes), &key).map_err(|bad| format!("{}: {bad}", file.display()))
    };
    files.iter().map(open).collect()
}

fn key(hex: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(key)
}

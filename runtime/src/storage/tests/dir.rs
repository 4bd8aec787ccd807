//! The data directory: one process, one node, one format; and the self-check.

use super::*;
use crate::storage::SelfCheck;

fn open(path: &Path) -> Result<DataDir, OpenError> {
    DataDir::open(path, NODE, None)
}

fn refusal(path: &Path) -> String {
    open(path).expect_err("refused").to_string()
}

#[test]
fn it_keeps_its_identity_and_counts_its_openings() {
    let scratch = Scratch::new();
    let path = scratch.join("deep/data");
    let first = open(&path).unwrap();
    let identity = first.identity();
    assert_eq!((identity.node, first.incarnation().0), (NODE, 1));
    drop(first);
    for n in 2..5 {
        let again = open(&path).unwrap();
        assert_eq!((again.identity(), again.incarnation().0), (identity, n));
    }
    let other = open(&scratch.join("other")).unwrap().identity();
    assert!(other.store != identity.store && other.cluster != identity.cluster);
}

#[test]
fn it_belongs_to_one_process() {
    let scratch = Scratch::new();
    let held = open(&scratch).unwrap();
    let text = refusal(&scratch);
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("Stop that process"), "{text}");
    drop(held);
    open(&scratch).unwrap();
}

#[test]
fn it_belongs_to_one_node() {
    let scratch = Scratch::new();
    drop(open(&scratch).unwrap());
    let text = DataDir::open(&scratch, NodeId(7), None).unwrap_err().to_string();
    assert!(text.contains("belongs to node 1") && text.contains("Set the node id to 1"), "{text}");
    // Refused, so not opened: the count did not move.
    assert_eq!(open(&scratch).unwrap().incarnation().0, 2);
}

#[test]
fn a_later_format_is_named() {
    let scratch = Scratch::new();
    drop(open(&scratch).unwrap());
    let later = crate::storage::file::seal("wukongim data directory\nformat 2\nsomething new\n");
    fs::write(scratch.join("IDENTITY"), later).unwrap();
    let text = refusal(&scratch);
    assert!(text.contains("format 2") && text.contains("later"), "{text}");
}

#[test]
fn damaged_small_files_are_refused_with_a_way_out() {
    for name in ["IDENTITY", "INCARNATION"] {
        let scratch = Scratch::new();
        drop(open(&scratch).unwrap());
        fs::create_dir(scratch.join("db")).unwrap();
        let good = fs::read(scratch.join(name)).unwrap();
        let mut broken: Vec<Vec<u8>> =
            vec![Vec::new(), b"\xff\xfe".to_vec(), good[..good.len() - 1].to_vec(), b"crc ".to_vec()];
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            broken.push(bytes);
        }
        for bytes in broken {
            fs::write(scratch.join(name), bytes).unwrap();
            let text = refusal(&scratch);
            assert!(text.contains(name) && text.contains("Restore"), "{text}");
        }
        fs::remove_file(scratch.join(name)).unwrap();
        let text = refusal(&scratch);
        assert!(text.contains(name) && text.contains("missing"), "{text}");
        fs::write(scratch.join(name), good).unwrap();
        open(&scratch).unwrap();
    }
}

#[test]
fn an_interrupted_first_start_is_finished() {
    let scratch = Scratch::new();
    drop(open(&scratch).unwrap());
    fs::remove_file(scratch.join("IDENTITY")).unwrap();
    fs::write(scratch.join("IDENTITY.tmp"), "half").unwrap();
    open(&scratch).unwrap();
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let scratch = Scratch::new();
    fs::write(scratch.join("file"), "").unwrap();
    for path in [scratch.join("file"), scratch.join("file/below"), PathBuf::from("/proc/no/such")] {
        let text = refusal(&path);
        assert!(text.contains(&path.display().to_string()) && text.contains("choose another"), "{text}");
    }
}

#[test]
fn the_self_check_measures() {
    let scratch = Scratch::new();
    let check = SelfCheck::run(&scratch).unwrap();
    assert!(check.space.total >= check.space.available && check.space.available > 0);
    assert!(check.sync.max >= check.sync.p50 && check.sync.p50 > Duration::ZERO);
    assert!(check.files.hard >= check.files.soft);
    assert_eq!(fs::read_dir(&*scratch).unwrap().count(), 0, "leaves nothing behind");
    let poor = SelfCheck {
        space: crate::storage::FreeSpace { available: 1 << 20, total: 1 << 40 },
        sync: crate::storage::SyncLatency { p50: Duration::from_millis(40), max: Duration::from_millis(90) },
        files: crate::storage::FileLimit { soft: 1024, hard: 4096 },
    };
    let warnings: Vec<String> = poor.warnings().collect();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
}

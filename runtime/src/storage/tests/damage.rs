//! Damaged files: acknowledged data is never dropped without a word, and what was never acknowledged keeps nobody from
//! starting.

use super::*;

const ROWS: usize = 200;

fn name(n: usize) -> String {
    format!("key{n:04}")
}

fn content(n: usize) -> Vec<u8> {
    (0..700).map(|i| (n * 31 + i) as u8).collect()
}

/// A closed store with a WAL of several blocks, one batch for each row; gives the WAL that holds them.
fn filled(path: &Path) -> PathBuf {
    let mut world = World::start(path);
    for n in 0..ROWS {
        world.persist(0, put(&name(n), &content(n))).unwrap();
    }
    world.close().unwrap();
    let wal = wals(path).pop().unwrap();
    assert!(fs::metadata(&wal).unwrap().len() > 4 * 32 * 1024);
    wal
}

fn wals(path: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(path.join("db")).unwrap().map(|e| e.unwrap().path());
    let mut wals: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "log")).collect();
    wals.sort();
    wals
}

fn start(path: &Path) -> Result<World, OpenError> {
    World::open(path, StorageOptions::default())
}

fn refusal(path: &Path) -> String {
    start(path).err().expect("refused").to_string()
}

fn assert_whole(world: &mut World) {
    for n in 0..ROWS {
        assert_eq!(world.value(&name(n)).as_deref(), Some(&content(n)[..]), "row {n}");
    }
}

fn assert_says_what_to_do(text: &str) {
    for part in ["damaged", "In a cluster: move the folder away", "restore the last backup"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Copies a folder of the tests: few files, one level of folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn a_wal_that_ends_below_the_floor_is_refused() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    let bytes = fs::read(&wal).unwrap();
    // In the middle of a record, and between two.
    for len in [bytes.len() - 100, bytes.len() / 2, 0] {
        let case = Scratch::new();
        copy(&scratch, &case);
        let cut = case.join("db").join(wal.file_name().unwrap());
        fs::write(&cut, &bytes[..len]).unwrap();
        for _ in 0..2 {
            let text = refusal(&case);
            assert_says_what_to_do(&text);
            assert!(text.contains("200"), "names the floor: {text}");
        }
        if len == bytes.len() - 100 {
            assert!(fs::read(&cut).unwrap() == bytes[..len], "the evidence was changed");
        }
    }
}

#[test]
fn deleting_the_floor_accepts_the_loss() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    let bytes = fs::read(&wal).unwrap();
    fs::write(&wal, &bytes[..0]).unwrap();
    let text = refusal(&scratch);
    let floor = scratch.join("floor");
    assert!(text.contains(&format!("delete {}", floor.display())), "{text}");
    fs::remove_file(&floor).unwrap();
    start(&scratch).unwrap().close().unwrap();
}

#[test]
fn a_lost_wal_is_refused() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    fs::remove_file(wal).unwrap();
    assert_says_what_to_do(&refusal(&scratch));
}

#[test]
fn a_lost_database_is_refused() {
    let scratch = Scratch::new();
    filled(&scratch);
    fs::remove_dir_all(scratch.join("db")).unwrap();
    assert_says_what_to_do(&refusal(&scratch));
}

/// What a power cut may leave of a batch whose sync did not return: part of it, or its length without its content.
#[test]
fn a_torn_tail_is_cut_off() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    let bytes = fs::read(&wal).unwrap();
    let record = &bytes[..760];
    let mut zeros_inside = record.to_vec();
    zeros_inside[300..].fill(0);
    // Longer than a block: its first part is whole, the second one is not.
    let long = first_part(32 * 1024 - bytes.len() % (32 * 1024) - 7);
    let tails = [
        vec![0x55; 3],
        record[..300].to_vec(),
        zeros_inside,
        vec![0; 5_000],
        vec![0; 100_000],
        long.clone(),
        [long, vec![7; 500]].concat(),
    ];
    for (n, tail) in tails.into_iter().enumerate() {
        let case = Scratch::new();
        copy(&scratch, &case);
        let torn = case.join("db").join(wal.file_name().unwrap());
        fs::write(&torn, [&bytes[..], &tail].concat()).unwrap();
        let mut world = start(&case).unwrap_or_else(|e| panic!("tail {n}: {e}"));
        assert_whole(&mut world);
        world.persist(0, put("more", b"v")).unwrap();
        drop(world);
        let mut world = start(&case).unwrap();
        assert_whole(&mut world);
        assert!(world.value("more").is_some());
    }
}

/// A first part of a batch that fills the rest of a block, whole in itself.
fn first_part(len: usize) -> Vec<u8> {
    let mut checked = vec![2];
    checked.extend_from_slice(&(ROWS as u64 + 1).to_le_bytes());
    checked.resize(1 + len, 1);
    let crc = crate::storage::wal::crc32c(&checked).rotate_right(15).wrapping_add(0xa282_ead8);
    [&crc.to_le_bytes()[..], &(len as u16).to_le_bytes(), &checked].concat()
}

#[test]
fn damage_in_the_middle_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    let good = fs::read(&wal).unwrap();
    let floor = scratch.join("floor");
    let old_floor = {
        let other = Scratch::new();
        start(&other).unwrap().close().unwrap();
        fs::read(other.join("floor")).unwrap()
    };
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 5] = [
        ("a flipped bit", |b| b[40_000] ^= 1),
        ("a lost page", |b| b[40_960..45_056].fill(0)),
        ("a lost block", |b| b[32_768..65_536].fill(0)),
        ("a block in another's place", |b| b.copy_within(32_768..65_536, 65_536)),
        // RocksDB alone takes these for a torn tail.
        ("a flipped bit near the end", |b| {
            let at = b.len() - 2_000;
            b[at] ^= 1;
        }),
    ];
    for (what, damage) in damage {
        let mut bad = good.clone();
        damage(&mut bad);
        fs::write(&wal, &bad).unwrap();
        // Also when the floor is old, as after a power cut: good records behind the damage tell.
        for floor in [fs::read(&floor).unwrap(), old_floor.clone()] {
            fs::write(scratch.join("floor"), floor).unwrap();
            let text = refusal(&scratch);
            assert_says_what_to_do(&text);
            assert!(text.contains(wal.file_name().unwrap().to_str().unwrap()), "{what}: {text}");
            assert!(fs::read(&wal).unwrap() == bad, "{what}: the evidence was changed");
        }
    }
    fs::write(&wal, good).unwrap();
    assert_whole(&mut start(&scratch).unwrap());
}

/// The whole promise in one test: after any single flipped bit of the WAL the store refuses, or has every row.
#[test]
fn no_flipped_bit_loses_a_row_without_a_word() {
    let scratch = Scratch::new();
    let wal = filled(&scratch);
    let good = fs::read(&wal).unwrap();
    let mut rng = Rng(3);
    // Headers are where it is hard: the first record's, and those behind each block boundary.
    let headers = (0..7).chain((1..4).flat_map(|b| (0..7).map(move |i| b * 32_768 + i)));
    let places: Vec<usize> = headers.chain((0..40).map(|_| rng.below(good.len() as u64) as usize)).collect();
    for at in places {
        let mut bad = good.clone();
        bad[at] ^= 1 << rng.below(8);
        fs::write(&wal, bad).unwrap();
        match start(&scratch) {
            Err(e) => assert_says_what_to_do(&e.to_string()),
            Ok(_) => panic!("byte {at} was flipped, and nobody noticed"),
        }
    }
}

#[test]
fn the_floor_survives_one_bad_copy_and_reports_two() {
    let scratch = Scratch::new();
    filled(&scratch);
    let floor = scratch.join("floor");
    let good = fs::read(&floor).unwrap();
    for slot in [0, 4096] {
        let mut bad = good.clone();
        bad[slot + 6] ^= 1;
        fs::write(&floor, &bad).unwrap();
        let read = crate::storage::floor::Floor::open(&floor).unwrap().seq();
        assert!(read == ROWS as u64 || read == ROWS as u64 - 1, "{read}");
    }
    for bad in [vec![], vec![0; 10], vec![0xff; 8192]] {
        fs::write(&floor, bad).unwrap();
        let text = refusal(&scratch);
        assert_says_what_to_do(&text);
        assert!(text.contains("delete"), "{text}");
    }
}

#[test]
fn damaged_files_of_the_database_are_refused() {
    let scratch = Scratch::new();
    filled(&scratch);
    for file in fs::read_dir(scratch.join("db")).unwrap().map(|e| e.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        if name != "CURRENT" && !name.starts_with("MANIFEST") {
            continue;
        }
        let good = fs::read(&file).unwrap();
        for bad in [vec![], b"nonsense\n".to_vec(), vec![0; good.len()]] {
            fs::write(&file, bad).unwrap();
            let text = refusal(&scratch);
            assert!(text.contains("restore"), "{name}: {text}");
        }
        fs::write(&file, good).unwrap();
    }
    assert_whole(&mut start(&scratch).unwrap());
}

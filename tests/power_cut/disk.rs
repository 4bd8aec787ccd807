//! What a power cut leaves of a data directory, after the log of `shim/power_cut.c`.
//!
//! Every file is cut to the length it had when its last sync began; one that was never synced becomes empty. A file whose
//! name was not yet in its folder when that folder was last synced is gone altogether, as POSIX allows, and so are folders.
//! Not modelled: data written over older data in place (only the server's `floor` does that, and its content is
//! checksummed), and deleted files that come back.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

/// Inode and time of birth.
type Key = (u64, u64);

/// The preloaded library, compiled on first use.
///
/// # Panics
/// There is no C compiler, or it does not like the source.
pub fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(compile)
}

fn compile() -> PathBuf {
    let source = wukong_tests::workspace_root().join("tests/shim/power_cut.c");
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power_cut.so");
    let aside = library.with_extension(format!("{}.so", std::process::id()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let out = Command::new(&compiler)
        .args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
        .arg(&aside)
        .arg(&source)
        .output()
        .unwrap_or_else(|e| panic!("the C compiler '{compiler}' does not start ({e}): apt-get install gcc, or set CC"));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    fs::rename(&aside, &library).expect("the library gets its name");
    library
}

/// What the cut took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cut {
    pub bytes: u64,
    pub files_cut: usize,
    pub files_gone: usize,
}

#[derive(Debug, Default)]
struct Synced {
    lengths: HashMap<Key, u64>,
    names: HashMap<Key, HashSet<String>>,
}

fn parse(log: &str) -> Synced {
    let mut synced = Synced::default();
    for line in log.lines() {
        let mut names = line.split('\t');
        let mut words = names.next().unwrap_or_default().split(' ');
        let kind = words.next();
        let _device = words.next();
        let inode = words.next().and_then(|w| w.parse().ok());
        let birth = words.next().and_then(|w| w.replace('.', "").parse().ok());
        let (Some(inode), Some(birth)) = (inode, birth) else {
            panic!("a line of the shim's log is not understood: {line:?}");
        };
        if kind == Some("D") {
            synced.names.insert((inode, birth), names.map(str::to_owned).collect());
        } else {
            let length = words.next().and_then(|w| w.parse().ok()).expect("a length");
            synced.lengths.insert((inode, birth), length);
        }
    }
    synced
}

/// Cuts everything below `folder`, whose own name counts as safe.
///
/// # Panics
/// The file system does not do what it is told, or knows no time of birth.
pub fn cut(folder: &Path, log: &Path) -> Cut {
    let log = fs::read(log).expect("the shim wrote its log");
    let mut done = Cut::default();
    cut_folder(folder, &parse(&String::from_utf8_lossy(&log)), &mut done);
    done
}

fn cut_folder(folder: &Path, synced: &Synced, done: &mut Cut) {
    let names = synced.names.get(&key(folder));
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().expect("a type").is_dir();
        if !names.is_some_and(|names| names.contains(&name)) {
            done.files_gone += 1;
            let gone = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.expect("a file is removed");
        } else if is_dir {
            cut_folder(&path, synced, done);
        } else {
            let length = entry.metadata().expect("a size").len();
            let safe = synced.lengths.get(&key(&path)).copied().unwrap_or(0);
            if safe < length {
                done.bytes += length - safe;
                done.files_cut += 1;
                File::options().write(true).open(&path).and_then(|f| f.set_len(safe)).expect("a file is cut");
            }
        }
    }
}

fn key(path: &Path) -> Key {
    let meta = fs::metadata(path).expect("it is there");
    let birth = meta.created().expect("this file system knows when a file was made");
    let birth = birth.duration_since(UNIX_EPOCH).expect("after 1970");
    (meta.ino(), birth.as_nanos() as u64)
}

#[test]
fn the_cut_keeps_what_was_synced() {
    let dir = wukong_tests::support::TempDir::new();
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    fs::create_dir_all(data.join("db")).unwrap();
    for (name, text) in [("whole", "12345"), ("tail", "12345"), ("never", "12345"), ("db/new", "12345")] {
        fs::write(data.join(name), text).unwrap();
    }
    let line = |kind: &str, path: &str, rest: &str| {
        let (inode, birth) = key(&data.join(path));
        format!("{kind} 254:0 {inode} {}.{:09}{rest}\n", birth / 1_000_000_000, birth % 1_000_000_000)
    };
    let text = [
        line("F", "tail", " 4"),
        line("F", "whole", " 5"),
        line("F", "db/new", " 5"),
        line("D", "", "\twhole"),
        line("F", "tail", " 3"),
        line("D", "", "\twhole\ttail\tnever\tdb"),
        line("D", "db", ""),
    ];
    fs::write(&log, text.concat()).unwrap();
    let done = cut(&data, &log);
    assert_eq!((done.bytes, done.files_cut, done.files_gone), (7, 2, 1));
    let read = |name: &str| fs::read_to_string(data.join(name)).unwrap();
    assert_eq!([read("whole"), read("tail"), read("never")], ["12345", "123", ""]);
    assert!(!data.join("db/new").exists() && data.join("db").is_dir());
}

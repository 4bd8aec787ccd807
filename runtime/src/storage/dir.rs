//! The data directory: whose it is, that only one process has it, and how often it was opened.
//!
//! ```text
//! LOCK          held by flock as long as the process lives; its text is the holder's pid
//! IDENTITY      format, cluster id, node id, store id; written once
//! INCARNATION   count of opens, raised durably before anything else happens (cluster-and-raft P8)
//! floor         what is known to be synced (floor.rs)
//! db/           RocksDB
//! ```

use super::error::OpenError;
use super::file;
use rustix::fs::FlockOperation;
use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use wukong_core::ids::{Incarnation, NodeId, StoreId};

const FORMAT: u32 = 1;
const TITLE: &str = "wukongim data directory";
const IDENTITY: &str = "IDENTITY";
const INCARNATION: &str = "INCARNATION";

/// The cluster that a store belongs to: given by the operator, or random and made with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u128);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Whose data this is. Written once, when the directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub store: StoreId,
}

/// A data directory that this process holds: the lock ends when it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    incarnation: Incarnation,
    _lock: File,
}

impl DataDir {
    /// Takes the directory for `node`, making it when there is none, and raises the incarnation. A new one belongs to
    /// `cluster`, or to one of its own.
    ///
    /// # Errors
    /// It is held by another process, belongs to another node or cluster, has another format, or cannot be read or written.
    pub fn open(path: &Path, node: NodeId, cluster: Option<ClusterId>) -> Result<Self, OpenError> {
        make(path)?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) => identity,
            None => create(path, node, cluster)?,
        };
        if identity.node != node {
            return Err(OpenError::OtherNode { path: path.to_path_buf(), stored: identity.node, asked: node });
        }
        if let Some(asked) = cluster.filter(|asked| *asked != identity.cluster) {
            return Err(OpenError::OtherCluster { path: path.to_path_buf(), stored: identity.cluster, asked });
        }
        let incarnation = Incarnation(read_incarnation(path)? + 1);
        write_incarnation(path, incarnation.0)?;
        Ok(Self { path: path.to_path_buf(), identity, incarnation, _lock: lock })
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// How often this directory was opened, this time included.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(super) fn db(&self) -> PathBuf {
        self.path.join("db")
    }

    pub(super) fn floor(&self) -> PathBuf {
        self.path.join("floor")
    }
}

fn make(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    let make = || {
        // Messages are private: nobody else's business.
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => file::sync_dir(parent),
            _ => Ok(()),
        }
    };
    make().map_err(OpenError::io(format!("create the data directory {}", path.display())))
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join("LOCK");
    let doing = || format!("lock {}", path.display());
    let mut options = File::options();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(OpenError::io(doing()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // The pid is only there to help; without it the message is still true.
            let _ = file.read_to_string(&mut text);
            let holder = text.strip_prefix("pid ").and_then(|t| t.trim().parse().ok());
            return Err(OpenError::Locked { path: dir.to_path_buf(), holder });
        }
        Err(e) => return Err(OpenError::io(doing())(e.into())),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(format!("pid {}\n", std::process::id()).as_bytes()))
        .map_err(OpenError::io(doing()))?;
    Ok(file)
}

fn create(path: &Path, node: NodeId, cluster: Option<ClusterId>) -> Result<Identity, OpenError> {
    if path.join("db").exists() {
        return Err(OpenError::BadFile {
            path: path.join(IDENTITY),
            why: "it is missing, but there is a database beside it".to_owned(),
        });
    }
    let cluster = match cluster {
        Some(cluster) => cluster,
        None => ClusterId(random()?),
    };
    let identity = Identity { cluster, node, store: StoreId(random()?) };
    // IDENTITY last: it says that the directory is complete.
    write_incarnation(path, 0)?;
    let Identity { cluster, node, store } = identity;
    let body = format!("{TITLE}\nformat {FORMAT}\ncluster {cluster}\nnode {node}\nstore {:032x}\n", store.0);
    file::replace(path, IDENTITY, file::seal(&body).as_bytes())?;
    Ok(identity)
}

fn random() -> Result<u128, OpenError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| OpenError::io("get random numbers from the operating system")(io::Error::other(e.to_string())))?;
    Ok(u128::from_be_bytes(bytes))
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, OpenError> {
    let path = dir.join(IDENTITY);
    let bad = |why: String| OpenError::BadFile { path: path.clone(), why };
    let Some(text) = file::read_sealed(&path)? else {
        return Ok(None);
    };
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(bad(format!("its first line is not \"{TITLE}\"")));
    }
    // The format comes first: a later version may have other lines behind it.
    let mut field = |name: &str| {
        let value = lines.next().and_then(|l| l.strip_prefix(name)).map(str::trim);
        value.map(str::to_owned).ok_or_else(|| bad(format!("it lacks the line \"{name}\"")))
    };
    let format = field("format")?;
    if format != FORMAT.to_string() {
        return Err(OpenError::OtherFormat { path: dir.to_path_buf(), stored: format, known: FORMAT });
    }
    let wide = |text: String| u128::from_str_radix(&text, 16).map_err(|_| bad(format!("\"{text}\" is not an id")));
    let cluster = ClusterId(wide(field("cluster")?)?);
    let node = field("node")?;
    let node = NodeId(node.parse().map_err(|_| bad(format!("\"{node}\" is not a node id")))?);
    let store = StoreId(wide(field("store")?)?);
    Ok(Some(Identity { cluster, node, store }))
}

fn read_incarnation(dir: &Path) -> Result<u64, OpenError> {
    let path = dir.join(INCARNATION);
    let bad = |why: &str| OpenError::BadFile { path: path.clone(), why: why.to_owned() };
    let text = file::read_sealed(&path)?.ok_or_else(|| bad("it is missing"))?;
    text.trim().parse().map_err(|_| bad("it does not hold a number"))
}

fn write_incarnation(dir: &Path, value: u64) -> Result<(), OpenError> {
    file::replace(dir, INCARNATION, file::seal(&format!("{value}\n")).as_bytes())
}

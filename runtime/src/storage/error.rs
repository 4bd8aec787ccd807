//! What can keep a data directory from being opened. Every message says what to do.

use super::dir::ClusterId;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use wukong_core::ids::NodeId;

/// Why the storage does not start. `Display` gives the cause and the remedy.
#[derive(Debug)]
pub enum OpenError {
    /// The operating system refused something.
    Io { doing: String, error: io::Error },
    /// Another process has the directory.
    Locked { path: PathBuf, holder: Option<u32> },
    /// The directory belongs to another node.
    OtherNode { path: PathBuf, stored: NodeId, asked: NodeId },
    /// The directory belongs to another cluster.
    OtherCluster { path: PathBuf, stored: ClusterId, asked: ClusterId },
    /// Written by a version that this one cannot read.
    OtherFormat { path: PathBuf, stored: String, known: u32 },
    /// A small file that says whose the data is cannot be understood.
    BadFile { path: PathBuf, why: String },
    /// Acknowledged data is missing or altered. `accept` is what accepts the loss, where that is possible at all.
    Damaged { path: PathBuf, why: String, accept: Option<String> },
    /// RocksDB does not open for another reason.
    Rocks { path: PathBuf, why: String },
}

impl OpenError {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |error| Self::Io { doing, error }
    }

    pub(super) fn damaged(path: &Path, why: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), why: why.into(), accept: None }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { doing, error } => {
                write!(f, "cannot {doing}: {error}.")?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str(" Give the user that runs the server the right to write there, or choose another data directory.")
                    }
                    io::ErrorKind::StorageFull => f.write_str(" Free some space on that disk, then start again."),
                    io::ErrorKind::ReadOnlyFilesystem => {
                        f.write_str(" Mount that disk for writing (a disk error may have made it read-only), or choose another data directory.")
                    }
                    _ => f.write_str(" If the disk is failing, the system log says so; otherwise choose another data directory."),
                }
            }
            Self::Locked { path, holder } => {
                write!(f, "the data directory {} is in use by ", path.display())?;
                match holder {
                    Some(pid) => write!(f, "process {pid}. Stop that process")?,
                    None => f.write_str("another process. Stop that process")?,
                }
                f.write_str(", or give this node a data directory of its own. (The lock ends with its process; nothing needs to be deleted.)")
            }
            Self::OtherNode { path, stored, asked } => write!(
                f,
                "the data directory {} belongs to node {stored}, but this node is configured as node {asked}. \
                 Set the node id to {stored}, or give node {asked} a data directory of its own.",
                path.display()
            ),
            Self::OtherCluster { path, stored, asked } => write!(
                f,
                "the data directory {} belongs to cluster {stored}, but this node is configured for cluster {asked}. \
                 Start it with --cluster-id {stored}, or give it an empty data directory.",
                path.display()
            ),
            Self::OtherFormat { path, stored, known } => write!(
                f,
                "the data directory {} has format {stored}; this version reads format {known}. \
                 Start it with the version that wrote it, or a later one.",
                path.display()
            ),
            Self::BadFile { path, why } => write!(
                f,
                "{} cannot be used: {why}. Restore this file from a copy of the data directory. Without one the store counts as \
                 lost: move the data directory away and start with an empty one; in a cluster the node then joins anew and \
                 fetches its data from the others, a node that is alone needs its last backup.",
                path.display()
            ),
            Self::Damaged { path, why, accept } => {
                write!(
                    f,
                    "the data in {} is damaged: {why}. The node does not start, because it could deny what it has acknowledged. \
                     Keep a copy of the folder and check the disk. In a cluster: move the folder away and start with an empty \
                     one; the node joins anew and fetches its data from the others. A node that is alone: restore the last backup.",
                    path.display()
                )?;
                match accept {
                    Some(how) => write!(
                        f,
                        " Only if this node is alone and the loss of its newest messages is acceptable: {how}."
                    ),
                    None => Ok(()),
                }
            }
            Self::Rocks { path, why } => write!(
                f,
                "the database in {} does not open: {why}. If this names a missing or changed file, restore the folder from a \
                 copy; if it names a limit (files, memory, space), raise it and start again.",
                path.display()
            ),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

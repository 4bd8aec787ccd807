//! The flight recorder: writes what enters each shard, so that `sim replay FILE` can run it again.
//!
//! `--record DIR` makes a folder `DIR/run-<incarnation>` for each start, with one `flight-<shard>.rec` per shard (format:
//! `wukong_core::flight`) and `recorder.key`, the 32 bytes (in hex) that the secrets of these files are sealed with: a
//! recording without its key does not give the server's session keys away, but cannot be replayed either. What clients
//! and back ends sent is in clear, so all files have mode 0600.
//!
//! An input is written before the shard sees it: should the shard panic on it, it is in the file. When writing fails
//! the recording ends, not the server.

#[cfg(test)]
mod tests;

use crate::reactor::machine::{Machine, MachineState, Sample};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wukong_core::flight::{Encoder, Header, OutputHash, SealKey};
use wukong_core::ids::{ConnId, Incarnation};
use wukong_core::time::{Instant, Now};
use wukong_core::{Input, Output};

pub const KEY_FILE: &str = "recorder.key";

/// The recordings of one start.
pub struct Recorder {
    folder: PathBuf,
    key: SealKey,
}

impl Recorder {
    /// Makes the folder of this start, and its key.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn create(parent: &Path, incarnation: Incarnation) -> io::Result<Self> {
        let folder = parent.join(format!("run-{incarnation}"));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
        let hex: String = key.iter().map(|b| format!("{b:02x}")).collect();
        new_file(&folder.join(KEY_FILE))?.write_all(format!("{hex}\n").as_bytes())?;
        Ok(Self { folder, key: SealKey(key) })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins the recording of one shard.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, header: &Header) -> io::Result<Tape> {
        let path = self.folder.join(format!("flight-{}.rec", header.config.shard));
        let mut bytes = Vec::new();
        let encoder = Encoder::begin(header, &self.key, &mut bytes);
        let mut file = new_file(&path)?;
        file.write_all(&bytes)?;
        bytes.clear();
        Ok(Tape { path, file: Some(file), encoder, bytes })
    }
}

/// A recording is never written over: what stands there was made by another start.
fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

/// The file of one shard.
pub struct Tape {
    path: PathBuf,
    /// None after a write failed.
    file: Option<File>,
    encoder: Encoder,
    bytes: Vec<u8>,
}

impl Tape {
    fn write(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(e) = file.write_all(&self.bytes)
        {
            tracing::error!("the flight recording {} ends here: {e}", self.path.display());
            self.file = None;
        }
        self.bytes.clear();
    }
}

/// A machine whose inputs and outputs are recorded.
pub struct Recorded<M> {
    machine: M,
    tape: Tape,
    hash: OutputHash,
    /// Inputs or outputs since the last end of a drain.
    open: bool,
}

impl<M: Machine> Recorded<M> {
    #[must_use]
    pub fn new(machine: M, tape: Tape) -> Self {
        // What the machine wants at its start comes with the first drain.
        Self { machine, tape, hash: OutputHash::default(), open: true }
    }
}

impl<M: Machine> Machine for Recorded<M> {
    fn handle(&mut self, now: Now, input: Input) {
        self.tape.encoder.input(now, &input, &mut self.tape.bytes);
        self.tape.write();
        self.open = true;
        self.machine.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        let output = self.machine.poll_output();
        match &output {
            Some(output) => {
                self.open = true;
                self.hash.add(output);
            }
            None if self.open => {
                self.open = false;
                let hash = std::mem::take(&mut self.hash).finish();
                self.tape.encoder.drained(hash, &mut self.tape.bytes);
                self.tape.write();
            }
            None => {}
        }
        output
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn wants_input(&self) -> bool {
        self.machine.wants_input()
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        self.machine.wants_bytes(conn)
    }

    fn state(&self) -> MachineState {
        self.machine.state()
    }

    fn sample(&self) -> Sample {
        self.machine.sample()
    }
}

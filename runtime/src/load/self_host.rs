//! A server of our own for the length of a run: this very program, on free ports, with a data directory of its own.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::client::http::Http;
use crate::client::random;

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running server. Dropping it ends the server and removes its data.
pub struct SelfHost {
    child: Child,
    dir: PathBuf,
    keep: bool,
    /// Where clients connect over TCP, over WebSocket, and where the API is.
    pub tcp: SocketAddr,
    pub ws: SocketAddr,
    pub http: SocketAddr,
}

/// How to start it.
pub struct Start<'a> {
    /// The program; this one if none.
    pub program: Option<&'a Path>,
    /// More arguments of `run`.
    pub args: &'a [String],
    /// Where to put the data directory.
    pub parent: &'a Path,
    /// The processor to keep the server on.
    pub cpu: Option<usize>,
    pub token_auth: bool,
}

impl SelfHost {
    /// Starts a server and waits until it serves.
    ///
    /// # Errors
    /// It does not come up; the text holds the end of what it printed.
    pub fn start(start: &Start<'_>) -> Result<SelfHost, String> {
        let program = match start.program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?,
        };
        let dir = start.parent.join(format!("wukongim-bench-{:08x}", u32::from_be_bytes(random())));
        let made = |e: io::Error| format!("cannot write to {} (choose another with --data-dir): {e}", dir.display());
        fs::create_dir_all(&dir).map_err(made)?;
        let log = File::create(dir.join("server.log")).map_err(made)?;
        let [tcp, ws, http] = free_ports().map_err(|e| format!("no free ports on 127.0.0.1: {e}"))?;

        let mut command = Command::new(&program);
        command.arg("run").args(start.args);
        for (name, _) in std::env::vars_os() {
            // What is configured for another server must not reach this one.
            if name.to_string_lossy().starts_with("WK_") {
                command.env_remove(name);
            }
        }
        command
            .env("WK_DATADIR", dir.join("data"))
            .env("WK_ADDR", format!("tcp://{tcp}"))
            .env("WK_WSADDR", format!("ws://{ws}"))
            .env("WK_HTTPADDR", http.to_string())
            .env("WK_TOKENAUTHON", start.token_auth.to_string())
            .env("WK_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(made)?)
            .stderr(log);
        // The child inherits where this process may run, so that all its threads are bound from the start.
        if let Some(cpu) = start.cpu {
            pin(cpu)?;
        }
        let child = command.spawn().map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let mut host = SelfHost { child, dir, keep: false, tcp, ws, http };
        host.wait()?;
        Ok(host)
    }

    fn wait(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_MAX;
        let mut api = Http::new(&self.http.to_string());
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended at once ({status}). It said:\n{}", self.said()));
            }
            if TcpStream::connect(self.tcp).is_ok() && api.get("/health").is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let most = START_MAX.as_secs();
                return Err(format!("the server does not serve after {most} s. It said:\n{}", self.said()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of what the server printed.
    #[must_use]
    pub fn said(&self) -> String {
        let text = fs::read(self.dir.join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned()
    }

    /// The server's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Leaves data and log in place, and returns where.
    pub fn keep(&mut self) -> &Path {
        self.keep = true;
        &self.dir
    }

    /// Bytes of all files of the data directory, as allocated on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        disk_bytes(&self.dir)
    }

    /// Asks the server to end, and waits for it.
    ///
    /// # Errors
    /// It has to be killed, or ends with a failure.
    pub fn stop(&mut self) -> Result<(), String> {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!("the server ended with {status}. It said:\n{}", self.said()));
                }
                Err(e) => return Err(format!("the server cannot be waited for: {e}")),
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        Err(format!("the server had to be killed {} s after SIGTERM", STOP_MAX.as_secs()))
    }
}

impl Drop for SelfHost {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !self.keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// Keeps this thread, and what it starts from now on, on one processor.
///
/// # Errors
/// There is no such processor.
pub fn pin(cpu: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(format!("there is no processor {cpu}"));
    }
    set.set(cpu);
    sched_setaffinity(None, &set).map_err(|e| format!("cannot run on processor {cpu} alone: {e}"))
}

/// Allows this process as many open files as it may have.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Above the hard limit only root may go; try, as far as the kernel allows at all.
    for maximum in [Some(1_048_576), limit.maximum] {
        let wanted = maximum.max(limit.maximum);
        if setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted }).is_ok() {
            break;
        }
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn free_ports() -> io::Result<[SocketAddr; 3]> {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0"));
    let [a, b, c] = listeners;
    let (a, b, c) = (a?, b?, c?);
    Ok([a.local_addr()?, b.local_addr()?, c.local_addr()?])
}

fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

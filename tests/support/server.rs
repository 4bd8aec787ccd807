//! The real server as a child process.

use super::ports::Port;
use super::{Api, Ports, TempDir};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(20);
const STOP_MAX: Duration = Duration::from_secs(15);
const LOG_TAIL: usize = 6_000;

/// How to start a server, beyond what every test wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More arguments of `wukongim run`.
    pub args: Vec<OsString>,
    /// More environment.
    pub env: Vec<(String, OsString)>,
    /// What to run the server under: a program and its own arguments, the server's command line follows.
    pub under: Vec<OsString>,
}

impl Options {
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Options {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Options {
        self.env.push((name.to_owned(), value.into()));
        self
    }
}

/// A server on ports and in a data directory of its own. Ends with its owner.
#[derive(Debug)]
pub struct Server {
    dir: TempDir,
    ports: Ports,
    options: Options,
    child: Option<Child>,
    pid: u32,
}

impl Server {
    /// Starts a server and waits until it says that it serves.
    ///
    /// # Panics
    /// It does not within 20 s; what it printed is printed.
    #[must_use]
    pub fn start(options: Options) -> Server {
        let mut server = Server { dir: TempDir::new(), ports: Ports::claim(), options, child: None, pid: 0 };
        server.launch();
        server
    }

    /// Starts it again on the same ports and data.
    ///
    /// # Panics
    /// It still runs, or does not come up.
    pub fn launch(&mut self) {
        if let Err(why) = self.try_launch() {
            panic!("{why}\n{}", self.log_tail());
        }
    }

    /// The same, telling why it does not come up.
    ///
    /// # Errors
    /// It ended, or is not ready within 20 s.
    ///
    /// # Panics
    /// It still runs.
    pub fn try_launch(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "the server still runs");
        let _ = fs::remove_file(self.ready_file());
        self.pid = 0;
        let mut command = self.command();
        self.child = Some(command.spawn().map_err(|e| format!("cannot start {command:?}: {e}"))?);
        let deadline = Instant::now() + START_MAX;
        while !self.ready_file().exists() {
            let child = self.child.as_mut().expect("just started");
            if let Ok(Some(status)) = child.try_wait() {
                self.child = None;
                return Err(format!("the server ended before it was ready: {status}"));
            }
            if Instant::now() > deadline {
                return Err(format!("the server is not ready after {START_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Run under another program, the server is not our own child.
        let said = fs::read_to_string(self.ready_file()).unwrap_or_default();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let pid = said["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        self.pid = pid.ok_or_else(|| format!("the ready file names no pid: {said}"))?;
        Ok(())
    }

    fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log file");
        let run = [OsString::from("run"), "--ready-file".into(), self.ready_file().into()];
        let line: Vec<OsString> = self
            .options
            .under
            .iter()
            .cloned()
            .chain([crate::server_binary().into_os_string()])
            .chain(run)
            .chain(self.options.args.iter().cloned())
            .collect();
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]);
        configure(&mut command, self.dir.path(), &self.ports);
        command.envs(self.options.env.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command
    }

    /// Ends it at once, as a crash of the process would. The page cache survives that.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(self.pid, Signal::KILL);
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop and waits.
    ///
    /// # Panics
    /// It does not stop within 15 s.
    pub fn sigterm(&mut self) -> ExitStatus {
        signal(self.pid, Signal::TERM);
        self.wait_exit()
    }

    /// Waits until it ends of its own accord.
    ///
    /// # Panics
    /// It does not end within 15 s.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the server runs");
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                return status;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                panic!("the server does not end within {STOP_MAX:?}\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// kill -9, then a new start.
    pub fn restart(&mut self) {
        self.kill9();
        self.launch();
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Of the server itself, whatever it runs under.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    #[must_use]
    pub fn tcp(&self) -> String {
        address(&self.ports.tcp)
    }

    #[must_use]
    pub fn ws(&self) -> String {
        address(&self.ports.ws)
    }

    #[must_use]
    pub fn http(&self) -> String {
        address(&self.ports.http)
    }

    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.http())
    }

    /// The folder that holds everything of this server.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    #[must_use]
    pub fn ready_file(&self) -> PathBuf {
        self.dir.path().join("ready")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// All that the server printed.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let from = (log.len().saturating_sub(LOG_TAIL)..).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
        format!("--- the end of what the server printed:\n{}\n---", &log[from..])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        self.kill9();
    }
}

/// Tells a server by its environment where to be, and hides what was meant for another one.
pub fn configure(command: &mut Command, dir: &Path, ports: &Ports) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WK_") {
            command.env_remove(name);
        }
    }
    command
        .env("WK_ROOTDIR", dir)
        .env("WK_DATADIR", data_dir(dir))
        .env("WK_ADDR", format!("tcp://{}", address(&ports.tcp)))
        .env("WK_WSADDR", format!("ws://{}", address(&ports.ws)))
        .env("WK_HTTPADDR", address(&ports.http))
        .env("WK_EXTERNAL_IP", "127.0.0.1");
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn address(port: &Port) -> String {
    format!("127.0.0.1:{}", port.number())
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

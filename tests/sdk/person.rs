//! A user of the published SDK: a Node process around `driver.mjs`.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use wukong_tests::support::{Account, Sent, TempDir, wait_for};

/// The SDK tries again 3 s after a loss; the rest is for a busy machine.
pub const RECONNECT_MAX: Duration = Duration::from_secs(12);

/// A message as the SDK hands it to the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub from: String,
    pub id: i64,
    pub seq: u64,
    pub client_msg_no: String,
    pub text: String,
}

impl Received {
    pub fn parse(event: &Value) -> Received {
        let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("no {name} in {event}")).to_owned();
        Received {
            from: text("from"),
            id: text("id").parse().expect("a number"),
            seq: event["seq"].as_u64().expect("a seq"),
            client_msg_no: text("clientMsgNo"),
            text: text("text"),
        }
    }
}

/// What the process told so far.
#[derive(Default)]
pub struct Told {
    pub account: Account,
    by_client_seq: HashMap<u64, usize>,
    pub received: Vec<Received>,
    /// 0 closed, 1 connected, 3 refused, 4 kicked; and the reason code of the server.
    pub statuses: Vec<(i64, i64, Instant)>,
    answers: Vec<Value>,
    /// Messages that were first refused because the SDK had no keys yet.
    pub stale: usize,
    pub faults: Vec<String>,
}

impl Told {
    pub fn connected(&self) -> bool {
        self.statuses.last().is_some_and(|s| s.0 == 1)
    }

    /// How often a connection was made.
    pub fn connects(&self) -> usize {
        self.statuses.iter().filter(|s| s.0 == 1).count()
    }

    fn hear(&mut self, event: Value) {
        let number = |name: &str| event[name].as_i64().unwrap_or(-1);
        match event["event"].as_str() {
            Some("sent") => {
                let text = |name: &str| event[name].as_str().expect("a text").to_owned();
                self.by_client_seq.insert(number("clientSeq") as u64, self.account.sent.len());
                let (client_msg_no, payload) = (text("clientMsgNo"), text("payload").into());
                self.account.sent.push(Sent { client_msg_no, payload, ack: None, refused: false });
            }
            Some("ack") => {
                let at = self.by_client_seq.get(&(number("clientSeq") as u64));
                let Some(sent) = at.and_then(|at| self.account.sent.get_mut(*at)) else {
                    return self.faults.push(format!("an answer to nothing: {event}"));
                };
                let id: i64 = event["id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
                let promise = (id, number("seq") as u64);
                match number("reason") {
                    1 if sent.ack.is_none_or(|a| a == promise) => sent.ack = Some(promise),
                    1 => self.faults.push(format!("two different answers: {:?}, then {event}", sent.ack)),
                    // Too late or too much: the SDK does not send it again, whatever became of it.
                    15 | 22 => sent.refused = true,
                    // What is said between opening the socket and CONNACK goes out with the keys of the former session, and
                    // again after CONNACK with the right ones: the second answer counts, and must come.
                    9 => self.stale += 1,
                    _ => self.faults.push(format!("refused: {event}")),
                }
            }
            Some("recv") => self.received.push(Received::parse(&event)),
            Some("status") => self.statuses.push((number("status"), number("reason"), Instant::now())),
            Some("fault") => self.faults.push(event["text"].as_str().unwrap_or_default().to_owned()),
            _ => self.answers.push(event),
        }
    }
}

pub struct Person {
    uid: String,
    child: Child,
    stdin: Mutex<ChildStdin>,
    told: Arc<Mutex<Told>>,
    ordered: AtomicUsize,
    dir: TempDir,
}

impl Person {
    /// A user who connects to the server whose API is at `http`, with `token`.
    pub fn start(uid: &str, token: &str, http: &str) -> Person {
        let dir = TempDir::new();
        let errors = File::create(dir.path().join("sdk.log")).expect("a log file");
        let mut child = Command::new("node")
            .arg(bundle())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("node starts");
        let told = Arc::new(Mutex::new(Told { account: Account::new(uid), ..Told::default() }));
        let (stdout, ears) = (child.stdout.take().expect("piped"), told.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|_| json!({"event": "fault", "text": line}));
                ears.lock().expect("nobody panics with it").hear(event);
            }
        });
        let stdin = Mutex::new(child.stdin.take().expect("piped"));
        let ordered = AtomicUsize::new(0);
        let uid = uid.to_owned();
        let person = Person { uid, child, stdin, told, ordered, dir };
        person.order(&json!({"order": "start", "uid": person.uid, "token": token, "api": format!("http://{http}")}));
        person
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics with it")
    }

    fn order(&self, order: &Value) {
        let mut stdin = self.stdin.lock().expect("nobody panics with it");
        writeln!(stdin, "{order}").and_then(|()| stdin.flush()).unwrap_or_else(|e| panic!("{} is gone: {e}", self.uid));
    }

    pub fn send(&self, to: &str, text: &str) {
        self.ordered.fetch_add(1, Ordering::Relaxed);
        self.order(&json!({"order": "send", "to": to, "text": text}));
    }

    /// Gives an order that is answered, and waits for the answer.
    pub fn ask(&self, order: &Value) -> Value {
        self.order(order);
        wait_for("an answer of the SDK", Duration::from_secs(10), || {
            let mut told = self.told();
            assert!(told.faults.is_empty(), "{}: {:?}", self.uid, told.faults);
            told.answers.pop()
        })
    }

    /// The first time Node has to start, which takes long on a busy machine.
    pub fn wait_connected(&self) {
        self.wait_connects(1, Duration::from_secs(60));
    }

    /// Waits until the SDK has connected that many times and is connected.
    pub fn wait_connects(&self, times: usize, most: Duration) {
        wait_for("the SDK to connect", most, || {
            let told = self.told();
            (told.connected() && told.connects() >= times).then_some(())
        });
    }

    /// Waits until every message has an answer.
    pub fn wait_settled(&self) {
        wait_for("answers to all messages", Duration::from_secs(30), || {
            let account = &self.told().account;
            let all = account.sent.len() == self.ordered.load(Ordering::Relaxed);
            (all && account.open() == 0).then_some(())
        });
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read(self.dir.path().join("sdk.log")).unwrap_or_default();
            let log = String::from_utf8_lossy(&log[log.len().saturating_sub(2_000)..]).into_owned();
            let told = self.told.lock();
            let known = told.as_ref().map_or_else(
                |_| String::new(),
                |t| format!("{:?} {:?}", t.statuses, t.faults.iter().take(5).collect::<Vec<_>>()),
            );
            eprintln!("--- {}: {known}; the end of what the SDK logged:\n{log}\n---", self.uid);
        }
    }
}

/// The SDK and the driver in one file that Node can run. Made once per run of the tests.
fn bundle() -> &'static Path {
    static BUNDLE: OnceLock<PathBuf> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let folder = wukong_tests::workspace_root().join("tests/sdk");
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Two runs of the tests at the same time install once.
        let lock = File::create(tmp.join("sdk.lock")).expect("a lock file");
        lock.lock().expect("a lock");
        install(&folder);
        let out = tmp.join("sdk-driver.cjs");
        let flags = ["--bundle", "--platform=node", "--format=cjs", "--log-level=warning"];
        let optional = ["--external:bufferutil", "--external:utf-8-validate"];
        run(Command::new("node")
            .current_dir(&folder)
            .args(["node_modules/esbuild/bin/esbuild", "driver.mjs"])
            .args(flags)
            .args(optional)
            .arg(format!("--outfile={}", out.display())));
        out
    })
}

/// `npm ci`, unless the folder holds what the lock file says.
fn install(folder: &Path) {
    let wanted = fs::read_to_string(folder.join("package-lock.json")).expect("the lock file");
    let mark = folder.join("node_modules/.installed");
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) {
        return;
    }
    eprintln!("sdk: npm ci in tests/sdk (once)");
    run(Command::new("npm").current_dir(folder).args(["ci", "--ignore-scripts", "--loglevel=error"]));
    fs::write(mark, wanted).expect("a mark");
}

fn run(command: &mut Command) {
    let out = command.output().unwrap_or_else(|e| {
        panic!("{command:?}: {e}. These tests drive the published SDK: install Node.js 18 or newer, with npm.")
    });
    assert!(out.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&out.stderr));
}

//! The command line as an operator meets it: help, refusals that say what to do, a chat in two terminals, a clean stop.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use wukong_runtime::client::tcp::RecvError;
use wukong_runtime::client::{Client, Event, Login};
use wukong_tests::server_binary;
use wukong_tests::support::{Options, Ports, Server, TempDir, server, wait_for};

const REFUSAL_MAX: Duration = Duration::from_secs(10);

fn wukongim(args: &[&str]) -> Command {
    let mut command = Command::new(server_binary());
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs a server that is expected to refuse; gives what it said.
fn refusal(dir: &Path, ports: &Ports, env: &[(&str, &str)]) -> String {
    let mut command = wukongim(&["run"]);
    server::configure(&mut command, dir, ports);
    command.envs(env.iter().copied());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the server starts");
    let deadline = Instant::now() + REFUSAL_MAX;
    while child.try_wait().expect("a child of ours").is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let out = child.wait_with_output().expect("its output");
            panic!("it should have refused to start:\n{}", said(&out));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().expect("its output");
    assert!(out.status.code().is_some_and(|code| code != 0), "{:?}:\n{}", out.status, said(&out));
    assert!(!said(&out).contains("panicked"), "{}", said(&out));
    said(&out)
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "'{word}' is not in what it said:\n{text}");
    }
}

#[test]
fn help_of_every_command() {
    let top = wukongim(&["--help"]).output().expect("it runs");
    assert!(top.status.success(), "{}", said(&top));
    let text = said(&top);
    let list = text.split("Commands:").nth(1).expect("a list of commands");
    let commands: Vec<&str> =
        list.lines().skip(1).take_while(|l| l.starts_with("  ")).filter_map(|l| l.split_whitespace().next()).collect();
    for command in ["run", "chat", "bench"] {
        assert!(commands.contains(&command), "{command} is not in {commands:?}");
    }
    for command in commands.iter().filter(|c| **c != "help") {
        let out = wukongim(&[command, "--help"]).output().expect("it runs");
        assert!(out.status.success() && said(&out).contains("Usage:"), "{command}: {}", said(&out));
        assert!(!said(&out).contains("--test-"), "faults for tests are hidden: {}", said(&out));
    }
    let version = wukongim(&["--version"]).output().expect("it runs");
    assert!(version.status.success() && said(&version).contains(env!("CARGO_PKG_VERSION")), "{}", said(&version));
    for wrong in [&["fly"][..], &["run", "--no-such-flag"], &[]] {
        let out = wukongim(wrong).output().expect("it runs");
        assert!(!out.status.success() && said(&out).contains("Usage:"), "{wrong:?}: {}", said(&out));
    }
}

#[test]
fn a_data_directory_has_one_server_and_one_owner() {
    let mut first = Server::start(Options::default());
    let text = refusal(first.dir(), &Ports::claim(), &[]);
    assert_says(&text, &["in use by process", &first.pid().to_string(), "Stop that process"]);
    assert_eq!(first.api().get("/health").status, 200, "the first one does not care");
    assert_eq!(first.sigterm().code(), Some(0), "{}", first.log_tail());

    let text = refusal(first.dir(), &Ports::claim(), &[("WK_CLUSTER_NODEID", "7")]);
    assert_says(&text, &["belongs to node", "node 7", "Set the node id to"]);
    first.launch();
}

#[test]
fn what_cannot_be_is_refused_with_its_remedy() {
    let dir = TempDir::new();
    let refuse = |name: &str, value: &str| refusal(dir.path(), &Ports::claim(), &[(name, value)]);
    assert_says(&refuse("WK_CLUSTER_NODEID", "5000"), &["1023"]);
    assert_says(&refuse("WK_ADDR", "tcp://nonsense"), &["nonsense"]);
    assert_says(&refuse("WK_DATADIR", "/proc/nobody/can/write/here"), &["/proc/nobody/can/write/here"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let ports = Ports::claim();
    for port in [&ports.tcp, &ports.ws, &ports.http] {
        let dir = TempDir::new();
        let taken = TcpListener::bind(("127.0.0.1", port.number())).expect("nobody has it");
        let text = refusal(dir.path(), &ports, &[]);
        assert_says(&text, &["cannot listen on", &port.number().to_string(), "choose another"]);
        drop(taken);
    }
}

/// The listeners of a server are shared by its threads, which must not let a second server in unnoticed.
#[test]
fn two_servers_do_not_share_a_port() {
    let first = Server::start(Options::default());
    let dir = TempDir::new();
    let text = refusal(dir.path(), first.ports(), &[]);
    assert_says(&text, &["cannot listen on", &first.ports().tcp.number().to_string()]);
    assert_eq!(first.api().get("/health").status, 200);
}

#[test]
fn sigterm_stops_cleanly_and_the_data_opens_again() {
    let mut server = Server::start(Options::default());
    for _ in 0..2 {
        let start = Instant::now();
        assert_eq!(server.sigterm().code(), Some(0), "{}", server.log_tail());
        assert!(start.elapsed() < Duration::from_secs(3), "nothing was owed, and it took {:?}", start.elapsed());
        server.launch();
    }
    assert!(!server.log().contains("panicked"), "{}", server.log_tail());
}

#[test]
fn a_broken_disk_ends_the_process_before_another_promise() {
    let folder = TempDir::new();
    let broken = folder.path().join("broken");
    let mut server = Server::start(Options::default().arg("--test-fail-sync-file").arg(&broken));
    let mut client = Client::connect(&server.tcp(), &Login::new("ann")).expect("a login");
    client.send("bob", 1, "first", b"{}").expect("sent");
    let answer = client.recv(Duration::from_secs(10)).expect("a connection");
    assert!(matches!(&answer, Some(Event::SendAck(ack)) if ack.reason.0 == 1), "{answer:?}");
    std::fs::write(&broken, "").expect("the disk breaks");
    client.send("bob", 1, "second", b"{}").expect("sent");
    let answer = client.recv(Duration::from_secs(10));
    assert!(matches!(answer, Err(RecvError::Closed(_))), "no promise, no refusal: {answer:?}");
    assert_eq!(server.wait_exit().code(), Some(70), "{}", server.log_tail());
    assert_says(&server.log(), &["disk failed"]);

    std::fs::remove_file(&broken).expect("the disk is mended");
    server.launch();
    let stored = server.api().channel("ann", "bob", 1);
    let names: Vec<&str> = stored.iter().map(|s| s.client_msg_no.as_str()).collect();
    assert!(names == ["first"] || names == ["first", "second"], "{names:?}");
}

/// `wukongim chat` between pipes.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Terminal {
    fn open(server: &Server, uid: &str, to: &str) -> Terminal {
        let (tcp, http) = (server.tcp(), server.http());
        let mut child = wukongim(&["chat", "--uid", uid, "--to", to, "--addr", &tcp, "--http", &http])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the chat starts");
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let keys = child.stdin.take();
        let mut terminal = Terminal { child, keys, lines, seen: Vec::new() };
        terminal.see(&format!("you are {uid}, talking to {to}"));
        terminal
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.keys.as_mut().expect("open"), "{line}").expect("it reads");
    }

    /// Waits for a line that holds `text`.
    fn see(&mut self, text: &str) -> String {
        wait_for(&format!("'{text}' on the screen"), Duration::from_secs(15), || {
            self.seen.extend(self.lines.try_iter());
            self.seen.iter().find(|l| l.contains(text)).cloned()
        })
    }

    fn leave(mut self) -> Option<i32> {
        self.keys = None;
        let child = &mut self.child;
        wait_for("the chat to end", Duration::from_secs(10), || child.try_wait().expect("a child of ours")).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on the screen: {:#?}", self.seen);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_people_chat_in_two_terminals() {
    let mut server = Server::start(Options::default());
    let mut ann = Terminal::open(&server, "ann", "bob");
    let mut bob = Terminal::open(&server, "bob", "ann");
    ann.type_line("hello bob, 你好");
    assert!(ann.see("hello bob").contains("seq 1 ✓"), "{:?}", ann.seen);
    assert!(bob.see("hello bob, 你好").contains("ann (seq 1)"), "{:?}", bob.seen);
    bob.type_line("hello ann");
    assert!(bob.see("hello ann").contains("seq 2 ✓"), "{:?}", bob.seen);
    ann.see("bob (seq 2): hello ann");

    // A crash of the server: what is typed meanwhile goes out when it is back.
    server.kill9();
    ann.see("the server is gone");
    ann.type_line("are you still there?");
    server.launch();
    assert!(ann.see("✓): are you still there?").contains("seq 3"), "{:?}", ann.seen);
    bob.see("connected again");
    assert_eq!((ann.leave(), bob.leave()), (Some(0), Some(0)));

    let mut late = Terminal::open(&server, "bob", "ann");
    late.see("(seq 3): are you still there?");
    assert_eq!(late.leave(), Some(0));
}

#[test]
fn a_chat_without_a_server_says_so() {
    let ports = Ports::claim();
    let addr = format!("127.0.0.1:{}", ports.tcp.number());
    let out = wukongim(&["chat", "--uid", "a", "--to", "b", "--addr", &addr]).output().expect("it runs");
    assert!(!out.status.success());
    assert_says(&said(&out), &[&addr]);
}

//! No promise before the disk: strace sees the system calls of the real server, and between the read of a SEND and the write
//! of its SENDACK there is a completed sync of the database's log.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;
use wukong_runtime::client::{Client, Event, Login, fresh_msg_no};
use wukong_tests::support::{Options, Server, TempDir};

const MESSAGES: usize = 40;
/// The end of the name of a database's log, as strace writes it with `-xx`.
const LOG: &str = r"\x2e\x6c\x6f\x67>";
const CALLS: &str = "trace=fsync,fdatasync,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg";

/// A system call that strace saw, in two moments: when it began and when it was done.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Moment {
    /// A client's SEND was read: its first byte is of that type.
    ReadSend,
    SyncBegins(u32),
    SyncDone(u32),
    /// A SENDACK is about to be written.
    WriteAck,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Order {
    acks: usize,
    synced: usize,
    early: Vec<usize>,
}

/// The calls of one line: name, the text behind it, and whether it begins, ends, or both.
struct Line<'a> {
    pid: u32,
    name: &'a str,
    rest: &'a str,
    begins: bool,
    ends: bool,
}

fn split(line: &str) -> Option<Line<'_>> {
    let (pid, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let pid = pid.parse().ok()?;
    let rest = rest.trim_start();
    if let Some(resumed) = rest.strip_prefix("<... ") {
        let (name, rest) = resumed.split_once(" resumed>")?;
        return Some(Line { pid, name, rest, begins: false, ends: true });
    }
    let (name, rest) = rest.split_once('(')?;
    Some(Line { pid, name, rest, begins: true, ends: !rest.ends_with("<unfinished ...>") })
}

/// What matters of a trace (`strace -f -yy -xx`), in the order in which it happened. `tcp` is the server's address as it
/// stands in the names of its sockets; only databases' logs count as synced.
fn moments(trace: &str, tcp: &str) -> Vec<Moment> {
    let mut found = Vec::new();
    // A call that another thread's line interrupted; what was known when it began.
    let mut begun: HashMap<u32, String> = HashMap::new();
    for line in trace.lines().filter_map(split) {
        let head = if line.begins { line.rest.to_owned() } else { begun.remove(&line.pid).unwrap_or_default() };
        let whole = if line.begins { head.clone() } else { format!("{head}{}", line.rest) };
        if !line.ends {
            begun.insert(line.pid, head.replace("<unfinished ...>", ""));
        }
        let socket = head.contains(tcp);
        let first = |text: &str| text.split("\"\\x").nth(1).and_then(|t| t.chars().next());
        match line.name {
            "fsync" | "fdatasync" if head.contains(LOG) => {
                if line.begins {
                    found.push(Moment::SyncBegins(line.pid));
                }
                if line.ends && line.rest.trim_end().ends_with("= 0") {
                    found.push(Moment::SyncDone(line.pid));
                }
            }
            "read" | "readv" | "recvfrom" | "recvmsg" if socket && line.ends && first(&whole) == Some('3') => {
                found.push(Moment::ReadSend);
            }
            "write" | "writev" | "sendto" | "sendmsg" if socket && line.begins && first(&head) == Some('4') => {
                found.push(Moment::WriteAck);
            }
            _ => {}
        }
    }
    found
}

/// Messages go one by one, so each SENDACK belongs to the SEND read last.
fn judge(moments: &[Moment]) -> Order {
    let (mut order, mut running, mut safe) = (Order::default(), Vec::new(), false);
    for moment in moments {
        match moment {
            Moment::ReadSend => (running, safe) = (Vec::new(), false),
            // One that ran already when the SEND was read may not hold it.
            Moment::SyncBegins(pid) => running.push(*pid),
            Moment::SyncDone(pid) if running.contains(pid) => {
                safe = true;
                order.synced += 1;
            }
            Moment::SyncDone(_) => {}
            Moment::WriteAck => {
                order.acks += 1;
                if !safe {
                    order.early.push(order.acks);
                }
            }
        }
    }
    order
}

fn may_trace() -> bool {
    let out = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    let out =
        out.unwrap_or_else(|e| panic!("strace does not start ({e}): apt-get install strace, or scripts/setup.sh test"));
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        assert!(why.contains("not permitted"), "{why}");
        eprintln!("SKIPPED: this machine does not permit ptrace, so the order of system calls cannot be seen: {why}");
    }
    out.status.success()
}

/// Sends messages one by one to a traced server and gives the trace.
fn trace(more: &[&str]) -> (String, String) {
    let folder = TempDir::new();
    let file = folder.path().join("trace");
    let strace = ["strace", "-f", "-yy", "-xx", "-s", "64", "-e", "signal=none", "-e", CALLS, "-o"];
    let mut under: Vec<OsString> = strace.iter().map(Into::into).collect();
    under.extend([file.clone().into_os_string(), "--".into()]);
    let mut server =
        Server::start(Options { under, args: more.iter().map(Into::into).collect(), ..Options::default() });
    let mut client = Client::connect(&server.tcp(), &Login::new("ann")).expect("a login");
    for n in 0..MESSAGES {
        client.send("bob", 1, &fresh_msg_no(), format!(r#"{{"type":1,"content":"{n}"}}"#).as_bytes()).expect("sent");
        match client.recv(Duration::from_secs(10)) {
            Ok(Some(Event::SendAck(ack))) => assert_eq!(ack.reason.0, 1),
            other => panic!("no SENDACK: {other:?}"),
        }
    }
    let tcp = server.tcp();
    assert_eq!(server.sigterm().code(), Some(0), "{}", server.log_tail());
    (fs::read_to_string(file).expect("a trace"), tcp)
}

#[test]
fn no_sendack_before_the_sync() {
    if !may_trace() {
        return;
    }
    let (text, tcp) = trace(&[]);
    let order = judge(&moments(&text, &tcp));
    println!("sync order: {} SENDACKs, {} syncs between", order.acks, order.synced);
    assert_eq!(order.acks, MESSAGES, "the trace shows every SENDACK");
    assert_eq!(order.early, [0; 0], "SENDACKs before their sync");
    // The control: without syncing the same look at the trace finds every one of them too early.
    let (text, tcp) = trace(&["--test-unsafe-no-sync"]);
    let order = judge(&moments(&text, &tcp));
    assert_eq!((order.acks, order.early.len()), (MESSAGES, MESSAGES), "the control sees no missing sync");
}

#[test]
fn the_judge_sees_an_early_answer() {
    let line = |text: &str| text.replace("SOCK", "7<TCP:[127.0.0.1:5100->127.0.0.1:4000]>").replace("LOG", LOG);
    let good = [
        r#"11 recvfrom(SOCK, "\x32\x20\x00"..., 100, 0, NULL, NULL) = 34"#,
        r"12 fdatasync(9<LOG <unfinished ...>",
        r"11 epoll_wait(3 <unfinished ...>",
        r"12 <... fdatasync resumed>)        = 0",
        r#"11 writev(SOCK, [{iov_base="\x42\x11", iov_len=19}], 1) = 19"#,
    ];
    let judge_lines = |lines: &[&str]| judge(&moments(&line(&lines.join("\n")), "127.0.0.1:5100->"));
    assert_eq!(judge_lines(&good), Order { acks: 1, synced: 1, early: vec![] });
    let early = [good[0], good[1], good[4], good[3]];
    assert_eq!(judge_lines(&early).early, [1]);
    let stale = [good[1], good[0], good[3], good[4]];
    assert_eq!(judge_lines(&stale).early, [1], "a sync that began before the SEND was read proves nothing");
    let other = [good[0], r"12 fdatasync(9</d/floor>) = 0", good[4]];
    assert_eq!(judge_lines(&other).early, [1], "the wrong file");
    let failed = [good[0], r"12 fdatasync(9<LOG) = -1 EIO (Input/output error)", good[4]];
    assert_eq!(judge_lines(&failed).early, [1]);
}

//! `wukongim bench`: load on a server, and a judgement of it. docs/benchmarks.md says what each figure means.

mod args;
mod check;
#[cfg(test)]
pub(crate) mod fake;
mod first_ack;
mod idle;
mod message;
mod net;
mod pairs;
mod probe;
mod report;
mod saturate;
mod self_host;
mod server;
mod target;
#[cfg(test)]
mod tests;
mod verify;

use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

pub use args::{Args, Workload};
use message::Messages;
use pairs::{Pairs, Phase, Tick};
use report::Report;
use saturate::Say;
use self_host::{SelfHost, Start, pin, raise_open_files};
use server::{Counters, Process};
use target::Target;

use crate::client::random;

/// Largest payload that every server accepts.
const PAYLOAD_MAX: usize = 700 * 1024;

/// Runs a workload and prints what it found. Code 0: figures; 1: the server did wrong; 2: no run took place.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    match attempt(args) {
        Ok(report) => {
            print!("{}", report.text());
            ExitCode::from(u8::from(report.failed()))
        }
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::from(2)
        }
    }
}

fn attempt(args: &Args) -> Result<Report, String> {
    check_args(args)?;
    let files = raise_open_files();
    let wanted = match args.workload {
        Workload::W1 => 2 * args.pairs,
        Workload::W5 => args.conns,
        Workload::FirstAck => 1,
    };
    if files < wanted as u64 + 50 {
        return Err(format!("{wanted} connections need as many open files; {files} are allowed (ulimit -Hn)"));
    }
    // Sleeps end when they should: the schedule is finer than the kernel's usual slack of 50 µs.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut machine = probe::machine();
    let trip = probe::round_trip().map_err(|e| format!("loopback: {e}"))?;
    machine["loopback"] = trip.json();
    let own_cpu = match (args.pin, args.no_pin, args.self_host) {
        (Some(cpu), ..) => Some(cpu),
        (None, false, true) if machine["processors"].as_u64().unwrap_or(1) > 1 => Some(1),
        _ => None,
    };

    let mut host = None;
    if args.self_host {
        let parent = args.data_dir.clone().unwrap_or_else(std::env::temp_dir);
        let kind = probe::file_system(&parent);
        if kind == "tmpfs" || kind == "ramfs" {
            return Err(format!(
                "{} is in memory, where a sync costs nothing: --data-dir on a real disk",
                parent.display()
            ));
        }
        let sync = probe::sync_cost(&parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        machine["file_system"] = json!(kind);
        machine["sync_4k"] = sync.json();
        eprintln!("this machine: sync of 4 KiB P50 {} P99 {} µs; loopback P50 {} µs", sync.p50, sync.p99, trip.p50);
        let start = Start {
            program: args.server_bin.as_deref(),
            args: &args.server_args,
            parent: &parent,
            cpu: own_cpu.map(|_| args.server_cpu),
            token_auth: args.token_auth,
        };
        host = Some(SelfHost::start(&start)?);
    }
    if let Some(cpu) = own_cpu {
        pin(cpu)?;
    }
    let target = target(args, host.as_ref())?;
    let mut report = work(args, &target).map_err(|why| match &host {
        Some(host) => format!("{why}\nThe server said:\n{}", host.said()),
        None => why,
    })?;
    if let Some(host) = &mut host {
        end(host, &mut report, args.keep);
    }
    report.set("machine", machine);
    report.set("parameters", parameters(args, own_cpu));
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    if report.failed() && args.workload == Workload::W1 && args.saturate {
        report.note("the violation appeared while the highest rate was searched");
    }
    Ok(report)
}

fn check_args(args: &Args) -> Result<(), String> {
    if !(args.rate.is_finite() && (1.0..=10_000_000.0).contains(&args.rate)) {
        return Err(format!("--rate {}: expected 1 to 10,000,000 messages a second", args.rate));
    }
    if args.pairs == 0 || args.conns == 0 || args.channels == 0 || args.seconds == 0 {
        return Err("--pairs, --conns, --channels and --seconds must be above 0".into());
    }
    if args.payload == 0 || args.payload > PAYLOAD_MAX {
        return Err(format!("--payload {}: expected 1 to {PAYLOAD_MAX} bytes", args.payload));
    }
    if args.verify && !args.self_host && args.http.is_none() {
        return Err("--verify reads the channels back through the HTTP API: add --http host:port".into());
    }
    if args.token_auth && !args.self_host && args.http.is_none() {
        return Err("--token-auth stores tokens through the HTTP API: add --http host:port".into());
    }
    Ok(())
}

fn target(args: &Args, host: Option<&SelfHost>) -> Result<Target, String> {
    let process = |pid: u32| Process::of(pid).map_err(|e| format!("--server-pid {pid}: {e}"));
    let shared = Target {
        addr: ([127, 0, 0, 1], 0).into(),
        http: args.http.clone(),
        metrics: args.metrics.clone(),
        http_token: args.http_token.clone(),
        token_auth: args.token_auth,
        ws: args.ws,
        version: args.protocol,
        process: None,
    };
    Ok(match host {
        Some(host) => Target {
            addr: if args.ws { host.ws } else { host.tcp },
            http: Some(host.http.to_string()),
            process: Some(process(host.pid())?),
            ..shared
        },
        None => {
            Target { addr: Target::resolve(&args.addr)?, process: args.server_pid.map(process).transpose()?, ..shared }
        }
    })
}

fn parameters(args: &Args, own_cpu: Option<usize>) -> serde_json::Value {
    json!({
        "addr": if args.self_host { "self-host" } else { &args.addr }, "token_auth": args.token_auth, "ws": args.ws,
        "protocol": args.protocol, "encrypted": true, "persisted": true, "server_args": args.server_args,
        "rate": args.rate, "saturate": args.saturate, "pairs": args.pairs, "conns": args.conns,
        "channels": args.channels, "payload": args.payload, "seconds": args.seconds, "warmup": args.warmup,
        "verify": args.verify, "pin": own_cpu, "server_cpu": own_cpu.filter(|_| args.self_host).map(|_| args.server_cpu),
    })
}

fn write_json(path: &Path, report: &Report) -> Result<(), String> {
    let text = format!("{:#}\n", report.json());
    std::fs::write(path, text).map_err(|e| format!("--json {}: {e}", path.display()))
}

/// Stops our own server; what it did until the end belongs to the run.
fn end(host: &mut SelfHost, report: &mut Report, keep: bool) {
    if let Err(why) = host.stop() {
        report.flaw("server", 1, why);
    }
    let bytes = host.disk_bytes();
    report.set("disk_bytes", json!(bytes));
    if let Some(accepted) = report.json()["accepted"].as_u64().filter(|n| *n > 0) {
        let each = bytes / accepted;
        report.row("disk", format!("{each} bytes per message after the stop ({bytes} in all)"));
        report.set("disk_bytes_per_message", json!(each));
    }
    if keep || report.failed() {
        eprintln!("data and log of the server: {}", host.keep().display());
    }
}

fn work(args: &Args, target: &Target) -> Result<Report, String> {
    let messages = Messages::new(random());
    match args.workload {
        Workload::W1 => w1(args, target, &messages),
        Workload::W5 => idle::run(target, &messages, args.conns, Duration::from_secs(args.seconds)),
        Workload::FirstAck => first_ack::run(target, &messages, args.channels, args.payload),
    }
}

fn w1(args: &Args, target: &Target, messages: &Messages) -> Result<Report, String> {
    let mut pairs = Pairs::start(target, messages.clone(), args.pairs, args.payload)?;
    eprintln!("{} pairs are connected, {} byte payloads, encrypted, persisted", args.pairs, args.payload);
    let mut report = Report::new("w1");
    let mut metrics = target.metrics();
    let before = metrics.as_mut().and_then(Counters::read);
    let threads_before = target.process.and_then(|p| p.cpu_by_thread().ok());
    let accepted_before = pairs.accepted();
    let mut briefly = None;
    let phase = if args.saturate {
        let (confirm, server) = (Duration::from_secs(args.seconds), target.process);
        let found = saturate::search(&mut pairs, args.rate, confirm, server, &mut Progress)?;
        briefly = Some(found.briefly);
        found.confirmed
    } else {
        Some(steady(args, target, &mut pairs)?)
    };
    let accepted = pairs.accepted() - accepted_before;
    report.set("accepted", json!(pairs.accepted()));
    let mut figures = json!({});
    if let Some(briefly) = briefly {
        let text = match &phase {
            Some(phase) => format!("{:.0} messages/s, acked and delivered, both P99 below 100 ms", phase.rate),
            None => "no rate was sustained: is the machine busy with other work?".to_owned(),
        };
        report.row("saturation", text);
        report.row("", format!("{briefly:.0}/s for three seconds"));
    }
    if let Some(phase) = &phase {
        figures = report.phase(phase);
    }
    if let Some(briefly) = briefly {
        figures["highest_rate_for_three_seconds"] = json!(briefly);
    }
    if let (Some(before), Some(after)) = (threads_before, target.process.and_then(|p| p.cpu_by_thread().ok())) {
        figures["server_threads"] = threads(&mut report, &before, &after, accepted);
    }
    if let (Some(before), Some(after)) = (before, metrics.as_mut().and_then(Counters::read)) {
        figures["server_counters"] = report.counters(&after.since(&before), accepted);
    }
    report.set("figures", figures);

    let (mut flaws, checks, names) = pairs.finish();
    if args.verify && flaws.is_empty() {
        eprintln!("reading {} channels back", checks.len());
        let found = verify::verify(target, messages, &checks, &names, &mut flaws)?;
        report.row("stored", format!("{found} messages read back, each accepted one once, no gap"));
    }
    report.flaws(&flaws);
    Ok(report)
}

fn steady(args: &Args, target: &Target, pairs: &mut Pairs) -> Result<Phase, String> {
    let (warm_up, measured) = (Duration::from_secs(args.warmup), Duration::from_secs(args.seconds));
    pairs.run(args.rate, warm_up, measured, target.process, &mut |tick| {
        Progress.tick(tick);
        ControlFlow::Continue(())
    })?;
    // Beyond the server's own deadline for owed acks.
    pairs.drain(Duration::from_secs(15))?;
    Ok(pairs.settled())
}

/// Where the server's time went, by thread.
fn threads(
    report: &mut Report,
    before: &std::collections::BTreeMap<String, f64>,
    after: &std::collections::BTreeMap<String, f64>,
    messages: u64,
) -> serde_json::Value {
    let spent = |name: &String, after: f64| after - before.get(name).unwrap_or(&0.0);
    let mut spent: Vec<(&String, f64)> = after.iter().map(|(name, after)| (name, spent(name, *after))).collect();
    spent.sort_by(|a, b| b.1.total_cmp(&a.1));
    let per_message = 1e6 / messages.max(1) as f64;
    let told: Vec<String> = spent
        .iter()
        .filter(|(_, s)| s * per_message >= 0.05)
        .map(|(name, s)| format!("{name} {:.1}", s * per_message))
        .collect();
    report.row("server threads", format!("µs per message over the whole run: {}", told.join(", ")));
    spent.iter().map(|(name, s)| ((*name).clone(), json!(s))).collect()
}

/// Says on stderr how a run goes.
struct Progress;

impl Say for Progress {
    fn tick(&mut self, tick: &Tick) {
        let ms = |us: u64| us as f64 / 1000.0;
        eprintln!(
            "{:3} s {} {:.0}/s  sent {}  acked {}  delivered {}  waiting {}  P99 so far: SENDACK {:.1} RECV {:.1} ms",
            tick.second,
            if tick.warming { "warm-up" } else { "measure" },
            tick.rate,
            tick.sent,
            tick.acked,
            tick.delivered,
            tick.unacked,
            ms(tick.ack_p99_us),
            ms(tick.recv_p99_us),
        );
    }

    fn tried(&mut self, phase: &Phase, why_not: Option<&str>) {
        let busy = if phase.own_share() > report::OWN_SHARE_MAX { ", generator busy" } else { "" };
        match why_not {
            None => eprintln!("==> {:.0}/s: sustained{busy}", phase.rate),
            Some(why) => eprintln!("==> {:.0}/s: not sustained ({why}){busy}", phase.rate),
        }
    }
}

//! Workload W5: connections that do nothing but ping, and what each costs the server.

use std::time::{Duration, Instant};

use serde_json::json;

use super::message::Messages;
use super::net::What;
use super::report::Report;
use super::server::kernel_socket_bytes;
use super::target::Target;
use crate::client::session::{Event, Login};

/// Opens `count` connections, leaves them alone for `rest`, pings each once and counts the answers.
///
/// # Errors
/// Someone cannot get in, or the server's process is not known.
pub fn run(target: &Target, messages: &Messages, count: usize, rest: Duration) -> Result<Report, String> {
    let process = target.process.ok_or("w5 measures the server's memory: add --server-pid PID (or use --self-host)")?;
    let gone = |e: std::io::Error| format!("the server's process is gone: {e}");
    let run = messages.run();
    let uids: Vec<String> = (0..count).map(|i| format!("i{run}u{i:06}")).collect();
    let token = target.set_tokens(&uids)?;
    let logins = uids.iter().map(|uid| Login {
        token: token.clone(),
        device_id: format!("{uid}-1"),
        version: target.version,
        ..Login::new(uid)
    });
    let (before, kernel_before) = (process.resident_bytes().map_err(gone)?, kernel_socket_bytes());
    let (start, cpu_before) = (Instant::now(), process.cpu_seconds().map_err(gone)?);
    let mut net = target.log_in(logins)?;
    let (took, login_cpu) = (start.elapsed(), process.cpu_seconds().map_err(gone)? - cpu_before);
    eprintln!("{count} connections are open; waiting {} s", rest.as_secs());

    let (mut lost, mut happened, end) = (0_u64, Vec::new(), Instant::now() + rest);
    let rest_cpu_before = process.cpu_seconds().map_err(gone)?;
    while Instant::now() < end {
        net.flush();
        net.poll(Duration::from_millis(200), &mut happened).map_err(|e| format!("epoll: {e}"))?;
        lost += happened.drain(..).filter(|h| matches!(h.what, What::Lost(_))).count() as u64;
    }
    let rest_cpu = process.cpu_seconds().map_err(gone)? - rest_cpu_before;
    let (after, kernel_after) = (process.resident_bytes().map_err(gone)?, kernel_socket_bytes());

    net.ping_all();
    let (mut pongs, end) = (0_u64, Instant::now() + Duration::from_secs(20));
    while pongs + lost < count as u64 && Instant::now() < end {
        net.flush();
        net.poll(Duration::from_millis(200), &mut happened).map_err(|e| format!("epoll: {e}"))?;
        for event in happened.drain(..) {
            match event.what {
                What::Event(Event::Pong) => pongs += 1,
                What::Lost(_) => lost += 1,
                What::Event(_) => {}
            }
        }
    }

    let mut report = Report::new("w5");
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
    let user = each(before, after);
    let kernel = kernel_before.zip(kernel_after).map(|(before, after)| each(before, after) / 2.0);
    report.set("connections", json!(count));
    report.set("transport", json!(if target.ws { "websocket" } else { "tcp" }));
    if pongs < count as u64 {
        report.flaw(
            "no PONG",
            count as u64 - pongs,
            format!("{pongs} of {count} connections answered, {lost} were lost"),
        );
        return Ok(report);
    }
    report.row("connections", format!("{count}, all answered a ping after {} s of rest", rest.as_secs()));
    report.row("server memory", format!("{:.1} MiB before, {:.1} MiB after", mib(before), mib(after)));
    report.row("per connection", format!("{user:.0} bytes in the server"));
    if let Some(kernel) = kernel {
        report.row(
            "",
            format!("about {kernel:.0} bytes in the kernel (growth of the whole machine, halved: both ends are here)"),
        );
    }
    let rate = count as f64 / took.as_secs_f64();
    report
        .row("logins", format!("{rate:.0}/s, {:.0} µs of the server's processor each", login_cpu * 1e6 / count as f64));
    report.row("at rest", format!("{:.2} % of a processor", rest_cpu * 100.0 / rest.as_secs_f64().max(0.01)));
    report.set(
        "figures",
        json!({
            "resident_before": before, "resident_after": after, "user_bytes_per_connection": user,
            "kernel_bytes_per_connection": kernel, "logins_per_second": rate, "login_cpu_seconds": login_cpu,
            "rest_cpu_seconds": rest_cpu, "rest_seconds": rest.as_secs_f64(),
        }),
    );
    Ok(report)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

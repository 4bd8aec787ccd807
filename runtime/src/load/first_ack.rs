//! Workload first-ack: the first message of channels that never existed, one after the other.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;
use wukong_proto::{Flags, ReasonCode, Text};

use super::message::Messages;
use super::net::What;
use super::report::{Report, latency_json, latency_row};
use super::server::Counters;
use super::target::Target;
use crate::client::session::{Event, Login, Outgoing};

/// One user writes to `count` strangers, waiting for each SENDACK.
///
/// # Errors
/// The user cannot get in.
pub fn run(target: &Target, messages: &Messages, count: usize, payload: usize) -> Result<Report, String> {
    let uid = format!("f{}s", messages.run());
    let token = target.set_tokens(std::slice::from_ref(&uid))?;
    let login = Login { token, device_id: format!("{uid}-1"), version: target.version, ..Login::new(&uid) };
    let mut net = target.log_in(std::iter::once(login))?;
    let mut report = Report::new("first-ack");
    let mut metrics = target.metrics();
    let before = metrics.as_mut().and_then(Counters::read);
    let mut latency: Histogram<u64> = Histogram::new_with_bounds(1, 600_000_000, 3).expect("valid bounds");
    let (mut body, mut happened) = (vec![0; payload], Vec::new());
    for no in 0..count as u64 {
        messages.payload(0, no, &mut body);
        let message = Outgoing {
            client_seq: no as u32 + 1,
            client_msg_no: &messages.name(0, no),
            channel_id: &Text::from(format!("f{}r{no:06}", messages.run())),
            channel_type: 1,
            flags: Flags::RED_DOT,
            payload: &body,
        };
        let start = Instant::now();
        net.send(0, &message).map_err(|e| e.to_string())?;
        net.flush();
        let ack = 'wait: loop {
            if start.elapsed() > Duration::from_secs(20) {
                break None;
            }
            net.poll(Duration::from_secs(1), &mut happened).map_err(|e| format!("epoll: {e}"))?;
            for event in happened.drain(..) {
                match event.what {
                    What::Event(Event::SendAck(ack)) => break 'wait Some((ack, event.at)),
                    What::Lost(why) => return Err(format!("message {no}: {why}")),
                    What::Event(_) => {}
                }
            }
        };
        match ack {
            Some((ack, at))
                if ack.reason == ReasonCode::SUCCESS && ack.message_seq == 1 && u64::from(ack.client_seq) == no + 1 =>
            {
                latency.saturating_record((at.duration_since(start).as_micros() as u64).max(1));
            }
            Some((ack, _)) => report.flaw("wrong SENDACK", 1, format!("message {no}: {ack:?}, expected seq 1")),
            None => {
                report.flaw("no SENDACK", 1, format!("message {no} after 20 s"));
                return Ok(report);
            }
        }
    }
    report.set("channels", json!(count));
    report.row("channels", format!("{count} new ones, one message each, one at a time (closed loop)"));
    report.row("first SENDACK", latency_row(&latency));
    let mut figures = json!({ "first_ack": latency_json(&latency) });
    if let (Some(before), Some(after)) = (before, metrics.as_mut().and_then(Counters::read)) {
        figures["server_counters"] = report.counters(&after.since(&before), count as u64);
    }
    report.set("figures", figures);
    Ok(report)
}

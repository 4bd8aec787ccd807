//! What a run found, for people and as JSON. A run with a flaw has no figures.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::check::Flaws;
use super::pairs::Phase;

/// Above this share of a processor the generator itself may be what is measured.
pub const OWN_SHARE_MAX: f64 = 0.8;

/// The outcome of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    json: Map<String, Value>,
    rows: Vec<(String, String)>,
    notes: Vec<String>,
    flaws: BTreeMap<String, u64>,
    examples: Vec<String>,
}

impl Report {
    /// The report of `workload`, still empty.
    #[must_use]
    pub fn new(workload: &str) -> Report {
        let mut report = Report::default();
        report.set("workload", json!(workload));
        report
    }

    /// Sets a member of the JSON form.
    pub fn set(&mut self, name: &str, value: Value) {
        self.json.insert(name.to_owned(), value);
    }

    /// Adds a line of the human form.
    pub fn row(&mut self, label: &str, text: impl Into<String>) {
        self.rows.push((label.to_owned(), text.into()));
    }

    /// Adds a remark that whoever quotes the figures should quote too.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a violation: the run has failed.
    pub fn flaw(&mut self, kind: &str, count: u64, example: String) {
        *self.flaws.entry(kind.to_owned()).or_default() += count;
        if self.examples.len() < 12 {
            self.examples.push(format!("{kind}: {example}"));
        }
    }

    /// Adds all violations of `flaws`.
    pub fn flaws(&mut self, flaws: &Flaws) {
        for (kind, count) in flaws.counts() {
            *self.flaws.entry((*kind).to_owned()).or_default() += count;
        }
        self.examples.extend(flaws.examples().iter().cloned());
    }

    /// Whether the run found a violation.
    #[must_use]
    pub fn failed(&self) -> bool {
        !self.flaws.is_empty()
    }

    /// Adds the lines of a phase of W1; returns its figures as JSON.
    pub fn phase(&mut self, phase: &Phase) -> Value {
        let per_second = |count: u64| count as f64 / phase.seconds;
        self.row(
            "rate",
            format!(
                "{:.0}/s due, {:.0}/s acked, {:.0}/s delivered, over {:.0} s",
                phase.rate,
                per_second(phase.acked_in_time),
                per_second(phase.delivered_in_time),
                phase.seconds
            ),
        );
        self.row("SENDACK", latency_row(&phase.ack));
        self.row("RECV", latency_row(&phase.recv));
        let millions = phase.acked_in_time as f64 / 1e6;
        let cost = phase.server_cpu.filter(|_| millions > 0.0).map(|cpu| cpu / millions);
        if let (Some(cpu), Some(cost)) = (phase.server_cpu, cost) {
            let share = cpu * 100.0 / phase.seconds;
            self.row("server processor", format!("{cost:.1} s per million messages, {share:.0} % of one"));
        }
        let own = phase.own_share();
        self.row(
            "generator",
            format!("{:.0} % of a processor; messages left {} late", own * 100.0, latency_row(&phase.lag)),
        );
        if own > OWN_SHARE_MAX {
            self.note(format!(
                "the generator used {:.0} % of a processor (more than {:.0} %): latencies include its own queue, and \
                 the highest rate is a lower bound",
                own * 100.0,
                OWN_SHARE_MAX * 100.0
            ));
        }
        let refused: u64 = phase.refused.values().sum();
        if refused > 0 {
            let each: Vec<String> = phase.refused.iter().map(|(reason, n)| format!("{n} × {reason}")).collect();
            self.note(format!("{refused} messages were refused ({}): not in the latencies", each.join(", ")));
        }
        if phase.retries > 0 {
            self.note(format!("{} deliveries came again, marked as such", phase.retries));
        }
        json!({
            "rate_due": phase.rate, "seconds": phase.seconds,
            "rate_acked": per_second(phase.acked_in_time), "rate_delivered": per_second(phase.delivered_in_time),
            "sent": phase.sent, "accepted": phase.accepted, "delivered": phase.delivered,
            "refused": refused, "retries": phase.retries,
            "send_ack": latency_json(&phase.ack), "recv": latency_json(&phase.recv), "lag": latency_json(&phase.lag),
            "server_cpu_seconds": phase.server_cpu, "server_cpu_seconds_per_million": cost,
            "generator_cpu_share": own,
        })
    }

    /// Adds a line on what the server counted, per message; returns all of it as JSON.
    pub fn counters(&mut self, added: &BTreeMap<String, f64>, messages: u64) -> Value {
        let per = messages.max(1) as f64;
        for (name, count) in added {
            let told =
                ["sync", "append", "wake", "persist", "socket", "mail", "load"].iter().any(|word| name.contains(word));
            if told && name.ends_with("_total") {
                let share = count / per;
                let share = if share < 0.5 {
                    format!("{:.1} per 1,000 messages", share * 1e3)
                } else {
                    format!("{share:.2} per message")
                };
                self.row("", format!("{name}: {share}"));
            }
        }
        json!({ "messages": messages, "added": added })
    }

    /// The human form.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.failed() {
            text += "FAILED: what the server did is wrong, so the run has no performance figure.\n";
            for (kind, count) in &self.flaws {
                text += &format!("  {kind}: {count}\n");
            }
            text += "for example\n";
            for example in &self.examples {
                text += &format!("  {example}\n");
            }
            return text;
        }
        for (label, line) in &self.rows {
            text += &format!("{label:<17} {line}\n");
        }
        for note in &self.notes {
            text += &format!("note: {note}\n");
        }
        text
    }

    /// The JSON form.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut json = self.json.clone();
        json.insert("verdict".into(), json!(if self.failed() { "failed" } else { "ok" }));
        json.insert("flaws".into(), json!(self.flaws));
        json.insert("flaw_examples".into(), json!(self.examples));
        json.insert("notes".into(), json!(self.notes));
        if self.failed() {
            json.remove("figures");
        }
        Value::Object(json)
    }
}

/// P50, P99, P99.9 and maximum, in milliseconds.
#[must_use]
pub fn latency_row(latency: &Histogram<u64>) -> String {
    let ms = |us: u64| us as f64 / 1000.0;
    let at = |quantile: f64| ms(latency.value_at_quantile(quantile));
    format!("P50 {:.2}  P99 {:.2}  P99.9 {:.2}  max {:.2} ms", at(0.5), at(0.99), at(0.999), ms(latency.max()))
}

/// The same in microseconds, with the count and mean.
#[must_use]
pub fn latency_json(latency: &Histogram<u64>) -> Value {
    let at = |quantile: f64| latency.value_at_quantile(quantile);
    json!({
        "count": latency.len(), "mean_us": latency.mean(),
        "p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": latency.max(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_run_tells_no_figure() {
        let mut report = Report::new("w1");
        report.row("rate", "1000000/s");
        report.set("figures", json!({ "rate": 1_000_000 }));
        assert!(report.text().contains("1000000/s") && report.json()["verdict"] == "ok");
        report.flaw("gap", 2, "a to b: seq 3 after 1".into());
        assert!(report.failed() && report.text().starts_with("FAILED") && !report.text().contains("1000000"));
        assert!(report.text().contains("  gap: 2\n"));
        let json = report.json();
        assert!(json["figures"].is_null() && json["verdict"] == "failed" && json["flaws"]["gap"] == 2);
    }

    #[test]
    fn counters_per_message() {
        let mut report = Report::new("w1");
        let added = BTreeMap::from([
            ("wukongim_wal_syncs_total".to_owned(), 5.0),
            ("wukongim_appends_total".to_owned(), 1000.0),
            ("wukongim_other_total".to_owned(), 1000.0),
        ]);
        assert_eq!(report.counters(&added, 1000)["added"]["wukongim_other_total"], 1000.0);
        let text = report.text();
        assert!(text.contains("wukongim_wal_syncs_total: 5.0 per 1,000 messages"));
        assert!(text.contains("wukongim_appends_total: 1.00 per message") && !text.contains("other"));
    }
}

//! A scenario: everything that decides a run, as text. The text is the artefact of record; seeds die with generators.

pub mod fault;
pub mod line;
pub mod plan;
pub mod script;

use crate::clock::{MS, SEC, US};
use fault::Fault;
use line::{Line, lines};
use script::{DeviceLine, Step};
use std::fmt::Write as _;

/// First line of every scenario.
const MAGIC: &str = "wukong-scenario 1";

/// How much a bounded memory may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Zero,
    Small,
    Large,
}

/// Whether the run ends with a short quiet phase or one in which everything settles and leaves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    Short,
    Long,
}

lines! {
    /// The node under test.
    Node "node" {
        shards: u8 = 1,
        slots: u16 = 64,
        /// Rows a slot keeps in memory.
        overlay: Size = Size::Large,
        /// Memory of recent message keys.
        dedup: Size = Size::Large,
        /// Mail that may be on its way between two shards: 64, 200, or the default.
        credit: Size = Size::Large,
        tokens: bool = false,
        /// Another seed for the hash maps of the core; no client may see the difference.
        hash: u64 = 0,
    }
}

lines! {
    /// Latencies as ranges, and how inputs are gathered. Durations are nanoseconds.
    Timing "time" {
        net: (u64, u64) = (200 * US, 5 * MS),
        mail: (u64, u64) = (US, 50 * US),
        load: (u64, u64) = (20 * US, 2 * MS),
        sync: (u64, u64) = (100 * US, 3 * MS),
        /// Wait before a shard handles what arrived.
        turn: (u64, u64) = (0, 20 * US),
        /// Inputs handled before outputs are drained: 1 to this many.
        inputs: u32 = 8,
        /// Per mille of client writes that are cut into chunks.
        chunk: u32 = 200,
        /// Longest time without a sync when only lazy batches wait; 0 = for ever.
        lazy: line::Span = line::Span(SEC),
    }
}

lines! {
    /// How long the active phase lasts, and what follows it.
    Run "run" {
        length: line::Span = line::Span(30 * SEC),
        /// The active phase goes on until so many inputs were handled (but never ten times as long as `length`).
        events: u64 = 0,
        quiet: Quiet = Quiet::Short,
        /// Clock rate against true time, parts per million.
        drift: i64 = 0,
        /// An operator restarts the process when the faults have ended.
        restart: bool = false,
    }
}

lines! {
    /// Generated clients and what they tend to do. Weights are relative; shares are per mille.
    Population "population" {
        users: u32 = 10,
        /// Devices per user, 1 to this many.
        devices: u32 = 2,
        /// Peers each user talks to.
        peers: u32 = 3,
        /// Mean time between two actions of a device.
        think: line::Span = line::Span(500 * MS),
        /// SENDs per action, 1 to this many.
        burst: u32 = 3,
        /// Longest payload.
        payload: u32 = 64,
        /// Share of RECVs that are acknowledged at once.
        ack: u32 = 950,
        /// Share of devices that ping.
        ping: u32 = 900,
        /// Mean time before a lost connection is made again.
        backoff: line::Span = line::Span(500 * MS),
        send: u32 = 100,
        cut: u32 = 4,
        bye: u32 = 2,
        idle: u32 = 2,
        garbage: u32 = 1,
        freeze: u32 = 1,
        sync: u32 = 6,
        token: u32 = 0,
        /// Of the SENDs, the share that: is repeated at once; reuses a key with another payload; has a wrong
        /// signature; names an impossible channel; has no client_msg_no; is not encrypted; goes to oneself.
        again: u32 = 10,
        conflict: u32 = 5,
        badkey: u32 = 5,
        badchannel: u32 = 5,
        nokey: u32 = 20,
        plain: u32 = 20,
        myself: u32 = 5,
    }
}

/// Everything that decides a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scenario {
    pub seed: u64,
    pub node: Node,
    pub time: Timing,
    pub run: Run,
    pub populations: Vec<Population>,
    pub devices: Vec<DeviceLine>,
    pub steps: Vec<Step>,
    pub faults: Vec<Fault>,
}

impl Scenario {
    /// # Errors
    /// The text is not a scenario; the message names the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut s = Self::default();
        let mut magic = false;
        for (at, raw) in text.lines().enumerate() {
            let line = raw.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            if !magic {
                if line != MAGIC {
                    return Err(format!("line {}: a scenario begins with `{MAGIC}`", at + 1));
                }
                magic = true;
                continue;
            }
            let mut words = line.split_whitespace();
            let word = words.next().unwrap_or_default();
            let rest: Vec<&str> = words.collect();
            s.parse_line(word, &rest).map_err(|e| format!("line {}: {e}", at + 1))?;
        }
        if !magic {
            return Err(format!("empty: a scenario begins with `{MAGIC}`"));
        }
        s.check()?;
        Ok(s)
    }

    fn parse_line(&mut self, word: &str, rest: &[&str]) -> Result<(), String> {
        match word {
            "seed" => self.seed = line::Value::parse(rest.first().copied().unwrap_or_default())?,
            "node" => self.node.read(rest)?,
            "time" => self.time.read(rest)?,
            "run" => self.run.read(rest)?,
            "population" => self.populations.push(line::made(rest)?),
            "fault" => self.faults.push(Fault::parse(rest)?),
            "device" => self.devices.push(DeviceLine::parse(rest)?),
            "at" => self.steps.push(Step::parse(rest)?),
            other => return Err(format!("`{other}` begins no line of a scenario")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.node.shards == 0 || self.node.shards > 16 {
            return Err("node: shards must be between 1 and 16".into());
        }
        if self.node.slots == 0 {
            return Err("node: slots must be above 0".into());
        }
        for step in &self.steps {
            if !self.devices.iter().any(|d| d.name == step.device) {
                return Err(format!("at: no device is named `{}`", step.device));
            }
        }
        Ok(())
    }

    /// The text this scenario is parsed from; only what differs from the defaults.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("{MAGIC}\nseed {:#x}\n", self.seed);
        for line in [self.node.line(), self.time.line(), self.run.line()] {
            if line.contains(' ') {
                let _ = writeln!(out, "{line}");
            }
        }
        self.populations.iter().for_each(|p| {
            let _ = writeln!(out, "{}", p.line());
        });
        self.devices.iter().for_each(|d| {
            let _ = writeln!(out, "{}", d.line());
        });
        self.steps.iter().for_each(|s| {
            let _ = writeln!(out, "{}", s.line());
        });
        self.faults.iter().for_each(|f| {
            let _ = writeln!(out, "{}", f.line());
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_scenarios_survive_their_text() {
        for seed in 0..200 {
            let s = plan::generate(seed, 10_000);
            let text = s.text();
            assert_eq!(Scenario::parse(&text).as_ref(), Ok(&s), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("", "empty"),
            ("seed 1", "line 1: a scenario begins"),
            ("wukong-scenario 1\nnode shards=0", "shards must be"),
            ("wukong-scenario 1\nnode shard=1", "`shard`"),
            ("wukong-scenario 1\nrun length=5", "5"),
            ("wukong-scenario 1\nfault quake at=1s", "quake"),
            ("wukong-scenario 1\nat 1s d1 connect", "no device"),
        ] {
            let e = Scenario::parse(text).unwrap_err();
            assert!(e.contains(message), "{text:?}: {e}");
        }
    }
}

//! How episodes begin and end. Disks keep what they synced, so that any number of processes may die; in the end all are up.

use super::plan::Kind;
use super::shell::Order;
use super::world::{Event, World};
use crate::clock::MS;
use wukong_core::ids::SlotId;

impl World {
    /// Who serves a slot. A deposed leader may not know yet; then one of those who say so.
    pub(super) fn serving(&mut self, slot: SlotId) -> Option<usize> {
        let shards = self.plan.shards as u8;
        let all: Vec<usize> = (0..self.nodes.len()).filter(|n| self.nodes[*n].serves(slot, shards)).collect();
        if all.len() > 1 {
            self.cover.hit("two say that they serve");
        }
        (!all.is_empty()).then(|| *self.rng.clients.pick(&all))
    }

    pub(super) fn begin_episode(&mut self, e: usize) {
        let episode = self.plan.episodes[e];
        if self.quiet.began > 0 {
            return;
        }
        let slot = SlotId(episode.numbers[0] as u16);
        let n = match episode.kind {
            Kind::IsolateLeader | Kind::CrashLeader | Kind::PauseLeader => {
                self.serving(slot).unwrap_or(slot.0 as usize % self.nodes.len())
            }
            _ => episode.numbers[0] as usize,
        };
        self.active[e] = Some(n);
        self.say(&format_args!("begins: {} (n{n})", episode.what()));
        let end = (episode.at + episode.lasts).min(self.plan.lasts) * MS;
        self.heap.add(end.max(self.now), Event::End(e));
        let [_, x] = episode.numbers;
        match episode.kind {
            Kind::Cut => {
                self.cut(n, x as usize, true);
                self.cut(x as usize, n, true);
            }
            Kind::OneWay => self.cut(n, x as usize, true),
            Kind::Isolate | Kind::IsolateLeader => self.isolate(n, true),
            // A stream that is stopped delivers later.
            Kind::Stall if self.shell.is_some() => {
                self.cut(n, x as usize, true);
                self.cut(x as usize, n, true);
            }
            Kind::Stall => {
                let wire = self.wire(n, x as usize).0;
                self.wires[wire].stalled_until = end;
            }
            Kind::Reset if self.order(Order::Reset(n, x as usize)) => {}
            Kind::Reset => {
                let wire = self.wire(n, x as usize).0;
                self.break_wire(wire, 5 * MS, true);
            }
            Kind::SlowNet => self.slow_down(episode.numbers[0].max(1)),
            Kind::Crash => self.take_down(n),
            Kind::CrashAfter | Kind::CrashLeader => {
                self.nodes[n].down += 1;
                self.nodes[n].fuse = Some(x);
            }
            Kind::Blackout => (0..self.nodes.len()).for_each(|n| self.take_down(n)),
            Kind::Pause | Kind::PauseLeader => {
                self.nodes[n].paused_until = end;
                self.history.pause_max = self.history.pause_max.max(end.saturating_sub(self.now));
                self.cover.hit("paused");
                self.order(Order::Pause(n, end));
            }
            Kind::SlowDisk => self.nodes[n].storage.slow_by = x * MS,
            Kind::FailSync => self.nodes[n].storage.fail_next = true,
            Kind::ReadFaults => self.nodes[n].storage.read_faults = x as u32,
            Kind::Jump => self.nodes[n].clock.jump(x as i64),
            Kind::JumpBack => self.nodes[n].clock.jump(-(x as i64)),
            Kind::Storm => self.storm(episode.numbers[0] as u32),
            Kind::Idle => self.idle += 1,
            Kind::Delete => self.ask_deletion(episode.numbers[0] as usize % self.truth.eras.len()),
        }
    }

    pub(super) fn end_episode(&mut self, e: usize) {
        let Some(n) = self.active[e].take() else { return };
        let episode = self.plan.episodes[e];
        self.say(&format_args!("ends: {} (n{n})", episode.what()));
        let x = episode.numbers[1] as usize;
        match episode.kind {
            Kind::Cut => {
                self.cut(n, x, false);
                self.cut(x, n, false);
            }
            Kind::Stall if self.shell.is_some() => {
                self.cut(n, x, false);
                self.cut(x, n, false);
            }
            Kind::OneWay => self.cut(n, x, false),
            Kind::Isolate | Kind::IsolateLeader => self.isolate(n, false),
            Kind::SlowNet => self.slow_down(1),
            Kind::Crash => self.bring_up(n),
            Kind::CrashAfter | Kind::CrashLeader => {
                // If it has not come to it, it dies now.
                self.crash(n);
                self.bring_up(n);
            }
            Kind::Blackout => (0..self.nodes.len()).for_each(|n| self.bring_up(n)),
            Kind::SlowDisk => self.nodes[n].storage.slow_by = 0,
            Kind::FailSync => self.nodes[n].storage.fail_next = false,
            Kind::ReadFaults => self.nodes[n].storage.read_faults = 0,
            Kind::Idle => self.idle -= 1,
            Kind::Stall
            | Kind::Reset
            | Kind::Pause
            | Kind::PauseLeader
            | Kind::Jump
            | Kind::JumpBack
            | Kind::Storm
            | Kind::Delete => {}
        }
    }

    fn slow_down(&mut self, times: u64) {
        self.slow_net = times;
        self.order(Order::Latency(times));
    }

    fn isolate(&mut self, n: usize, on: bool) {
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            self.cut(n, other, on);
            self.cut(other, n, on);
        }
    }

    fn take_down(&mut self, n: usize) {
        self.nodes[n].down += 1;
        self.crash(n);
    }

    fn bring_up(&mut self, n: usize) {
        self.nodes[n].down = self.nodes[n].down.saturating_sub(1);
        self.boot(n);
    }
}

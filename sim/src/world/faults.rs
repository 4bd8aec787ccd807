//! Fault episodes as they begin and end.

use super::process::Armed;
use super::{Event, Phase, World};
use crate::clock::{MS, SEC};
use crate::machine::Machine;
use crate::scenario::fault::Kind;

impl<M: Machine> World<M> {
    pub(super) fn fault(&mut self, index: u32, ends: bool) {
        if self.phase != Phase::Active {
            return;
        }
        let Some(fault) = self.sc.faults.get(index as usize).cloned() else { return };
        let (f, until) = (&fault.fields, self.now + fault.fields.span.0);
        self.seen.faults += u64::from(!ends);
        match fault.kind {
            Kind::Freeze => self.freeze_some(f.share, !ends),
            _ if ends => {}
            Kind::Crash => self.arm_crash(f),
            Kind::Stop => {
                if self.is_up() && !self.process.stopping {
                    self.stop_all();
                    let life = self.life();
                    self.later(9 * SEC, Event::Exit { life });
                }
            }
            Kind::Stall => {
                self.storage.stall_until = self.storage.stall_until.max(until);
            }
            Kind::Slow => {
                self.storage.slow_until = until;
                self.storage.slow_by = f.by.unsigned_abs() * MS;
            }
            Kind::Full => self.storage.full_until = until,
            Kind::Io => self.storage.io_until = until,
            Kind::Read => self.storage.read_until = until,
            Kind::Jump => {
                self.clock.jump(f.by);
                self.seen.clock_back += u64::from(f.by < 0);
            }
            Kind::Pause => {
                // Pauses may overlap and follow each other: their sum is the safe bound.
                self.history.pause_max += f.span.0;
                let shards = self.shards_up();
                for shard in (0..shards).filter(|s| f.shard == 255 || *s == f.shard) {
                    self.pause(shard, until);
                }
            }
            Kind::Storm => {
                for link in 0..self.links.len() as u32 {
                    if self.links[link as usize].client_open && self.rng.fault.chance(f.share) {
                        let heard = self.rng.fault.chance(800);
                        self.cut(link, heard);
                    }
                }
            }
        }
    }

    fn arm_crash(&mut self, f: &crate::scenario::fault::Fields) {
        if !self.is_up() {
            return;
        }
        self.arms += 1;
        let armed = Armed { id: self.arms, of: f.of, left: f.after, keep: f.keep, down: f.down.0 };
        self.armed = Some(armed);
        if f.after == 0 && f.of == crate::scenario::fault::Of::Outputs {
            self.crash_armed();
            return;
        }
        // A quiet moment must not delay it for ever.
        self.later(5 * SEC, Event::CrashNow { arm: armed.id });
    }

    pub(super) fn crash_now(&mut self, arm: u64) {
        if self.armed.is_some_and(|a| a.id == arm) && self.phase == Phase::Active {
            self.crash_armed();
        }
    }

    fn freeze_some(&mut self, share: u32, on: bool) {
        for link in 0..self.links.len() as u32 {
            let l = &self.links[link as usize];
            if l.client_open && (!on || self.rng.fault.chance(share)) {
                self.freeze(link, on);
            }
        }
    }
}

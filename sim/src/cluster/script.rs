//! Scripts: what each user says and in which order, whatever the timing. Two runs of one plan can then be compared.

use super::clients::PENDING_MAX;
use super::world::World;
use crate::client::State;
use crate::history::{ChannelIx, IntentIx};
use crate::rng::Rng;
use std::collections::VecDeque;

/// One thing that a user does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Say(Vec<IntentIx>),
    /// Sends a message again when it is acknowledged.
    Again(IntentIx),
    /// Waits until it has read that message.
    Await(IntentIx),
    /// Hangs up, whatever is unanswered, and comes back.
    Leave,
}

impl World {
    pub(super) fn write_scripts(&mut self) {
        if self.plan.sends == 0 {
            return;
        }
        if self.plan.turns > 0 {
            return self.write_turns();
        }
        for device in 0..self.devices.len() as u32 {
            if self.devices[device as usize].listens.is_none() {
                let script = self.draw_script(device);
                self.devices[device as usize].script = script;
            }
        }
    }

    fn draw_script(&mut self, device: u32) -> VecDeque<Step> {
        let mut rng = Rng::fork(self.plan.seed, "script", u64::from(device));
        let (mut script, mut said) = (VecDeque::new(), Vec::new());
        while (said.len() as u64) < self.plan.sends {
            let most = (self.plan.sends - said.len() as u64).min(4);
            let intents: Vec<IntentIx> = (0..rng.between(1, most))
                .map(|_| {
                    let channel = *rng.pick(&self.devices[device as usize].channels);
                    self.intend(device, channel)
                })
                .collect();
            said.extend(&intents);
            script.push_back(Step::Say(intents));
            if rng.chance(100) {
                script.push_back(Step::Again(*rng.pick(&said)));
            }
            if rng.chance(80) {
                script.push_back(Step::Leave);
            }
        }
        script
    }

    /// In each channel one user after the other: nobody speaks before it has read what came before.
    fn write_turns(&mut self) {
        let mut last: Vec<Option<IntentIx>> = vec![None; self.history.channels.len()];
        for round in 0..self.plan.sends as usize {
            for channel in 0..self.history.channels.len() as ChannelIx {
                let user = self.history.channels[channel as usize].users[round % 2];
                let device = self.sender_of(user);
                let intent = self.intend(device, channel);
                let script = &mut self.devices[device as usize].script;
                script.extend(last[channel as usize].replace(intent).map(Step::Await));
                script.push_back(Step::Say(vec![intent]));
            }
        }
    }

    pub(super) fn follow_script(&mut self, device: u32, conn: u32) {
        let there = |d: &super::clients::Device| matches!(d.state, State::Active(_));
        self.assembled |= self.devices.iter().all(there);
        let d = &self.devices[device as usize];
        let goes_on = self.assembled
            && match d.script.front() {
                None => false,
                Some(Step::Say(_)) => d.pending.len() < PENDING_MAX,
                Some(Step::Again(intent)) => d.acked.contains(intent),
                Some(Step::Await(intent)) => self.was_read(device, *intent),
                Some(Step::Leave) => true,
            };
        if !goes_on {
            return;
        }
        match self.devices[device as usize].script.pop_front() {
            Some(Step::Say(intents)) => self.send(device, conn, &intents),
            Some(Step::Again(intent)) => self.send(device, conn, &[intent]),
            Some(Step::Leave) => self.hang_up_client(conn),
            Some(Step::Await(_)) | None => {}
        }
    }
}

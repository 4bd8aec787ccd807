//! What the slot's leader sees to for its channels: the first assignment, a new epoch when a leader is lost, the fence round, and
//! that the channel is led where its slot is (cluster-and-raft 4.18).

use super::{Channel, Channels, Facts, Stage};
use crate::cluster::assignment::AssignCommand;
use crate::cluster::control::{Controller, FenceAnswer, Step, Wish};
use crate::cluster::{Command, Outcome, Slots, Waiter};
use crate::ctx::Ctx;
use crate::error::Refusal;
use crate::ids::{ChannelKey, PeerProcess, SlotId};
use crate::limits;
use crate::mutants::Mutant;
use crate::raft::config::Replica;
use crate::raft::core::{Input, Report};
use crate::raft::message::{Envelope, Message};
use crate::store::rows::Assignment;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

impl Channels {
    /// Head row and slot rows are known, and somebody wants the channel served: sees to it that it has a leader.
    pub(super) fn decide(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        if !channel.wanted || !channel.head_known || channel.stage == Stage::Stopped {
            return;
        }
        let Facts::Known(assignment) = channel.facts.clone() else { return };
        let me = ctx.replica();
        let (key, slot, activation) = (channel.key.clone(), channel.slot, channel.activation);
        let assignment = assignment.filter(|a| !a.deleted);
        if !channel.deletions.is_empty() {
            return self.decide_deletion(ctx, slots, index, assignment);
        }
        let command = match assignment {
            None => {
                let voters = choose_voters(ctx, &key);
                let command = AssignCommand::Create { voters, leader: me, incarnation: ctx.incarnation };
                Command::Assign { channel: key, command }
            }
            Some(a) if a.voters == [me] && a.voters_out.is_empty() => {
                if channel.may_resume(ctx, &a) {
                    return self.install(ctx, slots, index);
                }
                let (generation, epoch, incarnation) = (a.generation, a.epoch, ctx.incarnation);
                Command::ElectSole { channel: key, generation, epoch, leader: me, incarnation }
            }
            Some(a) => return self.take_charge(ctx, slots, index, a),
        };
        if !slots.propose(ctx, slot, command, Waiter::Channel { index, activation }) {
            self.stop(ctx, index);
        }
    }

    /// The slot answered a proposal.
    pub fn on_assigned(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, activation: u64, outcome: Outcome) {
        // Who is not looked after any more was proposed for by a leader of the slot that was: others go on from the record.
        let Some(channel) = self.get(index, activation).filter(|c| c.wanted) else { return };
        match outcome {
            Outcome::Assigned { assignment, stale } => {
                let known = (assignment.generation > 0).then(|| Arc::new(assignment));
                channel.facts = Facts::Known(known.clone());
                match known {
                    Some(a) if !stale || channel.controller.is_some() => self.on_record(ctx, slots, index, a),
                    _ => self.decide(ctx, slots, index),
                }
            }
            // The controller asks again; who has none is loaded again.
            Outcome::Unknown if channel.controller.is_some() => {}
            Outcome::Done | Outcome::Unknown | Outcome::Damaged => self.stop(ctx, index),
        }
    }

    fn on_record(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, a: Arc<Assignment>) {
        if a.deleted {
            return self.gone(ctx, slots, index);
        }
        let channel = &mut self.slab[index as usize];
        if a.voters == [ctx.replica()] && a.voters_out.is_empty() && a.learners.is_empty() {
            channel.controller = None;
            return self.install(ctx, slots, index);
        }
        match channel.controller.as_mut() {
            Some(controller) => {
                controller.on_record(ctx.now.mono, a);
                wish_for(ctx, controller);
                self.drive(ctx, slots, index);
            }
            None => self.take_charge(ctx, slots, index, a),
        }
    }

    /// This node leads the slot: it looks after the channel from now on.
    pub(super) fn take_charge(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, a: Arc<Assignment>) {
        let channel = &mut self.slab[index as usize];
        let me = ctx.replica();
        let resumes = !channel.leading && channel.may_resume(ctx, &a);
        let mut controller = Controller::new(ctx.now.mono, Arc::clone(&a), None);
        let lives = a.leader.is_none_or(|(r, incarnation)| {
            // Whoever led in this process and is not in memory has settled.
            ctx.runs(r, incarnation) && (r != me || channel.leading || resumes || channel.head.epoch < a.epoch)
        });
        if !lives {
            controller.elect(ctx.now.mono);
        }
        wish_for(ctx, &mut controller);
        channel.controller = Some(Box::new(controller));
        self.install(ctx, slots, index);
        self.drive(ctx, slots, index);
    }

    /// Hands the newest record to the replica of this node, if that takes part.
    pub(super) fn install(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        let channel = &mut self.slab[index as usize];
        let Facts::Known(Some(a)) = channel.facts.clone() else { return };
        if channel.stage != Stage::Running || a.deleted || !a.is_member(ctx.replica()) {
            return;
        }
        self.enter(ctx, slots, index, a.generation, Input::Assign(a));
    }

    /// An input of the replica of `generation`; what is of an older one is void, a newer one begins a log.
    fn enter(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, generation: u64, input: Input) {
        let channel = &self.slab[index as usize];
        if generation <= channel.void {
            return;
        }
        // Wherever the slot is led, who settled and left memory goes on in its epoch.
        let input = match input {
            Input::Assign(a) if !channel.leading && channel.may_resume(ctx, &a) => Input::Resume(a),
            other => other,
        };
        let known = if channel.group.is_some() { channel.head.generation } else { 0 };
        let begins = matches!(&input, Input::Assign(_) | Input::Resume(_))
            || matches!(&input, Input::Message(m) if matches!(m.message, Message::Fence | Message::Begin { .. }));
        if generation > known && begins && slots.hydrated(channel.slot) {
            self.begin_generation(ctx, slots, index, generation);
        } else if generation != known {
            return;
        }
        self.step(ctx, slots, index, input);
    }

    /// Carries out what the controller wants.
    pub(super) fn drive(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32) {
        loop {
            let channel = &mut self.slab[index as usize];
            let Some(controller) = channel.controller.as_mut() else { return };
            let Some(step) = controller.poll() else { break };
            let generation = controller.assignment.generation;
            let (slot, key, me) = (channel.slot, channel.key.clone(), ctx.replica());
            match step {
                Step::Propose(command) => {
                    let waiter = Waiter::Channel { index, activation: channel.activation };
                    // If the slot does not take it, its next leader will look after the channel.
                    slots.propose(ctx, slot, Command::Assign { channel: key, command }, waiter);
                }
                Step::Fence { to, epoch } => {
                    let from_incarnation = ctx.incarnation;
                    let fence = Envelope { from: me, to, from_incarnation, epoch, message: Message::Fence };
                    if to == me {
                        self.peer_input(ctx, slots, index, generation, Input::Message(fence));
                    } else {
                        ctx.post(slot, Some((&key, generation)), fence);
                    }
                }
                Step::Assign { to, assignment } if to == me => {
                    self.peer_input(ctx, slots, index, generation, Input::Assign(assignment));
                }
                Step::Assign { to, assignment } => ctx.post_assign(to, &key, assignment),
                Step::Handover { leader, target } if leader == me => {
                    self.peer_input(ctx, slots, index, generation, Input::Handover { target });
                }
                Step::Handover { leader, target } => ctx.post_handover(leader, &key, generation, target),
            }
        }
        self.slab[index as usize].arm(ctx, index);
    }

    /// Something for the replica of this node: from another node, or from this one as the slot's leader.
    pub(super) fn peer_input(&mut self, ctx: &mut Ctx, slots: &mut Slots, index: u32, generation: u64, input: Input) {
        let channel = &mut self.slab[index as usize];
        if let Input::Message(m) = &input
            && let Message::FenceResp { durable, damaged, .. } = m.message
        {
            let (from, incarnation, epoch) = (m.from, m.from_incarnation, m.epoch);
            let answer = FenceAnswer { from, incarnation, epoch, durable, damaged };
            if let Some(c) = channel.controller.as_mut().filter(|c| c.assignment.generation == generation) {
                c.on_fence_answer(answer);
                self.drive(ctx, slots, index);
            }
            return;
        }
        match channel.stage {
            Stage::Loading if channel.early.len() < limits::EARLY_INPUTS_MAX => {
                channel.early.push_back((generation, input))
            }
            Stage::Loading | Stage::Stopped => {}
            Stage::Running => self.enter(ctx, slots, index, generation, input),
        }
    }

    /// The same from another node. A fence, a leader or the slot brings a replica into memory: a leader that settled does not
    /// know that a follower restarted, or left memory, and goes on where it was.
    pub fn on_peer(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey, generation: u64, input: Input) {
        let calls = match &input {
            Input::Message(m) if ctx.mutant(Mutant::FollowerForgotten) => {
                matches!(m.message, Message::Fence | Message::Begin { .. } | Message::Wake)
            }
            Input::Message(m) => matches!(
                m.message,
                Message::Fence | Message::Begin { .. } | Message::Wake | Message::Items { .. } | Message::Settle { .. }
            ),
            Input::Assign(_) => true,
            _ => false,
        };
        let index = if calls { self.ensure(ctx, slots, key) } else { self.by_key.get(key).copied() };
        if let Some(index) = index {
            self.peer_input(ctx, slots, index, generation, input);
        }
    }

    /// The leader of a channel reports to the leader of its slot.
    pub fn on_report(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        key: &ChannelKey,
        generation: u64,
        from: Replica,
        report: Report,
    ) {
        let Some(index) = self.by_key.get(key).copied() else { return };
        let channel = &mut self.slab[index as usize];
        let Some(c) = channel.controller.as_mut().filter(|c| c.assignment.generation == generation) else { return };
        let me = ctx.replica();
        let incarnation = |r: Replica| {
            if r == me {
                return Some(ctx.incarnation);
            }
            ctx.peer(r.node).filter(|p| p.store == r.store).map(|p| p.incarnation)
        };
        c.on_report(ctx.now.mono, from, incarnation, report);
        self.drive(ctx, slots, index);
    }

    /// Links came or went: channels that are looked after here, and whose leader does not run, get another one. Fencing makes a
    /// false alarm harmless.
    pub fn elect_for_lost(&mut self, ctx: &mut Ctx, slots: &mut Slots) {
        let lost = |ch: &Channel| ch.controller.as_ref().is_some_and(|c| leader_is_lost(ctx, slots, ch.slot, c));
        let due: Vec<u32> = self.slab.iter().filter(|(_, c)| lost(c)).map(|(i, _)| i as u32).collect();
        for index in due {
            if let Some(c) = self.slab[index as usize].controller.as_mut() {
                c.elect(ctx.now.mono);
            }
            self.drive(ctx, slots, index);
        }
    }

    /// A process is there: followers of it that settled leaders know to lag are called.
    pub fn on_peer_up(&mut self, ctx: &mut Ctx, slots: &mut Slots, peer: PeerProcess) {
        let back = Replica { node: peer.node, store: peer.store };
        let leading: Vec<u32> = self.slab.iter().filter(|(_, c)| c.leading).map(|(i, _)| i as u32).collect();
        for index in leading {
            self.step(ctx, slots, index, Input::PeerUp(back));
        }
    }

    /// Leads, and has something to do; or it is being loaded, and will be seen to.
    #[must_use]
    pub fn is_awake(&self, key: &ChannelKey) -> bool {
        let channel = self.by_key.get(key).map(|i| &self.slab[*i as usize]);
        channel.is_some_and(|c| {
            c.stage == Stage::Loading || (c.leading && c.group.as_ref().is_some_and(|g| !g.is_settled()))
        })
    }

    /// A member of this slot, which is led here, has something else of a settled channel than this node: its leader serves it again.
    pub fn rouse(&mut self, ctx: &mut Ctx, slots: &mut Slots, key: &ChannelKey, member: Replica) {
        let known = self.by_key.contains_key(key);
        let Some(index) = self.want(ctx, slots, key) else { return };
        let channel = &mut self.slab[index as usize];
        channel.last_active = ctx.now.mono;
        if channel.leading {
            return self.step(ctx, slots, index, Input::Rouse(member));
        }
        // Whoever begins to lead calls all; who leads elsewhere is asked to hand over, which calls them too.
        if let Some(controller) = channel.controller.as_mut().filter(|_| known) {
            wish_for(ctx, controller);
            self.drive(ctx, slots, index);
        }
    }

    /// The slot is led elsewhere from now on: others look after its channels.
    pub fn on_slot_lost(&mut self, ctx: &mut Ctx, slot: SlotId) {
        let all: Vec<u32> = self.slab.iter().filter(|(_, c)| c.slot == slot).map(|(i, _)| i as u32).collect();
        for index in all {
            let channel = &mut self.slab[index as usize];
            channel.controller = None;
            channel.wanted = false;
            channel.facts = Facts::Unknown;
            // The next leader of the slot may find it in its log, or not.
            channel.answer_deletions(ctx, Err(Refusal::Timeout));
            if !channel.leading {
                channel.refuse_all(ctx, &mut self.dedup);
                self.fail_readers(ctx, index);
            }
        }
    }
}

/// Whether the process that the record names as leader is not this one, and none that a link is open to; or it is, and stands still.
pub(super) fn leader_is_lost(ctx: &Ctx, slots: &Slots, slot: SlotId, controller: &Controller) -> bool {
    let lost = |(r, incarnation)| !ctx.runs(r, incarnation) || slots.is_silent(ctx, slot, r);
    controller.assignment.leader.is_some_and(lost)
}

/// A channel is led where its slot is. Said again whenever the record names somebody else: a fence round elects whoever has most.
fn wish_for(ctx: &Ctx, controller: &mut Controller) {
    let (me, a) = (ctx.replica(), &controller.assignment);
    if controller.wish.is_none() && a.voters.contains(&me) && a.leader.is_none_or(|(r, _)| r != me) {
        controller.on_wish(ctx.now.mono, Wish::Leader(me));
    }
}

/// This node, and those that follow it in a ring that begins elsewhere for each channel.
fn choose_voters(ctx: &Ctx, key: &ChannelKey) -> Vec<Replica> {
    let me = ctx.replica();
    let mut others: Vec<Replica> = ctx.config.replicas.iter().copied().filter(|r| *r != me).collect();
    if !others.is_empty() {
        let turn = crc32fast::hash(key.id.as_bytes()) as usize % others.len();
        others.rotate_left(turn);
    }
    others.truncate(limits::CHANNEL_REPLICAS_MAX - 1);
    others.insert(0, me);
    others
}

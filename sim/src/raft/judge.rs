//! The oracles: invariants I1 to I30 of cluster-and-raft 4.29, against the real disks and logs, not against messages.

use super::cluster::Cluster;
use super::ghost::{Committed, GroupId};
use super::record::Deed;
use super::{GroupNo, MS, NodeNo, SLOT};
use std::sync::Arc;
use wukong_core::cluster::assignment::AssignCommand;
use wukong_core::ids::{Epoch, Position};
use wukong_core::raft::Log;
use wukong_core::raft::config::{Config, Replica};
use wukong_core::raft::core::{Alarm, Op, Outcome, Output, Report, Role};
use wukong_core::raft::message::{Body, Entry, Envelope, Item, Message, RefuseKind};
use wukong_core::store::rows::Assignment;

/// A number for the content of an entry.
fn content(e: &Entry) -> u64 {
    match &e.body {
        Body::Data(b) => u64::from_be_bytes(b.as_ref().try_into().unwrap_or([255; 8])),
        Body::Config(c) => 3 << 62 | c.version,
    }
}

/// Whether the content of an entry is the key that a client gave it.
fn is_keyed(e: &Entry) -> bool {
    matches!(&e.body, Body::Data(b) if b.first().is_some_and(|tag| tag >> 6 == 0))
}

impl Cluster {
    fn id(&self, n: NodeNo, g: GroupNo) -> GroupId {
        (g, self.nodes[n].groups[g].as_ref().map_or(0, |l| l.generation))
    }

    pub fn check_output(&mut self, n: NodeNo, g: GroupNo, output: &Output) {
        self.ghost.judged += 1;
        let id = self.id(n, g);
        match output {
            Output::Send(m) => self.check_send(n, g, m),
            Output::Persist { ops, .. } => self.check_persist(n, g, ops),
            Output::Committed { hw } => self.check_commit(n, g, *hw),
            Output::Role { role: Role::Leader, epoch, .. } => self.check_leader(n, g, *epoch),
            Output::Role { role: Role::PreCandidate, .. } => self.cover.hit("campaigned"),
            Output::Outcome { outcome, .. } => match outcome {
                Outcome::Unknown => self.cover.hit("unknown outcome"),
                Outcome::Refused { kind: RefuseKind::Busy, .. } => self.cover.hit("refused Busy"),
                Outcome::Refused { kind: RefuseKind::NotLeader, .. } => self.cover.hit("refused NotLeader"),
                _ => {}
            },
            Output::Report(r) => self.note_report(id, r),
            Output::Alarm(Alarm::LostAck) => {
                // Legal only where a disk was damaged.
            }
            Output::Alarm(alarm) => self.violation("alarm", format!("n{n} g{g}: {alarm:?}")),
            _ => {}
        }
    }

    fn note_report(&mut self, id: GroupId, report: &Report) {
        let ghost = self.ghost.group(id);
        match report {
            Report::Ready { epoch } => {
                ghost.stable.insert(epoch.0);
            }
            Report::HandoverReady { epoch, .. } => {
                ghost.handed.insert(epoch.0);
                self.cover.hit("handover");
            }
            Report::NeedElect { .. } => self.cover.hit("handover failed"),
            Report::JointStable { .. } | Report::CaughtUp { .. } => {}
        }
    }

    /// I1, I8, I17: one leader for each epoch, and it has everything that was committed before.
    fn check_leader(&mut self, n: NodeNo, g: GroupNo, epoch: Epoch) {
        let id = self.id(n, g);
        let who = (self.nodes[n].me(), self.nodes[n].incarnation());
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        let ghost = self.ghost.groups.entry(id).or_default();
        self.cover.hit("elected");
        match ghost.leads.get(&epoch.0) {
            Some(other) if *other != who => {
                let what = format!("g{g} epoch {epoch}: {other:?} leads it, and now {who:?}");
                return self.violation_about("I1", what, &[Deed::Led(id, epoch.0)]);
            }
            Some(_) => return,
            None => {
                ghost.leads.insert(epoch.0, who);
            }
        }
        let base = live.items.log.base.index;
        let missing = (1..).zip(&ghost.committed).find(|(i, c)| {
            *i > base
                && c.by < epoch.0
                && live.items.get(*i).is_none_or(|e| (e.epoch.0, content(e)) != (c.epoch, c.content))
        });
        if let Some((i, c)) = missing {
            let what =
                format!("n{n} leads g{g} epoch {epoch} without entry {i} of epoch {} committed by {}", c.epoch, c.by);
            self.violation_about("I8", what, &[Deed::Covered(id, i)]);
        }
    }

    /// I2, I3, I12, I16: what a message claims is on the sender's disk when it leaves.
    fn check_send(&mut self, n: NodeNo, g: GroupNo, m: &Envelope) {
        let id = self.id(n, g);
        let me = self.nodes[n].me();
        if let Err(why) = self.ghost.voices.speaks(n, me, m.from, m.from_incarnation) {
            return self.violation("I28", why);
        }
        let Some(disk) = self.nodes[n].durable[g].as_ref() else { return };
        if m.epoch > disk.epoch.max(disk.items.log.end().epoch) {
            let what = format!("n{n} g{g} sends {} of epoch {} and promised {}", m.message.name(), m.epoch, disk.epoch);
            return self.violation("I3", what);
        }
        match &m.message {
            Message::VoteResp { granted: true } => {
                if disk.epoch == m.epoch && disk.voted_for != Some(m.to) || disk.epoch < m.epoch {
                    let what =
                        format!("n{n} g{g} grants {:?} epoch {}, its disk says {:?}", m.to, m.epoch, disk.voted_for);
                    self.violation("I2", what);
                }
                let votes = &mut self.ghost.group(id).votes;
                if let Some(other) = votes.insert((me, m.epoch.0), m.to)
                    && other != m.to
                {
                    self.violation("I2", format!("n{n} g{g} votes in epoch {} for {other:?} and {:?}", m.epoch, m.to));
                }
            }
            Message::VoteReq { .. } if disk.epoch == m.epoch && disk.voted_for != Some(me) => {
                self.violation("I2", format!("n{n} g{g} asks for votes before its own is durable"));
            }
            Message::Fetch(f) => self.check_claim(n, g, f.durable, "Fetch"),
            Message::FenceResp { durable, .. } => {
                if disk.epoch < m.epoch {
                    self.violation(
                        "I18",
                        format!("n{n} g{g} answers a fence of {} with a promise of {}", m.epoch, disk.epoch),
                    );
                }
                self.check_claim(n, g, *durable, "FenceResp");
            }
            Message::Items { items, .. } if !items.is_empty() => {
                if self.config_of(n, g).is_some_and(|c| !c.is_member(m.to)) {
                    self.cover.hit("stranger served");
                }
                self.check_items(id, items, "sends");
            }
            Message::Diverged { .. } => self.cover.hit("truncate"),
            Message::PreVoteResp { granted: false, .. } => self.cover.hit("pre-vote refused"),
            Message::Refuse { kind: RefuseKind::Fenced, .. } => self.cover.hit("stale epoch refused"),
            Message::Refuse { kind: RefuseKind::Removed, .. } => {
                self.cover.hit("removed told");
                if self.answers_fetch {
                    self.check_removed(n, g, m.to);
                }
            }
            Message::EndEpoch { .. } => self.cover.hit("stepped down"),
            Message::TransferNow { .. } => self.cover.hit("transfer"),
            _ => {}
        }
    }

    /// 4.16: who asks for what removed it is given it, not sent away.
    fn check_removed(&mut self, n: NodeNo, g: GroupNo, to: Replica) {
        let Some(removal) = self.nodes[n].groups[g].as_ref().map(|l| l.core.config_index()) else { return };
        let lacks = |l: &super::node::Live| l.core.hw() < removal && l.core.members().is_member(to);
        let ignorant = self.place(to).and_then(|p| self.nodes[p].groups[g].as_ref()).is_some_and(lacks);
        if ignorant {
            let what = format!("n{n} g{g} sends {to:?} away, which does not have its removal at {removal}");
            self.violation("removed", what);
        }
    }

    /// I25: a reader at node `n` sees everything up to `index` that is applied there.
    pub fn check_visible(&mut self, n: NodeNo, g: GroupNo, index: u64) {
        let id = self.id(n, g);
        let Some(live) = self.nodes[n].groups[g].as_mut() else { return };
        let from = live.seen.max(live.items.log.base.index) + 1;
        let to = index.min(live.core.hw());
        live.seen = live.seen.max(to);
        let ghost = self.ghost.groups.entry(id).or_default();
        let seen = (from..=to).filter_map(|i| live.items.get(i));
        let wrong = seen.map(|e| (e, ghost.visible.see(e.index, content(e), is_keyed(e)))).find(|(_, r)| r.is_err());
        if let Some((e, Err(why))) = wrong {
            let about = [Deed::Covered(id, e.index)];
            self.violation_about("I25", format!("n{n} g{g} reader: {why}"), &about);
        }
    }

    /// I12: a claimed position is on the disk, and in the log.
    fn check_claim(&mut self, n: NodeNo, g: GroupNo, claim: Position, what: &str) {
        let (Some(disk), Some(live)) = (self.nodes[n].durable[g].as_ref(), self.nodes[n].groups[g].as_ref()) else {
            return;
        };
        let on = |log: &Log| log.is_below_base(claim) || log.consistent(claim) || claim == log.base;
        if !on(&disk.items.log) || !on(&live.items.log) {
            let (d, l) = (disk.items.log.end(), live.items.log.end());
            self.violation("I12", format!("n{n} g{g} {what} claims {claim:?}; disk {d:?}, log {l:?}"));
        }
    }

    /// I4: an (epoch, index) names one entry, an epoch one mark.
    fn check_items(&mut self, id: GroupId, items: &[Item], what: &str) {
        let mut wrong = None;
        let ghost = self.ghost.groups.entry(id).or_default();
        for item in items {
            match item {
                Item::Mark { epoch, at } => {
                    if *ghost.marks.entry(epoch.0).or_insert(*at) != *at {
                        wrong =
                            Some(format!("{what} a mark of epoch {epoch} at {at}, known at {}", ghost.marks[&epoch.0]));
                    }
                }
                Item::Entry(e) => {
                    let c = content(e);
                    if ghost.created(e.epoch.0, e.index, c) != c {
                        wrong = Some(format!("{what} another entry as epoch {} index {}", e.epoch, e.index));
                    }
                }
            }
        }
        if let Some(why) = wrong {
            self.violation("I4", format!("g{} {why}", id.0));
        }
    }

    /// I4, I6, I7, I10, I20: what is written fits the log.
    fn check_persist(&mut self, n: NodeNo, g: GroupNo, ops: &[Op]) {
        let id = self.id(n, g);
        for op in ops {
            match op {
                Op::Append(items) => {
                    self.check_items(id, items, "appends");
                    self.check_shape(n, g, items);
                }
                Op::Truncate(keep) => {
                    self.cover.hit("truncate");
                    let Some(live) = self.nodes[n].groups[g].as_mut() else { return };
                    let epoch = live.core.epoch();
                    if live.cut_in.replace(epoch) == Some(epoch) {
                        self.cover.hit("diverged twice");
                    }
                    if keep.index < live.floor && live.core.role() != Role::Damaged {
                        let what = format!("n{n} g{g} cuts to {keep:?} below its commit index {}", live.floor);
                        self.violation("I10", what);
                    }
                    if self.nodes[n].groups[g].as_ref().is_some_and(|l| l.core.is_leader()) {
                        self.violation("I7", format!("n{n} g{g} leads and cuts its log"));
                    }
                }
                Op::Compact { .. } => self.cover.hit("compact"),
                Op::Rebase { snapshot, .. } => {
                    let floor = self.nodes[n].groups[g].as_ref().map_or(0, |l| l.floor);
                    if snapshot.base.index < floor {
                        let what = format!("n{n} g{g} installs a snapshot at {:?} below {floor}", snapshot.base);
                        self.violation("I27", what);
                    }
                }
                Op::Hard { .. } | Op::Hint { .. } => {}
            }
        }
    }

    fn check_shape(&mut self, n: NodeNo, g: GroupNo, items: &[Item]) {
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        let mut end = live.items.log.end();
        let mut wrong = None;
        for item in items {
            match item {
                Item::Mark { epoch, at } => {
                    if *epoch <= end.epoch || *at != end.index {
                        wrong = Some(format!("mark {epoch} at {at} after {end:?}"));
                    }
                    end.epoch = *epoch;
                }
                Item::Entry(e) => {
                    end.index += 1;
                    if e.index != end.index || e.epoch != end.epoch {
                        wrong = Some(format!("entry {}.{} at {end:?}", e.epoch, e.index));
                    }
                    if let Body::Config(c) = &e.body {
                        let leading = live.core.is_leader() && e.epoch == live.core.epoch();
                        if leading
                            && (!live.core.epoch_committed()
                                || live.core.config_index() > live.core.hw() && live.core.config_index() != e.index)
                        {
                            wrong = Some(format!("config {} before the one before is committed", c.version));
                        }
                        if leading && wrong.is_none() {
                            wrong = self.config_step(n, g, e.index, c);
                        }
                        self.cover.hit(if c.is_joint() { "joint" } else { "joint left" });
                    }
                }
            }
        }
        if let Some(what) = wrong {
            self.violation("I6", format!("n{n} g{g}: {what}"));
        }
    }

    /// I19, and newcomers that lack too much: what is wrong with a config that a leader appends.
    fn config_step(&self, n: NodeNo, g: GroupNo, index: u64, c: &Config) -> Option<String> {
        let live = self.nodes[n].groups[g].as_ref()?;
        let before = Arc::clone(&live.members);
        let moved = |a: &[Replica], b: &[Replica]| a.iter().filter(|r| !b.contains(r)).count();
        let changed = moved(&c.voters, &before.voters) + moved(&before.voters, &c.voters);
        let legal = match (before.is_joint(), c.is_joint()) {
            (true, _) => changed == 0,
            (false, true) => moved(&before.voters, &c.voters_out) == 0 && c.voters_out.len() == before.voters.len(),
            (false, false) => changed <= 1,
        };
        if !legal {
            return Some(format!("I19: {before:?} is followed by {c:?}"));
        }
        let late = c.voters.iter().filter(|r| !before.is_voter(**r)).find(|r| {
            let disk = self.place(**r).and_then(|p| self.nodes[p].durable[g].as_ref());
            disk.is_none_or(|d| d.items.log.end().index + super::deliver::CATCH_UP + 1 < index)
        });
        late.map(|r| format!("{r:?} becomes a voter and lacks too much"))
    }

    /// The members in force for a commit by node `n`.
    fn config_of(&self, n: NodeNo, g: GroupNo) -> Option<Arc<Config>> {
        self.nodes[n].groups[g].as_ref().map(|l| Arc::clone(l.core.members()))
    }

    /// I9, I10, I11, I15: a commit index covers what is, and stays, committed.
    fn check_commit(&mut self, n: NodeNo, g: GroupNo, hw: u64) {
        let id = self.id(n, g);
        let Some(live) = self.nodes[n].groups[g].as_mut() else { return };
        let leader = live.core.is_leader() || live.led.is_some();
        let epoch = if live.core.is_leader() { live.core.epoch() } else { live.led.unwrap_or(live.core.epoch()) };
        if hw < live.hw {
            let what = format!("n{n} g{g} lowers its commit index from {} to {hw}", live.hw);
            return self.violation("I10", what);
        }
        let from = live.hw.max(live.items.log.base.index) + 1;
        live.hw = hw;
        let live = self.nodes[n].groups[g].as_ref().expect("just seen");
        let ghost = self.ghost.groups.entry(id).or_default();
        let mut wrong = None;
        for index in from..=hw {
            let Some(e) = live.items.get(index) else {
                wrong = Some(("I9", format!("n{n} g{g} commits {index} and does not have it"), index));
                break;
            };
            let new = Committed { epoch: e.epoch.0, content: content(e), by: epoch.0 };
            match ghost.committed.get(index as usize - 1) {
                Some(old) if (old.epoch, old.content) != (new.epoch, new.content) => {
                    let what = format!("n{n} g{g} entry {index}: {old:?} was committed, now {new:?}");
                    wrong = Some(("I9", what, index));
                    break;
                }
                Some(_) => {}
                None if ghost.committed.len() as u64 + 1 == index => {
                    ghost.committed.push(new);
                    if let Err(why) = ghost.visible.see(index, new.content, is_keyed(e)) {
                        wrong = Some(("I25", format!("g{g}: {why}"), index));
                        break;
                    }
                    if let Body::Config(c) = &e.body {
                        ghost.config = Some(Arc::clone(c));
                    }
                }
                None => {
                    wrong = Some(("I24", format!("n{n} g{g} commits {index} after {}", ghost.committed.len()), index));
                    break;
                }
            }
        }
        ghost.epoch = ghost.epoch.max(epoch.0);
        if leader && ghost.handed.contains(&epoch.0) && wrong.is_none() {
            wrong = Some(("I18", format!("n{n} g{g} commits {hw} in epoch {epoch}, which it handed over"), hw));
        }
        if let Some((invariant, what, index)) = wrong {
            return self.violation_about(invariant, what, &[Deed::Covered(id, index)]);
        }
        if leader {
            self.check_quorum(n, g, epoch, hw);
        } else if let Some(live) = self.nodes[n].groups[g].as_ref() {
            let known = live.core.validated().map_or(0, |v| v.index).max(live.floor);
            let restored = live.items.log.base.index;
            if hw > known.max(restored) {
                self.violation("I15", format!("n{n} g{g} believes {hw}, its log is known to match up to {known}"));
            }
        }
    }

    /// I11, I23: a quorum of the members in force has it on disk, in this epoch.
    fn check_quorum(&mut self, n: NodeNo, g: GroupNo, epoch: Epoch, hw: u64) {
        let Some(config) = self.config_of(n, g) else { return };
        let generation = self.id(n, g).1;
        let holds = |r: Replica| {
            self.place(r).and_then(|p| self.nodes[p].durable[g].as_ref()).is_some_and(|d| {
                let end = d.items.log.end();
                d.generation == generation && end.epoch >= epoch && end.index >= hw && !d.suspect
                    || d.lost.is_some_and(|lost| lost.epoch >= epoch && lost.index >= hw)
            }) || self.graves.get(&(r, g)).is_some_and(|(of, end)| {
                // It acknowledged, and then lost its disk.
                *of == generation && end.epoch >= epoch && end.index >= hw
            })
        };
        // Where the channel was made anew, its former self went with what it had acknowledged.
        let newer = self.nodes.iter().filter_map(|x| x.durable[g].as_ref()).any(|d| d.generation > generation);
        if !config.quorum(holds) && !newer {
            let ends: Vec<_> = config
                .all_voters()
                .into_iter()
                .map(|r| self.place(r).and_then(|p| self.nodes[p].durable[g].as_ref()).map(|d| d.items.log.end()))
                .collect();
            return self
                .violation("I11", format!("n{n} g{g} commits {hw} in epoch {epoch}; on the voters' disks: {ends:?}"));
        }
        let mine = self.nodes[n].durable[g].as_ref().is_some_and(|d| d.items.log.end().index >= hw);
        if !mine {
            self.cover.hit("commit without the leader's disk");
        }
        if !config.is_voter(self.nodes[n].me()) {
            self.cover.hit("leader outside the voters");
        }
    }

    /// I9 for the slot: equal applied index, equal state.
    pub fn check_state(&mut self, n: NodeNo, applied: u64, hash: u64) {
        if *self.ghost.states.entry(applied).or_insert(hash) != hash {
            self.violation("I9", format!("n{n}: another state at applied index {applied}"));
        }
    }

    /// I17, I18: leaders are assigned in rising epochs, and elected ones only after a quorum promised.
    pub fn check_assignment(&mut self, g: GroupNo, a: Option<&Assignment>, command: &AssignCommand) {
        let Some(a) = a.filter(|a| !a.deleted) else { return };
        let ghost = self.ghost.groups.entry((g, a.generation)).or_default();
        if let AssignCommand::LeaveJoint { epoch, .. } = command
            && a.epoch.0 == epoch.0 + 1
            && a.voters_out.is_empty()
            && !ghost.stable.contains(&epoch.0)
            && a.config_version > ghost.left
        {
            return self.violation("I20", format!("g{g}: joint epoch {epoch} is left before its mark is committed"));
        }
        ghost.left = a.config_version;
        let AssignCommand::Lead { generation, epoch, leader, .. } = command else { return };
        if (*generation, *epoch, Some(*leader)) != (a.generation, a.epoch, a.leader.map(|(r, _)| r))
            || a.epoch.0 == ghost.assigned
        {
            return;
        }
        self.cover.hit("lead");
        if a.epoch.0 < ghost.assigned {
            let what = format!("g{g}: epoch {} is assigned after {}", a.epoch, ghost.assigned);
            return self.violation("I17", what);
        }
        ghost.assigned = a.epoch.0;
        let promised = |r: Replica| {
            self.place(r)
                .and_then(|p| self.nodes[p].durable[g].as_ref())
                .is_some_and(|d| d.generation > a.generation || d.generation == a.generation && d.epoch >= a.epoch)
        };
        // A wiped replica took its promise with it; it will never vote again either.
        let gone = |r: Replica| self.place(r).is_none();
        let config =
            Config { version: 0, voters: a.voters.clone(), voters_out: a.voters_out.clone(), learners: vec![] };
        if !config.quorum(|r| promised(r) || gone(r)) {
            self.violation("I18", format!("g{g}: {:?} leads epoch {} without a quorum of promises", a.leader, a.epoch));
        }
    }

    /// After each input: I30; and for I22, that a mark commits its epoch before any entry does.
    pub fn check_step(&mut self, n: NodeNo, g: GroupNo) {
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        if self.plan.lease && g == SLOT && live.core.epoch_committed() {
            let ghost = self.ghost.groups.entry((g, live.generation)).or_default();
            ghost.epoch = ghost.epoch.max(live.core.epoch().0);
        }
        if live.core.is_settled()
            && live.core.role() == Role::Leader
            && live.core.deadline() != wukong_core::time::Instant::NEVER
        {
            let what = format!("n{n} g{g} is settled and wants {:?}", live.core.deadline());
            self.violation("I30", what);
        }
    }

    /// A deadline that has passed is acted on: else the driver would spin.
    pub fn check_deadline(&mut self, n: NodeNo, g: GroupNo, local: wukong_core::time::Instant) {
        let Some(live) = self.nodes[n].groups[g].as_ref() else { return };
        if live.core.deadline() <= local {
            let what = format!("n{n} g{g} {:?} wants {:?} at {local:?}, again", live.core.role(), live.core.deadline());
            self.violation("busy", what);
        }
    }

    /// Now and then: I5, I14, I29 over all replicas.
    pub fn check_all(&mut self) {
        if !self.mode.oracles {
            return;
        }
        for g in 0..=self.plan.channels {
            self.check_matching(g);
        }
        let ids: Vec<GroupId> = self.ghost.groups.keys().copied().collect();
        for id in ids {
            self.check_acks(id);
        }
        for n in 0..self.nodes.len() {
            self.check_alone(n);
            for g in 0..=self.plan.channels {
                if let Some(l) = self.nodes[n].groups[g].as_ref()
                    && self.nodes[n].alive
                    && (l.core.held() > 4_096 || l.core.open_requests() > 8_192)
                {
                    self.violation("I29", format!("n{n} g{g} holds {} messages", l.core.held()));
                }
            }
        }
    }

    /// What of [`Self::check_all`] does not depend on time, for one group.
    pub fn check_state_of(&mut self, g: GroupNo) {
        self.check_matching(g);
        let ids: Vec<GroupId> = self.ghost.groups.keys().copied().filter(|id| id.0 == g).collect();
        for id in ids {
            self.check_acks(id);
        }
    }

    /// A leader of the slot that no quorum hears of steps down.
    fn check_alone(&mut self, n: NodeNo) {
        let (now, paused) = (self.now, self.nodes[n].paused_until + 500 * MS > self.now);
        let Some(live) = self.nodes[n].groups[SLOT].as_mut() else { return };
        let alone = live.core.is_leader() && !live.core.is_heard() && !paused;
        let since = *live.alone_since.get_or_insert(now);
        if !alone {
            live.alone_since = None;
        } else if now - since > 2_500 * MS {
            self.violation(
                "check-quorum",
                format!("n{n} leads the slot for {} ms and nobody hears it", (now - since) / MS),
            );
        }
    }

    /// I5: an item that two logs share has the same prefix in both.
    fn check_matching(&mut self, g: GroupNo) {
        for a in 0..self.nodes.len() {
            for b in a + 1..self.nodes.len() {
                let (Some(x), Some(y)) = (self.nodes[a].groups[g].as_ref(), self.nodes[b].groups[g].as_ref()) else {
                    continue;
                };
                if x.generation != y.generation {
                    continue;
                }
                let (x, y) = (&x.items, &y.items);
                let low = x.log.base.index.max(y.log.base.index);
                let high = x.log.end().index.min(y.log.end().index);
                // The last index at which they agree on the epoch: everything before must agree too.
                let same = |i: u64| x.get(i).zip(y.get(i)).is_some_and(|(p, q)| p.epoch == q.epoch);
                let Some(top) = (low + 1..=high).rev().find(|i| same(*i)) else { continue };
                let from = top.saturating_sub(200).max(low) + 1;
                let wrong = (from..=top).find(|i| x.get(*i) != y.get(*i));
                if let Some(i) = wrong {
                    let what = format!("g{g}: n{a} and n{b} share entry {top} and differ at {i}");
                    return self.violation_about("I5", what, &[Deed::Replica(a, g), Deed::Replica(b, g)]);
                }
            }
        }
    }

    /// I14: whichever quorum survives, one of it has each acknowledged entry.
    fn check_acks(&mut self, id: GroupId) {
        let (g, generation) = id;
        let Some(ghost) = self.ghost.groups.get(&id) else { return };
        let config = if g == SLOT {
            // As made, until another one is committed.
            let first = (0..self.plan.voters).map(|n| super::replica(n, 0)).collect();
            Some(ghost.config.clone().unwrap_or_else(|| Arc::new(Config::of(first))))
        } else {
            let newest = self.ghost.table.get(&g);
            newest.filter(|a| a.generation == generation && !a.deleted).map(|a| {
                let (voters, voters_out) = (a.voters.clone(), a.voters_out.clone());
                Arc::new(Config { version: 0, voters, voters_out, learners: vec![] })
            })
        };
        let Some(config) = config else { return };
        let recent = ghost.acks.len().saturating_sub(64);
        let lost = ghost.acks[recent..].iter().find(|(index, epoch, _)| {
            let lacks = |r: Replica| {
                self.place(r).and_then(|p| self.nodes[p].durable[g].as_ref()).is_none_or(|d| {
                    let log = &d.items.log;
                    let has = log.base.index >= *index || d.items.get(*index).is_some_and(|e| e.epoch.0 == *epoch);
                    d.generation != generation || !has || d.suspect
                })
            };
            config.quorum(|r| lacks(r) && self.place(r).is_some() && !self.suspect(r, g))
        });
        if let Some((index, epoch, op)) = lost {
            let disks: Vec<_> = config
                .all_voters()
                .into_iter()
                .map(|r| self.place(r).and_then(|p| self.nodes[p].durable[g].as_ref()))
                .map(|d| d.map(|d| (d.generation, d.items.log.base.index, d.items.log.end(), d.suspect)))
                .collect();
            let what = format!(
                "g{g}.{generation}: {index} of epoch {epoch} (operation {op}) is acked, a quorum lacks it: {disks:?}"
            );
            let index = *index;
            let holders: Vec<Deed> = (0..self.nodes.len()).map(|n| Deed::Replica(n, g)).collect();
            self.violation_about("I14", what, &[&[Deed::Told(id, index)], holders.as_slice()].concat());
        }
    }

    fn suspect(&self, r: Replica, g: GroupNo) -> bool {
        self.place(r)
            .and_then(|p| self.nodes[p].durable[g].as_ref())
            .is_some_and(|d| d.suspect || d.damaged_at.is_some())
    }
}

//! One run: nodes on simulated machines, faults, clients, and what must hold in the end.

use super::chat::Chat;
use super::counter::Counts;
use super::node::{self, Site};
use super::plan::{Drives, Keep, Kind, Plan};
use super::stage::{self, Stage};
use super::store::lock;
use super::tape::Tape;
use super::{chat, check};
use crate::cluster::external::External;
use crate::raft::cover::Cover;
use madsim::net::NetSim;
use madsim::runtime::Handle;
use madsim::task::NodeId as SimNode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::time::{sleep, sleep_until, timeout};
use wukong_runtime::reactor::inbox::Control;

/// A graceful stop may take this long.
const STOP: Duration = Duration::from_secs(8);
/// Between the end of a process and the next start, at least.
const DOWN: Duration = Duration::from_millis(5);

/// Everything of a run that no crash takes away.
pub struct World {
    pub plan: Plan,
    pub tape: Arc<Tape>,
    pub sites: Vec<Site>,
    pub counts: Arc<Mutex<Counts>>,
    pub chat: Chat,
    /// Of a scenario.
    pub stage: Option<Arc<Stage>>,
    machines: OnceLock<Vec<SimNode>>,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub trace: u64,
    pub events: u64,
    pub simulated: Duration,
    pub violations: Vec<String>,
    pub counts: Counts,
    pub starts: u64,
    pub acked: u64,
    pub received: u64,
    /// Of a scenario.
    pub judged: u64,
    pub cover: Cover,
    pub external: External,
}

/// Runs a plan. Must be called in a simulation of its own.
pub async fn drive(plan: Plan, print: bool) -> Outcome {
    let (low, high) = plan.latency;
    NetSim::current().update_config(|c| c.send_latency = Duration::from_micros(low)..Duration::from_micros(high));
    let sites = plan.nodes.iter().zip(1..).map(|(shards, id)| Site::new(id, *shards)).collect();
    let world = Arc::new(World {
        tape: Arc::new(Tape::new(print)),
        sites,
        counts: Arc::default(),
        chat: Chat::new(&plan),
        stage: plan.scenario.clone().map(|scenario| Stage::new(scenario, print)),
        machines: OnceLock::new(),
        plan,
    });
    let machine = |index: usize| {
        let site = &world.sites[index];
        let of_node = world.clone();
        let init = move || node::run(of_node.clone(), index);
        Handle::current().create_node().name(format!("n{}", site.id)).ip(site.ip()).init(init).build().id()
    };
    let machines = (0..world.sites.len()).map(machine).collect();
    world.machines.set(machines).expect("set once");
    if let Some(stage) = &world.stage {
        return stage::play(world.clone(), stage.clone()).await;
    }
    let people = (world.plan.drives == Drives::Shard).then(|| chat::start(&world));

    let begin = tokio::time::Instant::now();
    let mut episodes = Vec::new();
    for fault in world.plan.faults.clone() {
        sleep_until(begin + fault.at).await;
        let world = world.clone();
        episodes.push(tokio::spawn(async move { world.episode(fault.kind, fault.span).await }));
    }
    sleep_until(begin + world.plan.length).await;
    for episode in episodes {
        episode.await.expect("an episode ends");
    }
    world.tape.say(format_args!("faults end"));
    match people {
        Some(people) => check::chat(&world, people).await,
        None => check::links(&world).await,
    }
    world.outcome()
}

impl World {
    /// Ends the record.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let simulated = self.tape.elapsed();
        let (trace, events, violations) = self.tape.finish();
        let starts = self.sites.iter().map(|s| s.drive.incarnation.load(Ordering::Relaxed)).sum();
        let (acked, received) = self.chat.totals();
        let counts = *lock(&self.counts);
        Outcome { trace, events, simulated, violations, counts, starts, acked, received, ..Outcome::default() }
    }

    pub fn machine(&self, node: usize) -> SimNode {
        self.machines.get().expect("the machines are there")[node]
    }

    async fn episode(&self, kind: Kind, span: Duration) {
        self.tape.say(format_args!("fault {kind:?} for {span:?}"));
        let (handle, net) = (Handle::current(), NetSim::current());
        match kind {
            Kind::Kill { node, keep } => self.restart(node, keep, span).await,
            Kind::Stop { node } => {
                self.stop(node).await;
                self.restart(node, Keep::Synced, span).await;
            }
            Kind::Pause { node } => {
                handle.pause(self.machine(node));
                sleep(span).await;
                handle.resume(self.machine(node));
            }
            Kind::Slow { node, ms } => {
                let slow = &self.sites[node].drive.slow_us;
                slow.store(ms * 1_000, Ordering::Relaxed);
                sleep(span).await;
                slow.store(0, Ordering::Relaxed);
            }
            Kind::Cut { from, to } => {
                net.clog_link(self.machine(from), self.machine(to));
                sleep(span).await;
                net.unclog_link(self.machine(from), self.machine(to));
            }
            Kind::Isolate { node } => {
                net.clog_node(self.machine(node));
                sleep(span).await;
                net.unclog_node(self.machine(node));
            }
        }
        self.tape.say(format_args!("end of {kind:?}"));
    }

    /// Kills the process and starts the next one; in between the disk forgets. While a node is down, others leave it so.
    pub async fn restart(&self, node: usize, keep: Keep, down: Duration) {
        let site = &self.sites[node];
        let Some(process) = lock(&site.process).take() else { return };
        self.tape.say(format_args!("n{}.{} ends", site.id, process.life));
        Handle::current().kill(self.machine(node));
        {
            let mut disk = lock(&site.drive.disk);
            let kept = if keep == Keep::All { disk.written() } else { disk.synced() };
            disk.crash(kept);
        }
        sleep(down.max(DOWN)).await;
        Handle::current().restart(self.machine(node));
    }

    /// As `wukongim` stops.
    async fn stop(&self, node: usize) {
        let Some(process) = lock(&self.sites[node].process).clone() else { return };
        for inbox in &process.inboxes {
            inbox.control(Control::Stop);
        }
        let all = async {
            for mut state in process.states {
                // A reactor that is gone has stopped too.
                let _ = state.wait_for(|s| s.stopped).await;
            }
        };
        let _ = timeout(STOP, all).await;
    }
}

//! What other threads hand to a shard: mail, completions, API calls, what peers sent, control. One lock, one wake per batch.

use super::machine::Sample;
use super::ready::{Bell, lock};
use super::stats::ReactorStats;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use tokio::sync::oneshot;
use wukong_core::api::{ApiAnswer, ApiRequest};
use wukong_core::error::Refusal;
use wukong_core::event::mail::Mail;
use wukong_core::ids::{Incarnation, NodeId, OpId, PeerProcess, ShardId};
use wukong_core::{Completion, Input};

/// API calls waiting to be handed to one shard: beyond it the caller is told that the shard is busy.
pub const CALLS_WAITING_MAX: usize = 1_024;

/// An API call and who waits for its answer.
pub struct Call {
    pub request: ApiRequest,
    pub answer: oneshot::Sender<ApiAnswer>,
}

/// Orders to a reactor.
pub enum Control {
    /// Close the listeners and hand `Input::Stop` to the machine.
    Stop,
    /// Leave the loop.
    Exit,
    Sample(oneshot::Sender<ShardSample>),
}

/// Everything metrics show of one shard.
#[derive(Clone, Debug, Default)]
pub struct ShardSample {
    pub machine: Sample,
    pub reactor: ReactorStats,
    pub wakes_by_other_shards: u64,
    pub mail_waiting: u64,
    pub calls_waiting: u64,
    pub peer_bytes_waiting: u64,
}

/// What arrived, in the order of each sender.
#[derive(Default)]
pub(super) struct Arrived {
    pub mail: Vec<(ShardId, Mail)>,
    pub completions: Vec<(OpId, Completion)>,
    pub calls: VecDeque<Call>,
    /// Links that went up or down, and frames, in the order in which the links saw them.
    pub peers: Vec<Input>,
    pub control: Vec<Control>,
}

/// The inbox of one shard. Mail is bounded by the credits of the core, completions by what the shard started,
/// calls by [`CALLS_WAITING_MAX`], frames of peers by the credits that the shard gave them; should a peer not keep to them,
/// its streams are not read while more waits than [`PeerLimits::inbox_bytes`](crate::peers::PeerLimits).
#[derive(Default)]
pub struct Inbox {
    arrived: Mutex<Arrived>,
    bell: Bell,
    calls: AtomicUsize,
    mail: AtomicUsize,
    peer_bytes: AtomicUsize,
    wakes_by_other_shards: AtomicU64,
}

impl Inbox {
    /// Takes all of `mail`, in order.
    pub fn mail(&self, from: ShardId, mail: &mut Vec<Mail>) {
        if mail.is_empty() {
            return;
        }
        self.mail.fetch_add(mail.len(), Ordering::Relaxed);
        lock(&self.arrived).mail.extend(mail.drain(..).map(|m| (from, m)));
        if self.bell.ring() {
            self.wakes_by_other_shards.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes all of `done`, in order. For the storage threads: one call per shard and batch.
    pub fn complete(&self, done: impl IntoIterator<Item = (OpId, Completion)>) {
        lock(&self.arrived).completions.extend(done);
        self.bell.ring();
    }

    /// # Errors
    /// Too many calls wait: busy.
    pub fn call(&self, call: Call) -> Result<(), Refusal> {
        if self.calls.fetch_add(1, Ordering::AcqRel) >= CALLS_WAITING_MAX {
            self.calls.fetch_sub(1, Ordering::AcqRel);
            return Err(Refusal::Busy);
        }
        lock(&self.arrived).calls.push_back(call);
        self.bell.ring();
        Ok(())
    }

    /// A link is open; its frames follow.
    pub fn peer_up(&self, peer: PeerProcess) {
        lock(&self.arrived).peers.push(Input::PeerUp { peer });
        self.bell.ring();
    }

    /// A link is closed; no frame of it follows.
    pub fn peer_down(&self, node: NodeId, incarnation: Incarnation) {
        lock(&self.arrived).peers.push(Input::PeerDown { node, incarnation });
        self.bell.ring();
    }

    /// Frames of an open link, in order.
    pub fn peer_frames(&self, node: NodeId, incarnation: Incarnation, frames: Vec<Bytes>) {
        if frames.is_empty() {
            return;
        }
        self.peer_bytes.fetch_add(frames.iter().map(Bytes::len).sum(), Ordering::Relaxed);
        let inputs = frames.into_iter().map(|frame| Input::PeerFrame { node, incarnation, frame });
        lock(&self.arrived).peers.extend(inputs);
        self.bell.ring();
    }

    /// Bytes of frames that the shard has not taken yet.
    #[must_use]
    pub fn peer_bytes(&self) -> usize {
        self.peer_bytes.load(Ordering::Relaxed)
    }

    pub fn control(&self, control: Control) {
        lock(&self.arrived).control.push(control);
        self.bell.ring();
    }

    /// What the links brought, for tests without a reactor.
    #[cfg(test)]
    pub(crate) fn take_peers(&self) -> Vec<Input> {
        let mut arrived = Arrived::default();
        self.take(&mut arrived);
        arrived.peers
    }

    /// What the store completed, for tests without a reactor.
    #[cfg(madsim)]
    pub fn take_completions(&self) -> Vec<(OpId, Completion)> {
        let mut arrived = Arrived::default();
        self.take(&mut arrived);
        arrived.completions
    }

    pub(super) fn listen(&self, waker: &Waker) {
        self.bell.listen(waker);
    }

    /// Moves what arrived into `into`. Calls are appended, all else of `into` must be empty.
    pub(super) fn take(&self, into: &mut Arrived) {
        debug_assert!(into.mail.is_empty() && into.completions.is_empty() && into.control.is_empty());
        debug_assert!(into.peers.is_empty());
        if !self.bell.take() {
            return;
        }
        let mut arrived = lock(&self.arrived);
        std::mem::swap(&mut into.mail, &mut arrived.mail);
        std::mem::swap(&mut into.completions, &mut arrived.completions);
        std::mem::swap(&mut into.control, &mut arrived.control);
        std::mem::swap(&mut into.peers, &mut arrived.peers);
        into.calls.append(&mut arrived.calls);
        drop(arrived);
        self.mail.fetch_sub(into.mail.len(), Ordering::Relaxed);
        let frames =
            into.peers.iter().map(|input| if let Input::PeerFrame { frame, .. } = input { frame.len() } else { 0 });
        self.peer_bytes.fetch_sub(frames.sum(), Ordering::Relaxed);
    }

    /// A call left the queue for the machine.
    pub(super) fn call_taken(&self) {
        self.calls.fetch_sub(1, Ordering::AcqRel);
    }

    pub(super) fn sample(&self, sample: &mut ShardSample) {
        sample.wakes_by_other_shards = self.wakes_by_other_shards.load(Ordering::Relaxed);
        sample.mail_waiting = self.mail.load(Ordering::Relaxed) as u64;
        sample.calls_waiting = self.calls.load(Ordering::Relaxed) as u64;
        sample.peer_bytes_waiting = self.peer_bytes() as u64;
    }
}

//! A shard whose node belongs to a [`Stage`]: the world judges what leaves it at the instant it leaves, and says when it dies.

use super::plan::Bug;
use super::stage::Stage;
use crate::cluster::world::World;
use bytes::BytesMut;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use wukong_core::ids::{ConnId, ShardId};
use wukong_core::time::{Instant, Now, WallTime};
use wukong_core::{Effect, Input, Output, Shard};
use wukong_proto::{Frame, ReasonCode, SendAck, decode_one, encode_send_ack};
use wukong_runtime::reactor::machine::{Machine, MachineState, Sample};

/// A planted bug strikes one of so many writes.
const STRUCK_OF: u64 = 10;

pub struct Watched {
    shard: Shard,
    stage: Arc<Stage>,
    node: usize,
    life: u64,
    number: ShardId,
    /// Where a connection comes from, and which one of the world's it is.
    addresses: BTreeMap<ConnId, SocketAddr>,
    lines: BTreeMap<ConnId, u32>,
    /// An output was handed out, and is carried out by now.
    handed_out: bool,
    dead: bool,
    bug: Option<Bug>,
    writes: u64,
}

impl Watched {
    #[must_use]
    pub fn new(shard: Shard, stage: Arc<Stage>, node: usize, life: u64, number: ShardId, bug: Option<Bug>) -> Self {
        Self {
            shard,
            stage,
            node,
            life,
            number,
            addresses: BTreeMap::new(),
            lines: BTreeMap::new(),
            handed_out: false,
            dead: false,
            bug,
            writes: 0,
        }
    }

    /// Nothing happens any more to a process that died, or in it.
    fn dies(&mut self) -> bool {
        let (n, life, burnt) = (self.node, self.life, std::mem::take(&mut self.handed_out));
        self.dead = self.dead
            || self.stage.with(|w| {
                let lives = |w: &World| w.nodes[n].alive && w.nodes[n].life == life;
                !lives(w) || (burnt && w.burn(n))
            });
        self.dead
    }

    fn line(&mut self, conn: ConnId) -> Option<u32> {
        if let Some(line) = self.lines.get(&conn) {
            return Some(*line);
        }
        let line = self.stage.line_of(*self.addresses.get(&conn)?)?;
        self.lines.insert(conn, line);
        Some(line)
    }

    fn enters(&mut self, input: &Input) {
        match input {
            Input::ConnOpened { conn, peer, .. } => drop(self.addresses.insert(*conn, *peer)),
            Input::ConnReceived { conn, bytes } => {
                if let Some(line) = self.line(*conn) {
                    self.stage.with(|w| w.arrived(line, self.life, bytes.len() as u64));
                }
            }
            Input::ConnClosed { conn, .. } => {
                self.addresses.remove(conn);
                if let Some(line) = self.lines.remove(conn) {
                    self.stage.with(|w| w.forgotten(line));
                }
            }
            _ => {}
        }
    }

    fn leaves(&mut self, output: &Output) {
        let n = self.node;
        match output {
            Output::Write { conn, frames } => {
                let line = self.line(*conn);
                self.stage.with(|w| match line {
                    Some(line) => w.write(ConnId(u64::from(line)), frames),
                    None => w.violation("CONN", format!("n{n} writes to {conn}, of which nothing was read")),
                });
            }
            Output::Close { conn, reason } => {
                if let Some(line) = self.line(*conn) {
                    self.stage.with(|w| w.close(ConnId(u64::from(line)), *reason));
                }
            }
            Output::Start { effect: Effect::Persist { batch, .. }, .. } => self.stage.with(|w| w.note_batch(n, batch)),
            Output::Note(note) => self.stage.with(|w| w.noted(n, note)),
            _ => {}
        }
    }

    /// Whether a planted bug strikes here.
    fn strikes(&mut self, output: &Output) -> bool {
        let Output::Write { frames, .. } = output else { return false };
        let answers = || frames.iter().any(|f| matches!(decode_one(f, 5), Ok(Some((Frame::SendAck(_), _)))));
        let fits = match self.bug {
            Some(Bug::LoseWrite) => true,
            Some(Bug::RefuseStored) => answers(),
            _ => false,
        };
        self.writes += u64::from(fits);
        fits && self.writes.is_multiple_of(STRUCK_OF)
    }
}

/// Refuses what these frames say is stored.
fn refuse(output: &mut Output) {
    let Output::Write { frames, .. } = output else { return };
    for frame in frames {
        if let Ok(Some((Frame::SendAck(ack), _))) = decode_one(frame, 5) {
            let mut refusal = BytesMut::new();
            let ack = SendAck { reason: ReasonCode::SYSTEM_ERROR, message_seq: 0, ..ack };
            if encode_send_ack(&ack, 5, &mut refusal).is_ok() {
                *frame = refusal.freeze();
            }
        }
    }
}

impl Machine for Watched {
    fn handle(&mut self, now: Now, input: Input) {
        if self.dies() {
            return;
        }
        self.enters(&input);
        let jumped = self.stage.with(|w| {
            w.handled += 1;
            w.nodes[self.node].clock.jumped()
        });
        let now = Now { wall: WallTime(now.wall.0.saturating_add_signed(jumped)), ..now };
        self.shard.handle(now, input);
    }

    fn poll_output(&mut self) -> Option<Output> {
        loop {
            if self.dies() {
                return None;
            }
            let Some(mut output) = self.shard.poll_output() else {
                self.stage.with(|w| w.stand(self.node, self.number, &self.shard.view()));
                return None;
            };
            let struck = self.strikes(&output).then_some(self.bug).flatten();
            if struck == Some(Bug::RefuseStored) {
                refuse(&mut output);
                self.stage.with(|w| w.cover.hit("refused what is stored"));
            }
            self.leaves(&output);
            self.handed_out = true;
            if struck != Some(Bug::LoseWrite) {
                return Some(output);
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.dead { None } else { Machine::poll_timeout(&self.shard) }
    }

    fn wants_input(&self) -> bool {
        Machine::wants_input(&self.shard)
    }

    fn wants_bytes(&self, conn: ConnId) -> bool {
        Machine::wants_bytes(&self.shard, conn)
    }

    fn state(&self) -> MachineState {
        Machine::state(&self.shard)
    }

    fn sample(&self) -> Sample {
        Machine::sample(&self.shard)
    }
}

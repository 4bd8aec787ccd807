//! Running a recording again.

use super::{Bad, Header, Item, Items, OutputHash, Recorded, SealKey};
use crate::error::BootError;
use crate::event::mail::Mail;
use crate::ids::ShardId;
use crate::input::Input;
use crate::output::Output;
use crate::shard::Shard;
use crate::time::Now;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;

/// The recording of one shard.
#[derive(Clone, Debug)]
pub struct Recording {
    pub header: Header,
    items: Items,
}

impl Recording {
    /// # Errors
    /// This is not a recording of this format, or the key is another's.
    pub fn open(file: Bytes, key: &SealKey) -> Result<Self, Bad> {
        let (header, items) = Items::open(file, key)?;
        Ok(Self { header, items })
    }
}

/// What passes by during a replay.
#[derive(Clone, Copy, Debug)]
pub enum Seen<'a> {
    Input(&'a Input),
    Output(&'a Output),
}

/// A replay that gave what the run gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub shards: usize,
    pub inputs: u64,
    pub outputs: u64,
    pub drains: u64,
}

/// Why a replay ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    Boot(BootError),
    Bad {
        shard: ShardId,
        bad: Bad,
    },
    /// The recordings are not those of all shards of one run.
    NotOneRun,
    /// The shard gave something else than in the run. `outputs` is what it gave now, since the last drain.
    Outputs {
        shard: ShardId,
        item: u64,
        now: Now,
        recorded: u64,
        replayed: u64,
        outputs: Vec<String>,
    },
    /// The run received mail that the sender's replay does not give.
    Mail {
        shard: ShardId,
        item: u64,
        from: ShardId,
        ordinal: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boot(e) => write!(f, "a shard does not start: {e}"),
            Self::Bad { shard, bad } => write!(f, "shard {shard}: {bad}"),
            Self::NotOneRun => f.write_str("the recordings of all shards of one run are needed, and of no other run"),
            Self::Outputs { shard, item, now, recorded, replayed, outputs } => {
                write!(
                    f,
                    "shard {shard}, item {item}, {} ns: the run gave outputs with hash {recorded:016x}, the replay {replayed:016x}:",
                    now.mono.0
                )?;
                outputs.iter().try_for_each(|o| write!(f, "\n  {o}"))
            }
            Self::Mail { shard, item, from, ordinal } => {
                write!(f, "shard {shard}, item {item}: mail {ordinal} of shard {from} is not there")
            }
        }
    }
}

struct Player {
    shard: Shard,
    items: core::iter::Peekable<Items>,
    item: u64,
    now: Now,
    /// Mail taken so far, by sender.
    taken: BTreeMap<ShardId, u64>,
}

type Post = BTreeMap<(ShardId, ShardId), VecDeque<Mail>>;

/// Runs the shards of one run again, all together, and compares what each drain gives. `see` is shown everything.
///
/// # Errors
/// The first difference.
pub fn replay(recordings: Vec<Recording>, see: &mut dyn FnMut(ShardId, Now, Seen<'_>)) -> Result<Summary, Difference> {
    check_one_run(&recordings)?;
    let mut summary = Summary { shards: recordings.len(), ..Summary::default() };
    let mut post = Post::new();
    let mut players = Vec::new();
    for Recording { header, items } in recordings {
        let Header { config, boot, seed, started } = header;
        let id = config.shard;
        let shard = Shard::new(config, boot, seed, started).map_err(Difference::Boot)?;
        let player = Player { shard, items: items.peekable(), item: 0, now: started, taken: BTreeMap::new() };
        players.push((id, player));
    }
    loop {
        let mut moved = false;
        for (id, player) in &mut players {
            moved |= play(*id, player, &mut post, &mut summary, see)?;
        }
        if !moved {
            break;
        }
    }
    // Whoever has items left waits for mail that never comes.
    for (shard, player) in &mut players {
        if let Some(Ok(Item::Handled { input: Recorded::Mail { from, ordinal }, .. })) = player.items.peek() {
            let (from, ordinal) = (*from, *ordinal);
            return Err(Difference::Mail { shard: *shard, item: player.item, from, ordinal });
        }
    }
    Ok(summary)
}

fn check_one_run(recordings: &[Recording]) -> Result<(), Difference> {
    let mut present = Vec::new();
    let first = recordings.first().ok_or(Difference::NotOneRun)?;
    for Recording { header, .. } in recordings {
        let same = header.boot.store == first.header.boot.store
            && header.boot.incarnation == first.header.boot.incarnation
            && header.config.shards == first.header.config.shards;
        if !same || present.contains(&header.config.shard) {
            return Err(Difference::NotOneRun);
        }
        present.push(header.config.shard);
    }
    if present.len() == usize::from(first.header.config.shards) { Ok(()) } else { Err(Difference::NotOneRun) }
}

/// Plays one shard until it ends or waits for mail. Returns whether it got anywhere.
fn play(
    id: ShardId,
    player: &mut Player,
    post: &mut Post,
    summary: &mut Summary,
    see: &mut dyn FnMut(ShardId, Now, Seen<'_>),
) -> Result<bool, Difference> {
    let mut moved = false;
    loop {
        if let Some(Ok(Item::Handled { input: Recorded::Mail { from, .. }, .. })) = player.items.peek()
            && post.get(&(*from, id)).is_none_or(VecDeque::is_empty)
        {
            return Ok(moved);
        }
        let Some(item) = player.items.next() else {
            return Ok(moved);
        };
        moved = true;
        player.item += 1;
        match item.map_err(|bad| Difference::Bad { shard: id, bad })? {
            Item::Handled { now, input } => {
                let input = match input {
                    Recorded::Input(input) => input,
                    Recorded::Mail { from, ordinal } => take_mail(id, player, post, from, ordinal)?,
                };
                player.now = now;
                summary.inputs += 1;
                see(id, now, Seen::Input(&input));
                player.shard.handle(now, input);
            }
            Item::Drained { hash } => {
                summary.drains += 1;
                summary.outputs += drain(id, player, post, hash, see)?;
            }
        }
    }
}

fn take_mail(
    id: ShardId,
    player: &mut Player,
    post: &mut Post,
    from: ShardId,
    ordinal: u64,
) -> Result<Input, Difference> {
    let taken = player.taken.entry(from).or_default();
    let mail = post.get_mut(&(from, id)).and_then(VecDeque::pop_front);
    match mail {
        Some(mail) if *taken == ordinal => {
            *taken += 1;
            Ok(Input::Mail { from, mail })
        }
        _ => Err(Difference::Mail { shard: id, item: player.item, from, ordinal }),
    }
}

fn drain(
    id: ShardId,
    player: &mut Player,
    post: &mut Post,
    recorded: u64,
    see: &mut dyn FnMut(ShardId, Now, Seen<'_>),
) -> Result<u64, Difference> {
    let mut hash = OutputHash::default();
    let mut outputs = Vec::new();
    while let Some(output) = player.shard.poll_output() {
        hash.add(&output);
        see(id, player.now, Seen::Output(&output));
        outputs.push(output);
    }
    let replayed = hash.finish();
    if replayed != recorded {
        let outputs = outputs.iter().map(|o| format!("{o:?}")).collect();
        let (now, item) = (player.now, player.item);
        return Err(Difference::Outputs { shard: id, item, now, recorded, replayed, outputs });
    }
    let count = outputs.len() as u64;
    for output in outputs {
        if let Output::Mail { to, mail } = output {
            post.entry((id, to)).or_default().push_back(mail);
        }
    }
    Ok(count)
}

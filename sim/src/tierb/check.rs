//! What must hold when the faults are over.

use super::chat::{Intent, uid};
use super::plan::Keep;
use super::store::lock;
use super::world::World;
use crate::disk::Disk;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use wukong_core::api::{ApiAnswer, ApiRequest, MessageSync};
use wukong_core::ids::{ChannelKey, NodeId, SlotId};
use wukong_core::store::keys::{self, table};
use wukong_core::store::rows::{ChannelHead, Format};
use wukong_core::store::{Family, Record};
use wukong_proto::Text;
use wukong_runtime::reactor::inbox::Call;

/// Everything unanswered is answered within this.
const ANSWERED: Duration = Duration::from_secs(60);
/// Every pair of nodes is linked within this: silence on a broken link, then the longest pause, some more for the
/// network's own repetitions.
const LINKED: Duration = Duration::from_secs(20);
/// How long links are watched after that.
const WATCHED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);
const PAGE: i64 = 1_000;
/// The only slot of clusters.
const SLOT: SlotId = SlotId(0);

/// Every message gets its SENDACK; then each is in its channel once, where the SENDACK said, also after the power fails.
pub async fn chat(world: &Arc<World>, people: Vec<JoinHandle<()>>) {
    world.chat.winding_down.store(true, Ordering::Relaxed);
    let until = Instant::now() + ANSWERED;
    while world.chat.open() > 0 {
        if Instant::now() > until {
            let open = world.chat.open();
            return world
                .tape
                .violation(format!("LIVE {open} messages without SENDACK {ANSWERED:?} after the last fault"));
        }
        sleep(LOOK).await;
    }
    world.chat.over.store(true, Ordering::Relaxed);
    for node in 0..world.sites.len() {
        world.restart(node, Keep::Synced, Duration::ZERO).await;
    }
    for person in people {
        // Ends with the connection.
        let _ = person.await;
    }
    let intents = lock(&world.chat.intents).clone();
    let mut channels: BTreeMap<(usize, usize), Vec<&Intent>> = BTreeMap::new();
    for intent in &intents {
        channels.entry((intent.from.min(intent.to), intent.from.max(intent.to))).or_default().push(intent);
    }
    for ((a, b), intents) in channels {
        match page_all(world, a, b).await {
            Ok(records) => channel(world, (a, b), &intents, &records),
            Err(why) => world.tape.violation(format!("LIVE channel of u{a} and u{b}: {why}")),
        }
    }
    replicas(world).await;
}

/// INV-2: all replicas of a channel come to hold the same log, index rows included.
async fn replicas(world: &World) {
    let until = Instant::now() + ANSWERED;
    loop {
        let held: Vec<_> = world.sites.iter().map(|s| channels_of(&lock(&s.drive.disk))).collect();
        let differs = held.iter().enumerate().find_map(|(n, one)| {
            one.iter().find_map(|(channel, rows)| {
                let other = held.iter().position(|other| other.get(channel).is_some_and(|r| r != rows))?;
                Some(format!("{channel:?} at n{} and n{}", n + 1, other + 1))
            })
        });
        let Some(differs) = differs else { return };
        if Instant::now() > until {
            return world.tape.violation(format!("INV-2 after {ANSWERED:?}: {differs}"));
        }
        sleep(LOOK).await;
    }
}

/// Each channel's log and index rows as (table, key without the node's number for the channel, value without it).
type Rows = Vec<(u8, Vec<u8>, Vec<u8>)>;

fn channels_of(disk: &Disk) -> BTreeMap<ChannelKey, Rows> {
    let mut found = BTreeMap::new();
    let (from, to) = (keys::single(SLOT, table::HEAD), keys::table_end(SLOT, table::HEAD));
    for (key, row) in disk.rows(Family::Raft, &from, &to) {
        let key = Bytes::copy_from_slice(key);
        let (Some(channel), Ok(head)) = (keys::parse_channel(&key), ChannelHead::decode(&row.value)) else { continue };
        let no = head.channel_no;
        let mut rows = Rows::new();
        let log = (keys::log(SLOT, no, 0), keys::log(SLOT, no, u64::MAX));
        rows.extend(disk.rows(Family::Log, &log.0, &log.1).map(|(k, r)| (0, k[10..].to_vec(), r.value.to_vec())));
        for table in [table::DEDUP, table::SENDER] {
            let mut from = vec![0, 0, table];
            from.extend_from_slice(&no.0.to_be_bytes());
            let mut to = from.clone();
            to.push(u8::MAX);
            rows.extend(disk.rows(Family::Index, &from, &to).map(|(k, r)| (table, k[11..].to_vec(), r.value.to_vec())));
        }
        found.insert(channel, rows);
    }
    found
}

fn channel(world: &World, (a, b): (usize, usize), intents: &[&Intent], records: &[Record]) {
    let wrong = |what: String| world.tape.violation(format!("{what} in the channel of u{a} and u{b}"));
    for (record, seq) in records.iter().zip(1..) {
        if record.seq != seq {
            return wrong(format!("INV-14: seq {} where {seq} should be", record.seq));
        }
    }
    let mut last: BTreeMap<usize, u32> = BTreeMap::new();
    for record in records {
        let Some(intent) = intents.iter().find(|i| i.no() == *record.client_msg_no) else {
            wrong(format!("INV-50: {record:?} was never sent"));
            continue;
        };
        if *record.from_uid != uid(intent.from) || record.payload[..] != intent.payload()[..] {
            wrong(format!("INV-10: {record:?} is not {intent:?}"));
        }
        let before = last.insert(intent.from, intent.number).unwrap_or(0);
        // A message that was refused once comes again, later ones may have passed it.
        if before >= intent.number && world.chat.refused.load(Ordering::Relaxed) == 0 {
            wrong(format!("INV-42: {} after message {before} of its sender", intent.no()));
        }
    }
    for intent in intents {
        let stored: Vec<_> = records.iter().filter(|r| *r.client_msg_no == intent.no()).collect();
        match (&stored[..], intent.acked) {
            ([one], Some(told)) if (one.seq, one.message_id) == told => {}
            ([], Some(told)) => wrong(format!("INV-4: {}, acknowledged as {told:?}, is lost", intent.no())),
            (stored, told) => {
                wrong(format!("INV-9: {}, acknowledged as {told:?}, is stored as {stored:?}", intent.no()))
            }
        }
    }
}

/// All messages of a person channel, through the same door as the HTTP API.
async fn page_all(world: &World, a: usize, b: usize) -> Result<Vec<Record>, String> {
    let mut records: Vec<Record> = Vec::new();
    let mut asked = 0;
    let until = Instant::now() + ANSWERED;
    while Instant::now() < until {
        let request = ApiRequest::MessageSync(MessageSync {
            login_uid: Text::from(uid(a)),
            channel_id: Text::from(uid(b)),
            channel_type: 1,
            start: records.last().map_or(1, |r| r.seq + 1),
            end: 0,
            limit: PAGE,
            up: true,
        });
        asked += 1;
        match call(world, (a + asked) % world.sites.len(), request).await {
            Some(ApiAnswer::Messages(page)) => {
                let more = page.more && !page.messages.is_empty();
                records.extend(page.messages);
                if !more {
                    return Ok(records);
                }
            }
            // Not ready yet, or busy.
            None | Some(ApiAnswer::Refused(_)) => sleep(LOOK).await,
            Some(other) => return Err(format!("{other:?}")),
        }
    }
    Err("it cannot be read".to_owned())
}

async fn call(world: &World, node: usize, request: ApiRequest) -> Option<ApiAnswer> {
    let site = &world.sites[node];
    let process = lock(&site.process).clone()?;
    let home = request.home(world.plan.slots, site.shards);
    let (answer, answered) = oneshot::channel();
    process.inboxes[usize::from(home.0)].call(Call { request, answer }).ok()?;
    timeout(ANSWERED, answered).await.ok()?.ok()
}

/// Every pair of nodes is linked, each with the process that runs, and frames flow.
pub async fn links(world: &Arc<World>) {
    let until = Instant::now() + LINKED;
    while let Some(missing) = missing(world) {
        if Instant::now() > until {
            return world.tape.violation(format!("LIVE {missing} {LINKED:?} after the last fault"));
        }
        sleep(LOOK).await;
    }
    let before = lock(&world.counts).frames_arrived;
    sleep(WATCHED).await;
    let after = lock(&world.counts).frames_arrived;
    if let Some(missing) = missing(world) {
        world.tape.violation(format!("LIVE {missing}, although nothing happened"));
    }
    if after == before {
        world.tape.violation("LIVE no frame arrives");
    }
    for site in &world.sites {
        let sample = lock(&site.process).as_ref().and_then(|p| p.peers.as_ref().map(|p| p.sample()));
        if let Some(sample) =
            sample.filter(|s| s.peer_frames_dropped + s.peer_control_overflows + s.peer_violations > 0)
        {
            world.tape.violation(format!("LINK n{}: {sample:?}", site.id));
        }
    }
}

/// The first pair that is not linked, if there is one.
fn missing(world: &World) -> Option<String> {
    for site in &world.sites {
        let Some(process) = lock(&site.process).clone() else { return Some(format!("n{} does not run", site.id)) };
        let status = process.peers.map_or_else(Vec::new, |p| p.status());
        for other in world.sites.iter().filter(|s| s.id != site.id) {
            let life = other.drive.incarnation.load(Ordering::Relaxed);
            let of_other = status.iter().find(|s| s.node == NodeId(other.id));
            let up = of_other.and_then(|s| s.up);
            if up.is_none_or(|p| p.incarnation.0 != life || p.shards != other.shards) {
                return Some(format!("n{} has no link to n{}.{life} but {of_other:?}", site.id, other.id));
            }
        }
    }
    None
}

//! API calls at their home shard: from request to answer, with a deadline (architecture section 2).

use crate::api::{ApiAnswer, ApiRequest, Conversation, ConversationSync, MessagePage, MessageSync};
use crate::channel::id;
use crate::channel::read::{ReadAnswer, ReadJob, Want};
use crate::cluster::{Command, Outcome, Slots, Waiter};
use crate::ctx::{Ctx, LoadWaiter, Timer};
use crate::error::{Refusal, StoreFault};
use crate::event::mail::Reply;
use crate::ids::{CallId, ChannelKey, channel_type, shard_of, slot_of};
use crate::limits;
use crate::map::BTreeMap;
use crate::output::Output;
use crate::store::rows::{Device, Format, Membership};
use crate::store::{Family, Found, Query, keys};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use wukong_proto::Text;

/// One row of a conversation sync that is being read.
#[derive(Clone, Debug)]
struct Row {
    channel: ChannelKey,
    client_id: Text,
    membership: Membership,
    /// The client's own last seq of this channel.
    client_seq: Option<u64>,
    answer: Option<Box<ReadAnswer>>,
}

#[derive(Clone, Debug)]
enum Task {
    SetToken { uid: Text, device_flag: u8, master: bool },
    Messages { query: MessageSync, channel: ChannelKey },
    Conversations { query: ConversationSync, rows: Vec<Row>, missing: usize },
    Delete,
}

#[derive(Clone, Debug)]
struct Pending {
    id: CallId,
    task: Task,
}

/// Calls in flight at this shard.
#[derive(Clone, Debug)]
pub struct Calls {
    pending: BTreeMap<u64, Pending>,
    deadlines: VecDeque<(Instant, u64)>,
    timer_at: Instant,
    next: u64,
}

impl Default for Calls {
    fn default() -> Self {
        Self { pending: BTreeMap::new(), deadlines: VecDeque::new(), timer_at: Instant::NEVER, next: 1 }
    }
}

fn reply(ctx: &mut Ctx, call: CallId, answer: ApiAnswer) {
    ctx.push(Output::Answer { call, answer });
}

fn refuse(ctx: &mut Ctx, call: CallId, refusal: Refusal) {
    reply(ctx, call, ApiAnswer::Refused(refusal));
}

impl Calls {
    /// A call arrived.
    pub fn begin(&mut self, ctx: &mut Ctx, slots: &mut Slots, id: CallId, request: ApiRequest) {
        if self.pending.len() >= limits::CALLS_MAX {
            return refuse(ctx, id, Refusal::Busy);
        }
        let started = match request {
            ApiRequest::SetToken { uid, token, device_flag, device_level } => {
                self.set_token(ctx, slots, id, uid, token, device_flag, device_level)
            }
            ApiRequest::MessageSync(query) => self.message_sync(ctx, id, query),
            ApiRequest::ConversationSync(query) => self.conversation_sync(ctx, slots, id, query),
            ApiRequest::DeleteChannel { channel_id, channel_type } => {
                self.delete_channel(ctx, id, ChannelKey { id: channel_id, kind: channel_type })
            }
        };
        if let Err(refusal) = started {
            refuse(ctx, id, refusal);
        }
    }

    fn start(&mut self, ctx: &mut Ctx, id: CallId, task: Task) -> u64 {
        let call = self.next;
        self.next += 1;
        self.pending.insert(call, Pending { id, task });
        let deadline = ctx.now.mono + limits::CALL;
        self.deadlines.push_back((deadline, call));
        if self.timer_at == Instant::NEVER {
            ctx.arm(Timer::Calls, &mut self.timer_at, deadline);
        }
        call
    }

    /// Calls that are overdue get their answer: the outcome is unknown.
    pub fn on_timer(&mut self, ctx: &mut Ctx) {
        self.timer_at = Instant::NEVER;
        while let Some((deadline, call)) = self.deadlines.front().copied() {
            if deadline > ctx.now.mono {
                if self.pending.contains_key(&call) {
                    ctx.arm(Timer::Calls, &mut self.timer_at, deadline);
                    return;
                }
            } else if let Some(p) = self.pending.remove(&call) {
                refuse(ctx, p.id, Refusal::Timeout);
            }
            self.deadlines.pop_front();
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn set_token(
        &mut self,
        ctx: &mut Ctx,
        slots: &mut Slots,
        id: CallId,
        uid: Text,
        token: Text,
        device_flag: u8,
        device_level: u8,
    ) -> Result<(), Refusal> {
        id::check_uid(&uid).map_err(Refusal::Invalid)?;
        if token.is_empty() || token.len() > limits::TOKEN_MAX {
            return Err(Refusal::Invalid("token must be 1 to 1024 bytes"));
        }
        let slot = slot_of(&uid, ctx.config.slots);
        let level = u8::from(device_level == 1);
        let task = Task::SetToken { uid: uid.clone(), device_flag, master: level == 1 };
        let call = self.start(ctx, id, task);
        let device = Device { token, level };
        let command = Command::UpsertDevice { uid, flag: device_flag, device };
        if !slots.propose(ctx, slot, command, Waiter::Call(call)) {
            self.pending.remove(&call);
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// A slot command of a call is applied. Returns the device whose connections must go.
    pub fn on_applied(&mut self, ctx: &mut Ctx, call: u64, outcome: &Outcome) -> Option<(Text, u8)> {
        let Pending { id, task } = self.pending.remove(&call)?;
        match outcome {
            Outcome::Done | Outcome::Assigned { .. } => {}
            Outcome::Unknown => {
                refuse(ctx, id, Refusal::Timeout);
                return None;
            }
            Outcome::Damaged => {
                refuse(ctx, id, Refusal::Store(StoreFault::Corrupt));
                return None;
            }
        }
        reply(ctx, id, ApiAnswer::Done);
        match task {
            Task::SetToken { uid, device_flag, master: true } => Some((uid, device_flag)),
            _ => None,
        }
    }

    fn message_sync(&mut self, ctx: &mut Ctx, id: CallId, query: MessageSync) -> Result<(), Refusal> {
        id::check_uid(&query.login_uid).map_err(Refusal::Invalid)?;
        // A command channel is named by its own id; everything else by what the client calls it.
        let channel = id::stored(&query.login_uid, &query.channel_id, query.channel_type)
            .map_err(|_| Refusal::Invalid("channel_id or channel_type is not that of a channel served here"))?;
        let limit = match query.limit {
            n if n <= 0 => limits::SYNC_MESSAGES_DEFAULT,
            n => n.min(limits::SYNC_MESSAGES_MAX),
        } as u64;
        let want = Want::Window { start: query.start, end: query.end, limit, up: query.up };
        let call = self.start(ctx, id, Task::Messages { query, channel: channel.clone() });
        self.read(ctx, call, 0, channel, want);
        Ok(())
    }

    fn delete_channel(&mut self, ctx: &mut Ctx, id: CallId, channel: ChannelKey) -> Result<(), Refusal> {
        let known = channel.kind == channel_type::PERSON && channel.id.len() <= limits::CHANNEL_ID_MAX;
        if !known || id::split(id::origin(&channel.id)).is_none() {
            return Err(Refusal::Invalid("channel_id or channel_type is not that of a channel served here"));
        }
        let to = shard_of(slot_of(&channel.id, ctx.config.slots), ctx.config.shards);
        let call = self.start(ctx, id, Task::Delete);
        ctx.reply(to, Reply::Delete { home: ctx.me(), call, channel });
        Ok(())
    }

    /// The authority of a channel that had to go answered.
    pub fn on_deleted(&mut self, ctx: &mut Ctx, call: u64, result: Result<(), Refusal>) {
        let Some(Pending { id, .. }) = self.pending.remove(&call) else { return };
        match result {
            Ok(()) => reply(ctx, id, ApiAnswer::Done),
            Err(refusal) => refuse(ctx, id, refusal),
        }
    }

    fn read(&self, ctx: &mut Ctx, call: u64, part: u32, channel: ChannelKey, want: Want) {
        let to = shard_of(slot_of(&channel.id, ctx.config.slots), ctx.config.shards);
        let job = Box::new(ReadJob { home: ctx.me(), call, part, channel, want });
        ctx.reply(to, Reply::Read { job });
    }

    fn conversation_sync(
        &mut self,
        ctx: &mut Ctx,
        slots: &Slots,
        id: CallId,
        mut query: ConversationSync,
    ) -> Result<(), Refusal> {
        query.msg_count = query.msg_count.min(limits::CONVERSATION_MESSAGES_MAX);
        query.last_seqs.sort_unstable();
        id::check_uid(&query.uid).map_err(Refusal::Invalid)?;
        if query.msg_count < 1 {
            reply(ctx, id, ApiAnswer::Conversations(Vec::new()));
            return Ok(());
        }
        let slot = slot_of(&query.uid, ctx.config.slots);
        if !slots.leads(slot) {
            return Err(Refusal::Busy);
        }
        let (from, to) = keys::memberships(slot, &query.uid);
        let call = self.start(ctx, id, Task::Conversations { query, rows: Vec::new(), missing: 0 });
        // What is committed and applied is in a Persist started before this load.
        ctx.load(
            LoadWaiter::Memberships(call),
            [Query::Range {
                family: Family::Meta,
                from,
                to,
                rows_max: limits::CONVERSATIONS_MAX,
                bytes_max: limits::SYNC_BYTES_MAX,
                reverse: false,
            }],
        );
        Ok(())
    }

    /// The user's rows were read; `None` = the store could not.
    pub fn on_memberships(&mut self, ctx: &mut Ctx, call: u64, found: Option<Vec<Found>>) {
        let Some(Pending { id, task: Task::Conversations { query, rows, missing } }) = self.pending.get_mut(&call)
        else {
            return;
        };
        let Some(Found::Page { rows: found, .. }) = found.and_then(|f| f.into_iter().next()) else {
            let id = *id;
            self.pending.remove(&call);
            return refuse(ctx, id, Refusal::Store(StoreFault::Io));
        };
        let mut jobs = Vec::new();
        for (key, row) in found {
            let (Some(channel), Ok(membership)) = (keys::parse_membership(&key, &query.uid), Membership::decode(&row))
            else {
                let id = *id;
                self.pending.remove(&call);
                return refuse(ctx, id, Refusal::Store(StoreFault::Corrupt));
            };
            if let Some(row) = admit_row(query, channel, membership) {
                let want = Want::Newest {
                    from: lower_bound(query, &row),
                    count: query.msg_count as u64,
                    uid: query.uid.clone(),
                };
                jobs.push((row.channel.clone(), want));
                rows.push(row);
            }
        }
        *missing = jobs.len();
        if jobs.is_empty() {
            return self.finish(ctx, call);
        }
        for (part, (channel, want)) in jobs.into_iter().enumerate() {
            self.read(ctx, call, part as u32, channel, want);
        }
    }

    /// One read of a call is done.
    pub fn on_read(&mut self, ctx: &mut Ctx, call: u64, part: u32, answer: Box<ReadAnswer>) {
        let Some(Pending { id, task }) = self.pending.get_mut(&call) else {
            return;
        };
        match task {
            Task::Messages { query, channel } => {
                let id = *id;
                let result = answer.result.map(|()| page(query, channel, *answer));
                self.pending.remove(&call);
                match result {
                    Ok(page) => reply(ctx, id, ApiAnswer::Messages(page)),
                    Err(refusal) => refuse(ctx, id, refusal),
                }
            }
            Task::Conversations { rows, missing, .. } => {
                // A partial list would look complete (U17): one unreadable channel fails the call.
                if let Err(refusal) = answer.result {
                    let id = *id;
                    self.pending.remove(&call);
                    return refuse(ctx, id, refusal);
                }
                if let Some(row) = rows.get_mut(part as usize)
                    && row.answer.replace(answer).is_none()
                {
                    *missing -= 1;
                    if *missing == 0 {
                        self.finish(ctx, call);
                    }
                }
            }
            Task::SetToken { .. } | Task::Delete => {}
        }
    }

    fn finish(&mut self, ctx: &mut Ctx, call: u64) {
        if let Some(Pending { id, task: Task::Conversations { query, rows, .. } }) = self.pending.remove(&call) {
            reply(ctx, id, ApiAnswer::Conversations(conversations(&query, rows)));
        }
    }
}

fn page(query: &MessageSync, channel: &ChannelKey, answer: ReadAnswer) -> MessagePage {
    let (first, last) = answer.scanned;
    let bound = if query.up { last + 1 } else { first.saturating_sub(1) };
    // The window ended at the bound that the caller gave: there is nothing more inside it.
    let at_bound = query.end != 0 && bound == query.end;
    let at_first = !query.up && bound == 0;
    MessagePage {
        start: query.start,
        end: query.end,
        more: answer.full && !at_bound && !at_first,
        channel_id: channel.id.clone(),
        channel_type: channel.kind,
        messages: answer.records,
    }
}

/// A row that takes part in the answer, with its client form (http-api 7.1 steps 3 and 6).
fn admit_row(query: &ConversationSync, channel: ChannelKey, membership: Membership) -> Option<Row> {
    if !membership.live || channel.id.ends_with(id::CMD_SUFFIX) {
        return None;
    }
    let client_id = match channel.kind {
        channel_type::PERSON => Text::from(id::peer(&channel.id, &query.uid)?),
        _ => channel.id.clone(),
    };
    if &*client_id == id::SYSTEM_UID {
        return None;
    }
    let client_seq = last_seq(query, &client_id, channel.kind);
    if query.exclude_types.contains(&channel.kind) && client_seq.is_none() {
        return None;
    }
    Some(Row { channel, client_id, membership, client_seq, answer: None })
}

/// What the client holds of a channel; the list is sorted.
fn last_seq(query: &ConversationSync, client_id: &Text, kind: u8) -> Option<u64> {
    let at = query.last_seqs.partition_point(|(c, k, _)| (c, *k) < (client_id, kind));
    query.last_seqs.get(at).filter(|(c, k, _)| c == client_id && *k == kind).map(|(_, _, seq)| *seq)
}

/// The lowest seq wanted of a channel (http-api 7.1 step 4).
fn lower_bound(query: &ConversationSync, row: &Row) -> u64 {
    let from = match row.client_seq {
        Some(seq) if seq > 0 => seq.saturating_add(1),
        _ if query.version > 0 || query.only_unread => row.membership.read_seq + 1,
        _ => 0,
    };
    from.max(floor(&row.membership) + 1)
}

/// Nothing at or below it is visible or counted (semantics 6.3.2).
fn floor(m: &Membership) -> u64 {
    m.join_seq.saturating_sub(1).max(m.deleted_to)
}

/// Sorts by the newest message, then cuts and pages (architecture section 9).
fn conversations(query: &ConversationSync, rows: Vec<Row>) -> Vec<Conversation> {
    let mut all: Vec<(u64, Conversation)> = rows.into_iter().filter_map(|row| conversation(query, row)).collect();
    all.sort_by(|(ta, a), (tb, b)| tb.cmp(ta).then_with(|| a.stored_id.cmp(&b.stored_id)));
    let all = all.into_iter().map(|(_, c)| c);
    if query.page <= 0 {
        return all.collect();
    }
    let size = if query.page_size <= 0 { 100 } else { query.page_size.min(500) } as usize;
    let skip = (query.page as usize - 1).saturating_mul(size);
    all.skip(skip).take(size).collect()
}

fn conversation(query: &ConversationSync, row: Row) -> Option<(u64, Conversation)> {
    let answer = row.answer?;
    let newest = answer.records.last()?;
    let last = answer.last;
    let read = row.membership.read_seq.max(answer.own_last).max(floor(&row.membership));
    let own_newest = newest.from_uid == query.uid;
    let read_to = if own_newest { last } else { read.min(last) };
    let timestamp = newest.timestamp_ms;
    let mut recents = answer.records;
    recents.reverse();
    Some((
        timestamp,
        Conversation {
            channel_id: row.client_id,
            stored_id: row.channel.id,
            channel_type: row.channel.kind,
            unread: last - read_to,
            read_to,
            recents,
        },
    ))
}

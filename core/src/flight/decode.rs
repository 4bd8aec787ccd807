//! Reading a recording. Nothing is believed: a damaged file gives an error, never a panic.

use super::{FORMAT, Header, MAGIC, SealKey, cipher, tag};
use crate::api::{ApiRequest, ConversationSync, MessageSync};
use crate::error::StoreFault;
use crate::ids::{CallId, ConnId, Incarnation, NodeId, OpId, PeerProcess, ShardId, StoreId};
use crate::input::{CloseCause, Completion, Input, Transport};
use crate::raft::config::Replica;
use crate::rng::Seed;
use crate::shard::{Boot, ShardConfig};
use crate::store::Found;
use crate::time::{Instant, Now, WallTime};
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use wukong_proto::Text;

/// Why a recording cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    NotARecording,
    OtherFormat(u8),
    WrongKey,
    /// The bytes end within the header.
    Short,
    /// What stands at this place cannot be.
    Damaged {
        at: usize,
    },
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecording => f.write_str("this is not a flight recording"),
            Self::OtherFormat(n) => {
                write!(f, "the recording has format {n}, this version reads {FORMAT}: use the version that wrote it")
            }
            Self::WrongKey => f.write_str(
                "recorder.key is not the key of this recording: it must lie beside the files it was made with",
            ),
            Self::Short => f.write_str("the recording ends within its header"),
            Self::Damaged { at } => write!(f, "the recording is damaged at byte {at}"),
        }
    }
}

/// An input as recorded.
#[derive(Clone, Debug)]
pub enum Recorded {
    Input(Input),
    /// The mail itself is taken from the sender's replay.
    Mail {
        from: ShardId,
        ordinal: u64,
    },
}

/// One item of a recording.
#[derive(Clone, Debug)]
pub enum Item {
    Handled { now: Now, input: Recorded },
    Drained { hash: u64 },
}

/// The items of one recording, in order. A process that was killed leaves a torn last item, which is left out.
#[derive(Clone, Debug)]
pub struct Items {
    reader: Reader,
    last: Now,
}

struct End;
type Read<T> = Result<T, End>;

#[derive(Clone, Debug)]
struct Reader {
    bytes: Bytes,
    at: usize,
}

impl Reader {
    fn take(&mut self, n: usize) -> Read<Bytes> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len()).ok_or(End)?;
        let part = self.bytes.slice(self.at..end);
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.as_ref().try_into().map_err(|_| End)
    }

    fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn varint(&mut self) -> Read<u64> {
        let mut n = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                break;
            }
        }
        Ok(n)
    }

    fn signed(&mut self) -> Read<i64> {
        let n = self.varint()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    fn flag(&mut self) -> Read<bool> {
        Ok(self.u8()? != 0)
    }

    fn bytes(&mut self) -> Read<Bytes> {
        let n = self.varint()?;
        self.take(usize::try_from(n).map_err(|_| End)?)
    }
}

/// `None`: a value that cannot be, as opposed to the end of the bytes.
type Value<T> = Read<Option<T>>;

fn text(r: &mut Reader) -> Value<Text> {
    Ok(Text::try_from(r.bytes()?).ok())
}

macro_rules! some {
    ($value:expr) => {
        match $value {
            Some(value) => value,
            None => return Ok(None),
        }
    };
}

impl Items {
    /// Reads the header; the items follow.
    ///
    /// # Errors
    /// This is not a recording of this format, or the key is another's.
    pub fn open(file: Bytes, key: &SealKey) -> Result<(Header, Self), Bad> {
        let mut r = Reader { bytes: file, at: 0 };
        if r.array() != Ok(*MAGIC) {
            return Err(Bad::NotARecording);
        }
        let format = r.u8().map_err(|End| Bad::Short)?;
        if format != FORMAT {
            return Err(Bad::OtherFormat(format));
        }
        let header = header(&mut r, key).map_err(|End| Bad::Short)?.ok_or(Bad::WrongKey)?;
        let last = header.started;
        Ok((header, Self { reader: r, last }))
    }

    fn item(&mut self) -> Value<Item> {
        let r = &mut self.reader;
        let tag = r.u8()?;
        if tag == tag::DRAINED {
            return Ok(Some(Item::Drained { hash: u64::from_be_bytes(r.array()?) }));
        }
        let mono = Instant(self.last.mono.0.wrapping_add(r.varint()?));
        let wall = WallTime(self.last.wall.0.wrapping_add(r.signed()? as u64));
        let now = Now { mono, wall };
        let input = some!(input(tag, r)?);
        self.last = now;
        Ok(Some(Item::Handled { now, input }))
    }
}

impl Iterator for Items {
    type Item = Result<Item, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.reader.at;
        match self.item() {
            Ok(Some(item)) => Some(Ok(item)),
            // The torn end, or the proper one. Also the end after damage, which is reported once.
            Err(End) => {
                self.reader.at = self.reader.bytes.len();
                None
            }
            Ok(None) => {
                self.reader.at = self.reader.bytes.len();
                Some(Err(Bad::Damaged { at }))
            }
        }
    }
}

impl PartialEq for End {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

fn header(r: &mut Reader, key: &SealKey) -> Value<Header> {
    let node = NodeId(r.varint()? as u16);
    let shard = ShardId(r.varint()? as u8);
    let (shards, slots) = (r.varint()? as u8, r.varint()? as u16);
    let token_auth = r.varint()? != 0;
    let overlay_rows_max = r.varint()? as usize;
    let dedup_bytes_max = r.varint()? as usize;
    let mail_credit = r.varint()? as usize;
    let (slot_log_suffix, slot_log_max, snapshot_rows) = (r.varint()?, r.varint()?, r.varint()? as u32);
    let link_pause = r.varint()? as usize;
    let (audit_every, audit_soon) = (Duration::from_millis(r.varint()?), Duration::from_millis(r.varint()?));
    let cluster = u128::from_be_bytes(r.array()?);
    let replicas = some!(many(r, replica)?);
    let store = StoreId(u128::from_be_bytes(r.array()?));
    let incarnation = Incarnation(r.varint()?);
    let started = Now { mono: Instant(r.varint()?), wall: WallTime(r.varint()?) };
    let jitter = r.array()?;
    let mut secret = r.bytes()?.to_vec();
    cipher(key, shard.0, &mut secret);
    let (secret, crc) = secret.split_at(secret.len().saturating_sub(4));
    if crc != crc32fast::hash(secret).to_be_bytes() {
        return Ok(None);
    }
    let mut s = Reader { bytes: Bytes::copy_from_slice(secret), at: 0 };
    let keys = s.array()?;
    let has_token = s.flag()?;
    let token = some!(text(&mut s)?);
    let config = ShardConfig {
        node,
        shard,
        shards,
        slots,
        token_auth,
        manager_token: has_token.then_some(token),
        overlay_rows_max,
        dedup_bytes_max,
        mail_credit,
        slot_log_suffix,
        slot_log_max,
        snapshot_rows,
        link_pause,
        audit_every,
        audit_soon,
        hash_salt: 0,
        replicas,
        cluster,
        #[cfg(feature = "mutants")]
        mutant: None,
    };
    Ok(Some(Header { config, boot: Boot { store, incarnation }, seed: Seed { keys, jitter }, started }))
}

fn input(tag: u8, r: &mut Reader) -> Value<Recorded> {
    let input = match tag {
        tag::OPENED => {
            let conn = ConnId(r.varint()?);
            let transport = if r.flag()? { Transport::WebSocket } else { Transport::Tcp };
            Input::ConnOpened { conn, transport, peer: some!(address(r)?) }
        }
        tag::RECEIVED => Input::ConnReceived { conn: ConnId(r.varint()?), bytes: r.bytes()? },
        tag::CREDIT => Input::ConnDrained { conn: ConnId(r.varint()?), bytes: r.varint()? as u32 },
        tag::CLOSED => {
            let conn = ConnId(r.varint()?);
            let cause = match r.u8()? {
                0 => CloseCause::Peer,
                1 => CloseCause::Asked,
                2 => CloseCause::Transport,
                _ => return Ok(None),
            };
            Input::ConnClosed { conn, cause }
        }
        tag::MAIL => {
            return Ok(Some(Recorded::Mail { from: ShardId(r.u8()?), ordinal: r.varint()? }));
        }
        tag::PERSISTED => {
            let op = OpId(r.varint()?);
            let fault = some!(fault(r.u8()?));
            Input::Completed { op, completion: Completion::Persisted(fault.map_or(Ok(()), Err)) }
        }
        tag::LOADED => {
            let op = OpId(r.varint()?);
            let loaded = match some!(fault(r.u8()?)) {
                Some(fault) => Err(fault),
                None => Ok(some!(many(r, found)?)),
            };
            Input::Completed { op, completion: Completion::Loaded(loaded) }
        }
        tag::CALL => Input::Call { call: CallId(r.varint()?), request: some!(request(r)?) },
        tag::PEER_UP => Input::PeerUp {
            peer: PeerProcess {
                node: NodeId(r.varint()? as u16),
                store: StoreId(u128::from_be_bytes(r.array()?)),
                incarnation: Incarnation(r.varint()?),
                shards: r.u8()?,
                wire: r.varint()? as u16,
            },
        },
        tag::PEER_DOWN => Input::PeerDown { node: NodeId(r.varint()? as u16), incarnation: Incarnation(r.varint()?) },
        tag::PEER_FRAME => {
            let (node, incarnation) = (NodeId(r.varint()? as u16), Incarnation(r.varint()?));
            Input::PeerFrame { node, incarnation, frame: r.bytes()? }
        }
        tag::DEADLINE => Input::Deadline,
        tag::STOP => Input::Stop,
        _ => return Ok(None),
    };
    Ok(Some(Recorded::Input(input)))
}

fn replica(r: &mut Reader) -> Value<Replica> {
    Ok(Some(Replica { node: NodeId(r.varint()? as u16), store: StoreId(u128::from_be_bytes(r.array()?)) }))
}

fn many<T>(r: &mut Reader, one: fn(&mut Reader) -> Value<T>) -> Value<Vec<T>> {
    let count = r.varint()?;
    let mut list = Vec::new();
    for _ in 0..count {
        list.push(some!(one(r)?));
    }
    Ok(Some(list))
}

fn fault(code: u8) -> Option<Option<StoreFault>> {
    Some(match code {
        0 => None,
        1 => Some(StoreFault::Io),
        2 => Some(StoreFault::Full),
        3 => Some(StoreFault::Corrupt),
        _ => return None,
    })
}

fn address(r: &mut Reader) -> Value<SocketAddr> {
    let ip = r.bytes()?;
    let ip = match (<[u8; 4]>::try_from(&ip[..]), <[u8; 16]>::try_from(&ip[..])) {
        (Ok(v4), _) => IpAddr::from(v4),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return Ok(None),
    };
    Ok(Some(SocketAddr::new(ip, r.varint()? as u16)))
}

fn row(r: &mut Reader) -> Value<(Bytes, Bytes)> {
    Ok(Some((r.bytes()?, r.bytes()?)))
}

fn found(r: &mut Reader) -> Value<Found> {
    Ok(Some(match r.u8()? {
        0 => Found::Point(None),
        1 => Found::Point(Some(r.bytes()?)),
        2 => Found::Page { rows: some!(many(r, row)?), more: r.flag()? },
        3 => Found::Unreadable(some!(fault(r.u8()?).flatten())),
        _ => return Ok(None),
    }))
}

fn last_seq(r: &mut Reader) -> Value<(Text, u8, u64)> {
    Ok(Some((some!(text(r)?), r.u8()?, r.varint()?)))
}

fn request(r: &mut Reader) -> Value<ApiRequest> {
    Ok(Some(match r.u8()? {
        0 => ApiRequest::SetToken {
            uid: some!(text(r)?),
            token: some!(text(r)?),
            device_flag: r.u8()?,
            device_level: r.u8()?,
        },
        1 => ApiRequest::MessageSync(MessageSync {
            login_uid: some!(text(r)?),
            channel_id: some!(text(r)?),
            channel_type: r.u8()?,
            start: r.varint()?,
            end: r.varint()?,
            limit: r.signed()?,
            up: r.flag()?,
        }),
        2 => ApiRequest::ConversationSync(ConversationSync {
            uid: some!(text(r)?),
            version: r.signed()?,
            last_seqs: some!(many(r, last_seq)?),
            msg_count: r.signed()?,
            only_unread: r.flag()?,
            exclude_types: r.bytes()?.to_vec(),
            page: r.signed()?,
            page_size: r.signed()?,
        }),
        3 => ApiRequest::DeleteChannel { channel_id: some!(text(r)?), channel_type: r.u8()? },
        _ => return Ok(None),
    }))
}

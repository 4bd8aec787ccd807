//! Stored messages as JSON: the message object (http-api 2.7) and what carries it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use wukong_core::api::{Conversation, MessagePage};
use wukong_core::channel::id::{SYSTEM_UID, split};
use wukong_core::ids::channel_type;
use wukong_core::store::Record;

#[derive(Debug, Serialize)]
struct Header {
    no_persist: u8,
    red_dot: u8,
    sync_once: u8,
}

/// The message object. Stream members belong to messages with the stream bit, which this release does not store.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    header: Header,
    setting: u8,
    message_id: i64,
    message_idstr: String,
    client_msg_no: &'a str,
    message_seq: u64,
    /// Empty for the system uid.
    from_uid: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    topic: &'a str,
    expire: u32,
    timestamp: i32,
    payload: String,
}

impl<'a> Message<'a> {
    #[must_use]
    pub fn new(record: &'a Record, stored_id: &'a str, kind: u8) -> Self {
        let from_uid = if record.from_uid == SYSTEM_UID { "" } else { record.from_uid.as_str() };
        Self {
            header: Header {
                no_persist: u8::from(record.flags.no_persist()),
                red_dot: u8::from(record.flags.red_dot()),
                sync_once: u8::from(record.flags.sync_once()),
            },
            setting: record.setting.0,
            message_id: record.message_id,
            message_idstr: record.message_id.to_string(),
            client_msg_no: record.client_msg_no.as_str(),
            message_seq: record.seq,
            from_uid,
            channel_id: shown_id(stored_id, kind, from_uid),
            channel_type: kind,
            topic: record.topic.as_str(),
            expire: record.expire,
            timestamp: record.timestamp(),
            payload: STANDARD.encode(&record.payload),
        }
    }
}

/// The `channel_id` member: of a person channel the part that is not the sender, and the second one when neither is;
/// for a message of the system the user. Other ids are shown as stored.
fn shown_id<'a>(stored_id: &'a str, kind: u8, from_uid: &str) -> &'a str {
    match split(stored_id) {
        Some((first, second)) if kind == channel_type::PERSON => {
            let sender = if from_uid.is_empty() { SYSTEM_UID } else { from_uid };
            if second == sender { first } else { second }
        }
        _ => stored_id,
    }
}

/// Answer of `/channel/messagesync`.
#[derive(Debug, Serialize)]
pub struct Page<'a> {
    start_message_seq: u64,
    end_message_seq: u64,
    more: u8,
    messages: Vec<Message<'a>>,
}

impl<'a> From<&'a MessagePage> for Page<'a> {
    fn from(page: &'a MessagePage) -> Self {
        let (id, kind) = (page.channel_id.as_str(), page.channel_type);
        Self {
            start_message_seq: page.start,
            end_message_seq: page.end,
            more: u8::from(page.more),
            messages: page.messages.iter().map(|r| Message::new(r, id, kind)).collect(),
        }
    }
}

/// Element of the answer of `/conversation/sync`.
#[derive(Debug, Serialize)]
pub struct Item<'a> {
    channel_id: &'a str,
    channel_type: u8,
    unread: u64,
    timestamp: i64,
    last_msg_seq: u64,
    last_client_msg_no: &'a str,
    offset_msg_seq: i64,
    readed_to_msg_seq: u64,
    /// Nanoseconds of the newest message's timestamp.
    version: i64,
    recents: Vec<Message<'a>>,
}

impl<'a> From<&'a Conversation> for Item<'a> {
    fn from(row: &'a Conversation) -> Self {
        let newest = row.recents.first();
        let timestamp = newest.map_or(0, |r| i64::from(r.timestamp()));
        Self {
            channel_id: row.channel_id.as_str(),
            channel_type: row.channel_type,
            unread: row.unread,
            timestamp,
            last_msg_seq: newest.map_or(0, |r| r.seq),
            last_client_msg_no: newest.map_or("", |r| r.client_msg_no.as_str()),
            offset_msg_seq: 0,
            readed_to_msg_seq: row.read_to,
            version: timestamp * 1_000_000_000,
            recents: row.recents.iter().map(|r| Message::new(r, row.stored_id.as_str(), row.channel_type)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json, to_value};
    use wukong_core::ids::Epoch;
    use wukong_proto::{Flags, Setting, Text};

    fn record(from: &str) -> Record {
        Record {
            seq: 42,
            epoch: Epoch(3),
            message_id: 1_783_445_566_778_899_456,
            timestamp_ms: 1_700_000_000_999,
            flags: Flags::RED_DOT.with(Flags::SYNC_ONCE),
            setting: Setting(0x80),
            client_seq: 9,
            expire: 60,
            from_uid: Text::from(from),
            client_msg_no: Text::from("c0ffee"),
            topic: Text::default(),
            stream_no: Text::default(),
            payload: b"\x00hi\xff".as_slice().into(),
        }
    }

    #[test]
    fn a_message_has_exactly_these_members() {
        let expected = json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 1},
            "setting": 128,
            "message_id": 1_783_445_566_778_899_456_i64,
            "message_idstr": "1783445566778899456",
            "client_msg_no": "c0ffee",
            "message_seq": 42,
            "from_uid": "u1",
            "channel_id": "u2",
            "channel_type": 1,
            "expire": 60,
            "timestamp": 1_700_000_000,
            "payload": "AGhp/w==",
        });
        assert_eq!(to_value(Message::new(&record("u1"), "u1@u2", 1)).unwrap(), expected);
        let topic = Record { topic: Text::from("t"), ..record("u1") };
        assert_eq!(to_value(Message::new(&topic, "u1@u2", 1)).unwrap()["topic"], json!("t"));
    }

    #[test]
    fn the_channel_of_a_person_message_is_its_receiver() {
        let shown = |from: &str, stored: &str, kind: u8| {
            let value = to_value(Message::new(&record(from), stored, kind)).unwrap();
            let text = |name: &str| value[name].as_str().unwrap().to_owned();
            (text("from_uid"), text("channel_id"))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(shown("a", "a@b", 1), pair("a", "b"));
        assert_eq!(shown("b", "a@b", 1), pair("b", "a"));
        assert_eq!(shown("a", "a@a", 1), pair("a", "a"));
        // Neither part is the sender: the second.
        assert_eq!(shown("x", "a@b", 1), pair("x", "b"));
        // The system's messages name the user, wherever it stands in the id.
        assert_eq!(shown(SYSTEM_UID, "a@____system", 1), pair("", "a"));
        assert_eq!(shown(SYSTEM_UID, "____system@a", 1), pair("", "a"));
        assert_eq!(shown("a", "a@____system", 1), pair("a", SYSTEM_UID));
        // Person command channels, groups.
        assert_eq!(shown("b", "a@b____cmd", 1), pair("b", "b____cmd"));
        assert_eq!(shown("a", "g@1", 2), pair("a", "g@1"));
        assert_eq!(shown(SYSTEM_UID, "g", 2), pair("", "g"));
    }

    #[test]
    fn a_page_echoes_its_window() {
        let page = MessagePage {
            start: 7,
            end: u64::MAX,
            more: true,
            channel_id: Text::from("a@b"),
            channel_type: 1,
            messages: vec![record("a")],
        };
        let value = to_value(Page::from(&page)).unwrap();
        assert_eq!(value["start_message_seq"], json!(7));
        assert_eq!(value["end_message_seq"], json!(u64::MAX));
        assert_eq!(value["more"], json!(1));
        assert_eq!(value["messages"].as_array().map(Vec::len), Some(1));
        let empty = to_value(Page::from(&MessagePage::default())).unwrap();
        assert_eq!(empty, json!({"start_message_seq": 0, "end_message_seq": 0, "more": 0, "messages": []}));
    }

    #[test]
    fn a_conversation_is_described_by_its_newest_message() {
        let older = Record { seq: 41, client_msg_no: Text::from("old"), timestamp_ms: 1, ..record("b") };
        let row = Conversation {
            channel_id: Text::from("b"),
            stored_id: Text::from("a@b"),
            channel_type: 1,
            unread: 2,
            read_to: 40,
            recents: vec![record("a"), older],
        };
        let mut value = to_value(Item::from(&row)).unwrap();
        let recents = value["recents"].take();
        let seqs: Vec<&Value> = recents.as_array().unwrap().iter().map(|m| &m["message_seq"]).collect();
        assert_eq!(seqs, [42, 41]);
        assert_eq!(
            value,
            json!({
                "channel_id": "b", "channel_type": 1, "unread": 2, "timestamp": 1_700_000_000, "last_msg_seq": 42,
                "last_client_msg_no": "c0ffee", "offset_msg_seq": 0, "readed_to_msg_seq": 40,
                "version": 1_700_000_000_000_000_000_i64, "recents": null,
            })
        );
    }
}

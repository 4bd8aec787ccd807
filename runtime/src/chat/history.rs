//! The last messages of a conversation, asked from the HTTP API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::Args;
use crate::client::http::{Http, HttpError};

/// A message as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub seq: u64,
    pub from: String,
    /// Seconds since the epoch.
    pub at: i64,
    pub text: String,
}

/// The last messages, oldest first.
///
/// # Errors
/// The API is not there or does not answer as specified.
pub fn last(args: &Args) -> Result<Vec<Said>, HttpError> {
    let body = json!({
        "login_uid": args.uid, "channel_id": args.to, "channel_type": if args.group { 2 } else { 1 },
        "start_message_seq": 0, "end_message_seq": 0, "limit": args.history, "pull_mode": 0,
    });
    let page = Http::new(&args.http).post("/channel/messagesync", &body)?;
    let rows = page["messages"].as_array();
    let rows = rows.ok_or(HttpError::Malformed("no member 'messages'"))?;
    Ok(rows.iter().map(said).collect())
}

fn said(row: &Value) -> Said {
    let payload = STANDARD.decode(row["payload"].as_str().unwrap_or("")).unwrap_or_default();
    Said {
        seq: row["message_seq"].as_u64().unwrap_or(0),
        from: row["from_uid"].as_str().unwrap_or("").to_owned(),
        at: row["timestamp"].as_i64().unwrap_or(0),
        text: text_of(&payload),
    }
}

/// The payload of a text message, as all published clients write it.
#[must_use]
pub fn payload_of(text: &str) -> Vec<u8> {
    json!({ "type": 1, "content": text }).to_string().into_bytes()
}

/// The text of a payload; whatever else it is, as far as it can be shown.
#[must_use]
pub fn text_of(payload: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(payload) {
        Ok(Value::Object(object)) => match object.get("content").and_then(Value::as_str) {
            Some(content) => content.to_owned(),
            None => Value::Object(object).to_string(),
        },
        _ => String::from_utf8_lossy(payload).into_owned(),
    };
    // Nobody else may steer our terminal.
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The time of day in UTC.
#[must_use]
pub fn clock(at: i64) -> String {
    let second = at.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        assert_eq!(text_of(&payload_of("hi \"你好\"")), "hi \"你好\"");
        assert_eq!(text_of(br#"{"type":2,"url":"x"}"#), r#"{"type":2,"url":"x"}"#);
        assert_eq!(text_of(b"plain\x1b[2J"), "plain [2J");
        assert_eq!(text_of(b"17"), "17");
        assert_eq!(clock(1_700_000_001), "22:13:21");
    }

    #[test]
    fn rows_of_the_api() {
        let row = json!({ "message_seq": 7, "from_uid": "bob", "timestamp": 5, "payload": STANDARD.encode("hi") });
        let expected = Said { seq: 7, from: "bob".into(), at: 5, text: "hi".into() };
        assert_eq!(said(&row), expected);
    }
}

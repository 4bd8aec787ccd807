//! One handler per route.

use super::answer::{self, Failed};
use super::body::Members;
use super::message::{Item, Page};
use super::{Api, metrics};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use wukong_core::api::{ApiAnswer, ApiRequest, ConversationSync, MessageSync};
use wukong_core::error::Refusal;
use wukong_core::limits;
use wukong_proto::{ReasonCode, Text};

/// The core answers within its own limit; this is for a shard that does not run at all.
const GRACE: Duration = Duration::from_secs(1);
/// A shard that does not tell its figures within this is left out.
const SAMPLE: Duration = Duration::from_secs(1);

/// What `/route` tells clients: host and port without a scheme for TCP, with one for WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Addresses {
    pub tcp_addr: String,
    pub ws_addr: String,
    pub wss_addr: String,
    #[serde(skip)]
    pub intranet_tcp_addr: String,
}

type Answer = Result<Response, Failed>;

async fn ask(api: &Api, request: ApiRequest) -> Result<ApiAnswer, Refusal> {
    let waiting = api.core.call(request)?;
    match tokio::time::timeout(limits::CALL + GRACE, waiting).await {
        Ok(Ok(ApiAnswer::Refused(refusal))) => Err(refusal),
        Ok(Ok(answer)) => Ok(answer),
        // The shard left: the node stops.
        Ok(Err(_)) => Err(Refusal::Busy),
        Err(_) => Err(Refusal::Timeout),
    }
}

fn unexpected() -> Failed {
    Failed::with_code(StatusCode::INTERNAL_SERVER_ERROR, "the core gave an answer of another call")
}

/// POST /user/token
pub async fn user_token(State(api): State<Arc<Api>>, body: Bytes) -> Answer {
    let m = Members::parse(&body)?;
    let request = ApiRequest::SetToken {
        uid: Text::from(m.needed("uid")?),
        token: Text::from(m.needed("token")?),
        device_flag: m.u8("device_flag")?,
        device_level: m.u8("device_level")?,
    };
    match ask(&api, request).await {
        Ok(ApiAnswer::Done) => Ok(answer::ok()),
        Ok(_) => Err(unexpected()),
        // A banned or disbanded user is refused with HTTP 200.
        Err(Refusal::Reason(reason)) if is_status(reason) => Ok(answer::status(reason)),
        Err(refusal) => Err(refusal.into()),
    }
}

fn is_status(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::BAN | ReasonCode::DISBAND)
}

/// POST /channel/messagesync
pub async fn message_sync(State(api): State<Arc<Api>>, body: Bytes) -> Answer {
    let m = Members::parse(&body)?;
    let request = ApiRequest::MessageSync(MessageSync {
        login_uid: Text::from(m.needed("login_uid")?),
        channel_id: Text::from(m.needed("channel_id")?),
        channel_type: m.u8("channel_type")?,
        start: m.u64("start_message_seq")?,
        end: m.u64("end_message_seq")?,
        limit: m.i64("limit")?,
        up: m.i64("pull_mode")? == 1,
    });
    match ask(&api, request).await? {
        ApiAnswer::Messages(page) => Ok(answer::raw(&Page::from(&page))),
        _ => Err(unexpected()),
    }
}

/// POST /conversation/sync
pub async fn conversation_sync(State(api): State<Arc<Api>>, body: Bytes) -> Answer {
    let m = Members::parse(&body)?;
    let request = ApiRequest::ConversationSync(ConversationSync {
        uid: Text::from(m.needed("uid")?),
        version: m.i64("version")?,
        last_seqs: last_seqs(&m.text("last_msg_seqs")?),
        msg_count: m.i64("msg_count")?,
        only_unread: m.u8("only_unread")? == 1,
        exclude_types: m.bytes("exclude_channel_types")?,
        page: m.i64("page")?,
        page_size: m.i64("page_size")?,
    });
    match ask(&api, request).await? {
        ApiAnswer::Conversations(rows) => Ok(answer::raw(&rows.iter().map(Item::from).collect::<Vec<_>>())),
        _ => Err(unexpected()),
    }
}

/// `id:type:seq` joined by `|`. The id may hold colons; what does not parse is left out.
fn last_seqs(text: &str) -> Vec<(Text, u8, u64)> {
    let entry = |part: &str| {
        let mut fields = part.rsplitn(3, ':');
        let (seq, kind, id) = (fields.next()?, fields.next()?, fields.next()?);
        Some((Text::from(id), kind.parse().ok()?, seq.parse().ok()?))
    };
    text.split('|').filter_map(entry).collect()
}

/// The first value of a query parameter; names and values of ours need no percent-decoding.
fn query<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// GET /route
pub async fn route(State(api): State<Arc<Api>>, uri: Uri) -> Answer {
    let node = ["node_id", "nodeId", "nodeID"].iter().find_map(|name| query(&uri, name));
    if node.is_some_and(|id| id.parse() != Ok(api.node_id)) {
        return Err(Failed::new(format!("no such node; this is node {}", api.node_id)));
    }
    if query(&uri, "intranet") == Some("1") {
        let tcp_addr = api.addresses.intranet_tcp_addr.clone();
        return Ok(answer::raw(&Addresses { tcp_addr, ..Addresses::default() }));
    }
    Ok(answer::raw(&api.addresses))
}

/// GET /health
pub async fn health(State(api): State<Arc<Api>>) -> Response {
    match api.core.not_ready() {
        None => answer::raw(&json!({"status": "ok"})),
        Some(why) => answer::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"status": "error", "message": why})),
    }
}

/// GET /healthz: the process lives.
pub async fn healthz() -> Response {
    answer::raw(&json!({"status": "ok"}))
}

/// GET /readyz
pub async fn readyz(State(api): State<Arc<Api>>) -> Response {
    match api.core.not_ready() {
        None => answer::raw(&json!({"ready": true})),
        Some(why) => answer::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "reason": why})),
    }
}

/// GET /metrics
pub async fn metrics_page(State(api): State<Arc<Api>>) -> Response {
    let mut shards = Vec::new();
    for (shard, sample) in api.core.samples().into_iter().enumerate() {
        if let Ok(Ok(sample)) = tokio::time::timeout(SAMPLE, sample).await {
            shards.push((shard, sample));
        }
    }
    let mut all = metrics::of_shards(&shards);
    all.extend(metrics::of_process());
    all.extend(super::edge::metrics(&api));
    all.extend((api.more_metrics)());
    answer::text(StatusCode::OK, metrics::exposition(&all)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_seqs_may_hold_colons_and_nonsense() {
        let list = last_seqs("u2:1:17|a:b:2:3||x|y:1:z|g:300:1|h:2:18446744073709551615");
        let expected = [("u2", 1, 17), ("a:b", 2, 3), ("h", 2, u64::MAX)];
        assert_eq!(list, expected.map(|(id, kind, seq)| (Text::from(id), kind, seq)));
        assert_eq!(last_seqs(""), []);
    }

    #[test]
    fn the_first_value_of_a_parameter_counts() {
        let uri: Uri = "/route?uid=x&intranet=1&intranet=0".parse().unwrap();
        assert_eq!(query(&uri, "intranet"), Some("1"));
        assert_eq!(query(&uri, "node_id"), None);
        assert_eq!(query(&"/route".parse().unwrap(), "intranet"), None);
    }
}

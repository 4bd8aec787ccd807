//! Envelopes and quirks, against the real router and a core that answers what it is told.

use super::{Addresses, Api, Core, router};
use crate::reactor::inbox::ShardSample;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tower::ServiceExt;
use wukong_core::api::{ApiAnswer, ApiRequest, ConversationSync, MessagePage, MessageSync};
use wukong_core::error::{Refusal, StoreFault};
use wukong_proto::{ReasonCode, Text};

struct Fake {
    answer: ApiAnswer,
    asked: Mutex<Vec<ApiRequest>>,
    not_ready: Option<String>,
}

impl Core for Fake {
    fn call(&self, request: ApiRequest) -> Result<oneshot::Receiver<ApiAnswer>, Refusal> {
        self.asked.lock().unwrap().push(request);
        let (to, receiver) = oneshot::channel();
        to.send(self.answer.clone()).unwrap();
        Ok(receiver)
    }

    fn not_ready(&self) -> Option<String> {
        self.not_ready.clone()
    }

    fn samples(&self) -> Vec<oneshot::Receiver<ShardSample>> {
        let (to, receiver) = oneshot::channel();
        to.send(ShardSample::default()).unwrap();
        vec![receiver]
    }
}

struct Site {
    fake: Arc<Fake>,
    router: Router,
}

struct Got {
    code: StatusCode,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json; charset=utf-8");
        serde_json::from_str(&self.body).unwrap()
    }
}

fn site_with(answer: ApiAnswer, token: Option<&str>, not_ready: Option<&str>) -> Site {
    let fake = Arc::new(Fake { answer, asked: Mutex::default(), not_ready: not_ready.map(str::to_owned) });
    let addresses = Addresses {
        tcp_addr: "im.example:5100".into(),
        ws_addr: "ws://im.example:5200".into(),
        wss_addr: String::new(),
        intranet_tcp_addr: "10.0.0.1:5100".into(),
    };
    let api = Api::new(fake.clone(), token.map(str::to_owned), 1001, addresses, Box::new(Vec::new));
    Site { fake, router: router(Arc::new(api)) }
}

fn site(answer: ApiAnswer) -> Site {
    site_with(answer, None, None)
}

impl Site {
    fn send(&self, request: Request<Body>) -> Got {
        let router = self.router.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let response = router.oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            for name in ["origin", "credentials", "headers", "methods"] {
                assert!(parts.headers.contains_key(format!("access-control-allow-{name}")), "CORS on every answer");
            }
            Got { code: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
        })
    }

    fn get(&self, path: &str) -> Got {
        self.send(Request::get(path).body(Body::empty()).unwrap())
    }

    fn post(&self, path: &str, body: impl Into<Body>) -> Got {
        // The reference ignores the content type.
        self.send(Request::post(path).header("content-type", "text/weird").body(body.into()).unwrap())
    }

    fn asked(&self) -> ApiRequest {
        self.fake.asked.lock().unwrap().pop().unwrap()
    }
}

#[test]
fn a_token_is_set() {
    let site = site(ApiAnswer::Done);
    let got = site.post("/user/token", r#"{"UID":"u1","token":"t","device_flag":1,"device_level":1,"x":[]}"#);
    assert_eq!((got.code, got.json()), (StatusCode::OK, json!({"status": 200})));
    let (uid, token) = (Text::from("u1"), Text::from("t"));
    assert_eq!(site.asked(), ApiRequest::SetToken { uid, token, device_flag: 1, device_level: 1 });
}

#[test]
fn failures_are_400_with_the_envelope() {
    let site = site(ApiAnswer::Done);
    for body in ["", "{", "[]", "{}", r#"{"uid":" ","token":"t"}"#, r#"{"uid":"u","token":1}"#] {
        let got = site.post("/user/token", body);
        assert_eq!(got.code, StatusCode::BAD_REQUEST, "{body}");
        let value = got.json();
        assert_eq!(value["status"], json!(400));
        assert!(!value["msg"].as_str().unwrap().is_empty());
        assert_eq!(value.as_object().unwrap().len(), 2);
    }
    let got = site.post("/user/token", r#"{"uid":"u","token":"t","device_flag":256}"#);
    assert_eq!(got.code, StatusCode::BAD_REQUEST);
    assert!(site.fake.asked.lock().unwrap().is_empty());
}

#[test]
fn refusals_of_the_core_are_400_but_for_a_banned_user() {
    let refusals = [
        (Refusal::Invalid("no"), StatusCode::BAD_REQUEST, 400),
        (Refusal::Timeout, StatusCode::BAD_REQUEST, 400),
        (Refusal::Busy, StatusCode::BAD_REQUEST, 400),
        (Refusal::Store(StoreFault::Full), StatusCode::BAD_REQUEST, 400),
        (Refusal::Reason(ReasonCode::CHANNEL_ID_ERROR), StatusCode::BAD_REQUEST, 400),
        (Refusal::Reason(ReasonCode::BAN), StatusCode::OK, 19),
        (Refusal::Reason(ReasonCode::DISBAND), StatusCode::OK, 24),
    ];
    for (refusal, code, status) in refusals {
        let got = site(ApiAnswer::Refused(refusal)).post("/user/token", r#"{"uid":"u","token":"t"}"#);
        assert_eq!((got.code, got.json()["status"].clone()), (code, json!(status)), "{refusal:?}");
    }
    let body = r#"{"login_uid":"a","channel_id":"b","channel_type":1}"#;
    let got = site(ApiAnswer::Refused(Refusal::Reason(ReasonCode::BAN))).post("/channel/messagesync", body);
    assert_eq!(got.code, StatusCode::BAD_REQUEST);
}

#[test]
fn messages_are_asked_for_and_come_raw() {
    let site = site(ApiAnswer::Messages(MessagePage { start: 5, ..MessagePage::default() }));
    let body = r#"{"login_uid":"a","channel_id":"b","channel_type":1,"start_message_seq":5,"end_message_seq":1,
        "limit":-3,"pull_mode":1,"stream_v2":"x","event_summary_mode":"full"}"#;
    let got = site.post("/channel/messagesync", body);
    assert_eq!(got.json(), json!({"start_message_seq": 5, "end_message_seq": 0, "more": 0, "messages": []}));
    let expected = MessageSync {
        login_uid: Text::from("a"),
        channel_id: Text::from("b"),
        channel_type: 1,
        start: 5,
        end: 1,
        limit: -3,
        up: true,
    };
    assert_eq!(site.asked(), ApiRequest::MessageSync(expected));
    site.post("/channel/messagesync", r#"{"login_uid":"a","channel_id":"b","pull_mode":2}"#);
    assert!(matches!(site.asked(), ApiRequest::MessageSync(q) if !q.up && q.channel_type == 0));
}

#[test]
fn conversations_are_asked_for_and_come_as_a_bare_list() {
    let site = site(ApiAnswer::Conversations(Vec::new()));
    let body = r#"{"uid":"a","version":7,"last_msg_seqs":"b:1:9|c:1:2","msg_count":20,"only_unread":1,
        "exclude_channel_types":[2,3],"page":1,"page_size":50}"#;
    let got = site.post("/conversation/sync", body);
    assert_eq!((got.code, got.json()), (StatusCode::OK, json!([])));
    let expected = ConversationSync {
        uid: Text::from("a"),
        version: 7,
        last_seqs: vec![(Text::from("b"), 1, 9), (Text::from("c"), 1, 2)],
        msg_count: 20,
        only_unread: true,
        exclude_types: vec![2, 3],
        page: 1,
        page_size: 50,
    };
    assert_eq!(site.asked(), ApiRequest::ConversationSync(expected));
    // Only 1 counts as true.
    site.post("/conversation/sync", r#"{"uid":"a","only_unread":2}"#);
    assert!(matches!(site.asked(), ApiRequest::ConversationSync(q) if !q.only_unread));
}

#[test]
fn routes_name_the_addresses() {
    let site = site(ApiAnswer::Done);
    let outside = json!({"tcp_addr": "im.example:5100", "ws_addr": "ws://im.example:5200", "wss_addr": ""});
    for path in ["/route", "/route?uid=u1", "/route?intranet=2", "/route?node_id=1001"] {
        assert_eq!(site.get(path).json(), outside);
    }
    let inside = json!({"tcp_addr": "10.0.0.1:5100", "ws_addr": "", "wss_addr": ""});
    assert_eq!(site.get("/route?uid=x&intranet=1").json(), inside);
    assert_eq!(site.get("/route?node_id=7").code, StatusCode::BAD_REQUEST);
}

#[test]
fn probes_say_what_is_the_matter() {
    let up = site(ApiAnswer::Done);
    assert_eq!(up.get("/health").json(), json!({"status": "ok"}));
    assert_eq!(up.get("/healthz").json(), json!({"status": "ok"}));
    assert_eq!(up.get("/readyz").json(), json!({"ready": true}));
    let down = site_with(ApiAnswer::Done, None, Some("loading"));
    let got = down.get("/health");
    assert_eq!(got.code, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(got.json(), json!({"status": "error", "message": "loading"}));
    assert_eq!(down.get("/healthz").code, StatusCode::OK);
    let got = down.get("/readyz");
    assert_eq!(got.code, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(got.json(), json!({"ready": false, "reason": "loading"}));
}

#[test]
fn unknown_paths_and_methods_are_404_in_text() {
    let site = site(ApiAnswer::Done);
    let put = |path| site.send(Request::put(path).body(Body::empty()).unwrap());
    for got in [site.get("/"), site.get("/nope"), site.get("/nope/"), site.get("/user/token"), put("/health")] {
        assert_eq!((got.code, got.body.as_str()), (StatusCode::NOT_FOUND, "404 page not found"));
        assert_eq!(got.headers["content-type"], "text/plain");
    }
}

#[test]
fn a_slash_too_many_is_redirected() {
    let site = site(ApiAnswer::Done);
    let got = site.get("/route/?intranet=1");
    assert_eq!(got.code, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(got.headers["location"], "/route?intranet=1");
    let got = site.post("/user/token/", "{}");
    assert_eq!(got.code, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(got.headers["location"], "/user/token");
    assert_eq!(site.post("/health/", "").code, StatusCode::NOT_FOUND);
}

#[test]
fn preflight_needs_no_token_and_neither_do_probes() {
    let site = site_with(ApiAnswer::Done, Some("secret"), None);
    for path in ["/user/token", "/anything"] {
        let got = site.send(Request::builder().method(Method::OPTIONS).uri(path).body(Body::empty()).unwrap());
        assert_eq!((got.code, got.body.as_str()), (StatusCode::NO_CONTENT, ""));
    }
    for path in ["/health", "/healthz", "/readyz"] {
        assert_eq!(site.get(path).code, StatusCode::OK);
    }
    for token in [None, Some("secre"), Some("secret2"), Some("Secret"), Some("")] {
        let mut request = Request::get("/metrics");
        if let Some(token) = token {
            request = request.header("token", token);
        }
        let got = site.send(request.body(Body::empty()).unwrap());
        assert_eq!((got.code, got.body.as_str()), (StatusCode::UNAUTHORIZED, ""));
    }
    let got = site.send(Request::get("/metrics").header("Token", "secret").body(Body::empty()).unwrap());
    assert_eq!(got.code, StatusCode::OK);
    assert!(got.body.contains("wukongim_reactor_turns_total{shard=\"0\"} 0\n"), "{}", got.body);
}

#[test]
fn a_body_beyond_the_limit_is_413() {
    let site = site(ApiAnswer::Done);
    let declared = Request::post("/user/token").header("content-length", (32 << 20) + 1).body(Body::empty()).unwrap();
    assert_eq!(site.send(declared).code, StatusCode::PAYLOAD_TOO_LARGE);
    let long = || vec![b' '; (32 << 20) + 1];
    assert_eq!(site.post("/user/token", long()).code, StatusCode::PAYLOAD_TOO_LARGE);
    let chunked = Request::post("/user/token").header("transfer-encoding", "chunked").body(long().into()).unwrap();
    let got = site.send(chunked);
    assert_eq!((got.code, got.json()["status"].clone()), (StatusCode::PAYLOAD_TOO_LARGE, json!(413)));
    // Three megabytes are more than the framework's own default.
    let body = format!(r#"{{"uid":"u","token":"t"}}{}"#, " ".repeat(3 << 20));
    assert_eq!(site.post("/user/token", body).code, StatusCode::OK);
}

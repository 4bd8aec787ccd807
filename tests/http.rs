//! The envelopes of the management API, as existing back ends know them (http-api.md 2 and 20).

use serde_json::{Value, json};
use std::time::Duration;
use wukong_runtime::client::{Client, Event, Login, fresh_msg_no};
use wukong_tests::support::{Answer, Api, Options, Server};

const CORS: [(&str, &str); 4] = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Credentials", "true"),
    (
        "Access-Control-Allow-Headers",
        "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token, accept, origin, Cache-Control, \
         X-Requested-With, appid, noncestr, sign, timestamp",
    ),
    ("Access-Control-Allow-Methods", "POST, OPTIONS, GET, PUT, DELETE, PATCH"),
];

fn assert_cors(answer: &Answer) {
    for (name, value) in CORS {
        assert_eq!(answer.header(name), Some(value), "{name} of {answer:?}");
    }
}

fn assert_json(answer: &Answer, status: u16, body: &Value) {
    assert_eq!((answer.status, &answer.json()), (status, body));
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
    assert_cors(answer);
}

/// 400 with the envelope of every failure.
fn assert_failed(answer: &Answer) {
    let body = answer.json();
    let message = body["msg"].as_str().unwrap_or_default();
    assert!(!message.is_empty(), "a message that helps: {answer:?}");
    assert_json(answer, 400, &json!({"msg": message, "status": 400}));
}

#[test]
fn probes_answer_and_tell_the_truth() {
    let server = Server::start(Options::default());
    let api = server.api();
    assert_json(&api.get("/health"), 200, &json!({"status": "ok"}));
    assert_json(&api.get("/healthz"), 200, &json!({"status": "ok"}));
    assert_json(&api.get("/readyz"), 200, &json!({"ready": true}));
    let metrics = api.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.header("content-type").is_some_and(|t| t.starts_with("text/plain")),
        "{:?}",
        metrics.header("content-type")
    );
    let samples = metrics.body.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).inspect(|line| {
        let value = line.rsplit(' ').next().and_then(|v| v.parse::<f64>().ok());
        assert!(value.is_some(), "not a sample: {line}");
    });
    assert!(samples.count() > 10, "{}", metrics.body);
    assert_cors(&metrics);
}

#[test]
fn the_route_has_the_form_that_clients_read() {
    let server = Server::start(Options::default());
    let api = server.api();
    let expected = json!({"tcp_addr": server.tcp(), "ws_addr": format!("ws://{}", server.ws()), "wss_addr": ""});
    assert_json(&api.get("/route"), 200, &expected);
    assert_json(&api.get("/route?uid=u1&intranet=0"), 200, &expected);
    let inside = api.get("/route?intranet=1").json();
    assert_eq!((&inside["ws_addr"], &inside["wss_addr"]), (&json!(""), &json!("")));
    assert!(inside["tcp_addr"].is_string());
    assert_failed(&api.get("/route?node_id=4711"));
}

#[test]
fn unknown_paths_methods_and_preflight() {
    let server = Server::start(Options::default());
    let api = server.api();
    for (method, path) in
        [("GET", "/nothing"), ("GET", "/user/token"), ("POST", "/route"), ("DELETE", "/health"), ("POST", "/")]
    {
        let answer = api.raw(method, path, &[], "");
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found"), "{method} {path}");
        assert!(answer.header("content-type").is_some_and(|t| t.starts_with("text/plain")));
        assert_cors(&answer);
    }
    for path in ["/user/token", "/nothing", "/"] {
        let answer = api.raw("OPTIONS", path, &[("Origin", "https://example.org")], "");
        assert_eq!((answer.status, answer.body.as_str()), (204, ""));
        assert_cors(&answer);
    }
    let answer = api.get("/route/?uid=u1");
    assert_eq!((answer.status, answer.header("location")), (301, Some("/route?uid=u1")));
    let answer = api.raw("POST", "/user/token/", &[], "{}");
    assert_eq!((answer.status, answer.header("location")), (307, Some("/user/token")));
}

#[test]
fn bad_input_is_a_400_that_says_what_is_wrong() {
    let server = Server::start(Options::default());
    let api = server.api();
    let token = json!({"uid": "u1", "token": "t", "device_flag": 1, "device_level": 0});
    assert_json(&api.post("/user/token", &token), 200, &json!({"status": 200}));
    let with = |name: &str, value: Value| {
        let mut body = token.clone();
        body[name] = value;
        api.post("/user/token", &body)
    };
    for uid in ["", " ", "a@b", "a#b", "a&b", "____system"] {
        assert_failed(&with("uid", json!(uid)));
    }
    assert_failed(&with("token", json!("")));
    for flag in [json!(300), json!(-1), json!(1.5), json!("1"), json!(true)] {
        assert_failed(&with("device_flag", flag));
    }
    assert_json(&with("device_flag", Value::Null), 200, &json!({"status": 200}));
    assert_json(&with("extra", json!([1])), 200, &json!({"status": 200}));
    let upper = json!({"UID": "u1", "Token": "t"});
    assert_json(&api.post("/user/token", &upper), 200, &json!({"status": 200}));
    for path in ["/user/token", "/channel/messagesync", "/conversation/sync"] {
        for body in ["", "{", "[]", "\"x\"", "{\"uid\":}"] {
            assert_failed(&api.raw("POST", path, &[], body));
        }
        // The content type of the request does not matter.
        let answer = api.raw("POST", path, &[("Content-Type", "text/plain")], "{}");
        assert_failed(&answer);
    }
    let sync = |body: Value| api.post("/channel/messagesync", &body);
    assert_failed(&sync(json!({"login_uid": "", "channel_id": "u2", "channel_type": 1})));
    assert_failed(&sync(json!({"login_uid": "u1", "channel_id": "", "channel_type": 1})));
    assert_failed(&sync(json!({"login_uid": "u1", "channel_id": "u2", "channel_type": 256})));
    assert_failed(&sync(json!({"login_uid": "u1", "channel_id": "u2", "channel_type": 1, "limit": "9"})));
    assert_failed(&api.post("/conversation/sync", &json!({"uid": "", "msg_count": 1})));
}

#[test]
fn the_manager_token_guards_all_but_the_probes() {
    let server = Server::start(Options::default().env("WK_MANAGERTOKEN", "secret"));
    let api = server.api();
    let body = r#"{"uid":"u1","token":"t"}"#;
    for headers in [&[][..], &[("token", "wrong")], &[("token", "")], &[("token", "secret2")]] {
        for (method, path) in
            [("POST", "/user/token"), ("GET", "/route"), ("GET", "/nothing"), ("POST", "/channel/messagesync")]
        {
            let answer = api.raw(method, path, headers, body);
            assert_eq!((answer.status, answer.body.as_str()), (401, ""), "{method} {path}");
            assert_cors(&answer);
        }
    }
    let answer = api.raw("POST", "/user/token", &[("Token", "secret")], body);
    assert_json(&answer, 200, &json!({"status": 200}));
    for path in ["/health", "/healthz", "/readyz"] {
        assert_eq!(api.get(path).status, 200, "{path}");
    }
    assert_eq!(api.raw("OPTIONS", "/user/token", &[], "").status, 204, "a preflight carries no token");
}

/// Sends texts from one to another and returns the ids that were acknowledged.
fn send(server: &Server, from: &str, to: &str, texts: &[&str]) -> Vec<(i64, u64)> {
    let mut client = Client::connect(&server.tcp(), &Login::new(from)).expect("a login");
    let mut ack = |text: &&str| {
        client.send(to, 1, &fresh_msg_no(), text.as_bytes()).expect("sent");
        match client.recv(Duration::from_secs(10)) {
            Ok(Some(Event::SendAck(ack))) if ack.reason.0 == 1 => (ack.message_id, ack.message_seq),
            other => panic!("no yes: {other:?}"),
        }
    };
    texts.iter().map(&mut ack).collect()
}

fn seqs(api: &Api, more: Value) -> (Vec<u64>, i64, Value) {
    let mut body = json!({"login_uid": "bob", "channel_id": "ann", "channel_type": 1});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let page = api.post("/channel/messagesync", &body).json();
    let list = page["messages"].as_array().expect("a list").iter().map(|m| m["message_seq"].as_u64().expect("a seq"));
    (list.collect(), page["more"].as_i64().expect("0 or 1"), page.clone())
}

#[test]
fn messagesync_gives_the_windows_of_the_reference() {
    let server = Server::start(Options::default());
    let api = server.api();
    assert_eq!(seqs(&api, json!({})).0, [0; 0]);
    let texts: Vec<String> = (1..=10).map(|n| format!(r#"{{"type":1,"content":"{n}"}}"#)).collect();
    let acks = send(&server, "ann", "bob", &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let window = |start: u64, end: u64, limit: i64, mode: u8| {
        let (list, more, page) =
            seqs(&api, json!({"start_message_seq": start, "end_message_seq": end, "limit": limit, "pull_mode": mode}));
        assert_eq!((&page["start_message_seq"], &page["end_message_seq"]), (&json!(start), &json!(end)), "the echo");
        (list, more)
    };
    assert_eq!(window(0, 0, 3, 0), (vec![8, 9, 10], 1));
    assert_eq!(window(0, 0, 3, 1), (vec![8, 9, 10], 1));
    assert_eq!(window(0, 0, 100, 0), ((1..=10).collect(), 0));
    assert_eq!(window(4, 0, 3, 1), (vec![4, 5, 6], 1));
    assert_eq!(window(4, 7, 100, 1), (vec![4, 5, 6], 0));
    assert_eq!(window(4, 7, 3, 1), (vec![4, 5, 6], 0), "the window ends at the bound: nothing more in it");
    assert_eq!(window(6, 0, 3, 0), (vec![4, 5, 6], 1));
    assert_eq!(window(6, 3, 100, 0), (vec![4, 5, 6], 0));
    assert_eq!(window(6, 8, 100, 0), (vec![], 0));
    assert_eq!(window(4000, 0, 2, 0), (vec![9, 10], 1), "far above the newest: as from the newest");

    let page = seqs(&api, json!({"limit": 1})).2;
    let message = &page["messages"][0];
    let (id, seq) = acks[9];
    assert_eq!((&message["message_id"], &message["message_idstr"]), (&json!(id), &json!(id.to_string())));
    assert_eq!((&message["message_seq"], &message["from_uid"]), (&json!(seq), &json!("ann")));
    assert_eq!((&message["channel_id"], &message["channel_type"]), (&json!("bob"), &json!(1)), "the receiver's uid");
    assert_eq!(message["payload"], json!("eyJ0eXBlIjoxLCJjb250ZW50IjoiMTAifQ=="));
    assert_eq!(message["header"], json!({"no_persist": 0, "red_dot": 1, "sync_once": 0}));
    assert_eq!((&message["setting"], &message["expire"]), (&json!(0), &json!(0)));
    assert!(message["timestamp"].as_i64().is_some_and(|t| t > 1_700_000_000 && t < 1 << 31));
}

#[test]
fn conversations_count_what_is_unread() {
    let server = Server::start(Options::default());
    let api = server.api();
    let sync = |body: Value| api.post("/conversation/sync", &body).json();
    assert_eq!(sync(json!({"uid": "bob", "msg_count": 5})), json!([]));
    send(&server, "ann", "bob", &["{}", "{}", "{}"]);
    send(&server, "cid", "bob", &["{}"]);
    assert_eq!(sync(json!({"uid": "bob"})), json!([]), "without a count of messages the list is empty");
    let list = sync(json!({"uid": "bob", "msg_count": 2}));
    let rows: Vec<(&str, i64, i64)> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| {
            (
                r["channel_id"].as_str().unwrap_or("?"),
                r["unread"].as_i64().unwrap_or(-1),
                r["last_msg_seq"].as_i64().unwrap_or(-1),
            )
        })
        .collect();
    assert_eq!(rows, [("cid", 1, 1), ("ann", 3, 3)], "the newest first");
    let recents: Vec<&Value> =
        list[1]["recents"].as_array().expect("a list").iter().map(|m| &m["message_seq"]).collect();
    assert_eq!(recents, [&json!(3), &json!(2)], "the newest first");
    assert!(list[0]["version"].as_i64().is_some_and(|v| v > 1_700_000_000_000_000_000), "nanoseconds");
    assert_eq!((&list[1]["readed_to_msg_seq"], &list[1]["offset_msg_seq"]), (&json!(0), &json!(0)));
    // The sender's own message is the newest: nothing is unread.
    let own = sync(json!({"uid": "ann", "msg_count": 1}));
    assert_eq!((&own[0]["channel_id"], &own[0]["unread"]), (&json!("bob"), &json!(0)));
    let known = sync(json!({"uid": "bob", "msg_count": 5, "last_msg_seqs": "ann:1:2|cid:1:1"}));
    let known: Vec<&Value> = known.as_array().expect("a list").iter().map(|r| &r["channel_id"]).collect();
    assert_eq!(known, [&json!("ann")], "only what the client lacks");
}

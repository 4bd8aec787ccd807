//! The management API: whole answers for the tests of its envelopes, and whole channels for the books.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use wukong_runtime::client::http::Http;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The value of a header, if there is exactly one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }

    /// # Panics
    /// The body is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

/// A message as /channel/messagesync gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub seq: u64,
    pub id: i64,
    pub client_msg_no: String,
    pub from: String,
    pub payload: Vec<u8>,
}

/// The API of one server.
pub struct Api {
    addr: String,
    http: Http,
}

impl Api {
    #[must_use]
    pub fn new(addr: &str) -> Api {
        Api { addr: addr.to_owned(), http: Http::new(addr) }
    }

    /// One request on a connection of its own, with the answer as it comes.
    ///
    /// # Panics
    /// There is no answer, or it is not HTTP.
    #[must_use]
    pub fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.addr);
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(&self.addr).expect("the API listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        stream.write_all(request.as_bytes()).expect("the request is taken");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the answer ends");
        parse(&String::from_utf8(bytes).expect("UTF-8"))
    }

    #[must_use]
    pub fn get(&self, path: &str) -> Answer {
        self.raw("GET", path, &[], "")
    }

    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    /// POST /user/token.
    ///
    /// # Panics
    /// It is refused.
    pub fn set_token(&self, uid: &str, token: &str, device_flag: u8) {
        let body = json!({"uid": uid, "token": token, "device_flag": device_flag, "device_level": 0});
        let answer = self.post("/user/token", &body);
        assert_eq!((answer.status, answer.json()), (200, json!({"status": 200})), "token of {uid}");
    }

    /// Everything in the person channel of `me` and `peer` from `seq` on, page by page.
    ///
    /// # Panics
    /// The API fails.
    pub fn channel(&mut self, me: &str, peer: &str, seq: u64) -> Vec<Stored> {
        let mut all = Vec::new();
        let mut next = seq.max(1);
        loop {
            let body = json!({
                "login_uid": me, "channel_id": peer, "channel_type": 1,
                "start_message_seq": next, "end_message_seq": 0, "limit": 1000, "pull_mode": 1,
            });
            let page = self.http.post("/channel/messagesync", &body).unwrap_or_else(|e| panic!("messagesync: {e}"));
            let messages = page["messages"].as_array().expect("a list");
            all.extend(messages.iter().map(stored));
            match (page["more"].as_i64(), messages.last()) {
                (Some(1), Some(last)) => next = last["message_seq"].as_u64().expect("a seq") + 1,
                _ => return all,
            }
        }
    }
}

fn stored(message: &Value) -> Stored {
    let text = |name: &str| message[name].as_str().unwrap_or_else(|| panic!("no {name} in {message}")).to_owned();
    let id = message["message_id"].as_i64().expect("an id");
    assert_eq!(text("message_idstr"), id.to_string());
    Stored {
        seq: message["message_seq"].as_u64().expect("a seq"),
        id,
        client_msg_no: text("client_msg_no"),
        from: text("from_uid"),
        payload: STANDARD.decode(text("payload")).expect("base64"),
    }
}

fn parse(text: &str) -> Answer {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {text:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut answer = Answer { status: status.expect("a status line"), headers, body: body.to_owned() };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = dechunk(body);
    }
    answer
}

fn dechunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("the size of a chunk");
        if size == 0 {
            break;
        }
        body += &after[..size];
        rest = after[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    body
}

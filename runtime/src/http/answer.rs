//! The envelopes of http-api 2.1.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use wukong_core::error::Refusal;
use wukong_proto::ReasonCode;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

#[derive(Serialize)]
struct Status {
    status: u16,
}

#[derive(Serialize)]
struct Failure<'a> {
    msg: &'a str,
    status: u16,
}

/// A failed request: the reference answers 400 with this envelope, whatever the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub code: StatusCode,
    pub msg: String,
}

impl Failed {
    pub fn new(msg: impl Into<String>) -> Self {
        Self { code: StatusCode::BAD_REQUEST, msg: msg.into() }
    }

    /// For what the reference has no answer of its own (limits, time-outs of the request itself).
    pub fn with_code(code: StatusCode, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into() }
    }
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::new(match refusal {
            Refusal::Invalid(why) => why.to_owned(),
            Refusal::Timeout => "no answer within 10 s; whether it was done is unknown, ask again".to_owned(),
            Refusal::Busy => "the server is busy or still starting; try again in a moment".to_owned(),
            Refusal::Store(fault) => fault.to_string(),
            Refusal::Reason(reason) => reason.name().map_or_else(|| format!("refused: reason {reason}"), str::to_owned),
        })
    }
}

impl axum::response::IntoResponse for Failed {
    fn into_response(self) -> Response {
        json(self.code, &Failure { msg: &self.msg, status: self.code.as_u16() })
    }
}

pub fn json<T: Serialize>(code: StatusCode, value: &T) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => respond(code, JSON, bytes),
        // Our own values always serialise; should one not, the caller must not take it for success.
        Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, Vec::new()),
    }
}

fn respond(code: StatusCode, kind: HeaderValue, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// `{"status":200}`.
pub fn ok() -> Response {
    json(StatusCode::OK, &Status { status: 200 })
}

/// `STATUS(n)`: a refusal that the reference answers with HTTP 200.
pub fn status(reason: ReasonCode) -> Response {
    json(StatusCode::OK, &Status { status: u16::from(reason.0) })
}

/// The value itself, without envelope.
pub fn raw<T: Serialize>(value: &T) -> Response {
    json(StatusCode::OK, value)
}

pub fn text(code: StatusCode, body: impl Into<Body>) -> Response {
    respond(code, TEXT, body)
}

pub fn not_found() -> Response {
    respond(StatusCode::NOT_FOUND, HeaderValue::from_static("text/plain"), "404 page not found")
}

pub fn empty(code: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

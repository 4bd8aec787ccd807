//! What every request goes through: preflight, the token, CORS headers, the body limit; and what becomes of paths
//! that nobody serves.

use super::answer::{self, Failed};
use super::metrics::Metric;
use super::{Api, routes};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes of a body: beyond it 413.
const BODY_MAX: usize = 32 * 1024 * 1024;
/// A body must be there within this.
const BODY_TIME: Duration = Duration::from_secs(30);
/// Probes are served without the token.
const OPEN: [&str; 3] = ["/health", "/healthz", "/readyz"];
const GETS: [&str; 5] = ["/route", "/health", "/healthz", "/readyz", "/metrics"];
const POSTS: [&str; 3] = ["/user/token", "/channel/messagesync", "/conversation/sync"];

const ALLOW_HEADERS: &str = "Content-Type, Authorization, Content-Length, Accept-Encoding, X-CSRF-Token, token, accept, \
    origin, Cache-Control, X-Requested-With, appid, noncestr, sign, timestamp";
const CORS: [(HeaderName, HeaderValue); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOW_HEADERS)),
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS, GET, PUT, DELETE, PATCH")),
];

/// The API of one node.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/user/token", post(routes::user_token))
        .route("/channel/messagesync", post(routes::message_sync))
        .route("/conversation/sync", post(routes::conversation_sync))
        .route("/route", get(routes::route))
        .route("/health", get(routes::health))
        .route("/healthz", get(routes::healthz))
        .route("/readyz", get(routes::readyz))
        .route("/metrics", any(routes::metrics_page))
        .fallback(elsewhere)
        .method_not_allowed_fallback(|| async { answer::not_found() })
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(api.clone(), body_limit))
        .layer(middleware::from_fn_with_state(api.clone(), gate))
        .with_state(api)
}

/// A path that differs from a served one by a slash at its end is redirected; all others do not exist.
async fn elsewhere(request: Request) -> Response {
    let path = request.uri().path();
    let Some(known) = path.strip_suffix('/').filter(|p| serves(request.method(), p)) else {
        return answer::not_found();
    };
    let target = match request.uri().query() {
        Some(query) => format!("{known}?{query}"),
        None => known.to_owned(),
    };
    let permanent = request.method() == Method::GET;
    let code = if permanent { StatusCode::MOVED_PERMANENTLY } else { StatusCode::TEMPORARY_REDIRECT };
    let mut response = answer::empty(code);
    if let Ok(location) = HeaderValue::try_from(target) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn serves(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET => GETS.contains(&path),
        Method::POST => POSTS.contains(&path),
        _ => false,
    }
}

async fn gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    api.counts.requests.fetch_add(1, Ordering::Relaxed);
    let mut response = if request.method() == Method::OPTIONS {
        answer::empty(StatusCode::NO_CONTENT)
    } else if admitted(&api, request.uri().path(), request.headers()) {
        next.run(request).await
    } else {
        answer::empty(StatusCode::UNAUTHORIZED)
    };
    if !response.status().is_success() {
        api.counts.refused.fetch_add(1, Ordering::Relaxed);
    }
    response.headers_mut().extend(CORS);
    response
}

fn admitted(api: &Api, path: &str, headers: &HeaderMap) -> bool {
    let Some(wanted) = &api.manager_token else { return true };
    let given = headers.get("token").map(HeaderValue::as_bytes).unwrap_or_default();
    OPEN.contains(&path) || same(wanted.as_bytes(), given)
}

/// Takes the same time wherever two tokens differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |diff, (x, y)| diff | (x ^ y)) == 0
}

/// Reads the whole body, within its limits, before the handler runs.
async fn body_limit(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match read_body(&api, request).await {
        // The memory is given back when the answer is there.
        Ok((request, _memory)) => next.run(request).await,
        Err(failed) => failed.into_response(),
    }
}

async fn read_body(api: &Api, request: Request) -> Result<(Request, tokio::sync::SemaphorePermit<'_>), Failed> {
    let too_long = || Failed::with_code(StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than 32 MiB");
    let (parts, body) = request.into_parts();
    let declared = parts.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let has_body = declared.is_some() || parts.headers.contains_key(header::TRANSFER_ENCODING);
    let expected = declared.unwrap_or(if has_body { BODY_MAX } else { 0 });
    if expected > BODY_MAX {
        return Err(too_long());
    }
    let read = async {
        let memory = api.bodies.acquire_many(expected.div_ceil(1024) as u32).await;
        let memory = memory.map_err(|_| Failed::new("the server stops"))?;
        let bytes = to_bytes(body, BODY_MAX).await.map_err(|e| {
            let source = std::error::Error::source(&e);
            match source.is_some_and(|s| s.to_string().contains("length limit")) {
                true => too_long(),
                false => Failed::new("the body could not be read to its end"),
            }
        })?;
        Ok((Request::from_parts(parts, Body::from(bytes)), memory))
    };
    match tokio::time::timeout(BODY_TIME, read).await {
        Ok(read) => read,
        Err(_) => Err(Failed::with_code(StatusCode::REQUEST_TIMEOUT, "the body did not arrive within 30 s")),
    }
}

pub(super) fn metrics(api: &Api) -> [Metric; 2] {
    let count = |name, help, value: &std::sync::atomic::AtomicU64| {
        Metric::counter(name, help).with("", value.load(Ordering::Relaxed) as f64)
    };
    [
        count("wukongim_http_requests", "Requests to the HTTP API.", &api.counts.requests),
        count(
            "wukongim_http_requests_refused",
            "Requests answered with something other than success.",
            &api.counts.refused,
        ),
    ]
}

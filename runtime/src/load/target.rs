//! The server under load: where it is, and how users get in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use super::net::{Net, What};
use super::server::Process;
use crate::client::http::Http;
use crate::client::session::{Event, Login};
use crate::client::{random, tcp};

/// Logins under way at a time.
const IN_FLIGHT: usize = 256;
/// Connections from one local address; beyond it the next of 127.0.0.x is used (a port is two bytes).
const PER_SOURCE: usize = 20_000;

/// A server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the clients connect.
    pub addr: SocketAddr,
    /// The management API, if it was named.
    pub http: Option<String>,
    /// Where /metrics is.
    pub metrics: Option<String>,
    /// The manager token, or nothing.
    pub http_token: String,
    /// Whether each user needs a token, which the API is asked to store.
    pub token_auth: bool,
    /// Whether the clients speak WebSocket.
    pub ws: bool,
    /// The protocol version they offer.
    pub version: u8,
    /// The server's process, if it is on this machine and was named.
    pub process: Option<Process>,
}

impl Target {
    /// The address that `text` stands for.
    ///
    /// # Errors
    /// It does not resolve.
    pub fn resolve(text: &str) -> Result<SocketAddr, String> {
        let found = tcp::resolve(text).map_err(|e| format!("--addr {text}: {e} (expected host:port)"))?;
        found.into_iter().next().ok_or_else(|| format!("--addr {text} resolves to no address"))
    }

    /// A client of the management API.
    ///
    /// # Errors
    /// Its address was not given.
    pub fn api(&self, wanted_for: &str) -> Result<Http, String> {
        let addr =
            self.http.as_deref().ok_or_else(|| format!("{wanted_for} needs the HTTP API: add --http host:port"))?;
        Ok(Http::new(addr).with_token(&self.http_token))
    }

    /// A client of the page of metrics, if it is known where that is.
    #[must_use]
    pub fn metrics(&self) -> Option<Http> {
        let addr = self.metrics.as_deref().or(self.http.as_deref())?;
        Some(Http::new(addr).with_token(&self.http_token))
    }

    /// Gives each user the same token, through the API, where tokens are asked for; returns the token.
    ///
    /// # Errors
    /// The API is not there, or refuses.
    pub fn set_tokens(&self, uids: &[String]) -> Result<String, String> {
        if !self.token_auth {
            return Ok(String::new());
        }
        let mut api = self.api("--token-auth")?;
        let token = format!("{:032x}", u128::from_be_bytes(random()));
        for uid in uids {
            let body = json!({ "uid": uid, "token": token, "device_flag": 0, "device_level": 0 });
            api.post("/user/token", &body).map_err(|e| format!("POST /user/token at {}: {e}", self.http_name()))?;
        }
        Ok(token)
    }

    fn http_name(&self) -> &str {
        self.http.as_deref().unwrap_or("?")
    }

    /// Connects everyone of `logins`, in order, and waits until all are in.
    ///
    /// # Errors
    /// One of them cannot get in.
    pub fn log_in(&self, logins: impl Iterator<Item = Login>) -> Result<Net, String> {
        let mut net = Net::new().map_err(|e| format!("epoll: {e}"))?;
        let (mut open, mut happened) = (0, Vec::new());
        let mut deadline = Instant::now() + Duration::from_secs(20);
        let mut logins = logins.peekable();
        while logins.peek().is_some() || open < net.count() {
            while net.count() - open < IN_FLIGHT
                && let Some(login) = logins.next()
            {
                let source = self.source(net.count());
                net.open(self.addr, source, self.ws, &login).map_err(|e| self.cannot_connect(net.count(), &e))?;
            }
            net.flush();
            net.poll(Duration::from_millis(200), &mut happened).map_err(|e| format!("epoll: {e}"))?;
            for event in happened.drain(..) {
                match event.what {
                    What::Event(Event::Open { encrypted: true, .. }) => {
                        open += 1;
                        deadline = Instant::now() + Duration::from_secs(20);
                    }
                    What::Event(Event::Open { .. }) => {
                        return Err("the server does not encrypt: figures would compare with nothing; \
                                    switch encryption on"
                            .into());
                    }
                    What::Event(Event::Refused(reason)) => return Err(self.refused(reason)),
                    What::Event(other) => {
                        return Err(format!("the server answered CONNECT with {other:?}"));
                    }
                    What::Lost(why) => {
                        return Err(format!("login {} of {}: {why}", event.conn, net.count()));
                    }
                }
            }
            if Instant::now() > deadline {
                return Err(format!("{} logins have no answer after 20 s", net.count() - open));
            }
        }
        Ok(net)
    }

    fn refused(&self, reason: wukong_proto::ReasonCode) -> String {
        let hint = match (reason, self.token_auth) {
            (wukong_proto::ReasonCode::AUTH_FAIL, false) => {
                " (the server asks for tokens: add --token-auth --http host:port)"
            }
            _ => "",
        };
        format!("the server refused a login: {reason}{hint}")
    }

    fn cannot_connect(&self, no: usize, error: &std::io::Error) -> String {
        let hint = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => {
                ". Nothing listens there: start a server with `wukongim run`, or let this command start one: --self-host"
            }
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable => {
                ". The ports of this machine are used up: wait a minute, or use fewer connections"
            }
            _ => "",
        };
        format!("cannot connect to {} (connection {no}): {error}{hint}", self.addr)
    }

    /// On loopback the clients are spread over source addresses, for want of ports.
    fn source(&self, no: usize) -> Option<SocketAddr> {
        let block = no / PER_SOURCE;
        let spread = self.addr.ip().is_loopback() && self.addr.is_ipv4() && block > 0;
        spread.then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2 + (block % 250) as u8)), 0))
    }
}

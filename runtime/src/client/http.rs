//! As much of HTTP/1.1 as the management API needs: one request at a time on one kept connection.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::tcp::dial;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Answers beyond it are refused; the largest page of messages is below.
const BODY_MAX: usize = 64 * 1024 * 1024;

/// Why a request has no usable answer.
#[derive(Debug)]
pub enum HttpError {
    /// The connection failed.
    Io(io::Error),
    /// What answers is not HTTP, or more than a client accepts.
    Malformed(&'static str),
    /// The status is not 200; the text is the beginning of the body.
    Status(u16, String),
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpError::Io(error) => write!(f, "{error}"),
            HttpError::Malformed(what) => write!(f, "the answer is not HTTP as expected: {what}"),
            HttpError::Status(status, body) => write!(f, "status {status}: {body}"),
        }
    }
}

impl std::error::Error for HttpError {}

impl From<io::Error> for HttpError {
    fn from(error: io::Error) -> HttpError {
        HttpError::Io(error)
    }
}

/// A client of one server.
pub struct Http {
    addr: String,
    token: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Http {
    /// A client of `addr`, which is `host:port`, with or without `http://`. Connects with the first request.
    #[must_use]
    pub fn new(addr: &str) -> Http {
        let addr = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
        Http { addr: addr.to_owned(), token: String::new(), stream: None }
    }

    /// Sends `token` as the manager token with each request.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Http {
        token.clone_into(&mut self.token);
        self
    }

    /// The body of a GET that was answered with 200.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn get(&mut self, path: &str) -> Result<String, HttpError> {
        let body = self.request("GET", path, None)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The JSON answer of a POST with a JSON body that was answered with 200.
    ///
    /// # Errors
    /// See [`HttpError`].
    pub fn post(&mut self, path: &str, body: &Value) -> Result<Value, HttpError> {
        let body = self.request("POST", path, Some(&body.to_string()))?;
        serde_json::from_slice(&body).map_err(|_| HttpError::Malformed("the body is not JSON"))
    }

    fn request(&mut self, method: &str, path: &str, body: Option<&str>) -> Result<Vec<u8>, HttpError> {
        let kept = self.stream.is_some();
        match self.exchange(method, path, body) {
            // A kept connection may have been closed meanwhile; all requests made here may be repeated.
            Err(HttpError::Io(_)) if kept => self.exchange(method, path, body),
            answer => answer,
        }
    }

    fn exchange(&mut self, method: &str, path: &str, body: Option<&str>) -> Result<Vec<u8>, HttpError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = dial(&self.addr)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                BufReader::new(stream)
            }
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.addr);
        if !self.token.is_empty() {
            request += &format!("token: {}\r\n", self.token);
        }
        if let Some(body) = body {
            request += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        } else {
            request += "\r\n";
        }
        stream.get_mut().write_all(request.as_bytes())?;
        let answer = read_answer(&mut stream)?;
        if answer.keep {
            self.stream = Some(stream);
        }
        if answer.status == 200 {
            return Ok(answer.body);
        }
        let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)]).into_owned();
        Err(HttpError::Status(answer.status, text))
    }
}

struct Answer {
    status: u16,
    keep: bool,
    body: Vec<u8>,
}

fn read_answer(stream: &mut impl BufRead) -> Result<Answer, HttpError> {
    let status_line = line(stream)?;
    let status = status_line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    let status = status.ok_or(HttpError::Malformed("no status line"))?;
    let (mut length, mut chunked, mut keep) = (None, false, status_line.starts_with("HTTP/1.1"));
    loop {
        let header = line(stream)?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or(HttpError::Malformed("a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse::<usize>().map_err(|_| HttpError::Malformed("content-length"))?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
            keep = false;
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = line(stream)?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or(""), 16);
            let size = size.map_err(|_| HttpError::Malformed("the size of a chunk"))?;
            take(stream, size, &mut body)?;
            if !line(stream)?.is_empty() {
                return Err(HttpError::Malformed("a chunk is longer than announced"));
            }
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = length {
        take(stream, length, &mut body)?;
    } else {
        keep = false;
        stream.take(BODY_MAX as u64).read_to_end(&mut body)?;
    }
    Ok(Answer { status, keep, body })
}

fn line(stream: &mut impl BufRead) -> Result<String, HttpError> {
    let mut line = Vec::new();
    stream.take(64 * 1024).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(HttpError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    let line = String::from_utf8(line).map_err(|_| HttpError::Malformed("a header is not UTF-8"))?;
    Ok(line.trim_end_matches('\r').to_owned())
}

fn take(stream: &mut impl Read, size: usize, body: &mut Vec<u8>) -> Result<(), HttpError> {
    let start = body.len();
    if size > BODY_MAX - start {
        return Err(HttpError::Malformed("the body is larger than 64 MiB"));
    }
    body.resize(start + size, 0);
    stream.read_exact(&mut body[start..])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<(u16, bool, String), HttpError> {
        let read = read_answer(&mut text.as_bytes())?;
        Ok((read.status, read.keep, String::from_utf8(read.body).unwrap()))
    }

    #[test]
    fn the_three_ways_to_end_a_body() {
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhiHTTP";
        assert_eq!(answer(sized).unwrap(), (200, true, "hi".into()));
        let chunked = "HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n3;x\r\n yo\r\n0\r\n\r\n";
        assert_eq!(answer(chunked).unwrap(), (400, true, "hi yo".into()));
        let closed = "HTTP/1.0 200 OK\r\n\r\nall of it";
        assert_eq!(answer(closed).unwrap(), (200, false, "all of it".into()));
        let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(closing).unwrap(), (200, false, String::new()));
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(matches!(answer(""), Err(HttpError::Io(_))));
        assert!(matches!(answer("SSH-2.0-x\r\n"), Err(HttpError::Malformed(_))));
        assert!(matches!(answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi"), Err(HttpError::Io(_))));
        let huge = "HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n";
        assert!(matches!(answer(huge), Err(HttpError::Malformed(_))));
    }
}

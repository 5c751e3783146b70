//! Just enough HTTP to script the sandbox: one JSON request on a connection of its own.

use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Sends `body` to `http://HOST:PORT/path` and reads the JSON answer; an empty answer is `null`.
///
/// Panics when there is no answer, or one that isn't 2xx.
pub fn json(method: &str, url: &str, body: Option<&Value>) -> Value {
    let (status, answer) = exchange(method, url, body).unwrap_or_else(|e| panic!("{method} {url}: {e}"));
    assert!((200..300).contains(&status), "{method} {url}: {status} {answer}");
    if answer.trim().is_empty() {
        return Value::Null;
    }
    serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {url}: {e} in {answer}"))
}

/// Asks for `http://HOST:PORT/path`: the status and the text of the answer, whatever they are.
pub fn get(url: &str) -> io::Result<(u16, String)> {
    exchange("GET", url, None)
}

fn exchange(method: &str, url: &str, body: Option<&Value>) -> io::Result<(u16, String)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other("not an http:// address"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let body = body.map(Value::to_string).unwrap_or_default();
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} /{path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    // HTTP/1.0: the answer is neither chunked nor followed by another.
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let (_, content) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status.ok_or_else(|| io::Error::other("no status line"))?, content.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    #[test]
    fn a_request_is_sent_whole_and_its_answer_read() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/sandbox/book?full=1", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"{\"a\":1}") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            stream.write_all(b"HTTP/1.0 201 Created\r\nContent-Length: 2\r\n\r\n[]").unwrap();
            String::from_utf8(request).unwrap()
        });
        assert_eq!(json("POST", &url, Some(&serde_json::json!({"a": 1}))), serde_json::json!([]));
        assert!(server.join().unwrap().starts_with("POST /sandbox/book?full=1 HTTP/1.0\r\n"));
    }
}

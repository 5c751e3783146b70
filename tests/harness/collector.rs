//! What an OpenTelemetry collector hears.

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Takes whatever is posted to it, for as long as the test runs.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    heard: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let heard = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let hears = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hears = Arc::clone(&hears);
                thread::spawn(move || {
                    while let Some(request) = read(&stream) {
                        hears.lock().expect("nobody panics with it").push(request);
                        _ = (&stream).write_all(
                            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
                        );
                    }
                });
            }
        });
        Self { endpoint, heard }
    }

    /// The requests so far: path and body.
    pub(crate) fn heard(&self) -> Vec<(String, Value)> {
        self.heard.lock().expect("nobody panics with it").clone()
    }
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
        match line.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first.split(' ').nth(1)?.to_owned(), serde_json::from_slice(&body).expect("the body is JSON")))
}

//! Listens to everything that Redis is told, for what must never be told to it.

use super::{Mailing, Redis};
use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, TcpStream},
    thread::{self, JoinHandle},
};

/// A connection that hears every command.
pub(crate) struct Spy {
    stream: TcpStream,
    heard: JoinHandle<Heard>,
}

/// What was heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) commands: u64,
    /// Commands that carry what they must not.
    pub(crate) leaks: Vec<String>,
}

impl Spy {
    /// Hears what shows a number or a text of a mailing.
    pub(crate) fn on(redis: &Redis) -> Self {
        Self::hearing(redis, Mailing::is_in)
    }

    /// Hears what `leaks`.
    pub(crate) fn hearing(redis: &Redis, leaks: impl Fn(&str) -> bool + Send + 'static) -> Self {
        let url = redis.url();
        let mut stream = TcpStream::connect(url.trim_start_matches("redis://")).expect("Redis takes a connection");
        stream.write_all(b"MONITOR\r\n").expect("Redis listens");
        let mut lines = BufReader::new(stream.try_clone().expect("a socket can be cloned")).lines();
        assert_eq!(lines.next().and_then(Result::ok).as_deref(), Some("+OK"), "Redis lets nobody listen");
        let heard = thread::spawn(move || {
            let mut heard = Heard::default();
            for line in lines.map_while(Result::ok) {
                heard.commands += 1;
                // What stands before the bracket is the time.
                let command = line.split_once(']').map_or(line.as_str(), |(_, command)| command);
                if leaks(command) {
                    heard.leaks.push(command.chars().take(200).collect());
                }
            }
            heard
        });
        Self { stream, heard }
    }

    pub(crate) fn stop(self) -> Heard {
        self.stream.shutdown(Shutdown::Both).ok();
        self.heard.join().expect("the listener only reads")
    }
}

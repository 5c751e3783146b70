//! A throw-away Redis.

use crate::{Port, Process, SERVER_DEADLINE, Signal, eventually};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

/// A Redis server of one test; it keeps nothing on disk, so that it comes back empty from [`restart`](Self::restart).
#[derive(Debug)]
pub struct Redis {
    port: Port,
    process: Option<Process>,
    dir: TempDir,
}

impl Redis {
    /// Starts one and waits until it answers: some 50 ms.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("crier-redis-").tempdir().expect("temporary directories can be made");
        let mut redis = Self { port: Port::reserve(), process: None, dir };
        redis.resume();
        redis
    }

    /// `redis://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}", self.port.address())
    }

    /// Forgets everything, as a `FLUSHALL` by somebody else does.
    pub fn flush(&self) {
        let answer = self.ask("FLUSHALL").expect("a running Redis answers");
        assert!(answer.starts_with("+OK"), "Redis did not flush: {answer}");
    }

    /// Bytes that it uses for what it holds and for its clients.
    pub fn used_memory(&self) -> u64 {
        let info = self.ask("INFO memory").expect("a running Redis answers");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok()).expect("Redis says how much memory it uses")
    }

    /// Elements of all that it holds: members of sets and hashes, items of lists, 1 for a plain value.
    pub fn elements(&self) -> u64 {
        let count = "local all = 0 for _, key in ipairs(redis.call('KEYS', '*')) do local kind = redis.call('TYPE', key).ok \
                     all = all + (kind == 'list' and redis.call('LLEN', key) or kind == 'set' and redis.call('SCARD', key) \
                     or kind == 'zset' and redis.call('ZCARD', key) or kind == 'hash' and redis.call('HLEN', key) or 1) end \
                     return all";
        let answer = self.ask(&format!("EVAL \"{count}\" 0")).expect("a running Redis answers");
        answer.trim_start_matches(':').lines().next().and_then(|line| line.trim().parse().ok()).expect("a number")
    }

    /// Goes away without a word; [`resume`](Self::resume) brings an empty one back at the same address.
    pub fn stop(&mut self) {
        self.process.take().map(Process::kill);
    }

    /// Starts again after [`stop`](Self::stop), at the same address.
    pub fn resume(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.number().to_string()]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(self.dir.path());
        let mut process = Process::spawn("redis", command, self.dir.path());
        eventually("Redis answers", SERVER_DEADLINE, || {
            assert!(process.is_running(), "Redis ended: {}", process.stdout());
            self.ask("PING").is_ok_and(|answer| answer.starts_with("+PONG"))
        });
        self.process = Some(process);
    }

    /// Ends and starts again, empty.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }

    /// Freezes (and with [`thaw`](Self::thaw) goes on): connections stay open and nobody answers.
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("frozen while running").signal(Signal::Stop);
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub fn thaw(&mut self) {
        self.process.as_mut().expect("frozen while running").signal(Signal::Continue);
    }

    fn ask(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.port.address())?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "{command}\r\nQUIT\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_on_flush_and_on_restart_and_keeps_its_address() {
        let mut redis = Redis::start();
        let url = redis.url();
        let holds = |redis: &Redis| redis.ask("GET key").unwrap().contains("value");
        for forget in [Redis::flush as fn(&Redis), |_| {}] {
            redis.ask("SET key value").unwrap();
            redis.ask("RPUSH list a b c").unwrap();
            assert!(holds(&redis) && redis.elements() == 4 && redis.used_memory() > 0);
            forget(&redis);
            if holds(&redis) {
                redis.restart();
            }
            assert!(!holds(&redis));
        }
        assert_eq!(redis.url(), url);
        redis.stop();
        assert!(redis.ask("PING").is_err());
        redis.resume();
        assert!(redis.ask("PING").unwrap().starts_with("+PONG"));
    }

    #[test]
    fn two_never_meet() {
        let (one, other) = (Redis::start(), Redis::start());
        one.ask("SET key value").unwrap();
        assert_ne!(one.url(), other.url());
        assert!(!other.ask("GET key").unwrap().contains("value"));
    }
}

//! A throw-away Postgres, and databases on it.

use crate::{Port, Process, SERVER_DEADLINE, Signal, eventually, waiting::within};
use std::{
    env, fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tempfile::TempDir;

/// Names the server that all tests of a run share, as `postgres://USER@HOST:PORT`.
const SHARED: &str = "CRIER_TEST_POSTGRES";

/// A Postgres server of one test: to be restarted and taken away. Most tests only need a [`database`].
///
/// Nothing of it survives the machine (`fsync` is off), all of it survives [`restart`](Self::restart).
#[derive(Debug)]
pub struct Postgres {
    port: Port,
    process: Option<Process>,
    dir: TempDir,
}

/// An empty database of one test; dropped with the value.
#[derive(Debug)]
pub struct Database {
    server: String,
    name: String,
    /// Keeps the server of a test that runs on its own.
    _own: Option<Arc<Postgres>>,
}

/// An empty database on the server of the run, or on one of its own where there is none.
pub fn database() -> Database {
    match env::var(SHARED) {
        Ok(server) if !server.is_empty() => Database::create(server, None),
        _ => {
            let own = Arc::new(Postgres::start());
            Database::create(own.url(), Some(own))
        }
    }
}

impl Database {
    /// `postgres://USER@HOST:PORT/NAME`
    pub fn url(&self) -> String {
        format!("{}/{}", self.server, self.name)
    }

    /// A database like this one as it is now: what restoring a backup makes.
    pub fn copy(&self) -> Self {
        let copy = Self::create(self.server.clone(), self._own.clone());
        let mut dump = Command::new(installed("pg_dump"));
        let dumped = dump.args(["--no-owner", "--dbname", &self.url()]).output().expect("pg_dump can be run");
        assert!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        let file = tempfile::NamedTempFile::new().expect("temporary files can be made");
        fs::write(file.path(), dumped.stdout).expect("temporary files can be written");
        let mut psql = Command::new(installed("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", &copy.url(), "--file"])
            .arg(file.path());
        let restored = psql.output().expect("psql can be run");
        assert!(restored.status.success(), "restoring: {}", String::from_utf8_lossy(&restored.stderr));
        copy
    }

    fn create(server: String, own: Option<Arc<Postgres>>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // One server, many processes, and each may have been here before.
        let name = format!("test_{}_{}_{:x}", std::process::id(), COUNT.fetch_add(1, Relaxed), unique());
        // template1 can't be copied by two at once while a third looks at it, template0 can.
        psql(&server, &format!("CREATE DATABASE {name} TEMPLATE template0"));
        Self { server, name, _own: own }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A run makes hundreds of some 8 MB each. A server that a test took away takes its databases with it.
        if self._own.is_none() {
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = psql_command(&self.server, &drop).output();
        }
    }
}

impl Postgres {
    /// Makes a server and waits until it takes connections: some 2 s.
    pub fn start() -> Self {
        let dir =
            tempfile::Builder::new().prefix("crier-postgres-").tempdir().expect("temporary directories can be made");
        if is_root() {
            let (uid, gid) = postgres_user();
            chown(dir.path(), Some(uid), Some(gid)).expect("root may give a directory away");
        }
        let mut initdb = unprivileged("initdb");
        initdb.args(["--auth=trust", "--username=crier", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"]);
        let made = initdb.arg(dir.path().join("data")).current_dir(dir.path()).output().expect("initdb can be run");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let mut postgres = Self { port: Port::reserve(), process: None, dir };
        postgres.resume();
        postgres
    }

    /// `postgres://crier@127.0.0.1:PORT`, without a database.
    pub fn url(&self) -> String {
        format!("postgres://crier@{}", self.port.address())
    }

    /// An empty database on this server.
    pub fn new_database(&self) -> Database {
        Database::create(self.url(), None)
    }

    /// Goes away without waiting for its clients, as in a crash; nothing committed is lost.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::Quit);
            process.wait(SERVER_DEADLINE);
        }
    }

    /// Starts again after [`stop`](Self::stop), at the same address.
    pub fn resume(&mut self) {
        let data = self.dir.path().join("data");
        let mut command = unprivileged("postgres");
        command.current_dir(self.dir.path()).arg("-D").arg(&data).args(["-p", &self.port.number().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=200",
            "shared_buffers=32MB",
        ] {
            command.args(["-c", setting]);
        }
        let mut process = Process::spawn("postgres", command, self.dir.path());
        eventually("Postgres is ready", SERVER_DEADLINE, || {
            assert!(process.is_running(), "Postgres ended: {}", process.stderr());
            says_ready(&data, process.id())
        });
        self.process = Some(process);
    }

    /// Ends and starts again.
    pub fn restart(&mut self) {
        self.stop();
        self.resume();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Killed outright it would leave its shared memory behind.
        if let Some(process) = &mut self.process {
            process.signal(Signal::Quit);
            within(SERVER_DEADLINE, || !process.is_running());
        }
    }
}

/// Postgres writes its id in the first line of this file and its state in the eighth.
fn says_ready(data: &Path, id: u32) -> bool {
    let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<_> = pid.lines().map(str::trim).collect();
    lines.first() == Some(&id.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

/// A program of Postgres, which refuses to run as root.
fn unprivileged(program: &str) -> Command {
    let path = installed(program);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(path);
    command
}

/// Debian keeps the server's programs out of the path, by version.
fn installed(program: &str) -> PathBuf {
    let path = env::var_os("PATH").unwrap_or_default();
    if let Some(found) = env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file()) {
        return found;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|version| version.path().join("bin").join(program)).filter(|path| path.is_file()).collect();
    found.sort_unstable();
    found.pop().unwrap_or_else(|| panic!("{program} is not installed; tests/run installs it"))
}

fn psql_command(server: &str, statement: &str) -> Command {
    let mut command = Command::new(installed("psql"));
    command.args(["--no-psqlrc", "--quiet", "--dbname", &format!("{server}/postgres"), "--command", statement]);
    command
}

fn psql(server: &str, statement: &str) {
    let done = psql_command(server, statement).output().expect("psql can be run");
    assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

fn postgres_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("users are listed");
    let user = users.lines().find(|line| line.starts_with("postgres:")).expect("Postgres' package makes its user");
    let id = |n| user.split(':').nth(n).and_then(|id| id.parse().ok()).expect("a user has its numbers");
    (id(2), id(3))
}

fn unique() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(database: &str, statement: &str) -> Option<String> {
        let asked = Command::new(installed("psql")).args(["-XAtq", "-d", database, "-c", statement]).output().unwrap();
        asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
    }

    #[test]
    fn a_restart_keeps_what_was_committed_and_the_address() {
        let mut postgres = Postgres::start();
        let database = postgres.new_database();
        ask(&database.url(), "CREATE TABLE t AS SELECT 7 AS n").unwrap();
        postgres.stop();
        assert_eq!(ask(&database.url(), "SELECT n FROM t"), None);
        postgres.resume();
        assert_eq!(ask(&database.url(), "SELECT n FROM t").as_deref(), Some("7"));
        let other = postgres.new_database();
        assert_eq!(ask(&other.url(), "SELECT n FROM t"), None);
    }

    #[test]
    fn a_database_is_gone_with_its_value() {
        let kept = database();
        let dropped = Database::create(kept.server.clone(), None);
        let url = dropped.url();
        assert!(ask(&url, "SELECT 1").is_some());
        drop(dropped);
        assert!(ask(&url, "SELECT 1").is_none());
        assert!(ask(&kept.url(), "SELECT 1").is_some());
    }
}

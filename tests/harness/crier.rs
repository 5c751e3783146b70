//! The binary under test.

use super::{DEADLINE, Finished, Process, Sandbox};
use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

/// A command line of `crier` in an environment that holds nothing but its settings.
#[derive(Clone, Debug)]
pub(crate) struct Crier {
    program: PathBuf,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    /// What the environment holds besides.
    environment: Vec<(String, OsString)>,
}

impl Crier {
    /// Without any settings; runs in `dir`, which is its home too.
    pub(crate) fn new(dir: &Path) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_crier"));
        Self { program, dir: dir.to_owned(), settings: Vec::new(), environment: Vec::new() }
    }

    /// The program of the version before, where `CRIER_OLD` names one; else this one in its place.
    pub(crate) fn of_the_version_before(mut self) -> Self {
        if let Some(program) = std::env::var_os("CRIER_OLD") {
            self.program = program.into();
        }
        self
    }

    /// `CRIER_{key}={value}`, over an earlier one.
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.retain(|(set, _)| set != key);
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A variable that is no setting, as a service manager sets it.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a secret from a file, as systemd and Kubernetes hand it over.
    pub(crate) fn set_file(mut self, key: &str, path: &Path) -> Self {
        self.settings.retain(|(set, _)| set != key);
        self.set(&format!("{key}_FILE"), &path.display().to_string())
    }

    /// Ends at this point as `kill -9` would end it (see `crates/crash`).
    pub(crate) fn crash_at(self, point: &str) -> Self {
        self.env("CRASH_AT", point)
    }

    /// Sends to this sandbox, with its credentials.
    pub(crate) fn gateway(self, sandbox: &Sandbox) -> Self {
        self.set("GATEWAY__BASE_URL", sandbox.base_url())
            .set("GATEWAY__CLIENT_ID", "sandbox-client")
            .set("GATEWAY__CLIENT_SECRET", "sandbox-secret")
            .set("GATEWAY__USERNAME", "sandbox")
            .set("GATEWAY__PASSWORD", "sandbox-password")
    }

    pub(crate) fn ledger(self, url: &str) -> Self {
        self.set("LEDGER__URL", url)
    }

    pub(crate) fn queue(self, url: &str) -> Self {
        self.set("QUEUE__URL", url)
    }

    /// Starts it and leaves it running; killed with the value.
    pub(crate) fn spawn(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Process {
        let mut command = self.command();
        command.args(args);
        let name: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let name = name.iter().find(|arg| !arg.starts_with('-')).map_or("crier", String::as_str).to_owned();
        Process::spawn(&name, command, &self.dir)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Finished {
        self.spawn(args).wait(DEADLINE)
    }

    /// Runs it to its end, which must be `code`; returns what it printed.
    #[track_caller]
    pub(crate) fn expect(&self, code: i32, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        let finished = self.run(args);
        assert_eq!(finished.code, Some(code), "printed:\n{}\nsaid:\n{}", finished.stdout, finished.stderr);
        finished.stdout
    }

    /// Runs it to its end with `--json`, which must be `code`; returns what it printed.
    #[track_caller]
    pub(crate) fn json(&self, code: i32, args: &[&str]) -> serde_json::Value {
        let printed = self.expect(code, args.iter().copied().chain(["--json"]));
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e} in {printed}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.dir).env_clear().env("HOME", &self.dir).env("NO_COLOR", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.settings.iter().map(|(key, value)| (format!("CRIER_{key}"), value)));
        command.envs(self.environment.iter().cloned());
        command
    }
}

//! A process of a test's own: its output in files, its end by deadline or by signal.

use crate::eventually;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::Duration,
};

/// A running process; killed when the value is dropped. If the test fails by then, the end of its output is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// What a process left.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// All that it printed.
    pub stdout: String,
    /// All that it said.
    pub stderr: String,
}

/// What can be sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish and end: what an init system sends.
    Term,
    /// Ctrl-C.
    Interrupt,
    /// Postgres: end without waiting for anybody.
    Quit,
    /// End now, without a word.
    Kill,
    /// Freeze.
    Stop,
    /// Go on after a freeze.
    Continue,
}

impl Process {
    /// Starts `command`; its output goes to files in `dir`.
    pub fn spawn(name: &str, mut command: Command, dir: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Relaxed);
        let (stdout, stderr) = (dir.join(format!("{n}-{name}.out")), dir.join(format!("{n}-{name}.err")));
        let file = |path: &Path| File::create(path).expect("the test's directory is writable");
        command.stdin(Stdio::null()).stdout(file(&stdout)).stderr(file(&stderr));
        let child = command.spawn().unwrap_or_else(|e| panic!("{name} did not start: {e} ({command:?})"));
        Self { name: name.to_owned(), child, stdout, stderr }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked for its state").is_none()
    }

    /// What it has printed until now.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has said until now.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// The first line of its output, once there is one whole.
    pub fn first_line(&mut self, deadline: Duration) -> String {
        let (stdout, name) = (self.stdout.clone(), self.name.clone());
        eventually(&format!("a line from {name}"), deadline, || {
            assert!(self.is_running() || read(&stdout).contains('\n'), "{name} ended before it printed a line");
            read(&stdout).contains('\n')
        });
        read(&stdout).lines().next().unwrap_or_default().to_owned()
    }

    /// Waits for its end; panics when it doesn't come within `deadline`.
    pub fn wait(mut self, deadline: Duration) -> Finished {
        eventually(&format!("{} ends", self.name), deadline, || !self.is_running());
        let status = self.child.wait().expect("an ended child has a status");
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    /// Sends a signal. To a process that has ended it does nothing: its id is kept until its state was read here.
    pub fn signal(&mut self, signal: Signal) {
        if !self.is_running() {
            return;
        }
        let name = match signal {
            Signal::Term => "TERM",
            Signal::Interrupt => "INT",
            Signal::Quit => "QUIT",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own kill: no package needs to be installed for it.
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} could not be sent SIG{name}", self.name);
    }

    /// Ends it at once and waits until it is gone.
    pub fn kill(self) -> Finished {
        let mut process = self;
        process.signal(Signal::Kill);
        process.wait(Duration::from_secs(30))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- {}, output:\n{}--- {}, errors:\n{}",
                self.name,
                self.tail(&self.stdout),
                self.name,
                self.tail(&self.stderr)
            );
        }
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn tail(&self, path: &Path) -> String {
        let text = read(path);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].iter().map(|line| format!("{line}\n")).collect()
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str, dir: &Path) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("shell", command, dir)
    }

    #[test]
    fn output_and_exit_code_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let finished = shell("echo printed; echo said >&2; exit 3", dir.path()).wait(SOON);
        assert_eq!((finished.code, &*finished.stdout, &*finished.stderr), (Some(3), "printed\n", "said\n"));
    }

    #[test]
    fn a_signal_reaches_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let mut process = shell("echo ready; exec sleep 600", dir.path());
        assert_eq!(process.first_line(SOON), "ready");
        process.signal(Signal::Kill);
        assert_eq!(process.wait(SOON).code, None);
    }

    #[test]
    #[should_panic(expected = "not within 50ms: shell ends")]
    fn a_process_that_does_not_end_is_named() {
        let dir = tempfile::tempdir().unwrap();
        shell("exec sleep 600", dir.path()).wait(Duration::from_millis(50));
    }
}

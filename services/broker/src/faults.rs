//! For tests: a place in the code where the process is killed or the disk fails, and the child processes to which that happens.
//!
//! A test that needs it starts its own binary again for one test, in a folder of its own: the registry of places is the process's, and a
//! process that is killed takes nobody with it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, getpid, kill_process};

use crate::durable::Failed;

/// Every step of [`crate::durable::replace`], in order.
pub const STEPS: [&str; 7] = [
    "begun",
    "made",
    "half-written",
    "written",
    "synced",
    "renamed",
    "done",
];

/// Marks the folder of a child.
const MARK: &str = "this-is-a-child";

/// The name of a place: which file, which step.
pub fn point(path: &Path, step: &str) -> String {
    format!("{}/{step}", path.file_name().unwrap().to_string_lossy())
}

/// What happens there: `kill`, or the number of a system error.
pub fn injected(path: &Path, step: &str, action: Option<String>) -> Failed {
    let action = action.expect("an action has an argument");
    if action == "kill" {
        kill_process(getpid(), Signal::KILL).unwrap();
    }
    Failed {
        doing: "injecting a fault into",
        path: path.to_owned(),
        source: io::Error::from_raw_os_error(action.parse().unwrap()),
        replaced: step == "renamed" || step == "done",
    }
}

/// In a child, its folder.
pub fn child() -> Option<PathBuf> {
    let folder = std::env::current_dir().unwrap();
    folder.join(MARK).exists().then_some(folder)
}

/// This binary once more, for the test `name` only, in `folder`, with `faults` as `fail` reads them.
pub fn command(
    program: &str,
    arguments: &[&str],
    name: &str,
    folder: &Path,
    faults: &str,
) -> Command {
    std::fs::write(folder.join(MARK), "").unwrap();
    let this = std::env::current_exe().unwrap();
    let mut command = if program.is_empty() {
        Command::new(this)
    } else {
        let mut command = Command::new(program);
        command.args(arguments).arg(this);
        command
    };
    command
        .args(["--exact", name, "--test-threads=1", "--nocapture"])
        .current_dir(folder)
        .env("FAILPOINTS", faults);
    command
}

/// How a child ended.
pub struct Ended {
    /// It was killed where it was to be.
    pub killed: bool,
    /// What it printed.
    pub printed: String,
}

/// Runs it. A child that fails by itself fails the test.
pub fn run(name: &str, folder: &Path, faults: &str) -> Ended {
    let output = command("", &[], name, folder, faults).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let killed = output.status.signal() == Some(9);
    assert!(output.status.success() || killed, "{faults}: {output:?}");
    assert!(
        printed.contains("running 1 test"),
        "{name} is no test: {printed}"
    );
    Ended { killed, printed }
}

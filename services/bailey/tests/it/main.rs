//! The program, as the operator starts it: arguments in, output and exit code out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod api;
mod custody;
mod files;
mod grants;
mod host;
mod lock;
mod pki;
mod place;
mod readable;
mod stand;
mod vault;
mod walls;

use std::ffi::OsStr;
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What one run said.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(
            self.stdout.contains(text),
            "{text:?} is not in:\n{}\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    fn complains(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "{text:?} is not in:\n{}\n{}",
            self.stderr,
            self.stdout
        );
        self
    }
}

async fn bailey<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    bailey_with(args, "").await
}

/// With `input` as its standard input.
async fn bailey_with<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, input: &str) -> Ran {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(input.as_bytes()).unwrap();
    file.rewind().unwrap();
    bailey_from(args, Stdio::from(file)).await
}

/// With what is given as its standard input.
async fn bailey_from<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, stdin: Stdio) -> Ran {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_bailey"));
    ran(command.args(args).stdin(stdin).output().await.unwrap())
}

fn ran(output: std::process::Output) -> Ran {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

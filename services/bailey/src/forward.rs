//! Management verbs on the host: the same command line, in the one-shot container that has the sockets.

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::Misconfigured;
use crate::home::Home;
use crate::output::Done;

/// What would make Compose work on another project than that of the file it is given.
const ANOTHER_PROJECT: [&str; 4] = [
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
];

/// Runs `args` in the container, with this terminal. With `file`, what it prints goes there, readable by its owner only.
pub(crate) fn to_container(
    home: &Home,
    args: Vec<OsString>,
    file: Option<&Path>,
) -> anyhow::Result<Done> {
    let compose = home.compose_file().ok_or_else(|| {
        let folder = home.dir().display();
        Misconfigured(format!("this needs the stack's compose.yaml, which is not in {folder}; say where with --compose or --home"))
    })?;
    let mut command = Command::new("docker");
    command.args(["compose", "-f"]).arg(&compose);
    if let Some(root) = compose.parent() {
        command
            .arg("--project-directory")
            .arg(if root.as_os_str().is_empty() {
                Path::new(".")
            } else {
                root
            });
    }
    if home.env_file().is_file() {
        command.arg("--env-file").arg(home.env_file());
    }
    // The stack meant is the one of this folder, whatever the shell has of another: Compose lets the environment win over `.env`.
    for name in home
        .setting_names()
        .iter()
        .map(String::as_str)
        .chain(ANOTHER_PROJECT)
    {
        command.env_remove(name);
    }
    if let Some(socket) = home.setting("DOCKER_SOCKET") {
        command.env("DOCKER_HOST", format!("unix://{socket}"));
    }
    command.args(["run", "--rm", "--quiet-pull"]);
    // A terminal at one end only would eat input or add carriage returns to output.
    let terminal =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && file.is_none();
    if !terminal {
        command.arg("--no-TTY");
    }
    command.arg("cli").args(inner_args(args, file.is_some()));
    let written = file.map(create).transpose()?;
    if let Some(written) = written {
        command.stdout(Stdio::from(written));
    }
    let status = command.status().map_err(|e| {
        let hint = if e.kind() == std::io::ErrorKind::NotFound {
            "; is Docker installed?"
        } else {
            ""
        };
        anyhow::anyhow!(
            "this runs in the container `cli`, but docker could not be started ({e}){hint}"
        )
    })?;
    match (status.code(), file) {
        (Some(0), _) => Ok(Done::Well),
        (code, Some(file)) => {
            // An empty token file would only mislead later.
            fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
            refused(code)
        }
        (code, None) => refused(code),
    }
}

fn refused(code: Option<i32>) -> anyhow::Result<Done> {
    match code {
        // It has said what is wrong itself.
        Some(78) => Err(Misconfigured("see above".to_owned()).into()),
        _ => Ok(Done::Badly),
    }
}

/// The arguments without the program and, if a file takes the output, without `--out`.
fn inner_args(args: Vec<OsString>, to_file: bool) -> Vec<OsString> {
    let mut inner = Vec::new();
    let mut args = args.into_iter().skip(1);
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy().into_owned();
        // Paths of the host mean nothing inside.
        let host_only = ["--home", "--compose", "--url", "--ca", "--token-file"];
        let name = text.split('=').next().unwrap_or_default();
        if host_only.contains(&name) || (to_file && name == "--out") {
            if !text.contains('=') {
                args.next();
            }
            continue;
        }
        inner.push(arg);
    }
    inner
}

fn create(path: &Path) -> anyhow::Result<fs::File> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path);
    file.with_context(|| {
        format!(
            "making {}; an existing file is never overwritten",
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inner(args: &[&str], to_file: bool) -> Vec<String> {
        let args = args.iter().map(OsString::from).collect();
        inner_args(args, to_file)
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn paths_of_the_host_stay_on_the_host() {
        let args = [
            "bailey",
            "--home",
            "/srv/bailey",
            "vault",
            "list",
            "--compose=x.yaml",
            "--json",
        ];
        assert_eq!(inner(&args, false), ["vault", "list", "--json"]);
        let args = [
            "bailey", "token", "create", "--name", "a", "--out", "a.token", "--scope", "*",
        ];
        assert_eq!(
            inner(&args, true),
            ["token", "create", "--name", "a", "--scope", "*"]
        );
    }
}

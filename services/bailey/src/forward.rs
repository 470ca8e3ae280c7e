//! Management verbs on the host: the same command line, in the one-shot container that has the sockets.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::Misconfigured;
use crate::cli::Verb;
use crate::home::Home;
use crate::output::Done;

/// What would make Compose work on another project than that of the file it is given.
const ANOTHER_PROJECT: [&str; 4] = [
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_FILE",
    "COMPOSE_PROFILES",
    "COMPOSE_ENV_FILES",
];

/// Runs `args`, which ask for `verb`, in its one-shot container, with this terminal. If a file takes what it prints, only its owner can read it.
pub(crate) fn to_container(home: &Home, verb: &Verb, args: Vec<OsString>) -> anyhow::Result<Done> {
    let (container, file) = (verb.container(), verb.host_file());
    let mut command = one_shot(home)?;
    // A terminal at one end only would eat input or add carriage returns to output.
    let terminal =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && file.is_none();
    if !terminal {
        command.arg("--no-TTY");
    }
    command
        .arg(container)
        .args(inner_args(args, file.is_some()));
    let written = file.map(create).transpose()?;
    if let Some(written) = written {
        command.stdout(Stdio::from(written));
    }
    let status = command.status().map_err(|e| not_started(container, &e))?;
    match (status.code(), file) {
        (Some(0), _) => Ok(Done::Well),
        // Of any other verb it says nothing: Docker, too, ends so when it crashes.
        (Some(2), _) if verb.is_vault_status() => Ok(Done::Closed),
        (code, Some(file)) => {
            // An empty token file would only mislead later.
            fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
            Ok(refused(code))
        }
        (code, None) => Ok(refused(code)),
    }
}

/// Runs a verb that the broker's own binary has, in the container `custody`; `input` is what the verb reads.
pub(crate) fn to_custody(home: &Home, args: &[&str], input: &[u8]) -> anyhow::Result<Done> {
    let args = std::iter::once("custody").chain(args.iter().copied());
    with_input(home, "custody", args.map(OsString::from), input)
}

/// As [`to_custody`], for whoever has to know what the verb says.
pub(crate) fn heard_from_custody(
    home: &Home,
    args: &[&str],
    input: &[u8],
) -> anyhow::Result<(Done, String)> {
    let mut command = one_shot(home)?;
    command.args(["--no-TTY", "custody", "custody"]).args(args);
    let (done, said) = fed(command.stdout(Stdio::piped()), "custody", input)?;
    let said = String::from_utf8(said).context("reading what the container said")?;
    Ok((done, said))
}

/// Runs `args` in the one-shot container `container`; `input` is what they read.
pub(crate) fn with_input(
    home: &Home,
    container: &str,
    args: impl IntoIterator<Item = OsString>,
    input: &[u8],
) -> anyhow::Result<Done> {
    let mut command = one_shot(home)?;
    command.args(["--no-TTY", container]).args(args);
    let (done, _) = fed(&mut command, container, input)?;
    Ok(done)
}

/// Has `command` read `input`; what it says, if that is for us.
fn fed(command: &mut Command, container: &str, input: &[u8]) -> anyhow::Result<(Done, Vec<u8>)> {
    let spawned = command.stdin(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| not_started(container, &e))?;
    let mut stdin = child.stdin.take().context("no way into the container")?;
    match stdin.write_all(input) {
        // A verb that refuses at once reads nothing: what it says is shown.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => {
            written.with_context(|| format!("writing to the container `{container}`"))?;
        }
    }
    drop(stdin);
    let waited = child.wait_with_output();
    let output = waited.with_context(|| format!("waiting for the container `{container}`"))?;
    let done = match output.status.code() {
        Some(0) => Done::Well,
        code => refused(code),
    };
    Ok((done, output.stdout))
}

/// `docker compose run` for the stack of this folder, up to where the container's name belongs.
fn one_shot(home: &Home) -> anyhow::Result<Command> {
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
    Ok(command)
}

fn not_started(container: &str, error: &std::io::Error) -> anyhow::Error {
    let hint = if error.kind() == std::io::ErrorKind::NotFound {
        "; is Docker installed?"
    } else {
        ""
    };
    anyhow::anyhow!(
        "this runs in the container `{container}`, but docker could not be started ({error}){hint}"
    )
}

/// It has said what is wrong itself.
fn refused(code: Option<i32>) -> Done {
    match code {
        Some(78) => Done::Misconfigured,
        _ => Done::Badly,
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

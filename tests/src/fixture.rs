//! Plugins of the tests beside the first-party ones, and calls of them.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{Client, Stack, checkout};

/// Drops plugins of `tests/fixtures/plugins` into the operator's plugin root and appends `config` to the starter's plugins. Nothing is locked.
pub fn add(stack: &Stack, plugins: &[&str], config: &str) -> anyhow::Result<()> {
    for plugin in plugins {
        let from = checkout().join("tests/fixtures/plugins").join(plugin);
        copy(&from, &root(stack).join(plugin))?;
    }
    let path = stack.home.join("config/plugins.yaml");
    let starter = fs::read_to_string(&path)?;
    Ok(fs::write(&path, starter + config)?)
}

/// The operator's plugin root.
pub fn root(stack: &Stack) -> std::path::PathBuf {
    stack.home.join("plugin-roots/mine")
}

/// Locks everything and waits until it is in force.
pub fn lock(stack: &Stack) -> anyhow::Result<()> {
    stack.bailey_ok(&["plugin", "lock", "--all", "--yes"])?;
    stack.wait_ready()
}

/// Puts a secret into the vault and grants it to a principal; the value goes over standard input, as an operator's does.
pub fn seal_secret(
    stack: &Stack,
    secret: &str,
    value: &str,
    principal: &str,
) -> anyhow::Result<()> {
    let binary = checkout().join("build/bin/bailey");
    let mut command = stack.command(binary.to_str().context("path")?);
    command.arg("--home").arg(&stack.home);
    command.args(["vault", "set", secret, "--grant", principal]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(value.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Copies a plugin's files.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Calls a command and waits for its outcome.
pub fn call(
    client: &mut Client,
    plugin: &str,
    command: &str,
    payload: &Value,
) -> anyhow::Result<Value> {
    let answer = client.post(
        &format!("/plugin/{plugin}/{command}?wait=60s"),
        &json!({ "payload": payload }),
    )?;
    ensure!(
        answer.status == 200,
        "{plugin} {command} answered {}: {}",
        answer.status,
        answer.text
    );
    Ok(answer.json)
}

//! Plugins of the tests beside the first-party ones, and calls of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
pub fn root(stack: &Stack) -> PathBuf {
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
    // Before or after the plugin is locked: where it is not, nobody knows what the name is.
    let register = ["vault", "register-principal", principal, "--kind", "plugin"];
    let registered = stack.bailey_with(&register, "")?;
    let said = String::from_utf8_lossy(&registered.stderr);
    ensure!(
        registered.status.success() || said.contains("registered already"),
        "{said}"
    );
    let set = ["vault", "set", secret, "--grant", principal];
    stack.bailey_ok_with(&set, value).map(drop)
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

/// Calls a command and does not wait: the job's id.
pub fn queued(stack: &Stack, plugin: &str, act: &str, payload: &Value) -> anyhow::Result<String> {
    let path = format!("/plugin/{plugin}/{act}");
    let answer = stack
        .client()?
        .post(&path, &json!({ "payload": payload }))?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.text);
    Ok(answer.json["job_id"].as_str().context("no job")?.to_owned())
}

/// What the plugin says that it observed.
pub fn observed(job: &Value) -> anyhow::Result<Value> {
    ensure!(job["status"] == "succeeded", "the act itself failed: {job}");
    let text = job["result"].as_str().context("no result")?;
    serde_json::from_str(text).with_context(|| format!("the result is no JSON: {text}"))
}

/// What the lock holds of a plugin.
pub fn locked(stack: &Stack, plugin: &str) -> anyhow::Result<Value> {
    let text = fs::read(stack.home.join("config/bailey.lock"))?;
    let signed = bailey_trust::source::from_file_text(&text).map_err(anyhow::Error::msg)?;
    let lock: Value = serde_json::from_slice(&signed.payload)?;
    Ok(lock["plugins"][plugin].clone())
}

/// The folder below `target/` into which a script of `tests/fixtures` has unpacked packages of Debian; nothing is installed.
pub fn unpacked(script: &str, folder: &str) -> anyhow::Result<PathBuf> {
    let folder = checkout().join("target").join(folder);
    let made = Command::new(checkout().join("tests/fixtures").join(script))
        .arg(&folder)
        .output()?;
    let text = String::from_utf8_lossy(&made.stderr);
    ensure!(made.status.success(), "{script}: {text}");
    Ok(folder)
}

/// Copies a plugin's files.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

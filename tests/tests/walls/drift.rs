//! A plugin whose folder has changed since it was locked: what was sealed runs without anything that is the plugin's, or nothing runs.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;

use crate::captured;
use crate::control::in_cell_of;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_changed_plugin_runs_without_its_secret",
        a_changed_plugin_runs_without_its_secret,
    ),
    (
        "a_changed_plugin_fails_where_nobody_is_untrusted",
        a_changed_plugin_fails_where_nobody_is_untrusted,
    ),
];

/// A file as it was, until this is dropped.
struct Changed {
    path: PathBuf,
    before: String,
}

impl Changed {
    fn new(path: PathBuf, change: impl FnOnce(&str) -> String) -> anyhow::Result<Self> {
        let before = fs::read_to_string(&path)?;
        let after = change(&before);
        ensure!(after != before, "{} has nothing to change", path.display());
        fs::write(&path, after)?;
        Ok(Self { path, before })
    }

    /// A file of the plugin, after it was locked.
    fn folder(stack: &Stack) -> anyhow::Result<Self> {
        let file = fixture::root(stack).join("walls/around.py");
        Self::new(file, |text| format!("{text}\n# Changed.\n"))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("{} is left changed: {error}", self.path.display());
        }
    }
}

const SECRET: &str = "walls_again_canary";

/// The names of the secrets that came with a request of `walls_again`.
fn secrets(stack: &Stack) -> anyhow::Result<serde_json::Value> {
    Ok(in_cell_of(stack, "walls_again", "delivered", &json!({}))?["secrets"].clone())
}

fn a_changed_plugin_runs_without_its_secret(stack: &Stack) -> anyhow::Result<()> {
    fixture::seal_secret(stack, SECRET, "walls-again-7d1f", "walls_again")?;
    // Given a plugin that is given its secret and may stand ready,
    let before = secrets(stack)?;
    ensure!(before == json!([SECRET]), "the control: {before}");
    let changed = Changed::folder(stack)?;
    // when its folder changes, then what was sealed runs, without the secret, and no cell of it may be started ahead;
    let after = secrets(stack)?;
    ensure!(after == json!([]), "it was changed, and had {after}");
    let pools = captured::pools(stack, &["walls_warm"])?;
    ensure!(pools["walls_warm"] == "drifted", "{pools}");
    ensure!(
        stack.audited()?.contains("plugin.drifted"),
        "nobody has noted it"
    );
    // and when it is as it was, the secret is there again.
    drop(changed);
    let restored = secrets(stack)?;
    ensure!(restored == json!([SECRET]), "as it was: {restored}");
    Ok(())
}

fn a_changed_plugin_fails_where_nobody_is_untrusted(stack: &Stack) -> anyhow::Result<()> {
    // Given a configuration without the account `untrusted`,
    let config = Changed::new(stack.home.join("config/config.yaml"), |text| {
        let account = text.find("  untrusted:\n").zip(text.find("  # The few"));
        account.map_or_else(String::new, |(from, to)| {
            [&text[..from], &text[to..]].concat()
        })
    })?;
    fixture::lock(stack)?;
    let before = in_cell_of(stack, "walls_again", "version", &json!({}))?;
    ensure!(before == "sealed", "the control: {before}");
    // when the folder of a plugin changes, then its calls fail, at once for good, and say why.
    let changed = Changed::folder(stack)?;
    let job = call(&mut stack.client()?, "walls_again", "version", &json!({}))?;
    drop(changed);
    drop(config);
    fixture::lock(stack)?;
    ensure!(job["status"] == "failed" && job["attempt"] == 1, "{job}");
    let why = job["last_error"].as_str().context("no reason")?;
    ensure!(
        why.contains("walls_again has changed since it was locked")
            && why.contains("around.py")
            && why.contains("bailey plugin lock walls_again"),
        "{job}"
    );
    Ok(())
}

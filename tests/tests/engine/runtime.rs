//! A stronger runtime than the engine's own: gVisor, as Debian has it.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;

use crate::settings::Setting;

pub const TESTS: &[(&str, Test)] = &[(
    "plugins_run_under_a_stronger_runtime",
    plugins_run_under_a_stronger_runtime,
)];

/// As docs/how-to/confined.md has it.
const STRONG: &str = r"
  walls_strong:
    uses: walls
    run_as: strangers
    retry: {max_attempts: 1}
  walls_strong_out:
    uses: walls
    run_as: strangers
    retry: {max_attempts: 1}
    container: {runtime: runsc-egress, egress: ['granted.test:80@203.0.113.9']}

accounts:
  strangers:
    runtime: runsc
";

fn observed(stack: &Stack, plugin: &str, act: &str, payload: &Value) -> anyhow::Result<Value> {
    let job = call(&mut stack.client()?, plugin, act, payload)?;
    fixture::observed(&job).with_context(|| format!("{plugin} {act}"))
}

fn uid(stack: &Stack, plugin: &str) -> anyhow::Result<u64> {
    let uid = fixture::locked(stack, plugin)?["uid"].as_u64();
    uid.with_context(|| format!("{plugin} has no uid"))
}

fn plugins_run_under_a_stronger_runtime(stack: &Stack) -> anyhow::Result<()> {
    let plugins = stack.home.join("config/plugins.yaml");
    let before = fs::read_to_string(&plugins)?;
    fs::write(&plugins, format!("{before}{STRONG}"))?;
    // Given an engine that does not have the runtime, when a plugin is to be locked for it, then it is not, and the engine's own are named;
    let refused = stack.bailey(&["plugin", "lock", "--all", "--yes"])?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success()
            && told.contains(
                "would run under the runtime runsc, which the Docker Engine does not have"
            )
            && told.contains("runc"),
        "{told}"
    );
    // once it has it, it is.
    let _setting = registered(stack)?;
    fixture::lock(stack)?;
    strong(stack)?;
    limited(stack)?;
    with_egress(stack)?;
    fs::write(&plugins, before)?;
    fixture::lock(stack)
}

/// Has the engine know the runtime by two names.
fn registered(stack: &Stack) -> anyhow::Result<Setting> {
    let folder = fixture::unpacked("runsc.sh", "engine-runsc").context("runsc cannot be had")?;
    let program = folder.join("usr/bin/runsc");
    let runtimes = json!({
        "runsc": {"path": program, "runtimeArgs": ["--network=none"]},
        "runsc-egress": {"path": program, "runtimeArgs": ["--network=host"]},
    });
    let setting = Setting::new("runtimes", runtimes, json!({}))?;
    stack.until(Duration::from_secs(20), "the engine's new runtimes", || {
        let shown = stack.docker(&["info", "--format", "{{json .Runtimes}}"])?;
        Ok(shown.contains("runsc-egress").then_some(()))
    })?;
    Ok(setting)
}

/// A kernel of its own, the uid that was locked, no network.
fn strong(stack: &Stack) -> anyhow::Result<()> {
    let host = fs::read_to_string("/proc/version")?;
    let found = observed(stack, "walls_strong", "place", &json!({}))?;
    ensure!(
        found["kernel"]
            .as_str()
            .is_some_and(|kernel| kernel != host)
            && found["uid"] == uid(stack, "walls_strong")?
            && found["interfaces"] == json!(["lo"]),
        "under runsc: {found}"
    );
    let found = observed(stack, "walls", "place", &json!({}))?;
    ensure!(found["kernel"] == host.as_str(), "the control: {found}");
    // Cells stand ready under it as under any.
    stack.until(Duration::from_secs(30), "a cell that stands ready", || {
        Ok(stack.cells_ready("walls_strong")?.pop())
    })?;
    let again = observed(stack, "walls_strong", "version", &json!({}))?;
    ensure!(again == "sealed", "{again}");
    Ok(())
}

/// The limits hold.
fn limited(stack: &Stack) -> anyhow::Result<()> {
    let little = observed(stack, "walls_strong", "memory", &json!({"mib": 100}))?;
    ensure!(little == json!({"exit": 0}), "the control: {little}");
    let much = call(
        &mut stack.client()?,
        "walls_strong",
        "memory",
        &json!({"mib": 400}),
    )?;
    ensure!(
        !much["result"].to_string().contains(r#"\"exit\":0"#),
        "400 MiB of 256: {much}"
    );
    let few = observed(stack, "walls_strong", "forks", &json!({"count": 10}))?;
    ensure!(few["forked"] == 10, "the control: {few}");
    let many = call(
        &mut stack.client()?,
        "walls_strong",
        "forks",
        &json!({"count": 300}),
    )?;
    ensure!(
        !many["result"].to_string().contains("300"),
        "300 processes of 128: {many}"
    );
    Ok(())
}

/// The holder's loopback is a cell's only where the runtime is given the namespace; there is nothing else in it.
fn with_egress(stack: &Stack) -> anyhow::Result<()> {
    let targets = json!({"targets": ["127.0.0.1:3128", "203.0.113.9:80"]});
    let found = observed(stack, "walls_strong_out", "connect", &targets)?;
    ensure!(
        found
            == json!({
                "interfaces": ["lo"],
                "127.0.0.1:3128": "connected",
                "203.0.113.9:80": "ENETUNREACH",
            }),
        "with egress: {found}"
    );
    let asked = json!({"targets": ["elsewhere.test:80"]});
    let found = observed(stack, "walls_strong_out", "ask", &asked)?;
    ensure!(found == json!({"elsewhere.test:80": "403"}), "{found}");
    let found = observed(stack, "walls_strong", "connect", &targets)?;
    ensure!(
        found["127.0.0.1:3128"] == "ECONNREFUSED" && found["interfaces"] == json!(["lo"]),
        "without: {found}"
    );
    Ok(())
}

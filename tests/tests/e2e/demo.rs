//! What `make up` shows, and that a second one changes nothing.

use anyhow::ensure;
use stack_tests::Stack;
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_second_make_up_changes_nothing",
        a_second_make_up_changes_nothing,
    ),
    (
        "the_demo_proves_its_secret_and_never_shows_it",
        the_demo_proves_its_secret_and_never_shows_it,
    ),
    (
        "the_audit_log_verifies_offline",
        the_audit_log_verifies_offline,
    ),
];

/// `make up` ends with the demo's result, lineage and proof.
pub fn check_shown(shown: &str) -> anyhow::Result<()> {
    for wanted in [
        "Hello, ",
        "greet",
        "echo",
        "audit",
        "https://localhost:18443",
    ] {
        ensure!(shown.contains(wanted), "`make up` did not show {wanted:?}");
    }
    Ok(())
}

fn a_second_make_up_changes_nothing(stack: &Stack) -> anyhow::Result<()> {
    let project = format!("com.docker.compose.project={}", stack.project());
    let state = || -> anyhow::Result<_> {
        let mut ids = stack.containers(&[&project])?;
        ids.sort();
        let started: Vec<_> = ids
            .iter()
            .map(|id| stack.inspect(id).map(|c| c["State"]["StartedAt"].clone()))
            .collect::<Result<_, _>>()?;
        let mut secrets: Vec<_> = std::fs::read_dir(stack.home.join("secrets"))?
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<Result<_, _>>()?;
        secrets.sort();
        Ok((
            ids,
            started,
            secrets,
            std::fs::read(stack.home.join("config/trust.json"))?,
            std::fs::read(stack.home.join("config/bailey.lock"))?,
        ))
    };
    let before = state()?;
    stack.make("up")?;
    ensure!(
        state()? == before,
        "containers, secrets, trust.json or bailey.lock are not what they were"
    );
    Ok(())
}

fn the_demo_proves_its_secret_and_never_shows_it(stack: &Stack) -> anyhow::Result<()> {
    // Given the demo's run by `make up`, when its jobs are read
    let mut client = stack.client()?;
    let jobs = client.get("/jobs?plugin=greet&status=succeeded")?;
    let job = &jobs.json["jobs"][0];
    ensure!(job["status"] == "succeeded", "no greeting: {}", jobs.text);
    // Then the second step is its child,
    let tree = client.get(&format!(
        "/job/{}/tree",
        job["job_id"].as_str().unwrap_or_default()
    ))?;
    let echo = tree
        .json
        .as_array()
        .and_then(|jobs| jobs.iter().find(|job| job["plugin"] == "echo").cloned());
    let echo = echo.ok_or_else(|| anyhow::anyhow!("no second step: {}", tree.text))?;
    ensure!(
        echo["parent_job_id"] == job["job_id"] && echo["status"] == "succeeded",
        "{}",
        tree.text
    );
    // and no value of the vault is in what anybody can read.
    let canary = std::fs::read_to_string(stack.home.join("secrets/demo.key")).unwrap_or_default();
    if !canary.is_empty() {
        ensure!(
            !tree.text.contains(canary.trim()),
            "the secret itself is in a job"
        );
    }
    Ok(())
}

fn the_audit_log_verifies_offline(stack: &Stack) -> anyhow::Result<()> {
    let shown = stack.bailey_ok(&["audit", "verify", "--json"])?;
    let report: serde_json::Value = serde_json::from_str(&shown)?;
    ensure!(report["size"].as_u64().unwrap_or(0) > 10, "{shown}");
    Ok(())
}

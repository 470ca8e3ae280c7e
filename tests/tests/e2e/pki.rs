//! The stack's own certificates: another intermediate under a stream of calls, and another root with vault and data kept.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use stack_tests::fixture::call;
use stack_tests::suite::Test;
use stack_tests::{Client, Stack};

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_rotation_under_a_stream_of_calls_fails_none",
        a_rotation_under_a_stream_of_calls_fails_none,
    ),
    (
        "a_restarted_broker_issues_from_the_rotated_intermediate",
        a_restarted_broker_issues_from_the_rotated_intermediate,
    ),
    (
        "a_new_root_keeps_vault_data_and_lock",
        a_new_root_keeps_vault_data_and_lock,
    ),
];

fn status(stack: &Stack) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(
        &stack.bailey_ok(&["pki", "status", "--json"])?,
    )?)
}

/// Calls until `stop`, one after the other; each must succeed. Every tenth on a connection of its own.
fn stream(
    stack: &Stack,
    stop: &AtomicBool,
    calls: &AtomicU64,
    mut one: impl FnMut(&mut Client) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let mut client = stack.client()?;
        for _ in 0..10 {
            let count = calls.fetch_add(1, Ordering::Relaxed);
            one(&mut client).with_context(|| format!("call {count}"))?;
        }
    }
    Ok(())
}

/// Waits until every service shows a certificate of the intermediate in use.
fn wait_renewed(stack: &Stack, serial: &str) -> anyhow::Result<()> {
    let what = format!("the renewal of all certificates from {serial}");
    stack.until(Duration::from_mins(1), &what, || {
        let told = status(stack)?;
        let services = told["services"].as_array().context("no services")?;
        ensure!(services.len() >= 10, "{told}");
        let renewed = |of: &Value| of["current"] == true && of["intermediate"] == serial;
        Ok(services.iter().all(renewed).then_some(()))
    })
}

fn a_rotation_under_a_stream_of_calls_fails_none(stack: &Stack) -> anyhow::Result<()> {
    // Given calls of a plugin and reads of the API that never pause,
    let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = status(stack)?;
    std::thread::scope(|scope| {
        let plugin = scope.spawn(|| {
            stream(stack, &stop, &calls, |client| {
                let answer = call(client, "echo", "poll", &json!({}))?;
                ensure!(answer["status"] == "succeeded", "{answer}");
                Ok(())
            })
        });
        let reads = scope.spawn(|| {
            stream(stack, &stop, &calls, |client| {
                let answer = client.get("/jobs?limit=1")?;
                ensure!(answer.status == 200, "{} {}", answer.status, answer.text);
                Ok(())
            })
        });
        // when the intermediate is replaced twice,
        let rotated = || -> anyhow::Result<()> {
            for _ in 0..2 {
                let told: Value =
                    serde_json::from_str(&stack.bailey_ok(&["pki", "rotate", "--json"])?)?;
                let serial = told["serial"].as_str().context("no serial")?;
                wait_renewed(stack, serial)?;
                let enough = calls.load(Ordering::Relaxed) + 20;
                stack.until(Duration::from_secs(30), "calls after the rotation", || {
                    Ok((calls.load(Ordering::Relaxed) > enough).then_some(()))
                })?;
            }
            Ok(())
        };
        let rotated = rotated();
        stop.store(true, Ordering::Relaxed);
        // then none of them has failed,
        for (name, stream) in [("plugin", plugin), ("reads", reads)] {
            match stream.join() {
                Ok(ended) => ended.with_context(|| format!("the stream of {name}"))?,
                Err(_) => bail!("the stream of {name} panicked"),
            }
        }
        rotated
    })?;
    // the root is the same, the old intermediates are known, and the audit log has it.
    let after = status(stack)?;
    ensure!(after["root"] == before["root"], "{after}");
    ensure!(
        after["intermediates"].as_array().map(Vec::len) >= Some(3),
        "{after}"
    );
    ensure!(after["warnings"] == json!([]), "{after}");
    ensure!(stack.audited()?.contains("pki.rotated"), "no pki.rotated");
    stack.wait_ready()
}

fn a_restarted_broker_issues_from_the_rotated_intermediate(stack: &Stack) -> anyhow::Result<()> {
    let before = status(stack)?;
    stack.docker(&["restart", &stack.service("broker")?])?;
    stack.docker(&["restart", &stack.service("worker")?])?;
    stack.wait_ready()?;
    let serial = &before["intermediates"][0]["serial"];
    let serial = serial.as_str().context("no serial")?;
    ensure!(status(stack)?["intermediates"][0]["serial"] == serial);
    wait_renewed(stack, serial)
}

fn a_new_root_keeps_vault_data_and_lock(stack: &Stack) -> anyhow::Result<()> {
    // Given a stack with a job in its log, and another root wanted,
    let answer = stack
        .client()?
        .post("/plugin/echo/poll?wait=60s", &json!({}))?;
    let job = answer.json["job_id"]
        .as_str()
        .context("no job id")?
        .to_owned();
    let (before, ca) = (
        status(stack)?,
        std::fs::read(stack.home.join("config/ca.pem"))?,
    );
    let vault = stack.bailey_ok(&["vault", "list", "--json"])?;
    // which is refused while the stack runs,
    let refused = stack.bailey(&["pki", "new-root"])?;
    ensure!(!refused.status.success(), "made while the stack runs");
    ensure!(std::fs::read(stack.home.join("config/ca.pem"))? == ca);
    // when it is made as the how-to says,
    stack.make("down")?;
    stack.bailey_ok(&["pki", "new-root"])?;
    stack.make("up")?;
    stack.wait_ready()?;
    // then the root is another one,
    ensure!(status(stack)?["root"]["sha256"] != before["root"]["sha256"]);
    ensure!(std::fs::read(stack.home.join("config/ca.pem"))? != ca);
    // and the vault, the API token, the lock and the job are the same.
    ensure!(
        stack.bailey_ok(&["vault", "list", "--json"])? == vault,
        "the vault changed"
    );
    let kept = stack.client()?.get(&format!("/job/{job}"))?;
    ensure!(kept.json["status"] == "succeeded", "{}", kept.text);
    let answer = call(&mut stack.client()?, "echo", "poll", &json!({}))?;
    ensure!(answer["status"] == "succeeded", "{answer}");
    stack.bailey_ok(&["pki", "rotate"]).map(drop)
}

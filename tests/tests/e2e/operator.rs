//! What the operator is told: soon, and of the lock that is in force.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use stack_tests::Stack;
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_lock_that_is_done_is_what_the_stack_goes_by",
        a_lock_that_is_done_is_what_the_stack_goes_by,
    ),
    (
        "where_a_key_would_go_is_shown_before_it_is_locked",
        where_a_key_would_go_is_shown_before_it_is_locked,
    ),
    (
        "a_stopped_broker_is_named_soon",
        a_stopped_broker_is_named_soon,
    ),
];

/// The gateway gives each service a second and a half, the CLI gives up on the gateway after four; the rest is for a machine under load.
const SOON: Duration = Duration::from_secs(6);

/// What was done, after which the stack was made as it was, however that went.
fn undone<T>(done: anyhow::Result<T>, as_it_was: anyhow::Result<()>) -> anyhow::Result<T> {
    match (done, as_it_was) {
        (Err(failed), Err(left)) => {
            Err(failed.context(format!("the stack is left changed: {left:#}")))
        }
        (done, as_it_was) => as_it_was.and(done),
    }
}

/// With `config.yaml` changed for as long as `done` takes; after it, the stack goes by the old one again.
fn configured(
    stack: &Stack,
    added: &str,
    done: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let path = stack.home.join("config/config.yaml");
    let before = fs::read_to_string(&path)?;
    let written = fs::write(&path, format!("{before}{added}"));
    let done = written.map_err(anyhow::Error::from).and_then(|()| done());
    let restored = fs::write(&path, before).map_err(anyhow::Error::from);
    let locked = restored.and_then(|()| stack.bailey_ok(&["config", "lock", "--yes"]));
    undone(done, locked.and_then(|_| stack.wait_ready()))
}

/// What the stack says of itself, ready or not.
fn health(stack: &Stack) -> anyhow::Result<Value> {
    let status = stack.bailey(&["status", "--json"])?;
    serde_json::from_slice(&status.stdout).context("the stack does not say how it is")
}

fn a_lock_that_is_done_is_what_the_stack_goes_by(stack: &Stack) -> anyhow::Result<()> {
    configured(stack, "\n# Another configuration.\n", || {
        // Given a stack that says that its configuration is another than the locked one
        let changed = "has changed since it was locked";
        let before = stack.until(Duration::from_secs(20), "the difference", || {
            let health = health(stack)?;
            Ok(health.to_string().contains(changed).then_some(health))
        })?;
        // when it is locked, then the next question is answered by the new lock. Whether all is well again, is waited for later.
        let locked = stack.bailey_ok(&["config", "lock", "--yes"])?;
        ensure!(locked.contains("It is in force."), "{locked}");
        let after = health(stack)?;
        ensure!(!after.to_string().contains(changed), "{after}");
        let serial = |health: &Value| health["lock_serial"].as_u64();
        let (old, new) = (serial(&before), serial(&after));
        ensure!(old.is_some() && old < new, "{old:?}, then {new:?}");
        Ok(())
    })
}

fn where_a_key_would_go_is_shown_before_it_is_locked(stack: &Stack) -> anyhow::Result<()> {
    let upstream = |host: &str| {
        format!(
            "\nupstreams:\n  e2e_shown:\n    url: https://{host}/v1\n    secret_ref: e2e-shown-key\n"
        )
    };
    configured(stack, &upstream("api.example.com"), || {
        let locked = stack.bailey_ok(&["config", "lock", "--yes"])?;
        let new = "+ upstream e2e_shown\n      url https://api.example.com/v1\n      key e2e-shown-key for e2e_shown";
        ensure!(locked.contains(new), "{locked}");
        let path = stack.home.join("config/config.yaml");
        let elsewhere = fs::read_to_string(&path)?.replace("api.example.com", "evil.example.com");
        fs::write(&path, elsewhere)?;
        let shown = stack.bailey_ok(&["config", "lock"])?;
        let moved = "~ upstream e2e_shown\n      url https://api.example.com/v1 -> https://evil.example.com/v1\n";
        ensure!(shown.contains(moved), "{shown}");
        Ok(())
    })
}

fn a_stopped_broker_is_named_soon(stack: &Stack) -> anyhow::Result<()> {
    let broker = stack.service("broker")?;
    let asked = stack.docker(&["stop", &broker]).and_then(|_| {
        let begun = Instant::now();
        let status = stack.bailey(&["status"])?;
        Ok((status, begun.elapsed()))
    });
    let started = stack.docker(&["start", &broker]);
    let (status, took) = undone(asked, started.and_then(|_| stack.wait_ready()))?;
    let said = String::from_utf8_lossy(&status.stdout);
    ensure!(status.status.code() == Some(1), "{}: {said}", status.status);
    ensure!(took < SOON, "it took {took:?}: {said}");
    for words in ["! the broker does not answer", "plugins run confined"] {
        ensure!(said.contains(words), "{words} is not in: {said}");
    }
    Ok(())
}

//! What a plugin keeps is bounded as a whole: no number of small files gets past it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::fixture::{call, observed};
use stack_tests::suite::Test;
use stack_tests::{Stack, fixture};

pub const TESTS: &[(&str, Test)] = &[(
    "a_state_is_bounded_as_a_whole",
    a_state_is_bounded_as_a_whole,
)];

/// Configuration of the fixtures, appended to the plugins.
pub const FIXTURES: &str = r"
  hoarder:
    run_as: default
    retry: {max_attempts: 3}
    container: {state_limit: {bytes: 8MiB}}
  hoarder_sibling:
    uses: hoarder
    container: {state_limit: {bytes: 8MiB}}
";

/// The calls of the hostile plugin wait so long, unless somebody ends them.
const SECONDS: u64 = 55;

fn hoard(stack: &Stack, plugin: &str, mib: u64, seconds: u64) -> anyhow::Result<Value> {
    let payload = json!({"mib": mib, "seconds": seconds});
    call(&mut stack.client()?, plugin, "hoard", &payload)
}

fn ended(job: &Value) -> anyhow::Result<()> {
    let error = job["last_error"].as_str().unwrap_or_default();
    ensure!(
        job["status"] != "succeeded" && error.contains("state of hoarder holds"),
        "{job}"
    );
    ensure!(
        error.contains("its limit is 8 MiB") && error.contains("--reset-state hoarder"),
        "it does not say what to do: {error}"
    );
    Ok(())
}

fn a_state_is_bounded_as_a_whole(stack: &Stack) -> anyhow::Result<()> {
    // A neighbour that keeps less than it may takes as long as it likes.
    let kept = observed(&hoard(stack, "hoarder_sibling", 6, 12)?)?;
    ensure!(kept == 6, "the control: {kept}");

    // One that keeps more is ended long before its call is.
    let began = Instant::now();
    ended(&hoard(stack, "hoarder", 12, SECONDS)?)?;
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(SECONDS / 2),
        "it was ended after {took:?}"
    );
    let audited = stack.audited()?;
    ensure!(audited.contains("state.over_limit"), "it is not audited");

    // It gets no other call, and nobody else is held to account for it.
    ended(&hoard(stack, "hoarder", 0, 0)?)?;
    let kept = observed(&hoard(stack, "hoarder_sibling", 0, 0)?)?;
    ensure!(kept == 6, "the neighbour: {kept}");

    // Without its state it may be called again; and a short call that keeps too much is the last one.
    reset(stack)?;
    let kept = observed(&hoard(stack, "hoarder", 2, 0)?)?;
    ensure!(kept == 2, "after the reset: {kept}");
    let kept = observed(&hoard(stack, "hoarder", 10, 0)?)?;
    ensure!(kept == 10, "a short call: {kept}");
    stack.until(Duration::from_secs(30), "the refusal", || {
        let job = hoard(stack, "hoarder", 0, 0)?;
        Ok(ended(&job).is_ok().then_some(()))
    })
}

fn reset(stack: &Stack) -> anyhow::Result<()> {
    let resetting = ["plugin", "lock", "hoarder", "--reset-state", "hoarder"];
    stack
        .bailey_ok(&[&resetting[..], &["--yes"]].concat())
        .context("resetting the state")?;
    fixture::lock(stack)
}

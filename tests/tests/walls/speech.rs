//! What a plugin, or a client, can say. Whatever it is, one job ends badly at most, and no service with it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::call;
use stack_tests::suite::Test;

use crate::control::in_cell;

pub const TESTS: &[(&str, Test)] = &[
    (
        "hostile_answers_end_their_own_job_only",
        hostile_answers_end_their_own_job_only,
    ),
    ("a_flood_is_cut", a_flood_is_cut),
    (
        "a_plugin_that_does_not_listen_is_ended",
        a_plugin_that_does_not_listen_is_ended,
    ),
    ("hostile_requests_are_refused", hostile_requests_are_refused),
];

/// When each container of the stack was started, and how often it was restarted.
fn lives(stack: &Stack) -> anyhow::Result<Vec<(Value, Value)>> {
    let project = format!("com.docker.compose.project={}", stack.project());
    let mut ids = stack.containers(&[&project])?;
    ids.sort();
    let life = |id: &String| -> anyhow::Result<_> {
        let container = stack.inspect(id)?;
        Ok((
            container["State"]["StartedAt"].clone(),
            container["RestartCount"].clone(),
        ))
    };
    ids.iter().map(life).collect()
}

fn say(stack: &Stack, what: &str, size: u64) -> anyhow::Result<Value> {
    call(
        &mut stack.client()?,
        "walls",
        "say",
        &json!({"what": what, "size": size}),
    )
}

fn hostile_answers_end_their_own_job_only(stack: &Stack) -> anyhow::Result<()> {
    let before = lives(stack)?;
    let refused = [
        ("depth", 10_000),
        ("depth", 100),
        ("string", 10 << 20),
        ("nan", 0),
        ("infinity", 0),
        ("duplicate_key", 0),
        ("lone_surrogate", 0),
        ("array", 0),
    ];
    let mut accepted = Vec::new();
    for (what, size) in refused {
        let job = say(stack, what, size)?;
        if job["status"] == "succeeded" || job["last_error"].is_null() {
            accepted.push(format!("{what} {size}"));
        }
        // The control: the next call.
        let well = say(stack, "well", 0)?;
        ensure!(well["result"] == "well", "after {what}: {well}");
    }
    ensure!(accepted.is_empty(), "accepted: {accepted:?}");
    for (what, size) in [("depth", 20), ("string", 100_000), ("nul", 0)] {
        let job = say(stack, what, size)?;
        ensure!(job["status"] == "succeeded", "{what} {size}: {job}");
    }
    // Protocol v2 takes these; they are read once, in one way, and only that reading is handed on.
    let replaced = say(stack, "no_utf8", 0)?;
    ensure!(replaced["result"] == "\u{fffd}\u{fffd}", "{replaced}");
    let last = say(stack, "duplicate_inside", 0)?;
    ensure!(last["status"] == "succeeded", "{last}");
    let state = in_cell(stack, "delivered", &json!({}))?;
    ensure!(state["state"]["a"] == 2, "{state}");
    ensure!(lives(stack)? == before, "a service was restarted");
    Ok(())
}

fn a_flood_is_cut(stack: &Stack) -> anyhow::Result<()> {
    // On standard output it ends the job; on standard error it is cut, and the answer counts.
    let before = lives(stack)?;
    let flooded = say(stack, "string", 30 << 20)?;
    ensure!(
        flooded["status"] != "succeeded" && !flooded["last_error"].is_null(),
        "{}",
        flooded["status"]
    );
    let shouted = call(&mut stack.client()?, "walls", "shout", &json!({"mib": 20}))?;
    let kept = shouted["stderr"]
        .as_str()
        .context("nothing was kept")?
        .len();
    ensure!(
        shouted["result"] == "well" && (1..=(64 << 10) + 100).contains(&kept),
        "{} with {kept} bytes kept",
        shouted["status"]
    );
    stack.wait_no_cells("walls")?;
    ensure!(lives(stack)? == before, "a service was restarted");
    Ok(())
}

fn a_plugin_that_does_not_listen_is_ended(stack: &Stack) -> anyhow::Result<()> {
    // More than a pipe holds: whoever writes it has to wait.
    let payload = json!({"ballast": "x".repeat(500_000)});
    let deaf = call(&mut stack.client()?, "walls_deaf", "version", &payload)?;
    ensure!(
        matches!(deaf["status"].as_str(), Some("timed_out" | "dead")),
        "{}",
        deaf["status"]
    );
    stack.wait_no_cells("walls_deaf")?;
    // The control: the same request to a plugin that reads it.
    let heard = call(&mut stack.client()?, "walls", "version", &payload)?;
    ensure!(heard["status"] == "succeeded", "{}", heard["status"]);
    Ok(())
}

fn hostile_requests_are_refused(stack: &Stack) -> anyhow::Result<()> {
    let before = lives(stack)?;
    let mut client = stack.client()?;
    let deep = |depth: usize| {
        format!(
            r#"{{"payload":{}{}}}"#,
            r#"{"a":"#.repeat(depth) + "1",
            "}".repeat(depth)
        )
    };
    let refused = [
        deep(10_000),
        deep(100),
        r#"{"payload":{"x":NaN}}"#.to_owned(),
        r#"{"payload":{"x":1e999}}"#.to_owned(),
        r#"{"payload":{"x":1,"x":2}}"#.to_owned(),
        r#"{"payload":{"x":"\ud800"}}"#.to_owned(),
        r#"{"payload":{"x":9007199254740993}}"#.to_owned(),
        r#"{"payload":{}} {"payload":{}}"#.to_owned(),
    ];
    for body in refused {
        let shown: String = body.chars().take(60).collect();
        let headers = [("content-type", "application/json")];
        let answer = client.send(
            "POST",
            "/plugin/walls/version?wait=30s",
            &headers,
            body.into(),
        )?;
        ensure!(
            (400..500).contains(&answer.status) || answer.json["status"] != "succeeded",
            "{shown}: {} {}",
            answer.status,
            answer.text
        );
        ensure!(
            answer.status < 500,
            "{shown}: {} {}",
            answer.status,
            answer.text
        );
    }
    for body in [deep(20), r#"{"payload":{"x":9007199254740991}}"#.to_owned()] {
        let headers = [("content-type", "application/json")];
        let answer = client.send(
            "POST",
            "/plugin/walls/version?wait=30s",
            &headers,
            body.into(),
        )?;
        ensure!(answer.json["status"] == "succeeded", "{}", answer.text);
    }
    // Refused by its head: the gateway may close before the client has sent it all.
    let large = format!(r#"{{"payload":{{"x":"{}"}}}}"#, "x".repeat(10 << 20));
    let answer = client.send("POST", "/plugin/walls/version", &[], large.into());
    ensure!(
        answer.as_ref().map_or(true, |answer| answer.status == 413),
        "10 MiB: {answer:?}"
    );
    ensure!(lives(stack)? == before, "a service was restarted");
    Ok(())
}

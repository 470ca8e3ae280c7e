//! Each service is killed in turn while a job is under way: nothing is lost, and the stack recovers by itself.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::call;
use stack_tests::suite::Test;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_job_survives_the_killing_of_each_service",
        a_job_survives_the_killing_of_each_service,
    ),
    (
        "jobs_wait_while_socket_proxy_is_away",
        jobs_wait_while_socket_proxy_is_away,
    ),
];

/// What holds for a job is in the engine's file: whichever service dies, the job ends as if none had.
fn a_job_survives_the_killing_of_each_service(stack: &Stack) -> anyhow::Result<()> {
    let services = [
        "engine",
        "runner",
        "policy",
        "broker",
        "audit",
        "gateway",
        "scheduler",
        "worker",
        "socket-proxy",
        "egress-proxy",
    ];
    for service in services {
        let mut client = stack.client()?;
        let answer = client.post("/plugin/steady/slow", &json!({"payload": {"seconds": 2}}));
        let answer = answer.with_context(|| format!("before {service} is killed"))?;
        ensure!(
            answer.status == 202,
            "before {service} is killed: {} {}",
            answer.status,
            answer.text
        );
        let id = answer.json["job_id"]
            .as_str()
            .context("no job id")?
            .to_owned();
        let running =
            || -> anyhow::Result<_> { Ok((!stack.cells("steady")?.is_empty()).then_some(())) };
        stack.until(Duration::from_secs(30), "the start of a cell", running)?;
        stack.kill(service)?;
        let done = stack.until(
            Duration::from_mins(2),
            &format!("the job's end after {service} was killed"),
            || {
                // A connection may break with the service that is killed.
                let Ok(job) = stack
                    .client()
                    .and_then(|mut client| client.get(&format!("/job/{id}?wait=5s")))
                else {
                    return Ok(None);
                };
                let ended = matches!(
                    job.json["status"].as_str(),
                    Some("succeeded" | "failed" | "dead" | "timed_out")
                );
                Ok(ended.then_some(job.json))
            },
        )?;
        ensure!(
            done["status"] == "succeeded",
            "after {service} was killed: {done}"
        );
        stack
            .wait_ready()
            .with_context(|| format!("after {service} was killed"))?;
    }
    stack.until(Duration::from_secs(30), "the removal of all cells", || {
        Ok(stack.cells("steady")?.is_empty().then_some(()))
    })?;
    let well = call(&mut stack.client()?, "hostile", "well", &json!({}))?;
    ensure!(well["result"] == "well", "{well}");
    Ok(())
}

fn jobs_wait_while_socket_proxy_is_away(stack: &Stack) -> anyhow::Result<()> {
    // Given a stack that cannot reach Docker, when a job comes
    stack.docker(&["stop", &stack.service("socket-proxy")?])?;
    let mut client = stack.client()?;
    let answer = client.post("/plugin/echo/poll", &json!({}))?;
    ensure!(answer.status == 202, "{}", answer.text);
    let path = format!(
        "/job/{}",
        answer.json["job_id"].as_str().context("no job id")?
    );
    // Then it waits and says for what, and the stack says so too,
    stack.until(Duration::from_secs(40), "the reason for waiting", || {
        let job = client.get(&path)?.json;
        ensure!(
            job["status"] == "queued" || job["status"] == "running",
            "{job}"
        );
        Ok(job["waiting_for"].is_string().then_some(()))
    })?;
    let health = client.get("/healthz")?;
    ensure!(
        health.status == 503 && !health.json["troubles"].as_array().is_none_or(Vec::is_empty),
        "{}",
        health.text
    );
    // and it runs when Docker is back.
    stack.docker(&["start", &stack.service("socket-proxy")?])?;
    stack.wait_ready()?;
    let job = client.get(&format!("{path}?wait=60s"))?;
    ensure!(job.json["status"] == "succeeded", "{}", job.text);
    Ok(())
}

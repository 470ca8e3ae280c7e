//! The engine goes away under the running stack and comes back: with the containers left running (`live-restore`), and without.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::fixture::{call, queued};
use stack_tests::suite::Test;

use crate::away::{Away, Inside};
use crate::settings::Setting;

pub const TESTS: &[(&str, Test)] = &[
    (
        "the_stack_outlives_its_engine",
        the_stack_outlives_its_engine,
    ),
    (
        "the_stack_comes_back_with_its_engine",
        the_stack_comes_back_with_its_engine,
    ),
];

const LIMIT: Duration = Duration::from_mins(2);

/// A call that is under way in a cell.
fn working(stack: &Stack) -> anyhow::Result<String> {
    let id = queued(stack, "walls_again", "keep", &json!({"seconds": 20}))?;
    stack.until(LIMIT, "the start of a cell", || {
        let cell = stack.cells("walls_again")?.pop();
        let cell = cell.map(|id| stack.inspect(&id)).transpose()?;
        Ok(cell.filter(|cell| cell["State"]["Running"] == true))
    })?;
    Ok(id)
}

/// Waits for a job's success.
fn done(stack: &Stack, id: &str) -> anyhow::Result<()> {
    let job = stack.until(LIMIT, "the job's end", || {
        let job = stack.client()?.get(&format!("/job/{id}?wait=20s"))?.json;
        let open = job["status"] == "queued" || job["status"] == "running";
        Ok((!open).then_some(job))
    })?;
    ensure!(job["status"] == "succeeded", "{job}");
    Ok(())
}

/// Nothing is left of the time before, nothing is held against a plugin, and the next call is as good as any.
fn well(stack: &Stack) -> anyhow::Result<()> {
    stack.wait_ready()?;
    let next = call(&mut stack.client()?, "walls", "version", &json!({}))?;
    ensure!(next["result"] == "\"sealed\"", "{next}");
    for plugin in ["walls", "walls_again"] {
        stack.wait_no_cells(plugin)?;
    }
    let own = format!("bailey.stack={}", stack.name());
    stack.until(LIMIT, "the end of what had stopped", || {
        for id in stack.containers(&[&own])? {
            // One that was removed since it was listed is no longer there.
            let Ok(container) = stack.inspect(&id) else {
                return Ok(None);
            };
            if container["State"]["Running"] != true {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    let status = stack.bailey_ok(&["status"])?;
    ensure!(!status.contains("quarantined"), "{status}");
    Ok(())
}

/// How often the runner's log says that Docker is away.
fn alerts(stack: &Stack) -> anyhow::Result<usize> {
    let output = stack
        .command("docker")
        .args(["logs", &stack.service("runner")?])
        .output()?;
    let log = [output.stdout, output.stderr].concat();
    let log = String::from_utf8_lossy(&log);
    Ok(log.matches("Docker cannot be used").count())
}

/// When each service was started.
fn lives(stack: &Stack) -> anyhow::Result<Vec<(String, Value)>> {
    let project = format!("com.docker.compose.project={}", stack.project());
    let life = |id: String| {
        let container = stack.inspect(&id)?;
        let service = &container["Config"]["Labels"]["com.docker.compose.service"];
        let service = service.as_str().context("no service")?.to_owned();
        anyhow::Ok((service, container["State"]["StartedAt"].clone()))
    };
    let ids = stack.containers(&[&project])?;
    let mut lives: Vec<_> = ids.into_iter().map(life).collect::<Result<_, _>>()?;
    // It holds the engine's socket, which is another one after a restart.
    lives.retain(|(service, _)| service != "socket-proxy");
    lives.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(lives)
}

fn the_stack_outlives_its_engine(stack: &Stack) -> anyhow::Result<()> {
    // Given an engine that leaves containers running, a call at work and a cell that stands ready,
    let _setting = Setting::new("live-restore", json!(true), json!(false))?;
    stack.until(LIMIT, "the engine's new setting", || {
        let shown = stack.docker(&["info", "--format", "{{.LiveRestoreEnabled}}"])?;
        Ok((shown.trim() == "true").then_some(()))
    })?;
    call(&mut stack.client()?, "walls_warm", "version", &json!({}))?;
    let ready = stack.until(LIMIT, "a cell that stands ready", || {
        Ok(stack.cells_ready("walls_warm")?.pop())
    })?;
    let working = working(stack)?;
    let inside = Inside::new(stack)?;
    let (alerts_before, lives_before) = (alerts(stack)?, lives(stack)?);
    // when the engine goes away, then the stack says so, and jobs that come wait;
    let away = Away::new(stack)?;
    let path = "/plugin/walls/version";
    let answer = inside.ask(path, Some(&json!({"payload": {}})))?;
    let waiting = answer["job_id"].as_str().context("no job")?.to_owned();
    stack.until(LIMIT, "the word of an engine that is away", || {
        let health = inside.ask("/healthz", None)?;
        Ok(health["troubles"]
            .to_string()
            .contains("ocker")
            .then_some(()))
    })?;
    stack.until(LIMIT, "the reason for waiting", || {
        let job = inside.ask(&format!("/job/{waiting}"), None)?;
        ensure!(
            job["status"] == "queued" || job["status"] == "running",
            "{job}"
        );
        Ok(job["waiting_for"].is_string().then_some(()))
    })?;
    // and when it is back, both calls are done, by services that were never restarted, and there was one alert.
    away.end()?;
    stack.wait_ready()?;
    done(stack, &waiting)?;
    done(stack, &working)?;
    well(stack)?;
    ensure!(
        lives(stack)? == lives_before,
        "a service was restarted: {:?}, {lives_before:?}",
        lives(stack)?
    );
    let alerted = alerts(stack)? - alerts_before;
    ensure!(alerted == 1, "{alerted} alerts");
    // The cell that stood ready serves, or has gone.
    let served = call(&mut stack.client()?, "walls_warm", "version", &json!({}))?;
    ensure!(served["status"] == "succeeded", "{served}");
    stack.until(LIMIT, "the end of the cell that stood ready", || {
        Ok((!stack.cells("walls_warm")?.contains(&ready)).then_some(()))
    })
}

fn the_stack_comes_back_with_its_engine(stack: &Stack) -> anyhow::Result<()> {
    // Given a call at work, one that waits behind it, and a container for each of two rules of restarting,
    let names = ["on-failure:5", "unless-stopped"].map(|rule| {
        let name = rule.split(':').next().unwrap_or(rule);
        (format!("{}-{name}", stack.project()), rule)
    });
    for (name, rule) in &names {
        let mut args = vec!["run", "--detach", "--pull", "never", "--network", "none"];
        args.extend(["--name", name, "--restart", rule]);
        args.extend(["--entrypoint", "/bin/bash", "bailey/base-tools:current"]);
        // As every service does: it ends well when it is told to.
        args.extend(["-c", "trap 'exit 0' TERM; sleep 600 & wait"]);
        stack.docker(&args)?;
    }
    let working = working(stack)?;
    let waiting = queued(stack, "walls_again", "keep", &json!({"seconds": 1}))?;
    // when the engine stops, all containers with it, and is started again,
    Away::new(stack)?.end()?;
    let running = |name: &str| anyhow::Ok(stack.inspect(name)?["State"]["Running"] == true);
    let kept = names.iter().map(|(name, _)| running(name));
    let kept = kept.collect::<Result<Vec<_>, _>>()?;
    for (name, _) in &names {
        stack.docker(&["rm", "--force", name])?;
    }
    // then the stack is there again by itself, and both calls are done.
    stack.wait_ready()?;
    done(stack, &working)?;
    done(stack, &waiting)?;
    well(stack)?;
    // That is why services are `unless-stopped`, which the CIS benchmark (5.14) would have otherwise: who ended well is no failure.
    ensure!(
        kept == [false, true],
        "on-failure, unless-stopped: {kept:?}"
    );
    Ok(())
}

//! Plugins that run all the time: started by the lock, started again whatever ends them, behind the walls of any cell.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;
use stack_tests::{Stack, checkout};

pub const TESTS: &[(&str, Test)] = &[
    (
        "the_files_of_the_how_to_are_those_that_run_here",
        the_files_of_the_how_to_are_those_that_run_here,
    ),
    (
        "a_service_runs_and_its_events_start_a_pipeline",
        a_service_runs_and_its_events_start_a_pipeline,
    ),
    (
        "a_service_has_the_walls_of_any_cell",
        a_service_has_the_walls_of_any_cell,
    ),
    (
        "calls_go_on_beside_services_and_nobody_calls_serve",
        calls_go_on_beside_services_and_nobody_calls_serve,
    ),
    (
        "a_killed_service_is_started_again_and_goes_on",
        a_killed_service_is_started_again_and_goes_on,
    ),
    (
        "a_service_is_restarted_on_demand",
        a_service_is_restarted_on_demand,
    ),
    (
        "a_lock_that_changes_nothing_of_it_leaves_a_service_alone",
        a_lock_that_changes_nothing_of_it_leaves_a_service_alone,
    ),
    (
        "a_silent_service_is_started_again",
        a_silent_service_is_started_again,
    ),
    (
        "a_service_that_keeps_crashing_is_quarantined_until_it_is_cleared",
        a_service_that_keeps_crashing_is_quarantined_until_it_is_cleared,
    ),
    (
        "a_service_that_tells_its_secret_is_told_of_while_it_runs",
        a_service_that_tells_its_secret_is_told_of_while_it_runs,
    ),
    (
        "a_lock_without_services_ends_them",
        a_lock_without_services_ends_them,
    ),
];

const FILE: &str = "config/services.yaml";
const MINUTE: Duration = Duration::from_mins(1);

const TICKER: &str = "plugins:
  ticker:
    enabled: true
    config: {every_seconds: 1}
pipelines:
  - name: ticks
    on: ticker.tick
    from_plugin: ticker
    steps:
      - {id: echo, uses: echo}
";

/// The same with services that are not well, made of a plugin whose manifest knows of no service.
const MOODY: &str = "plugins:
  ticker:
    enabled: true
    config: {every_seconds: 1}
  silent:
    uses: moody
    config: {mood: silent}
    container: {mode: service, heartbeat: 5s}
  crashing:
    uses: moody
    config: {mood: crashes}
    container: {mode: service}
  telling:
    uses: moody
    config: {mood: tells}
    container: {mode: service}
pipelines:
  - name: ticks
    on: ticker.tick
    from_plugin: ticker
    steps:
      - {id: echo, uses: echo}
";

const MOODY_SECRET: &str = "moody-6f0c2a9e41d7";

fn the_files_of_the_how_to_are_those_that_run_here(_: &Stack) -> anyhow::Result<()> {
    let how_to = fs::read_to_string(checkout().join("docs/how-to/service.md"))?;
    for file in ["manifest.yaml", "run.py"] {
        let path = checkout().join("tests/fixtures/plugins/ticker").join(file);
        let text = fs::read_to_string(path)?;
        ensure!(
            how_to.contains(&text),
            "{file} is not in the how-to as it is"
        );
    }
    let pipeline = TICKER.split_once("pipelines:\n").context("no pipeline")?.1;
    ensure!(
        how_to.contains(pipeline),
        "the pipeline is not in the how-to"
    );
    Ok(())
}

/// Locks the configuration with `services` in a file of its own.
fn lock(stack: &Stack, services: &str) -> anyhow::Result<()> {
    let path = stack.home.join("config/config.yaml");
    let config = fs::read_to_string(&path)?;
    if !config.contains("services.yaml") {
        let include = "include:\n  - services.yaml\n";
        fs::write(&path, config.replacen("include:\n", include, 1))?;
    }
    fs::write(stack.home.join(FILE), services)?;
    fixture::lock(stack)
}

/// How the service of a plugin is.
fn service(stack: &Stack, plugin: &str) -> anyhow::Result<Value> {
    let answer = stack.client()?.get(&format!("/plugin/{plugin}"))?;
    ensure!(answer.status == 200, "{plugin}: {}", answer.text);
    Ok(answer.json["service"].clone())
}

/// The running service, once it is as `wanted` says.
fn running(stack: &Stack, plugin: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let what = format!("the running of {plugin}");
    let found = stack.until(MINUTE, &what, || {
        let service = service(stack, plugin)?;
        let is_so = service["state"] == "running" && wanted(&service);
        Ok(is_so.then_some(service))
    });
    found.with_context(|| format!("{plugin} is {:?}", service(stack, plugin)))
}

/// Cells of a plugin that have a job. After an ordinary call one may stand ready beside them.
fn serving(stack: &Stack, plugin: &str) -> anyhow::Result<Vec<String>> {
    let ready = stack.cells_ready(plugin)?;
    let mut cells = stack.cells(plugin)?;
    cells.retain(|cell| !ready.contains(cell));
    Ok(cells)
}

/// The one cell of a plugin that serves.
fn cell(stack: &Stack, plugin: &str) -> anyhow::Result<String> {
    let what = format!("the only cell of {plugin}");
    stack.until(MINUTE, &what, || {
        let mut cells = serving(stack, plugin)?;
        Ok(if cells.len() == 1 { cells.pop() } else { None })
    })
}

/// What the service remembers of its ticks, once there are more than `least`.
fn ticks(stack: &Stack, least: u64) -> anyhow::Result<u64> {
    let what = format!("tick {}", least + 1);
    stack.until(MINUTE, &what, || {
        let service = service(stack, "ticker")?;
        let job = service["job_id"].as_str().unwrap_or_default();
        let job = stack.client()?.get(&format!("/job/{job}"))?.json;
        let result = job["result"].as_str().unwrap_or_default();
        let tick = result.strip_prefix("tick ").and_then(|n| n.parse().ok());
        Ok(tick.filter(|tick: &u64| *tick > least))
    })
}

fn a_service_runs_and_its_events_start_a_pipeline(stack: &Stack) -> anyhow::Result<()> {
    // Given a plugin whose manifest says that it is a service, when it is locked
    fixture::add(stack, &["ticker"], "")?;
    lock(stack, TICKER)?;
    // then it runs, as one job that does not end,
    let found = running(stack, "ticker", |_| true)?;
    let id = found["job_id"].as_str().context("no job")?;
    let job = stack.client()?.get(&format!("/job/{id}"))?.json;
    ensure!(
        job["status"] == "running" && job["principal"] == "service:ticker",
        "{job}"
    );
    // and each of its events starts the pipeline: a child of it that succeeds.
    let child = stack.until(MINUTE, "the end of a job that it started", || {
        let jobs = stack.client()?.get("/jobs?plugin=echo&status=succeeded")?;
        let jobs = jobs.json["jobs"].as_array().cloned().unwrap_or_default();
        let child = |job: &Value| job["parent_job_id"].as_str() == Some(id);
        Ok(jobs.into_iter().find(child))
    })?;
    ensure!(child["pipeline"] == "ticks", "{child}");
    let first = ticks(stack, 0)?;
    ticks(stack, first)?;
    let listed = stack.bailey_ok(&["plugin", "list"])?;
    ensure!(listed.contains("service ticker: running since"), "{listed}");
    let status = stack.bailey_ok(&["status"])?;
    ensure!(status.contains("1 of 1 service of plugins run"), "{status}");
    Ok(())
}

fn a_service_has_the_walls_of_any_cell(stack: &Stack) -> anyhow::Result<()> {
    let service = stack.inspect(&cell(stack, "ticker")?)?;
    let host = &service["HostConfig"];
    ensure!(host["NetworkMode"] == "none", "{host}");
    ensure!(host["ReadonlyRootfs"] == true, "{host}");
    ensure!(host["CapDrop"] == json!(["ALL"]), "{host}");
    ensure!(host["Privileged"] == false, "{host}");
    let options = host["SecurityOpt"].to_string();
    ensure!(
        options.contains("no-new-privileges") && options.contains("seccomp="),
        "{options}"
    );
    // A call of the same plugin has the same walls, but for what names its job.
    let user = service["Config"]["User"].as_str().context("no user")?;
    ensure!(!user.is_empty() && !user.starts_with('0'), "{user}");
    let listed = stack.bailey_ok(&["plugin", "show", "ticker", "--json"])?;
    let shown: Value = serde_json::from_str(&listed)?;
    let uid = &shown["locked"]["uid"];
    ensure!(user == format!("{uid}:{uid}"), "{user}, {uid}");
    let networks = &service["NetworkSettings"]["Networks"];
    let networks = networks.as_object().context("no networks")?;
    ensure!(networks.keys().all(|name| name == "none"), "{networks:?}");
    Ok(())
}

fn calls_go_on_beside_services_and_nobody_calls_serve(stack: &Stack) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    let done = call(&mut client, "ticker", "health", &json!({}))?;
    ensure!(done["result"] == "would tick every 1 s", "{done}");
    let done = call(&mut client, "echo", "poll", &json!({}))?;
    ensure!(done["status"] == "succeeded", "{done}");
    let refused = client.post("/plugin/ticker/serve", &json!({}))?;
    ensure!(
        refused.status == 400 && refused.text.contains("is a service"),
        "{} {}",
        refused.status,
        refused.text
    );
    Ok(())
}

fn a_killed_service_is_started_again_and_goes_on(stack: &Stack) -> anyhow::Result<()> {
    let (before, old) = (ticks(stack, 0)?, cell(stack, "ticker")?);
    let restarts = service(stack, "ticker")?["restarts"].as_u64();
    stack.docker(&["kill", &old])?;
    let found = running(stack, "ticker", |now| now["restarts"].as_u64() > restarts)?;
    ensure!(
        found["detail"]
            .as_str()
            .is_some_and(|why| why.contains("exit code 137")),
        "{found}"
    );
    ensure!(cell(stack, "ticker")? != old);
    // It goes on with its state.
    ticks(stack, before)?;
    Ok(())
}

fn a_service_is_restarted_on_demand(stack: &Stack) -> anyhow::Result<()> {
    let (before, old) = (ticks(stack, 0)?, cell(stack, "ticker")?);
    stack.bailey_ok(&["plugin", "restart", "ticker"])?;
    stack.until(MINUTE, "another cell", || {
        let cells = serving(stack, "ticker")?;
        Ok((cells.len() == 1 && !cells.contains(&old)).then_some(()))
    })?;
    ticks(stack, before)?;
    let audited = stack.audited()?;
    ensure!(audited.contains("service.restart"), "nobody recorded it");
    // Its end was wished for, so it is no trouble.
    let id = service(stack, "ticker")?["job_id"].clone();
    let id = id.as_str().context("no job")?;
    let job = stack.client()?.get(&format!("/job/{id}"))?.json;
    let attempts = job["attempts"].as_array().context("no attempts")?;
    let is_said = attempts.iter().any(|one| one["outcome"] == "restart");
    ensure!(is_said, "{job}");
    let refused = stack.bailey(&["plugin", "restart", "echo"])?;
    ensure!(!refused.status.success(), "echo is no service");
    Ok(())
}

fn a_lock_that_changes_nothing_of_it_leaves_a_service_alone(stack: &Stack) -> anyhow::Result<()> {
    let (old, job) = (
        cell(stack, "ticker")?,
        service(stack, "ticker")?["job_id"].clone(),
    );
    fixture::add(stack, &["moody"], "")?;
    fixture::seal_secret(stack, "moody-secret", MOODY_SECRET, "telling")?;
    lock(stack, MOODY)?;
    running(stack, "silent", |_| true)?;
    let before = ticks(stack, 0)?;
    ticks(stack, before)?;
    ensure!(cell(stack, "ticker")? == old, "it has another cell");
    ensure!(
        service(stack, "ticker")?["job_id"] == job,
        "it has another job"
    );
    Ok(())
}

fn a_silent_service_is_started_again(stack: &Stack) -> anyhow::Result<()> {
    let found = running(stack, "silent", |now| now["restarts"].as_u64() > Some(0))?;
    ensure!(
        found["detail"]
            .as_str()
            .is_some_and(|why| why.contains("no line for 5 s")),
        "{found}"
    );
    Ok(())
}

fn a_service_that_keeps_crashing_is_quarantined_until_it_is_cleared(
    stack: &Stack,
) -> anyhow::Result<()> {
    let held = stack.until(2 * MINUTE, "the quarantine", || {
        let service = service(stack, "crashing")?;
        Ok((service["state"] == "quarantined").then_some(service))
    })?;
    ensure!(
        held["detail"]
            .as_str()
            .is_some_and(|why| why.contains("bailey plugin clear crashing")),
        "{held}"
    );
    ensure!(stack.cells("crashing")?.is_empty(), "it is kept running");
    let id = held["job_id"].as_str().context("no job")?;
    let job = stack.client()?.get(&format!("/job/{id}"))?.json;
    ensure!(job["status"] == "queued", "{job}");
    ensure!(
        job["stderr"]
            .as_str()
            .is_some_and(|text| text.contains("I am not well")),
        "{job}"
    );
    stack.bailey_ok(&["plugin", "clear", "crashing"])?;
    // Its sixth life is a good one.
    running(stack, "crashing", |_| true)?;
    stack.until(MINUTE, "its sixth life", || {
        let job = stack.client()?.get(&format!("/job/{id}"))?.json;
        Ok((job["result"] == "life 6").then_some(()))
    })
}

fn a_service_that_tells_its_secret_is_told_of_while_it_runs(stack: &Stack) -> anyhow::Result<()> {
    // Given a service that prints its secret five times a second, when it begins
    let found = running(stack, "telling", |_| true)?;
    let id = found["job_id"].as_str().context("no job")?;
    let job = || -> anyhow::Result<Value> { Ok(stack.client()?.get(&format!("/job/{id}"))?.json) };
    let before = job()?["attempt"].as_u64().context("no attempt")?;
    stack.bailey_ok(&["plugin", "restart", "telling"])?;
    let now = stack.until(MINUTE, "its next attempt", || {
        let now = job()?["attempt"].as_u64();
        Ok(now.filter(|now| *now > before))
    })?;
    // then its job says so while it runs, and says later that it was more often,
    let line = format!("in attempt {now} the plugin printed its secret moody-secret to stderr");
    let said = |times: &str| {
        let what = format!("the word that it told its secret {times}");
        stack.until(MINUTE, &what, || {
            let job = job()?;
            let logs = job["logs"].to_string();
            ensure!(!logs.contains(MOODY_SECRET), "the value is in the log");
            let is_said = logs.contains(&format!("{line} {times}"));
            Ok(is_said.then_some(job))
        })
    };
    let running = said("8 times")?;
    ensure!(running["status"] == "running", "{running}");
    // in one line,
    let logs = said("16 times")?["logs"].to_string();
    ensure!(logs.matches(&line).count() == 1, "{logs}");
    // and the audit log has the same.
    stack.until(MINUTE, "the audit log's entry", || {
        let audited = stack.audited()?;
        let is_there = |line: &str| {
            line.contains("secret.returned") && line.contains(id) && line.contains(r#""count":16"#)
        };
        Ok(audited.lines().any(is_there).then_some(()))
    })
}

fn a_lock_without_services_ends_them(stack: &Stack) -> anyhow::Result<()> {
    let id = service(stack, "ticker")?["job_id"].clone();
    let id = id.as_str().context("no job")?;
    lock(stack, "plugins: {}\n")?;
    for plugin in ["ticker", "silent", "crashing", "telling"] {
        let what = format!("the end of {plugin}");
        stack.until(MINUTE, &what, || {
            Ok(stack.cells(plugin)?.is_empty().then_some(()))
        })?;
    }
    let job = stack.client()?.get(&format!("/job/{id}?wait=30s"))?.json;
    ensure!(job["status"] == "cancelled", "{job}");
    let status = stack.bailey_ok(&["status"])?;
    ensure!(!status.contains("of plugins run"), "{status}");
    Ok(())
}

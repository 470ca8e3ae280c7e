//! What a call costs through the stack, beside the same cell driven by hand over the Docker API, in one run; what the images weigh, and what the
//! services take at rest. What counts is the ratio: machines differ, and they are noisy.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bailey_cell::{Cell, Spec, create_body};
use bailey_trust::{LockSource, TrustFile};
use bailey_types::{AttemptNumber, JobId, PluginName, Serial};
use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters as query;
use futures::StreamExt as _;
use serde_json::json;
use stack_tests::{Client, Stack, checkout};
use tokio::io::AsyncWriteExt as _;

/// Calls of each kind; they take turns, so that a slow moment of the machine hits both.
const ROUNDS: usize = 20;

/// Request of the raw cycle: what the engine would send, without what it adds.
const REQUEST: &[u8] =
    br#"{"protocol":2,"job_id":"0","command":"health","config":{},"state":{},"context":{}}
"#;

fn main() -> anyhow::Result<()> {
    let home = checkout().join("target/bench");
    let stack = Stack::new(&home, "bench", 18444);
    std::fs::create_dir_all(&home)?;
    stack.make("up")?;
    let measured = measure(&stack);
    stack.make("clean")?;
    measured
}

fn measure(stack: &Stack) -> anyhow::Result<()> {
    println!("\n## Cold calls, {ROUNDS} of each in turn\n");
    println!(
        "| plugin | through the stack p50 / p95 | raw Docker API p50 / p95 | ratio of p50 | more, p50 |"
    );
    println!("|---|---|---|---|---|");
    for plugin in ["echo", "greet"] {
        calls(stack, plugin)?;
    }
    let mut client = stack.client()?;
    let reads = sample(200, || get(&mut client, "/jobs?limit=1"))?;
    println!(
        "\nA read (`GET /jobs?limit=1`: TLS, token, engine): p50 {}, p95 {}",
        ms(at(&reads, 50)),
        ms(at(&reads, 95))
    );
    images(stack)?;
    memory(stack)
}

fn get(client: &mut Client, path: &str) -> anyhow::Result<()> {
    let answer = client.get(path)?;
    ensure!(answer.status == 200, "{path}: {}", answer.text);
    Ok(())
}

fn sample(
    rounds: usize,
    mut call: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let started = Instant::now();
        call()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Nearest rank.
fn at(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn calls(stack: &Stack, plugin: &str) -> anyhow::Result<()> {
    let mut client = stack.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let docker = Docker::connect_with_socket_defaults()?;
    let path = format!("/plugin/{plugin}/health?wait=60s");
    let mut through = || -> anyhow::Result<()> {
        let answer = client.post(&path, &json!({}))?;
        ensure!(answer.json["status"] == "succeeded", "{}", answer.text);
        Ok(())
    };
    let body = body(stack, plugin)?;
    let mut raw = || runtime.block_on(raw_cycle(&docker, body.clone()));
    // The first of each pays for caches.
    through()?;
    raw()?;
    let (mut throughs, mut raws) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        throughs.extend(sample(1, &mut through)?);
        raws.extend(sample(1, &mut raw)?);
    }
    throughs.sort();
    raws.sort();
    let ((stack50, stack95), (raw50, raw95)) = (
        (at(&throughs, 50), at(&throughs, 95)),
        (at(&raws, 50), at(&raws, 95)),
    );
    println!(
        "| {plugin} | {} / {} | {} / {} | {:.2} | {:+.1} ms |",
        ms(stack50),
        ms(stack95),
        ms(raw50),
        ms(raw95),
        stack50.as_secs_f64() / raw50.as_secs_f64(),
        (stack50.as_secs_f64() - raw50.as_secs_f64()) * 1000.0,
    );
    Ok(())
}

/// The very body that socket-proxy sends, but without labels: the reconciler of a stack must not take it for its own.
fn body(stack: &Stack, plugin: &str) -> anyhow::Result<ContainerCreateBody> {
    let trust = TrustFile::read(&stack.home.join("config/trust.json"))?;
    let path = stack.home.join("config/bailey.lock");
    let source = LockSource::new(
        &path,
        trust.signing.broker,
        trust.stack.clone(),
        Serial(0),
        |_| Ok(()),
    );
    let loaded = source.current()?;
    let name: PluginName = plugin.parse()?;
    let locked = loaded
        .lock
        .plugins
        .get(&name)
        .context("the plugin is not locked")?;
    let serial = loaded.lock.serial;
    let spec = Spec::Cell(Cell {
        stack: &trust.stack,
        serial,
        plugin: &name,
        locked,
        job: JobId::new(),
        attempt: AttemptNumber(1),
    });
    Ok(ContainerCreateBody {
        labels: Some(HashMap::new()),
        ..create_body(&spec)
    })
}

async fn raw_cycle(docker: &Docker, body: ContainerCreateBody) -> anyhow::Result<()> {
    let id = docker
        .create_container(None::<query::CreateContainerOptions>, body)
        .await?
        .id;
    let options = query::AttachContainerOptionsBuilder::new()
        .stdin(true)
        .stdout(true)
        .stderr(true)
        .stream(true)
        .build();
    let mut attached = docker.attach_container(&id, Some(options)).await?;
    docker
        .start_container(&id, None::<query::StartContainerOptions>)
        .await?;
    attached.input.write_all(REQUEST).await?;
    attached.input.shutdown().await?;
    let mut answer = Vec::new();
    while let Some(frame) = attached.output.next().await {
        answer.extend_from_slice(&frame?.into_bytes());
    }
    docker
        .wait_container(&id, None::<query::WaitContainerOptions>)
        .next()
        .await;
    docker
        .remove_container(
            &id,
            Some(
                query::RemoveContainerOptionsBuilder::new()
                    .force(true)
                    .build(),
            ),
        )
        .await?;
    ensure!(
        String::from_utf8_lossy(&answer).contains("\"ok\""),
        "the raw cell answered {:?}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

fn images(stack: &Stack) -> anyhow::Result<()> {
    println!("\n## Images\n\n| image | size |\n|---|---|");
    let project = format!("com.docker.compose.project={}", stack.project());
    for id in stack.containers(&[&project])? {
        let container = stack.inspect(&id)?;
        let image = container["Config"]["Image"].as_str().context("no image")?;
        let bytes: f64 = stack
            .docker(&["image", "inspect", "--format", "{{.Size}}", image])?
            .trim()
            .parse()?;
        println!("| {image} | {:.1} MB |", bytes / 1e6);
    }
    Ok(())
}

fn memory(stack: &Stack) -> anyhow::Result<()> {
    println!("\n## Memory at rest (resident, of our processes)\n\n| service | RSS |\n|---|---|");
    let project = format!("com.docker.compose.project={}", stack.project());
    let mut total = 0.0;
    for id in stack.containers(&[&project])? {
        let container = stack.inspect(&id)?;
        let pid = container["State"]["Pid"].as_i64().context("no pid")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let mib = rss.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0;
        total += mib;
        println!(
            "| {} | {mib:.1} MiB |",
            container["Config"]["Labels"]["com.docker.compose.service"]
                .as_str()
                .unwrap_or("?")
        );
    }
    println!("| **all** | **{total:.1} MiB** (budget 120) |");
    Ok(())
}

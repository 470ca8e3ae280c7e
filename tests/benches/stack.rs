//! What a call costs through the stack, warm, held and cold, beside the same cell driven by hand over the Docker API and beside `docker run`,
//! in one run; how many calls a second last, what the images weigh, and what services and idle cells take at rest. What counts is the ratio:
//! machines differ, and they are noisy.

#[path = "stack/phases.rs"]
mod phases;
#[path = "stack/raw.rs"]
mod raw;
#[path = "stack/ticket.rs"]
mod ticket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::{Client, Stack, checkout, fixture};

use phases::Phases;
use raw::Raw;
use ticket::Tickets;

/// Calls of each kind. They take turns with the raw ones, so that a slow moment of the machine hits all. All of them together stay below what
/// a runner of two cores keeps ready.
const WARM: usize = 30;
const HELD: usize = 15;
const COLD: usize = 6;
/// How long calls are made without a pause, and by how many callers.
const SUSTAINED: Duration = Duration::from_secs(8);
const CALLERS: usize = 4;
/// How long they are made before they count: until as much is kept ready as so many callers need.
const WARMING: Duration = Duration::from_secs(5);
/// What is waited for between two calls of one series at most.
const PATIENCE: Duration = Duration::from_secs(20);
/// A cell that was just started is still reading its program.
const SETTLED: Duration = Duration::from_millis(60);

fn main() -> anyhow::Result<()> {
    let home = checkout().join("target/bench");
    let stack = Stack::new(&home, "bench", 18445);
    // What is left of an earlier run goes first.
    if home.exists() {
        stack.make("clean")?;
    }
    std::fs::create_dir_all(&home)?;
    stack.make("up")?;
    let measured = prepare(&stack).and_then(|()| measure(&stack));
    stack.make("clean")?;
    measured
}

/// Aliases without a pool: `held` is called again and again, each of the others once, so that nothing is there before its call.
fn prepare(stack: &Stack) -> anyhow::Result<()> {
    let alias = |plugin: &str, alias: &str| {
        format!("  {plugin}_{alias}: {{uses: {plugin}, container: {{warm: 0}}}}\n")
    };
    let aliases = |plugin| {
        let cold = (0..COLD).map(move |n| alias(plugin, &format!("cold{n}")));
        cold.chain([alias(plugin, "held")])
    };
    let config: String = ["echo", "greet"].into_iter().flat_map(aliases).collect();
    let path = stack.home.join("config/plugins.yaml");
    let starter = std::fs::read_to_string(&path)?;
    if !starter.contains("echo_held") {
        // Under `plugins:`, which the starter begins with.
        let (before, after) = starter
            .split_once("plugins:\n")
            .context("the starter has no plugins")?;
        std::fs::write(&path, format!("{before}plugins:\n{config}{after}"))?;
    }
    fixture::lock(stack)
}

fn measure(stack: &Stack) -> anyhow::Result<()> {
    println!("\n## Calls, p50 / p99\n");
    println!("| plugin | what | through the stack | beside it | which is | more, p50 |");
    println!("|---|---|---|---|---|---|");
    let mut warm = Vec::new();
    for plugin in ["echo", "greet"] {
        warm.push((plugin, calls(stack, plugin)?));
    }
    println!(
        "\nWarm and held calls are made one at a time, once what they need stands ready again and nothing else goes on: the next cell is made\n\
         after a call, and would share the machine with it. What calls without a pause cost is below."
    );
    let mut tickets = Vec::new();
    for (plugin, series) in warm {
        series.phases.print(plugin)?;
        let secret = if plugin == "greet" {
            "with a secret"
        } else {
            "without a secret"
        };
        tickets.push((secret, series.tickets));
    }
    ticket::print(stack, &tickets)?;
    starts(stack)?;
    let mut client = stack.client()?;
    let reads = sample(200, || get(&mut client, "/jobs?limit=1"))?;
    println!(
        "\nA read (`GET /jobs?limit=1`: TLS, token, engine): {}",
        figures(&reads)
    );
    idle(stack)?;
    sustained(stack)?;
    images(stack)?;
    memory(stack)
}

fn get(client: &mut Client, path: &str) -> anyhow::Result<()> {
    let answer = client.get(path)?;
    ensure!(answer.status == 200, "{path}: {}", answer.text);
    Ok(())
}

fn call(client: &mut Client, plugin: &str) -> anyhow::Result<Value> {
    let path = format!("/plugin/{plugin}/health?wait=60s");
    let answer = client.post(&path, &json!({}))?;
    ensure!(answer.json["status"] == "succeeded", "{}", answer.text);
    Ok(answer.json)
}

fn sample<T>(
    rounds: usize,
    mut call: impl FnMut() -> anyhow::Result<T>,
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
fn at(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn figures(times: &[Duration]) -> String {
    format!("{} / {}", ms(at(times, 50)), ms(at(times, 99)))
}

fn row(plugin: &str, what: &str, stack: &[Duration], (name, beside): (&str, &[Duration])) {
    let more = at(stack, 50).as_secs_f64() - at(beside, 50).as_secs_f64();
    println!(
        "| {plugin} | {what} | {} | {} | {name} | {:+.2} ms |",
        figures(stack),
        figures(beside),
        more * 1000.0,
    );
}

/// What warm calls tell of themselves.
#[derive(Default)]
struct Series {
    phases: Phases,
    tickets: Tickets,
}

fn calls(stack: &Stack, plugin: &str) -> anyhow::Result<Series> {
    let mut series = Series::default();
    let mut client = stack.client()?;
    let raw = Raw::new(stack, plugin)?;
    // The first of each pays for caches.
    call(&mut client, plugin)?;
    raw.cycle(None)?;
    let (mut warm, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..WARM {
        until_kept(stack, "cell", plugin)?;
        let begun = SystemTime::now();
        warm.extend(sample(1, || {
            let job = call(&mut client, plugin)?;
            series.phases.add(begun, SystemTime::now(), &job)?;
            series.tickets.add(&job)
        })?);
        bare.push(raw.bare()?);
    }
    row(
        plugin,
        "warm",
        &warm,
        ("a started and attached container", &bare),
    );

    let alias = format!("{plugin}_held");
    call(&mut client, &alias)?;
    let holder = raw.holder()?;
    let (mut held, mut joined) = (Vec::new(), Vec::new());
    for _ in 0..HELD {
        until_kept(stack, "holder", &alias)?;
        held.extend(sample(1, || call(&mut client, &alias))?);
        joined.extend(sample(1, || raw.cycle(Some(&holder)))?);
    }
    raw.remove(&holder)?;
    row(
        plugin,
        "held",
        &held,
        ("raw API in a held namespace", &joined),
    );

    let (mut cold, mut alone, mut run) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..COLD {
        let alias = format!("{plugin}_cold{n}");
        cold.extend(sample(1, || call(&mut client, &alias))?);
        // What is kept ready after it is made beside nothing that is measured.
        until_kept(stack, "holder", &alias)?;
        alone.extend(sample(1, || raw.cycle(None))?);
        run.extend(sample(1, || raw.docker_run())?);
    }
    row(plugin, "cold", &cold, ("raw API", &alone));
    row(plugin, "cold", &cold, ("`docker run`", &run));
    Ok(series)
}

/// Waits until a container of that kind waits for a call of the plugin, and no other cell of it is left.
fn until_kept(stack: &Stack, kind: &str, plugin: &str) -> anyhow::Result<()> {
    let of = |kind: &str, more: &[&str]| {
        let labels = [
            format!("bailey.stack={}", stack.name()),
            format!("bailey.kind={kind}"),
            format!("bailey.plugin={plugin}"),
        ];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        stack.containers(&[&labels[..], more].concat())
    };
    stack.until(PATIENCE, "something kept ready", || {
        let kept = match kind {
            "cell" => of("cell", &["bailey.pool"])?,
            _ => of(kind, &[])?,
        };
        // One that was just used may still be there beside the one that takes its place.
        let used = match kind {
            "cell" => kept.len() > 1,
            _ => !of("cell", &[])?.is_empty(),
        };
        if kept.is_empty() || used {
            return Ok(None);
        }
        let running = stack.inspect(kept.first().context("nothing")?);
        Ok(running
            .is_ok_and(|found| found["State"]["Running"] == true)
            .then_some(()))
    })?;
    std::thread::sleep(SETTLED);
    Ok(())
}

/// How the cells of the calls came to be, as the runner's log says: whether what was measured is what the table says.
fn starts(stack: &Stack) -> anyhow::Result<()> {
    let runner = stack.service("runner")?;
    let log = stack.docker(&["logs", &runner])?;
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let field = |name: &str| {
            let value = line.get(name).or_else(|| line["fields"].get(name));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        if let (Some(start), Some(plugin)) = (field("cell.start"), field("plugin.name")) {
            let series = if plugin.contains("_cold") {
                "cold"
            } else if plugin.contains("_held") {
                "held"
            } else {
                "warm"
            };
            *counts.entry((series, start)).or_insert(0_usize) += 1;
        }
    }
    println!("\nHow their cells came to be (series: kind of start, calls):");
    for ((series, start), calls) in counts {
        println!("- {series}: {start}, {calls}");
    }
    Ok(())
}

/// Memory of started cells that wait, and what the engine takes to keep a container.
fn idle(stack: &Stack) -> anyhow::Result<()> {
    println!("\n## Memory of what waits\n\n| container | memory |\n|---|---|");
    let ours = format!("bailey.stack={}", stack.name());
    for (kind, plugin) in [("cell", "echo"), ("cell", "greet"), ("holder", "greet")] {
        let labels = [
            format!("bailey.kind={kind}"),
            format!("bailey.plugin={plugin}"),
        ];
        let found = stack.containers(&[&ours, &labels[0], &labels[1]])?;
        let Some(id) = found.first() else {
            println!("| {kind} of {plugin} | none waits |");
            continue;
        };
        let format = "{{.MemUsage}}";
        let used = stack.docker(&["stats", "--no-stream", "--format", format, id])?;
        let used = used.split('/').next().unwrap_or_default().trim();
        println!("| {kind} of {plugin} (its cgroup) | {used} |");
    }
    let mut shims = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        // Processes come and go while they are looked at.
        let Ok(name) = std::fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if name.starts_with("containerd-shim")
            && let Ok(status) = std::fs::read_to_string(path.join("status"))
            && let Some(mib) = rss_mib(&status)
        {
            shims.push(mib);
        }
    }
    let (count, total) = (shims.len(), shims.iter().sum::<f64>());
    if let Ok(divisor) = u32::try_from(count.max(1)) {
        println!(
            "| the engine's own process for each container (of {count}) | {:.1} MiB |",
            total / f64::from(divisor)
        );
    }
    Ok(())
}

/// Calls without a pause, through the stack and by hand, each for the same time.
fn sustained(stack: &Stack) -> anyhow::Result<()> {
    println!(
        "\n## Calls a second, {CALLERS} callers for {SUSTAINED:?}, after {WARMING:?} of the same\n\n| what | calls/s |\n|---|---|"
    );
    for (what, plugin) in [
        ("echo through the stack, with a pool", "echo"),
        ("echo through the stack, in held namespaces", "echo_held"),
    ] {
        let mut clients = (0..CALLERS)
            .map(|_| stack.client())
            .collect::<anyhow::Result<Vec<_>>>()?;
        let rate = rate(&mut clients, |client| call(client, plugin))?;
        println!("| {what} | {rate:.1} |");
    }
    let raws = (0..CALLERS).map(|_| {
        let raw = Raw::new(stack, "echo")?;
        let holder = raw.holder()?;
        anyhow::Ok((raw, holder))
    });
    let mut raws = raws.collect::<anyhow::Result<Vec<_>>>()?;
    let rate = rate(&mut raws, |(raw, holder)| raw.cycle(Some(holder)))?;
    println!("| echo over the raw API, in held namespaces | {rate:.1} |");
    for (raw, holder) in raws {
        raw.remove(&holder)?;
    }
    Ok(())
}

/// How many calls a second all callers together make.
fn rate<C: Send, T>(
    callers: &mut [C],
    call: impl Fn(&mut C) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<f64> {
    together(callers, WARMING, &call)?;
    together(callers, SUSTAINED, &call)
}

/// How many calls a second all callers together make in that time.
fn together<C: Send, T>(
    callers: &mut [C],
    time: Duration,
    call: &(impl Fn(&mut C) -> anyhow::Result<T> + Sync),
) -> anyhow::Result<f64> {
    let (calls, begun) = (AtomicUsize::new(0), Instant::now());
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for caller in callers {
            let calls = &calls;
            threads.push(scope.spawn(move || {
                while begun.elapsed() < time {
                    call(caller)?;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            }));
        }
        for thread in threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))??;
        }
        anyhow::Ok(())
    })?;
    let calls = u32::try_from(calls.into_inner())?;
    Ok(f64::from(calls) / begun.elapsed().as_secs_f64())
}

fn rss_mib(status: &str) -> Option<f64> {
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = rss.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
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
        let mib = rss_mib(&status).context("no VmRSS")?;
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

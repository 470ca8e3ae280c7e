//! Where the value of a secret is, and where it is not: the memory of the stack's processes, searched as only root of the host can.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::{self, call};
use stack_tests::suite::Test;

use crate::calls::CANARY;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_secret_that_came_back_raises_an_alert",
        a_secret_that_came_back_raises_an_alert,
    ),
    (
        "no_service_but_the_broker_keeps_a_secret_in_its_memory",
        no_service_but_the_broker_keeps_a_secret_in_its_memory,
    ),
];

const LIMIT: Duration = Duration::from_secs(20);

/// Whoever never has the value of a secret, whatever it is for.
pub const WITHOUT: [&str; 7] = [
    "gateway",
    "engine",
    "policy",
    "runner",
    "scheduler",
    "audit",
    "worker",
];

/// How much of a memory is read at once, bytes.
const PIECE: usize = 1 << 20;

fn a_secret_that_came_back_raises_an_alert(stack: &Stack) -> anyhow::Result<()> {
    // When a plugin answers with its secret
    let mut client = stack.client()?;
    let told = call(&mut client, "hostile", "tells", &json!({}))?;
    let id = told["job_id"].as_str().context("no job")?;

    // Then the job says so, to clients and to the operator,
    let job = client.get(&format!("/job/{id}"))?.json;
    let logs = job["logs"].to_string();
    ensure!(
        logs.contains("its secret hostile_canary to stdout"),
        "{job}"
    );
    let shown = stack.bailey_ok(&["job", "logs", id])?;
    ensure!(
        shown.contains("its secret hostile_canary to stdout"),
        "{shown}"
    );
    // an event tells of it,
    let events = stack.events("plugin.secret_returned", "0")?;
    ensure!(
        events.contains(id) && events.contains("hostile_canary"),
        "{events}"
    );
    // and the audit log has it, by name only.
    stack.until(LIMIT, "the audit log's entry", || {
        let audited = stack.audited()?;
        ensure!(!audited.contains(CANARY), "the audit log has the value");
        let is_there = |line: &str| line.contains("secret.returned") && line.contains(id);
        Ok(audited.lines().any(is_there).then_some(()))
    })?;
    ensure!(
        !events.contains(CANARY) && !logs.contains(CANARY),
        "the value is in the log"
    );
    Ok(())
}

fn no_service_but_the_broker_keeps_a_secret_in_its_memory(stack: &Stack) -> anyhow::Result<()> {
    // Given deliveries, of which two came back and one is in a cell that still runs
    for command in ["tells", "complains"] {
        call(&mut stack.client()?, "hostile", command, &json!({}))?;
    }
    fixture::queued(stack, "hostile", "ignores_sigterm", &json!({}))?;

    // When the memory of the cell, and of those who must have the value, is searched, then it is found: so the search finds it
    stack.until(LIMIT, "the secret in the cell's memory", || {
        for cell in stack.cells("hostile")? {
            // One that is made and not started yet has no memory.
            if found(&cell, CANARY)? == Some(true) {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })?;
    ensure!(
        holds(&stack.service("broker")?, CANARY)?,
        "the broker has lost the secret"
    );

    // And in nobody else's, now and when the cell has ended
    for wait in [false, true] {
        if wait {
            stack.wait_no_cells("hostile")?;
        }
        for service in WITHOUT.into_iter().chain(["egress-proxy"]) {
            let found = holds(&stack.service(service)?, CANARY)?;
            ensure!(!found, "{service} holds the value of a secret");
        }
    }
    Ok(())
}

/// Whether a process of the container has `value` in its memory.
pub fn holds(container: &str, value: &str) -> anyhow::Result<bool> {
    // A container without processes would show nothing.
    found(container, value)?.with_context(|| format!("{container} has no process"))
}

/// Whether `value` is in the container's memory, as it is or in base64; `None` where no process of it runs.
fn found(container: &str, value: &str) -> anyhow::Result<Option<bool>> {
    let encoded = STANDARD.encode(value);
    // Its last digits depend on what follows.
    let sought = [value.as_bytes(), encoded.trim_end_matches('=').as_bytes()];
    let processes = processes(container)?;
    for process in &processes {
        if search(process, &sought).with_context(|| format!("searching process {process}"))? {
            return Ok(Some(true));
        }
    }
    Ok((!processes.is_empty()).then_some(false))
}

/// The processes of a container, by their cgroup.
fn processes(container: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        // A process may end while it is looked at.
        let Ok(group) = fs::read_to_string(entry.path().join("cgroup")) else {
            continue;
        };
        if group.contains(container) {
            found.extend(entry.file_name().into_string().ok());
        }
    }
    Ok(found)
}

fn search(process: &str, sought: &[&[u8]]) -> anyhow::Result<bool> {
    let maps = match fs::read_to_string(format!("/proc/{process}/maps")) {
        Ok(maps) => maps,
        Err(error) if has_ended(&error) => return Ok(false),
        Err(error) => return Err(error).context("reading its maps: this test needs root"),
    };
    let memory = match File::open(format!("/proc/{process}/mem")) {
        Ok(memory) => memory,
        Err(error) if has_ended(&error) => return Ok(false),
        Err(error) => return Err(error).context("this test needs root"),
    };
    let longest = sought.iter().map(|text| text.len()).max().unwrap_or(0);
    let mut piece = vec![0; PIECE];
    let mut read_bytes = 0;
    for line in maps.lines() {
        let Some((from, to)) = readable(line) else {
            continue;
        };
        let mut at = from;
        while at < to {
            let wanted = usize::try_from(to - at).map_or(PIECE, |left| left.min(PIECE));
            let read = match memory.read_at(&mut piece[..wanted], at) {
                // What the kernel keeps for itself, and what is gone by now.
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            read_bytes += read;
            let seen = &piece[..read];
            if sought
                .iter()
                .any(|text| memchr::memmem::find(seen, text).is_some())
            {
                return Ok(true);
            }
            // What is cut by the end of this piece is whole in the next.
            let step = if read > longest { read - longest } else { read };
            at += u64::try_from(step)?;
            if at + u64::try_from(longest)? >= to {
                break;
            }
        }
    }
    // One that has ended meanwhile has no maps any more.
    let is_there = || fs::read(format!("/proc/{process}/maps")).is_ok_and(|maps| !maps.is_empty());
    ensure!(
        read_bytes > 0 || !is_there(),
        "nothing of its memory can be read"
    );
    Ok(false)
}

/// Whether that is how the kernel says that there is no such process any more (proc(5), ESRCH from a process that is ending).
fn has_ended(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}

/// The range of a line of `maps`, if it can be read.
fn readable(line: &str) -> Option<(u64, u64)> {
    let (range, rest) = line.split_once(' ')?;
    let (from, to) = range.split_once('-')?;
    let is_memory =
        rest.starts_with('r') && !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]");
    let number = |text| u64::from_str_radix(text, 16).ok();
    Some((number(from)?, number(to)?)).filter(|_| is_memory)
}

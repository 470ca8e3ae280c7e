//! What a call leaves behind, what it finds of others, and whose code runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::fixture::{self, call, observed};
use stack_tests::suite::Test;
use stack_tests::{Stack, checkout};

use crate::CANARY;
use crate::control::{CELL, Control, Running, in_cell};

pub const TESTS: &[(&str, Test)] = &[
    (
        "nothing_runs_on_after_the_answer",
        nothing_runs_on_after_the_answer,
    ),
    (
        "nothing_is_left_for_the_next_call",
        nothing_is_left_for_the_next_call,
    ),
    (
        "the_secrets_of_another_call_are_not_seen",
        the_secrets_of_another_call_are_not_seen,
    ),
    (
        "code_swapped_after_the_lock_does_not_run",
        code_swapped_after_the_lock_does_not_run,
    ),
];

const LIMIT: Duration = Duration::from_secs(20);

/// Whether a process of the machine has `marker` among its arguments.
fn runs(marker: &str) -> anyhow::Result<bool> {
    for entry in fs::read_dir("/proc")? {
        // A process may end while it is looked at.
        let Ok(arguments) = fs::read(entry?.path().join("cmdline")) else {
            continue;
        };
        let mut arguments = arguments.split(|byte| *byte == 0);
        if arguments.any(|argument| argument == marker.as_bytes()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn nothing_runs_on_after_the_answer(stack: &Stack) -> anyhow::Result<()> {
    // Given a plugin that leaves a process of another session behind, when it has answered,
    let marker = format!("lingers-{}", std::process::id());
    let answered = in_cell(stack, "linger", &json!({"marker": marker}))?;
    ensure!(answered == "answered", "{answered}");
    // then that process is gone with its cell.
    stack.until(LIMIT, "the end of what lingered", || {
        Ok((!runs(&marker)? && stack.cells("walls")?.is_empty()).then_some(()))
    })?;
    // The control: a container that is not removed, where the same look finds the process.
    let marker = format!("stays-{}", std::process::id());
    let request = json!({"payload": {"marker": marker, "seconds": 60}});
    let staying = CELL.start(stack, "linger", &request)?;
    stack.until(LIMIT, "the start of what lingers", || {
        Ok(runs(&marker)?.then_some(()))
    })?;
    drop(staying);
    stack.until(LIMIT, "the end of the control", || {
        Ok((!runs(&marker)?).then_some(()))
    })
}

fn nothing_is_left_for_the_next_call(stack: &Stack) -> anyhow::Result<()> {
    let folders = ["/tmp", "/home/plugin", "/dev/shm", "/var/tmp", "/run"];
    let payload = json!({"folders": folders});
    let left = in_cell(stack, "leave", &payload)?;
    ensure!(
        ["/tmp", "/home/plugin", "/dev/shm"]
            .iter()
            .all(|folder| left[*folder] == "left"),
        "a cell's own folders: {left}"
    );
    let found = in_cell(stack, "find", &payload)?;
    ensure!(
        folders.iter().all(|folder| found[*folder] == false),
        "in the next cell: {found}"
    );
    // The control: two containers with one folder.
    let shared = tempfile::tempdir()?;
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777))?;
    let folder = format!("{}:/tmp", shared.path().display());
    let control = Control {
        more: &["--volume", &folder],
        ..CELL
    };
    control.observes(stack, "leave", &payload)?;
    let found = control.observes(stack, "find", &payload)?;
    ensure!(found["/tmp"] == true, "the control: {found}");
    Ok(())
}

fn the_secrets_of_another_call_are_not_seen(stack: &Stack) -> anyhow::Result<()> {
    // Given a sibling that looks around itself, when a call with a secret comes and goes,
    let spying = Running::start(
        stack,
        "walls_sibling",
        "spy",
        &json!({"seconds": 2, "first": true}),
    )?;
    stack.until(LIMIT, "the start of a cell", || {
        Ok(stack.cells("walls_sibling")?.pop())
    })?;
    let kept = in_cell(stack, "keep", &json!({"seconds": 1}))?;
    ensure!(kept == json!({"held": true}), "it had no secret: {kept}");
    // then the sibling saw nothing of it;
    let seen = observed(&spying.end(stack)?)?;
    ensure!(seen["seen"] == json!([]), "in a cell: {seen}");
    // and in one namespace of processes, as the same user, it finds the secret.
    let request = json!({"payload": {"seconds": 20}, "secrets": {"walls_canary": CANARY}});
    let keeping = CELL.start(stack, "keep", &request)?;
    stack.until(LIMIT, "the start of the control", || {
        let shown = stack.docker(&[
            "ps",
            "--quiet",
            "--filter",
            &format!("name={}", keeping.name()),
        ])?;
        Ok((!shown.trim().is_empty()).then_some(()))
    })?;
    let namespace = format!("container:{}", keeping.name());
    let control = Control {
        init: false,
        more: &["--pid", &namespace],
        ..CELL
    };
    let seen = control.observes(stack, "spy", &json!({"seconds": 10, "first": true}))?;
    ensure!(seen["seen"] == json!(["memory"]), "the control: {seen}");
    Ok(())
}

fn code_swapped_after_the_lock_does_not_run(stack: &Stack) -> anyhow::Result<()> {
    let file = fixture::root(stack).join("walls/around.py");
    let sealed = fs::read_to_string(checkout().join("tests/fixtures/plugins/walls/around.py"))?;
    let swapped = sealed.replace("return \"sealed\"", "return \"swapped\"");
    ensure!(swapped != sealed, "the fixture has nothing to swap");
    // Given code that was changed after it was locked, when it is called,
    fs::write(&file, &swapped)?;
    let job = call(&mut stack.client()?, "walls", "version", &json!({}));
    // then what was sealed runs, or nothing;
    let job = job.map(|job| (job["status"].clone(), job["result"].clone()));
    let changed = job?;
    ensure!(!changed.1.to_string().contains("swapped"), "{changed:?}");
    // and after it is locked again, the new code does.
    fixture::lock(stack)?;
    let relocked = in_cell(stack, "version", &json!({}));
    fs::write(&file, &sealed)?;
    fixture::lock(stack)?;
    ensure!(
        relocked.context("after the lock")? == "swapped",
        "the control"
    );
    let restored = in_cell(stack, "version", &json!({}))?;
    ensure!(restored == "sealed", "{restored}");
    Ok(())
}

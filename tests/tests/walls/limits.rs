//! Walls around what a cell may use up. A limit shows in what the cell got; the control gets more.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::control::{CELL, Control, Running, in_cell};

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_fork_bomb_ends_at_the_limit",
        a_fork_bomb_ends_at_the_limit,
    ),
    (
        "a_memory_bomb_kills_only_itself",
        a_memory_bomb_kills_only_itself,
    ),
    ("a_full_disk_is_the_cells_own", a_full_disk_is_the_cells_own),
    ("a_file_has_a_largest_size", a_file_has_a_largest_size),
    (
        "files_without_content_are_counted",
        files_without_content_are_counted,
    ),
    ("open_files_are_counted", open_files_are_counted),
    ("zombies_are_reaped", zombies_are_reaped),
];

/// As the starter's account and the defaults have it.
const PIDS: u64 = 128;
const TMP_MIB: u64 = 64;
const TMP_FILES: u64 = 65_536;
const OPEN_FILES: u64 = 4096;
const LARGE_TMP: &str = "rw,noexec,nosuid,nodev,size=400m,nr_inodes=0,mode=1777";

fn number(value: &Value) -> anyhow::Result<u64> {
    value
        .as_u64()
        .with_context(|| format!("no number: {value}"))
}

fn a_fork_bomb_ends_at_the_limit(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"count": 300});
    let cell = in_cell(stack, "forks", &payload)?;
    // The plugin and its init count too.
    ensure!(
        cell["ended"] == "EAGAIN" && number(&cell["forked"])? < PIDS,
        "in a cell: {cell}"
    );
    let control = Control {
        pids: "512",
        memory: "1g",
        ..CELL
    };
    let elsewhere = control.observes(stack, "forks", &payload)?;
    ensure!(
        elsewhere == json!({"forked": 300, "ended": "done"}),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn a_memory_bomb_kills_only_itself(stack: &Stack) -> anyhow::Result<()> {
    // Given a neighbour that works meanwhile, when a plugin touches more than its cell has,
    let neighbour = Running::start(stack, "walls_sibling", "keep", &json!({"seconds": 1}))?;
    let payload = json!({"mib": 400});
    let cell = in_cell(stack, "memory", &payload)?;
    ensure!(cell == json!({"killed_by": 9}), "in a cell: {cell}");
    // then the neighbour does not notice,
    let kept = neighbour.end(stack)?;
    ensure!(kept["status"] == "succeeded", "the neighbour: {kept}");
    // and where there is more, it is had.
    let control = Control {
        memory: "1g",
        ..CELL
    };
    let elsewhere = control.observes(stack, "memory", &payload)?;
    ensure!(elsewhere == json!({"exit": 0}), "the control: {elsewhere}");
    Ok(())
}

fn a_full_disk_is_the_cells_own(stack: &Stack) -> anyhow::Result<()> {
    for (path, most) in [
        ("/tmp", TMP_MIB),
        ("/home/plugin", TMP_MIB),
        ("/dev/shm", 16),
    ] {
        let cell = in_cell(stack, "fill", &json!({"path": path, "mib": 200}))?;
        let written = number(&cell["mib"])?;
        ensure!(
            cell["ended"] == "ENOSPC" && written <= most && written * 10 > most * 9,
            "{path} in a cell: {cell}"
        );
    }
    let control = Control {
        tmpfs: LARGE_TMP,
        memory: "1g",
        ..CELL
    };
    let elsewhere = control.observes(stack, "fill", &json!({"path": "/tmp", "mib": 200}))?;
    ensure!(
        elsewhere == json!({"mib": 200, "ended": "done"}),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn a_file_has_a_largest_size(stack: &Stack) -> anyhow::Result<()> {
    // A file with a hole takes no space of the folder: only the limit on files refuses it.
    let payload = json!({"path": "/tmp", "mib": 1000});
    let cell = in_cell(stack, "large_file", &payload)?;
    ensure!(cell == "EFBIG", "in a cell: {cell}");
    let elsewhere = CELL.observes(stack, "large_file", &payload)?;
    ensure!(elsewhere == "done", "the control: {elsewhere}");
    Ok(())
}

fn files_without_content_are_counted(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"path": "/tmp", "count": 70_000});
    let cell = in_cell(stack, "empty_files", &payload)?;
    ensure!(
        cell["ended"] == "ENOSPC" && number(&cell["made"])? < TMP_FILES,
        "in a cell: {cell}"
    );
    let control = Control {
        tmpfs: LARGE_TMP,
        memory: "1g",
        ..CELL
    };
    let elsewhere = control.observes(stack, "empty_files", &payload)?;
    ensure!(
        elsewhere == json!({"made": 70_000, "ended": "done"}),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn open_files_are_counted(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"count": 100_000});
    let cell = in_cell(stack, "open_files", &payload)?;
    ensure!(
        cell["ended"] == "EMFILE" && number(&cell["opened"])? <= OPEN_FILES,
        "in a cell: {cell}"
    );
    // As many as an engine can give that has a limit of its own.
    let control = Control {
        more: &["--ulimit", "nofile=8192:8192"],
        ..CELL
    };
    let elsewhere = control.observes(stack, "open_files", &payload)?;
    ensure!(
        number(&elsewhere["opened"])? > OPEN_FILES,
        "the control: {elsewhere}"
    );
    Ok(())
}

fn zombies_are_reaped(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"count": 50});
    let cell = in_cell(stack, "zombies", &payload)?;
    ensure!(cell == json!({"zombies": 0}), "in a cell: {cell}");
    let control = Control {
        init: false,
        ..CELL
    };
    let elsewhere = control.observes(stack, "zombies", &payload)?;
    ensure!(
        elsewhere == json!({"zombies": 50}),
        "the control: {elsewhere}"
    );
    Ok(())
}

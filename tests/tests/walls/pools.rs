//! Cells that stand ready: what they may do before there is a request, and what one call leaves to the next.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::{call, observed};
use stack_tests::suite::Test;

use crate::control::in_cell_of;

pub const TESTS: &[(&str, Test)] = &[
    (
        "a_cell_that_stands_ready_serves_one_call",
        a_cell_that_stands_ready_serves_one_call,
    ),
    (
        "output_before_the_request_ends_a_cell",
        output_before_the_request_ends_a_cell,
    ),
    ("nothing_is_left_in_a_holder", nothing_is_left_in_a_holder),
];

const LIMIT: Duration = Duration::from_secs(30);

fn a_cell_that_stands_ready_serves_one_call(stack: &Stack) -> anyhow::Result<()> {
    let folders = json!({"folders": ["/tmp", "/home/plugin", "/dev/shm"]});
    // Given a plugin that was called before, so that a cell stands ready,
    in_cell_of(stack, "walls_warm", "leave", &folders)?;
    let standing = stack.until(LIMIT, "a cell that stands ready", || {
        Ok(stack.cells_ready("walls_warm")?.pop())
    })?;
    // when it is called again, then that cell serves, finds nothing, and is gone afterwards.
    let found = in_cell_of(stack, "walls_warm", "find", &folders)?;
    ensure!(
        found == json!({"/tmp": false, "/home/plugin": false, "/dev/shm": false}),
        "{found}"
    );
    stack.until(LIMIT, "the end of the cell that served", || {
        Ok((!stack.cells("walls_warm")?.contains(&standing)).then_some(()))
    })
}

fn output_before_the_request_ends_a_cell(stack: &Stack) -> anyhow::Result<()> {
    // Given a plugin that speaks before it is asked, when it was called once and cells are made ready for it,
    let spoke = call(&mut stack.client()?, "walls_early", "version", &json!({}))?;
    ensure!(spoke["status"] != "succeeded", "{spoke}");
    // then that is on record, and none of them stands.
    stack.until(LIMIT, "the record of early output", || {
        Ok(stack.audited()?.contains("cell.early_output").then_some(()))
    })?;
    stack.until(LIMIT, "the end of cells that spoke early", || {
        Ok(stack.cells_ready("walls_early")?.is_empty().then_some(()))
    })?;
    // The control: one that waits for its request stands.
    in_cell_of(stack, "walls_warm", "version", &json!({}))?;
    stack.until(LIMIT, "a cell that stands ready", || {
        Ok(stack.cells_ready("walls_warm")?.pop())
    })?;
    Ok(())
}

fn nothing_is_left_in_a_holder(stack: &Stack) -> anyhow::Result<()> {
    // A held namespace outlives its cells: what a call bound there must be gone when the next one looks.
    let mut seen = Vec::new();
    for _ in 0..4 {
        let job = call(&mut stack.client()?, "walls", "bind", &json!({}))?;
        seen.push(observed(&job)?);
    }
    for found in &seen {
        ensure!(
            found["before"] == json!([]) && found["after"] == json!(["@walls-left"]),
            "{seen:?}"
        );
    }
    // The control: the namespace was another one's before.
    let mut namespaces: Vec<_> = seen
        .iter()
        .map(|found| found["namespace"].to_string())
        .collect();
    namespaces.sort();
    namespaces.dedup();
    ensure!(
        namespaces.len() < seen.len(),
        "no namespace was used twice: {seen:?}"
    );
    Ok(())
}

//! Files that outlive a call: whose they are, how large they get, and what they can do to a later call.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::control::{CELL, Control, in_cell, in_cell_of};

pub const TESTS: &[(&str, Test)] = &[
    (
        "state_is_its_own_plugins_only",
        state_is_its_own_plugins_only,
    ),
    (
        "a_file_of_the_state_has_a_largest_size",
        a_file_of_the_state_has_a_largest_size,
    ),
    (
        "what_is_planted_in_data_is_not_taken_up",
        what_is_planted_in_data_is_not_taken_up,
    ),
    (
        "what_is_planted_in_a_home_poisons_no_interpreter",
        what_is_planted_in_a_home_poisons_no_interpreter,
    ),
];

fn state_is_its_own_plugins_only(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"folders": ["/state"]});
    // Given a file that a plugin with state has left,
    let left = in_cell_of(stack, "walls_data", "leave", &payload)?;
    ensure!(left["/state"] == "left", "{left}");
    // then its next call finds it, nobody else's does,
    let found = in_cell_of(stack, "walls_data", "find", &payload)?;
    ensure!(found["/state"] == true, "the control: {found}");
    let found = in_cell_of(stack, "walls_data_sibling", "find", &payload)?;
    ensure!(found["/state"] == false, "a sibling with state: {found}");
    // and who has no state can write nothing there.
    let left = in_cell(stack, "leave", &payload)?;
    ensure!(
        left["/state"] == "EROFS" || left["/state"] == "ENOENT",
        "without state: {left}"
    );
    Ok(())
}

fn a_file_of_the_state_has_a_largest_size(stack: &Stack) -> anyhow::Result<()> {
    let payload = json!({"path": "/state", "mib": 2000});
    let cell = in_cell_of(stack, "walls_data", "large_file", &payload)?;
    ensure!(cell == "EFBIG", "in a cell: {cell}");
    let small = in_cell_of(
        stack,
        "walls_data",
        "large_file",
        &json!({"path": "/state", "mib": 10}),
    )?;
    ensure!(small == "done", "the control: {small}");
    Ok(())
}

/// What programs take up of what was planted where they look, in a container whose HOME that is and that has none of the settings with
/// which the base images keep interpreters away from it.
fn taken_up_without_walls(stack: &Stack) -> anyhow::Result<Value> {
    let home = tempfile::tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777))?;
    let folder = format!("{}:/home/plugin", home.path().display());
    let control = Control {
        image: "tools",
        more: &["--volume", &folder],
        ..CELL
    };
    control.observes(stack, "plant", &json!({"folder": "/home/plugin"}))?;
    let without = json!({"without": ["PYTHONNOUSERSITE", "GIT_CONFIG_GLOBAL"]});
    control.observes(stack, "ripen", &without)
}

fn what_is_planted_in_data_is_not_taken_up(stack: &Stack) -> anyhow::Result<()> {
    in_cell_of(stack, "walls_data", "plant", &json!({"folder": "/state"}))?;
    let taken = in_cell_of(stack, "walls_data", "ripen", &json!({}))?;
    let nothing = json!({"python": false, "curl": false, "git": false, "ssh": false});
    ensure!(taken == nothing, "in a cell: {taken}");
    let taken = taken_up_without_walls(stack)?;
    let everything = json!({"python": true, "curl": true, "git": true, "ssh": true});
    ensure!(taken == everything, "the control: {taken}");
    Ok(())
}

fn what_is_planted_in_a_home_poisons_no_interpreter(stack: &Stack) -> anyhow::Result<()> {
    // With `state: home` curl and ssh find their settings, as documented; python and git are kept from theirs by the base image.
    in_cell_of(
        stack,
        "walls_home",
        "plant",
        &json!({"folder": "/home/plugin"}),
    )?;
    let taken = in_cell_of(stack, "walls_home", "ripen", &json!({}))?;
    let some = json!({"python": false, "curl": true, "git": false, "ssh": true});
    ensure!(taken == some, "in a cell: {taken}");
    Ok(())
}

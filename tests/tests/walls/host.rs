//! Folders of the host that an operator gave to an account.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::json;
use stack_tests::Stack;
use stack_tests::fixture::call;
use stack_tests::suite::Test;

use crate::control::{in_cell, in_cell_of};

pub const TESTS: &[(&str, Test)] = &[
    (
        "host_folders_are_as_they_were_given",
        host_folders_are_as_they_were_given,
    ),
    (
        "a_host_folder_swapped_for_a_link_is_not_mounted",
        a_host_folder_swapped_for_a_link_is_not_mounted,
    ),
];

/// Whose they are when the tests run as root, whom no account may be.
const OPERATOR: u32 = 4242;

/// Neither in the checkout nor in /tmp: what is the stack's own, or a cell's own, is never given away.
fn folders() -> PathBuf {
    PathBuf::from("/var/tmp/bailey-walls-host")
}

/// Makes them, and answers where they are and whose.
pub fn prepare() -> anyhow::Result<(PathBuf, u32, u32)> {
    remove()?;
    let folders = folders();
    for name in ["read", "write", "secret"] {
        fs::create_dir_all(folders.join(name))?;
    }
    fs::write(folders.join("read/note"), "a note")?;
    fs::write(folders.join("secret/note"), "not for plugins")?;
    if fs::metadata(&folders)?.uid() == 0 {
        for name in ["read", "read/note", "write", "secret"] {
            chown(folders.join(name), Some(OPERATOR), Some(OPERATOR))?;
        }
    }
    let owner = fs::metadata(folders.join("write"))?;
    Ok((folders, owner.uid(), owner.gid()))
}

/// Removes what is left of them.
fn remove() -> anyhow::Result<()> {
    let folders = folders();
    if folders.exists() {
        fs::remove_dir_all(folders)?;
    }
    Ok(())
}

fn host_folders_are_as_they_were_given(stack: &Stack) -> anyhow::Result<()> {
    let folders = folders();
    let path = |name: &str| folders.join(name).display().to_string();
    let (note, fresh, secret) = (path("read/note"), path("write/fresh"), path("secret/note"));
    let reading = json!({"paths": [note, secret]});
    // What was given is read, its neighbour is not there, and nobody else has either.
    let operator = in_cell_of(stack, "walls_operator", "read", &reading)?;
    let hash = bailey_types::Sha256::of(b"a note").to_string();
    ensure!(
        operator[&note] == hash && operator[&secret] == "ENOENT",
        "{operator}"
    );
    let stranger = in_cell(stack, "read", &reading)?;
    ensure!(
        stranger[&note] == "ENOENT" && stranger[&secret] == "ENOENT",
        "{stranger}"
    );
    // It is written where that was said, as the operator, and nowhere else.
    let writing = json!({"paths": [note, fresh]});
    let operator = in_cell_of(stack, "walls_operator", "write", &writing)?;
    ensure!(
        operator[&note] == "EROFS" && operator[&fresh] == "written",
        "{operator}"
    );
    let (owner, folder) = (fs::metadata(&fresh)?, fs::metadata(folders.join("write"))?);
    ensure!(
        (owner.uid(), owner.gid()) == (folder.uid(), folder.gid()),
        "{owner:?}"
    );
    Ok(())
}

fn a_host_folder_swapped_for_a_link_is_not_mounted(stack: &Stack) -> anyhow::Result<()> {
    let folders = folders();
    let (read, away) = (folders.join("read"), folders.join("away"));
    let note = read.join("note").display().to_string();
    let payload = json!({"paths": [note]});
    // Given a folder that leads somewhere else since it was locked, when the plugin is called, then it does not see what is there;
    fs::rename(&read, &away)?;
    symlink(folders.join("secret"), &read)?;
    let swapped = call(&mut stack.client()?, "walls_operator", "read", &payload);
    // the same for another folder under the same name;
    fs::remove_file(&read)?;
    fs::create_dir(&read)?;
    let replaced = call(&mut stack.client()?, "walls_operator", "read", &payload);
    fs::remove_dir(&read)?;
    fs::rename(&away, &read)?;
    for (how, job) in [("a link", swapped?), ("another folder", replaced?)] {
        ensure!(
            job["status"] != "succeeded" && !job["last_error"].is_null(),
            "{how}: {job}"
        );
    }
    // and when it is as it was, it is read again.
    let restored = in_cell_of(stack, "walls_operator", "read", &payload);
    let restored = restored.context("the control")?;
    let hash = bailey_types::Sha256::of(b"a note").to_string();
    ensure!(restored[&note] == hash, "the control: {restored}");
    remove()
}

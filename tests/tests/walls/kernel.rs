//! Walls between a cell and the kernel.

use anyhow::ensure;
use serde_json::{Value, json};
use stack_tests::Stack;
use stack_tests::suite::Test;

use crate::control::{CELL, Control, in_cell};

pub const TESTS: &[(&str, Test)] = &[
    ("ptrace_is_refused", ptrace_is_refused),
    (
        "reading_the_memory_of_a_process_is_refused",
        reading_the_memory_of_a_process_is_refused,
    ),
    (
        "the_kernels_keyring_is_refused",
        the_kernels_keyring_is_refused,
    ),
    (
        "becoming_somebody_else_is_refused",
        becoming_somebody_else_is_refused,
    ),
    (
        "there_are_no_privileges_to_gain",
        there_are_no_privileges_to_gain,
    ),
    ("mounting_is_refused", mounting_is_refused),
    ("raw_sockets_are_refused", raw_sockets_are_refused),
    ("vsock_is_refused", vsock_is_refused),
    ("new_namespaces_are_refused", new_namespaces_are_refused),
    ("making_a_device_is_refused", making_a_device_is_refused),
    ("bpf_is_refused", bpf_is_refused),
    ("loading_a_module_is_refused", loading_a_module_is_refused),
    ("io_uring_is_refused", io_uring_is_refused),
    (
        "handling_page_faults_is_refused",
        handling_page_faults_is_refused,
    ),
    ("the_clock_is_not_moved", the_clock_is_not_moved),
    (
        "what_a_plugin_writes_does_not_run",
        what_a_plugin_writes_does_not_run,
    ),
    ("a_crash_leaves_no_core_file", a_crash_leaves_no_core_file),
];

/// Without the seccomp profile, as a user without privileges.
const UNFILTERED: Control<'_> = Control {
    filtered: false,
    ..CELL
};
/// The same as root, for calls that want a capability too.
const ROOT: Control<'_> = Control {
    user: "0:0",
    ..UNFILTERED
};

/// The seccomp profile answers EPERM; a kernel that was asked answers `done`, or that it was built without.
fn is_refused_by_the_filter(
    stack: &Stack,
    act: &str,
    control: Control<'_>,
    allowed: &[&str],
) -> anyhow::Result<()> {
    let cell = in_cell(stack, act, &json!({}))?;
    ensure!(cell == "EPERM", "in a cell: {cell}");
    let elsewhere = control.observes(stack, act, &json!({}))?;
    ensure!(
        allowed.iter().any(|answer| elsewhere == *answer),
        "the control: {elsewhere}"
    );
    Ok(())
}

/// The same for acts that observe several things.
fn are_refused(
    stack: &Stack,
    act: &str,
    cell: &Value,
    control: Control<'_>,
    elsewhere: &Value,
) -> anyhow::Result<()> {
    let found = in_cell(stack, act, &json!({}))?;
    ensure!(found == *cell, "in a cell: {found}");
    let found = control.observes(stack, act, &json!({}))?;
    ensure!(found == *elsewhere, "the control: {found}");
    Ok(())
}

fn ptrace_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        capabilities: &["SYS_PTRACE"],
        ..ROOT
    };
    is_refused_by_the_filter(stack, "ptrace", control, &["done"])
}

fn reading_the_memory_of_a_process_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        capabilities: &["SYS_PTRACE"],
        ..ROOT
    };
    is_refused_by_the_filter(stack, "process_memory", control, &["done"])
}

fn the_kernels_keyring_is_refused(stack: &Stack) -> anyhow::Result<()> {
    is_refused_by_the_filter(stack, "keyring", UNFILTERED, &["done", "ENOSYS"])
}

fn becoming_somebody_else_is_refused(stack: &Stack) -> anyhow::Result<()> {
    // Nothing of it is filtered: the capabilities are not there.
    let control = Control {
        user: "0:0",
        capabilities: &["SETUID", "SETGID"],
        ..CELL
    };
    are_refused(
        stack,
        "setuid",
        &json!({"root": "EPERM", "other": "EPERM", "group": "EPERM"}),
        control,
        &json!({"root": "done", "other": "done", "group": "done"}),
    )
}

fn there_are_no_privileges_to_gain(stack: &Stack) -> anyhow::Result<()> {
    let cell = in_cell(stack, "privileges", &json!({}))?;
    ensure!(
        cell == json!({"no_new_privileges": "1", "bounding": 0, "setuid_files": []}),
        "in a cell: {cell}"
    );
    // The control looks where there are such programs: in the machine's own /usr/bin.
    let control = Control {
        capabilities: &["CHOWN"],
        // runc sets capabilities under the filter where new privileges are allowed, and this one refuses it.
        filtered: false,
        new_privileges: true,
        more: &["--volume", "/usr/bin:/usr/local/host:ro"],
        ..CELL
    };
    let elsewhere = control.observes(stack, "privileges", &json!({}))?;
    ensure!(
        elsewhere["no_new_privileges"] == "0"
            && elsewhere["bounding"] == 1
            && elsewhere["setuid_files"]
                .as_array()
                .is_some_and(|files| !files.is_empty()),
        "the control: {elsewhere}"
    );
    Ok(())
}

fn mounting_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        capabilities: &["SYS_ADMIN"],
        ..ROOT
    };
    is_refused_by_the_filter(stack, "mount", control, &["done"])
}

fn raw_sockets_are_refused(stack: &Stack) -> anyhow::Result<()> {
    are_refused(
        stack,
        "raw_socket",
        &json!({"icmp": "EPERM", "packet": "EPERM"}),
        Control {
            capabilities: &["NET_RAW"],
            ..ROOT
        },
        &json!({"icmp": "done", "packet": "done"}),
    )
}

fn vsock_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let cell = in_cell(stack, "vsock", &json!({}))?;
    ensure!(
        cell == json!({"vsock": "EPERM", "tcp": "done"}),
        "in a cell: {cell}"
    );
    let elsewhere = UNFILTERED.observes(stack, "vsock", &json!({}))?;
    ensure!(
        elsewhere["vsock"] == "done" || elsewhere["vsock"] == "EAFNOSUPPORT",
        "the control: {elsewhere}"
    );
    Ok(())
}

fn new_namespaces_are_refused(stack: &Stack) -> anyhow::Result<()> {
    let cell = in_cell(stack, "unshare", &json!({}))?;
    let kinds = ["mount", "uts", "ipc", "user", "pid", "net"];
    ensure!(
        kinds.iter().all(|kind| cell[kind] == "EPERM") && cell["clone3"] == "ENOSYS",
        "in a cell: {cell}"
    );
    let control = Control {
        capabilities: &["SYS_ADMIN"],
        ..ROOT
    };
    let elsewhere = control.observes(stack, "unshare", &json!({}))?;
    // A user namespace the machine may refuse to everybody; clone3 was asked for nothing that makes sense.
    let kinds = ["mount", "uts", "ipc", "pid", "net"];
    ensure!(
        kinds.iter().all(|kind| elsewhere[kind] == "done") && elsewhere["clone3"] == "EINVAL",
        "the control: {elsewhere}"
    );
    Ok(())
}

fn making_a_device_is_refused(stack: &Stack) -> anyhow::Result<()> {
    are_refused(
        stack,
        "mknod",
        &json!({"device": "EPERM", "pipe": "done"}),
        Control {
            capabilities: &["MKNOD"],
            ..ROOT
        },
        &json!({"device": "done", "pipe": "done"}),
    )
}

fn bpf_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        capabilities: &["SYS_ADMIN"],
        ..ROOT
    };
    is_refused_by_the_filter(stack, "bpf", control, &["done", "ENOSYS"])
}

fn loading_a_module_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let cell = in_cell(stack, "module", &json!({}))?;
    ensure!(
        cell == json!({"init_module": "EPERM", "finit_module": "EPERM"}),
        "in a cell: {cell}"
    );
    // The control hands the kernel something that is no module, so that none is loaded: it looks at it, or has no modules.
    let control = Control {
        capabilities: &["SYS_MODULE"],
        ..ROOT
    };
    let elsewhere = control.observes(stack, "module", &json!({}))?;
    for call in ["init_module", "finit_module"] {
        let answer = elsewhere[call].as_str().unwrap_or_default();
        ensure!(
            !answer.is_empty() && answer != "EPERM" && answer != "done",
            "the control: {elsewhere}"
        );
    }
    Ok(())
}

fn io_uring_is_refused(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        capabilities: &["SYS_ADMIN"],
        ..ROOT
    };
    is_refused_by_the_filter(stack, "io_uring", control, &["done", "ENOSYS"])
}

fn handling_page_faults_is_refused(stack: &Stack) -> anyhow::Result<()> {
    is_refused_by_the_filter(stack, "fault_handler", UNFILTERED, &["done", "ENOSYS"])
}

fn the_clock_is_not_moved(stack: &Stack) -> anyhow::Result<()> {
    are_refused(
        stack,
        "clock",
        &json!({"settimeofday": "EPERM", "adjtimex": "EPERM", "moved": false}),
        Control {
            capabilities: &["SYS_TIME"],
            ..ROOT
        },
        &json!({"settimeofday": "done", "adjtimex": "done", "moved": false}),
    )
}

fn what_a_plugin_writes_does_not_run(stack: &Stack) -> anyhow::Result<()> {
    let control = Control {
        filtered: false,
        tmpfs: "rw,exec,nosuid,nodev,size=64m,mode=1777",
        more: &["--tmpfs", "/dev/shm:rw,exec,size=64m,mode=1777"],
        ..CELL
    };
    are_refused(
        stack,
        "execute",
        &json!({"/tmp": "EACCES", "/home/plugin": "EACCES", "/dev/shm": "EACCES", "memory": "EPERM"}),
        control,
        &json!({"/tmp": "ran", "/home/plugin": "ran", "/dev/shm": "ran", "memory": "done"}),
    )
}

fn a_crash_leaves_no_core_file(stack: &Stack) -> anyhow::Result<()> {
    let cell = in_cell(stack, "core", &json!({}))?;
    ensure!(
        cell == json!({"raised": "refused", "dumped": false, "files": 0}),
        "in a cell: {cell}"
    );
    let control = Control {
        more: &["--ulimit", "core=-1"],
        ..CELL
    };
    let elsewhere = control.observes(stack, "core", &json!({}))?;
    ensure!(
        elsewhere["raised"] == "done" && elsewhere["dumped"] == true,
        "the control: {elsewhere}"
    );
    Ok(())
}

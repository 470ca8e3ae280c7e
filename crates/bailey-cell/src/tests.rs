//! The walls, each by itself and all in one golden file.

use std::collections::HashMap;

use bailey_plugin::manifest::{ConfigKeys, Container};
use bailey_plugin::{Limits, Manifest};
use bailey_trust::{ProposedPlugin, StateKind};
use bailey_types::{Blake3, Sha256};
use serde_json::{Value, json};

use super::*;

fn locked() -> LockedPlugin {
    let manifest = Manifest {
        name: "greet".parse().unwrap(),
        version: "1.0.0".into(),
        description: String::new(),
        entrypoint: "run.py".into(),
        concurrency_safe: true,
        commands: Vec::new(),
        fact_outputs: Vec::new(),
        config_keys: ConfigKeys::default(),
        container: Container::default(),
    };
    let proposed = ProposedPlugin {
        manifest,
        manifest_blake3: Blake3([1; 32]),
        tree_blake3: Blake3([2; 32]),
        files: std::collections::BTreeMap::new(),
        base: None,
        tar_sha256: Sha256([3; 32]),
        image: ImageId(Sha256([4; 32])),
        entrypoint: vec!["/plugin/run.py".into()],
        source: "plugins/greet".into(),
        account: "default".parse().unwrap(),
        limits: Limits::default(),
        state: StateKind::None,
        egress: Vec::new(),
        host_paths: Vec::new(),
    };
    LockedPlugin {
        proposed,
        tree_mac: Blake3([5; 32]),
        uid: 20_000,
        holder_uid: 20_001,
    }
}

fn job() -> JobId {
    "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap()
}

fn with_cell<T>(look: impl FnOnce(&Spec<'_>) -> T) -> T {
    let (stack, plugin, locked) = ("home".parse().unwrap(), "greet".parse().unwrap(), locked());
    let (serial, attempt) = (Serial(7), AttemptNumber(2));
    look(&Spec::Cell(Cell {
        stack: &stack,
        serial,
        plugin: &plugin,
        locked: &locked,
        job: job(),
        attempt,
    }))
}

fn with_probe<T>(look: impl FnOnce(&Spec<'_>) -> T) -> T {
    let (stack, image) = ("home".parse().unwrap(), ImageId(Sha256([6; 32])));
    look(&Spec::Probe(Probe {
        stack: &stack,
        image: &image,
        job: job(),
    }))
}

fn value(spec: &Spec<'_>) -> Value {
    serde_json::to_value(create_body(spec)).unwrap()
}

/// Values that hold for every kind, by JSON pointer.
fn walls() -> Vec<(&'static str, Value)> {
    vec![
        ("/Tty", json!(false)),
        ("/Healthcheck/Test", json!(["NONE"])),
        ("/StopSignal", json!("SIGTERM")),
        ("/Volumes", json!({})),
        ("/ExposedPorts", json!({})),
        ("/WorkingDir", json!("/home/plugin")),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/CapAdd", json!([])),
        ("/HostConfig/Privileged", json!(false)),
        ("/HostConfig/SecurityOpt/0", json!("no-new-privileges")),
        ("/HostConfig/NetworkMode", json!("none")),
        ("/HostConfig/IpcMode", json!("private")),
        ("/HostConfig/PidMode", json!("")),
        ("/HostConfig/UTSMode", json!("")),
        ("/HostConfig/CgroupnsMode", json!("private")),
        ("/HostConfig/ShmSize", json!(16 << 20)),
        ("/HostConfig/Binds", json!([])),
        ("/HostConfig/Mounts", json!([])),
        ("/HostConfig/VolumesFrom", json!([])),
        ("/HostConfig/Devices", json!([])),
        ("/HostConfig/DeviceRequests", json!([])),
        ("/HostConfig/PortBindings", json!({})),
        ("/HostConfig/PublishAllPorts", json!(false)),
        ("/HostConfig/GroupAdd", json!([])),
        ("/HostConfig/Sysctls", json!({})),
        ("/HostConfig/Init", json!(true)),
        ("/HostConfig/AutoRemove", json!(false)),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        ("/HostConfig/LogConfig/Type", json!("none")),
        ("/HostConfig/OomKillDisable", json!(false)),
        (
            "/HostConfig/Ulimits/0",
            json!({ "Name": "core", "Soft": 0, "Hard": 0 }),
        ),
    ]
}

#[test]
fn every_kind_has_every_wall() {
    for body in [with_cell(value), with_probe(value)] {
        for (pointer, expected) in walls() {
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(
            body["HostConfig"]["Memory"],
            body["HostConfig"]["MemorySwap"]
        );
        let env: Vec<_> = body["Env"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap())
            .collect();
        assert!(env.contains(&"TINI_KILL_PROCESS_GROUP=1"), "{env:?}");
        assert!(env.contains(&"HOME=/home/plugin"), "{env:?}");
    }
}

#[test]
fn a_cell_runs_what_is_locked_as_who_is_locked() {
    let body = with_cell(value);
    assert_eq!(body["User"], "20000:20000");
    assert_eq!(body["Image"], format!("sha256:{}", "04".repeat(32)));
    assert_eq!(body["Entrypoint"], json!(["/plugin/run.py"]));
    assert_eq!(body["Cmd"], json!([]));
    assert_eq!(body["HostConfig"]["Memory"], 256 << 20);
    assert_eq!(body["HostConfig"]["NanoCpus"], 1_000_000_000);
    assert_eq!(body["HostConfig"]["PidsLimit"], 128);
    for key in [
        "OpenStdin",
        "StdinOnce",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
    ] {
        assert_eq!(body[key], true, "{key}");
    }
}

#[test]
fn both_places_to_write_are_bounded_and_cannot_be_executed_from() {
    let body = with_cell(value);
    let tmpfs: HashMap<String, String> =
        serde_json::from_value(body["HostConfig"]["Tmpfs"].clone()).unwrap();
    assert_eq!(tmpfs.len(), 2);
    for options in tmpfs.values() {
        for option in ["noexec", "nosuid", "nodev", "size=67108864"] {
            assert!(options.split(',').any(|o| o == option), "{options}");
        }
    }
    assert!(tmpfs["/tmp"].contains("mode=1777"));
    assert!(tmpfs["/home/plugin"].contains("mode=0700,uid=20000,gid=20000"));
}

#[test]
fn a_probe_can_be_neither_fed_nor_heard() {
    let body = with_probe(value);
    for key in [
        "OpenStdin",
        "StdinOnce",
        "AttachStdin",
        "AttachStdout",
        "AttachStderr",
    ] {
        assert_eq!(body[key], false, "{key}");
    }
    assert_eq!(body["Labels"]["bailey.kind"], "probe");
}

#[test]
fn the_same_spec_gives_the_same_body() {
    assert_eq!(with_cell(value), with_cell(value));
    assert!(serde_json::to_vec(&with_cell(value)).unwrap().len() < MAX_BODY_BYTES / 8);
}

#[test]
fn labels_say_who_it_is_and_back() {
    let stack = "home".parse().unwrap();
    let labels = with_cell(labels);
    let identity = Identity::from_labels(&stack, &labels).unwrap();
    let plugin = "greet".parse().unwrap();
    let expected = Identity::Cell {
        plugin,
        job: job(),
        attempt: AttemptNumber(2),
        serial: Serial(7),
    };
    assert_eq!(identity, expected);
    let other = "away".parse().unwrap();
    assert!(Identity::from_labels(&other, &labels).is_err());
    assert_eq!(
        Identity::from_labels(&stack, &HashMap::new()),
        Err(BadLabels::Missing("bailey.stack"))
    );
}

#[test]
fn a_name_tells_stack_kind_job_and_attempt() {
    assert_eq!(
        with_cell(name),
        "bailey-home-cell-0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b-2"
    );
    assert_eq!(
        with_probe(name),
        "bailey-home-probe-0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
    );
}

/// A change of any field shows up in review. To accept one: `UPDATE_GOLDEN=1 cargo test -p bailey-cell`.
#[test]
fn a_cell_is_as_in_the_golden_file() {
    let mut body = with_cell(value);
    let security = body["HostConfig"]["SecurityOpt"].as_array_mut().unwrap();
    let inline = security[1]
        .as_str()
        .unwrap()
        .strip_prefix("seccomp=")
        .unwrap()
        .to_owned();
    // Readable instead of one escaped line.
    security[1] = json!({ "seccomp": serde_json::from_str::<Value>(&inline).unwrap() });
    let found = serde_json::to_string_pretty(&body).unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/cell.json");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(
        golden == found,
        "the cell differs from golden/cell.json:\n{found}"
    );
}

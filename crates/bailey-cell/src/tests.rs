//! The walls, each by itself and all of each kind in golden files.

mod golden;
mod measure;
mod mounts;

use std::collections::HashMap;

use bailey_plugin::manifest::{ConfigKeys, Container};
use bailey_plugin::{Limits, Manifest};
use bailey_trust::{HostPath, Mode, ProposedPlugin, StateKind};
use bailey_types::{AttemptNumber, Blake3, JobId, Sha256};
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
        walls: bailey_trust::Walls::default(),
        reset_state: false,
    };
    LockedPlugin {
        proposed,
        tree_mac: Blake3([5; 32]),
        uid: 20_000,
        holder_uid: 20_001,
        state_generation: 0,
    }
}

fn job() -> JobId {
    "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap()
}

/// Who asks, and for what: changed by a test before the body is made.
struct Asked {
    locked: LockedPlugin,
    seat: Seat,
    untrusted: bool,
    holder: Option<String>,
}

impl Default for Asked {
    fn default() -> Self {
        Self {
            locked: locked(),
            seat: Seat::Job {
                job: job(),
                attempt: AttemptNumber(2),
            },
            untrusted: false,
            holder: None,
        }
    }
}

impl Asked {
    fn cell<T>(&self, look: impl FnOnce(&Spec<'_>) -> T) -> T {
        let (stack, plugin) = ("home".parse().unwrap(), "greet".parse().unwrap());
        look(&Spec::Cell(Cell {
            stack: &stack,
            serial: Serial(7),
            plugin: &plugin,
            locked: &self.locked,
            seat: self.seat,
            untrusted: self.untrusted,
            holder: self.holder.as_deref(),
        }))
    }

    fn holder<T>(&self, look: impl FnOnce(&Spec<'_>) -> T) -> T {
        let (stack, plugin) = ("home".parse().unwrap(), "greet".parse().unwrap());
        let image = ImageId(Sha256([7; 32]));
        look(&Spec::Holder(Holder {
            stack: &stack,
            serial: Serial(7),
            plugin: &plugin,
            locked: &self.locked,
            image: &image,
            id: job(),
        }))
    }

    fn probe<T>(&self, look: impl FnOnce(&Spec<'_>) -> T) -> T {
        let (stack, plugin) = ("home".parse().unwrap(), "greet".parse().unwrap());
        let image = ImageId(Sha256([6; 32]));
        look(&Spec::Probe(Probe {
            stack: &stack,
            image: &image,
            job: job(),
            look: Look::Paths(Entry {
                serial: Serial(7),
                plugin: &plugin,
                locked: &self.locked,
            }),
        }))
    }

    fn measure<T>(&self, pace: Pace, look: impl FnOnce(&Spec<'_>) -> T) -> T {
        let (stack, plugin) = ("home".parse().unwrap(), "greet".parse().unwrap());
        let image = ImageId(Sha256([6; 32]));
        let entry = Entry {
            serial: Serial(7),
            plugin: &plugin,
            locked: &self.locked,
        };
        look(&Spec::Probe(Probe {
            stack: &stack,
            image: &image,
            job: job(),
            look: Look::State(entry, pace),
        }))
    }

    fn change(change: impl FnOnce(&mut Self)) -> Self {
        let mut asked = Self::default();
        change(&mut asked);
        asked
    }

    fn credentialed() -> Self {
        Self::change(|asked| {
            let path = |path: &str, writable| HostPath {
                path: path.into(),
                device: 64_513,
                inode: 42,
                writable,
            };
            let proposed = &mut asked.locked.proposed;
            proposed.walls.mode = Mode::Credentialed {
                uid: 1000,
                gid: 100,
            };
            proposed.host_paths = vec![path("/home/op/notes", false), path("/srv/photos", true)];
        })
    }

    fn with_egress() -> Self {
        Self::change(|asked| {
            asked.locked.proposed.egress = vec!["example.org:443".into()];
            asked.holder = Some("ab".repeat(32));
        })
    }

    /// Everything that an account can give at once, taken away again.
    fn downgraded() -> Self {
        let mut asked = Self::credentialed();
        let proposed = &mut asked.locked.proposed;
        proposed.state = StateKind::Data;
        proposed.egress = vec!["example.org:443".into()];
        proposed.walls.untrusted = Some(Limits {
            memory_bytes: 64 << 20,
            millicpus: 250,
            pids: 16,
            tmp_bytes: 1 << 20,
        });
        asked.untrusted = true;
        asked
    }
}

fn with_cell<T>(look: impl FnOnce(&Spec<'_>) -> T) -> T {
    Asked::default().cell(look)
}

fn with_probe<T>(look: impl FnOnce(&Spec<'_>) -> T) -> T {
    let (stack, image) = ("home".parse().unwrap(), ImageId(Sha256([6; 32])));
    look(&Spec::Probe(Probe {
        stack: &stack,
        image: &image,
        job: job(),
        look: Look::Walls,
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
    for body in [
        with_cell(value),
        with_probe(value),
        Asked::downgraded().cell(value),
    ] {
        assert_eq!(body["HostConfig"]["Mounts"], json!([]));
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
fn labels_and_name_say_who_it_is_and_back() {
    let stack = "home".parse().unwrap();
    let pooled = Asked::change(|asked| asked.seat = Seat::Pool { id: job() });
    let held = Asked::change(|asked| asked.holder = Some("ab".repeat(32)));
    let spec = |spec: &Spec<'_>| (labels(spec), name(spec), Identity::from(spec));
    let id = "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    for ((labels, name, identity), expected) in [
        (with_cell(spec), format!("bailey-home-cell-{id}-2")),
        (pooled.cell(spec), format!("bailey-home-cell-pool-{id}")),
        (held.cell(spec), format!("bailey-home-cell-{id}-2")),
        (
            Asked::downgraded().cell(spec),
            format!("bailey-home-cell-{id}-2"),
        ),
        (held.holder(spec), format!("bailey-home-holder-{id}")),
        (with_probe(spec), format!("bailey-home-probe-{id}")),
        (held.probe(spec), format!("bailey-home-probe-{id}")),
        (
            held.measure(Pace::Once, spec),
            format!("bailey-home-probe-{id}"),
        ),
        (
            held.measure(Pace::Watching, spec),
            format!("bailey-home-probe-{id}"),
        ),
    ] {
        assert_eq!(name, expected);
        assert_eq!(Identity::from_labels(&stack, &labels).unwrap(), identity);
        assert_eq!(identity.name(&stack), name);
        assert_eq!(labels["bailey.kind"], identity.kind().as_str());
    }
}

#[test]
fn labels_that_say_two_things_say_nothing() {
    let stack = "home".parse().unwrap();
    let labels = with_cell(labels);
    let read = |name: &str, value: &str| {
        let mut labels = labels.clone();
        labels.insert(name.to_owned(), value.to_owned());
        Identity::from_labels(&stack, &labels)
    };
    assert!(read("bailey.plugin", "other").is_ok());
    for (name, value) in [
        ("bailey.pool", "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"),
        ("bailey.account", "default"),
        ("bailey.holder", "ab"),
        ("bailey.holder", "bailey-home-holder-1"),
        ("bailey.kind", "service"),
        ("bailey.stack", "away"),
    ] {
        assert!(read(name, value).is_err(), "{name}={value}");
    }
    assert_eq!(
        Identity::from_labels(&stack, &HashMap::new()),
        Err(BadLabels::Missing("bailey.stack"))
    );
}

#[test]
fn untrusted_code_gets_nothing_that_the_account_gives() {
    let (given, taken) = (
        Asked {
            untrusted: false,
            ..Asked::downgraded()
        }
        .cell(value),
        Asked::downgraded().cell(value),
    );
    assert_eq!(given["User"], "1000:100");
    assert_eq!(taken["User"], "20000:20000");
    assert_eq!(given["HostConfig"]["Mounts"].as_array().unwrap().len(), 3);
    assert_eq!(taken["HostConfig"]["Mounts"], json!([]));
    assert_eq!(taken["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(taken["Labels"]["bailey.account"], "untrusted");
    let proxied = |body: &Value| body["Env"].to_string().contains("proxy");
    assert!(proxied(&given) && !proxied(&taken));
    // Nor what `service.unconfined` gives.
    let mut unconfined = Asked::downgraded();
    unconfined.locked.proposed.walls.mode = Mode::Unconfined;
    let body = unconfined.cell(value);
    assert_eq!(body["HostConfig"]["CapDrop"], json!(["ALL"]));
    assert_eq!(body["User"], "20000:20000");
}

#[test]
fn a_home_of_the_host_is_home_and_working_directory_where_it_is_mounted() {
    let mut asked = Asked {
        untrusted: false,
        ..Asked::downgraded()
    };
    let home = |body: &Value| {
        let env = body["Env"].to_string();
        let tmpfs = &body["HostConfig"]["Tmpfs"];
        (
            body["WorkingDir"].as_str().unwrap().to_owned(),
            env.contains("\"HOME=/srv/in\"") && env.contains("/srv/in/.config"),
            tmpfs["/home/plugin"].is_string(),
        )
    };
    asked.locked.proposed.host_paths[0].path = "/srv/in".into();
    asked.locked.proposed.host_paths[0].writable = true;
    asked.locked.proposed.state = StateKind::Data;
    asked.locked.proposed.walls.home = Some("/srv/in".into());
    assert_eq!(home(&asked.cell(value)), ("/srv/in".into(), true, false));
    asked.locked.proposed.walls.home = Some("/srv/elsewhere".into());
    let own = ("/home/plugin".into(), false, true);
    assert_eq!(home(&asked.cell(value)), own);
    asked.locked.proposed.walls.home = Some("/srv/in".into());
    asked.untrusted = true;
    assert_eq!(home(&asked.cell(value)), own);
}

#[test]
fn a_held_cell_has_no_network_and_no_name_of_its_own() {
    let body = Asked::with_egress().cell(value);
    assert_eq!(
        body["HostConfig"]["NetworkMode"],
        format!("container:{}", "ab".repeat(32))
    );
    assert_eq!(body["Hostname"], "");
    let env = body["Env"].to_string();
    assert!(env.contains("https_proxy=http://127.0.0.1:3128"), "{env}");
    assert!(env.contains("ALL_PROXY=socks5h://127.0.0.1:1080"), "{env}");
    // Only the holder sees the socket of egress-proxy.
    assert_eq!(body["HostConfig"]["Mounts"], json!([]));
    let holder = Asked::with_egress().holder(value);
    let mounts = &holder["HostConfig"]["Mounts"];
    assert_eq!(mounts[0]["Source"], "bailey-home_egress");
    assert_eq!(mounts[0]["ReadOnly"], true);
    assert_eq!(holder["User"], "20001:20001");
    assert_eq!(holder["HostConfig"]["NetworkMode"], "none");
}

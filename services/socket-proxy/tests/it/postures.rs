//! What the account makes of a cell: state, host paths, no walls, less than nothing.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use bailey_cell::launch::Control;
use bailey_cell::probe::path_of_code;
use bailey_cell::{Entry, Look, Probe, Spec, create_body, name};
use bailey_trust::{HostPath, LockedPlugin, Mode, StateKind};
use bailey_types::JobId;
use serde_json::{Value, json};

use crate::stand::{Stand, args, engine, seat};

async fn run(stand: &Stand, request: Value) -> (String, String) {
    let mut cell = stand.cell().await;
    let envelope = stand.envelope(&stand.launch(&cell, &request.to_string()));
    let output = cell.run(&envelope).await;
    assert_eq!(output.control, Some(Control::Launched(true)));
    stand.remove(&cell.id).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.out), text(output.err))
}

fn write(path: &str) -> Value {
    json!({ "command": "write", "path": path, "text": "kept" })
}

fn read(path: &str) -> Value {
    json!({ "command": "read", "path": path })
}

#[tokio::test]
async fn state_is_the_plugins_own_on_an_image_that_knows_of_none() {
    let mut stand = Stand::start().await;
    let label = "LABEL%20bailey.image.base%3Dtrue";
    let base = stand.import_with("plain", label, &[], &["plugin"]).await;
    let sealed = stand.seal(&base, crate::stand::PLUGIN).await.unwrap();
    stand.lock_plugin(&sealed.image_id, 2);
    for (state, path) in [
        (StateKind::Data, "/state/x"),
        (StateKind::Home, "/home/plugin/x"),
    ] {
        stand.change_lock(|locked| {
            locked.proposed.state = state;
            locked.state_generation = u32::from(state == StateKind::Home);
        });
        assert_eq!(run(&stand, write(path)).await.1, "", "{path}");
        assert_eq!(run(&stand, read(path)).await.0, "kept");
    }
}

#[tokio::test]
async fn state_outlives_its_cell_until_its_generation_is_left() {
    let mut stand = Stand::start().await;
    // As if the base were one of ours, which sees to the folders.
    let base = Some(stand.image());
    for (state, path) in [
        (StateKind::Data, "/state/x"),
        (StateKind::Home, "/home/plugin/y"),
    ] {
        stand.change_lock(|locked| {
            locked.proposed.state = state;
            locked.proposed.base = base;
        });
        assert_eq!(run(&stand, write(path)).await.1, "");
        assert_eq!(run(&stand, read(path)).await.0, "kept");
        // Without state the place is the cell's own, or none.
        stand.change_lock(|_| ());
        assert_ne!(run(&stand, read(path)).await.1, "");
    }
    stand.change_lock(|locked| {
        locked.proposed.state = StateKind::Data;
        locked.state_generation = 1;
    });
    assert_ne!(run(&stand, read("/state/x")).await.1, "");
    assert_eq!(run(&stand, write("/state/x")).await.1, "");
}

/// A folder that a plugin of uid 1234 reads and one that it writes, beside one that nobody gave it.
fn credentialed(dir: &Path) -> impl Fn(&mut LockedPlugin) {
    let locked = |name: &str, writable| {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        chown(&path, Some(1234), Some(1234)).unwrap();
        std::fs::write(path.join("note"), name).unwrap();
        let found = std::fs::metadata(&path).unwrap();
        HostPath {
            path,
            device: found.dev(),
            inode: found.ino(),
            writable,
        }
    };
    let paths = [locked("read", false), locked("write", true)];
    std::fs::create_dir_all(dir.join("other")).unwrap();
    move |plugin| {
        plugin.proposed.walls.mode = Mode::Credentialed {
            uid: 1234,
            gid: 1234,
        };
        plugin.proposed.host_paths = paths.to_vec();
    }
}

#[tokio::test]
async fn a_credentialed_cell_has_the_listed_paths_as_the_operator_and_no_others() {
    let mut stand = Stand::start().await;
    let dir = tempfile::tempdir().unwrap();
    stand.change_lock(credentialed(dir.path()));
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();

    assert_eq!(run(&stand, read(&at("read/note"))).await.0, "read");
    assert_ne!(run(&stand, write(&at("read/new"))).await.1, "");
    assert_eq!(run(&stand, write(&at("write/new"))).await.1, "");
    let written = std::fs::metadata(dir.path().join("write/new")).unwrap();
    assert_eq!((written.uid(), written.gid()), (1234, 1234));
    assert_ne!(run(&stand, read(&at("other"))).await.1, "");
}

#[tokio::test]
async fn a_probe_tells_which_path_is_not_the_locked_one() {
    let mut stand = Stand::start().await;
    let dir = tempfile::tempdir().unwrap();
    stand.change_lock(credentialed(dir.path()));
    let binary = Path::new(env!("CARGO_BIN_EXE_socket-proxy"));
    let reference = stand
        .import_base("probe", &[("socket-proxy", binary)])
        .await;
    let image = socket_proxy::seal::inspect(&engine(), &reference)
        .await
        .unwrap();
    stand
        .restart_with(socket_proxy::Args {
            probe_image: Some(image),
            ..args()
        })
        .await;
    let look = async |stand: &Stand| {
        let lock = stand.lock.as_ref().unwrap();
        let (plugin, locked) = lock.plugins.iter().next().unwrap();
        let spec = Spec::Probe(Probe {
            stack: &stand.id,
            image: &image,
            job: JobId::new(),
            look: Look::Paths(Entry {
                serial: lock.serial,
                plugin,
                locked,
            }),
        });
        let id = stand.create(&name(&spec), create_body(&spec)).await;
        let id = id.unwrap();
        stand.start_container(&id).await.unwrap();
        let code = stand.exit_code(&id).await;
        stand.remove(&id).await.unwrap();
        code
    };
    assert_eq!(look(&stand).await, 0);

    // Another folder under the same name, and then a link to the right one.
    let place = dir.path().join("write");
    std::fs::rename(&place, dir.path().join("moved")).unwrap();
    std::fs::create_dir(&place).unwrap();
    assert_eq!(path_of_code(look(&stand).await), Some(1));
    std::fs::remove_dir(&place).unwrap();
    std::os::unix::fs::symlink(dir.path().join("other"), &place).unwrap();
    assert_eq!(path_of_code(look(&stand).await), Some(1));
    std::fs::remove_file(&place).unwrap();
    std::fs::rename(dir.path().join("moved"), &place).unwrap();
    assert_eq!(look(&stand).await, 0);
}

#[tokio::test]
async fn an_unconfined_cell_is_as_the_engine_makes_it_and_alone_all_the_same() {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.walls.mode = Mode::Unconfined);
    let (out, err) = run(&stand, json!({ "command": "walls" })).await;
    let seen: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {err}"));
    assert_eq!(seen["uid"], 0);
    assert_eq!(seen["root_is_writable"], true);
    assert_eq!(seen["tmp_is_executable"], true);
    assert_eq!(seen["interfaces"], 1, "no route");
}

#[tokio::test]
async fn untrusted_code_runs_with_less_and_only_under_its_own_decision() {
    let mut stand = Stand::start().await;
    let untrusted = |stand: &Stand| {
        let job = JobId::new();
        (job, stand.derived_as(seat(job), true, None))
    };
    let (_, (name, body)) = untrusted(&stand);
    let error = stand.create(&name, body).await.unwrap_err().to_string();
    assert!(error.contains("no account untrusted"), "{error}");

    stand.change_lock(|locked| {
        locked.proposed.walls.mode = Mode::Unconfined;
        locked.proposed.walls.untrusted = Some(bailey_plugin::Limits::default());
        locked.proposed.egress = vec!["example.org:443".into()];
    });
    for (account, egress, word) in [
        ("default", Vec::new(), "untrusted"),
        ("untrusted", vec!["example.org:443".to_owned()], "egress"),
    ] {
        let (job, derived) = untrusted(&stand);
        let mut cell = stand.cell_as(job, derived).await;
        let mut launch = stand.launch(&cell, r#"{"command":"walls"}"#);
        launch.decision.account = account.parse().unwrap();
        launch.decision.egress = egress;
        let output = cell.run(&stand.envelope(&launch)).await;
        let Some(Control::Refused(reason)) = output.control else {
            panic!("{output:?}")
        };
        assert!(reason.contains(word), "{reason}");
    }
    let (job, derived) = untrusted(&stand);
    let mut cell = stand.cell_as(job, derived).await;
    let mut launch = stand.launch(&cell, r#"{"command":"walls"}"#);
    launch.decision.account = "untrusted".parse().unwrap();
    let output = cell.run(&stand.envelope(&launch)).await;
    let seen: Value = serde_json::from_slice(&output.out).unwrap();
    assert_eq!(
        (&seen["uid"], &seen["root_is_writable"]),
        (&json!(20_000), &json!(false))
    );

    // Nor is a cell of the plugin's own account good for a decision about untrusted code.
    stand.change_lock(|_| ());
    let mut cell = stand.cell().await;
    let mut launch = stand.launch(&cell, r#"{"command":"walls"}"#);
    launch.decision.account = "untrusted".parse().unwrap();
    let output = cell.run(&stand.envelope(&launch)).await;
    assert!(matches!(output.control, Some(Control::Refused(_))));
}

#[tokio::test]
async fn a_runtime_that_the_engine_lacks_is_named() {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.walls.runtime = Some("nonesuch".into()));
    let (name, body) = stand.derived(JobId::new());
    let error = stand.create(&name, body).await.unwrap_err().to_string();
    assert!(
        error.contains("runtime nonesuch is not one") && error.contains("runc"),
        "{error}"
    );
    let described = stand.engine_rpc().await;
    assert!(described.runtimes.contains(&"runc".to_owned()));
    assert!(!described.version.is_empty());
    // One that it has, though under another name than the default's, is used.
    let other = described.runtimes.iter().find(|name| *name != "runc");
    if let Some(other) = other.filter(|name| name.contains("runc")) {
        stand.change_lock(|locked| locked.proposed.walls.runtime = Some(other.clone()));
        assert_eq!(run(&stand, json!({ "command": "walls" })).await.1, "");
    }
}

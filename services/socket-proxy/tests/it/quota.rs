//! How much a plugin keeps, measured by a probe in the real engine.

use std::path::Path;
use std::time::{Duration, Instant};

use bailey_cell::usage::Usage;
use bailey_cell::{Entry, Look, Pace, Probe, Spec, create_body, name, state_volume};
use bailey_trust::{Mode, StateKind, StateLimit};
use bailey_types::{ImageId, JobId};
use bollard::models::ContainerCreateBody;
use http::Method;
use serde_json::{Value, json};

use crate::stand::{PLUGIN, Stand, args, engine};

const LIMIT: StateLimit = StateLimit {
    total_bytes: 4 << 20,
    files: 30,
};

/// A plugin that may keep little, and an image of probes.
async fn stand() -> (Stand, ImageId) {
    let mut stand = Stand::start().await;
    let binary = Path::new(env!("CARGO_BIN_EXE_socket-proxy"));
    let reference = stand
        .import_base("probe", &[("socket-proxy", binary)])
        .await;
    let image = socket_proxy::seal::inspect(&engine(), &reference).await;
    let image = image.unwrap();
    let probing = socket_proxy::Args {
        probe_image: Some(image),
        ..args()
    };
    stand.restart_with(probing).await;
    keep(&mut stand, 0);
    (stand, image)
}

/// Locks the plugin with its state of that generation.
fn keep(stand: &mut Stand, generation: u32) {
    let base = Some(stand.image());
    stand.change_lock(|locked| {
        locked.proposed.state = StateKind::Data;
        locked.proposed.base = base;
        locked.proposed.walls.state_limit = LIMIT;
        locked.state_generation = generation;
    });
}

fn measure(stand: &Stand, image: ImageId, pace: Pace) -> (String, ContainerCreateBody) {
    let lock = stand.lock.as_ref().unwrap();
    let (plugin, locked) = lock.plugins.iter().next().unwrap();
    let entry = Entry {
        serial: lock.serial,
        plugin,
        locked,
    };
    let spec = Spec::Probe(Probe {
        stack: &stand.id,
        image: &image,
        job: JobId::new(),
        look: Look::State(entry, pace),
    });
    (name(&spec), create_body(&spec))
}

async fn look(stand: &Stand, image: ImageId) -> Option<Usage> {
    let (name, body) = measure(stand, image, Pace::Once);
    let id = stand.create(&name, body).await.unwrap();
    stand.start_container(&id).await.unwrap();
    let code = stand.exit_code(&id).await;
    stand.remove(&id).await.unwrap();
    Usage::from_code(code)
}

fn percent(usage: Option<Usage>) -> u8 {
    match usage {
        Some(Usage::Within(percent)) => percent.get(),
        other => panic!("{other:?}"),
    }
}

async fn run(stand: &Stand, request: Value) {
    let mut cell = stand.cell().await;
    let envelope = stand.envelope(&stand.launch(&cell, &request.to_string()));
    let output = cell.run(&envelope).await;
    assert!(output.err.is_empty(), "{output:?}");
    stand.remove(&cell.id).await.unwrap();
}

async fn has_volume(stand: &Stand) -> bool {
    let volume = state_volume(&stand.id, &PLUGIN.parse().unwrap(), 0);
    let path = format!("/volumes/{volume}");
    let found = engine().json::<Value>(Method::GET, &path, None).await;
    found.is_ok()
}

#[tokio::test]
async fn what_a_plugin_keeps_is_measured_and_what_is_too_much_is_told() {
    let (mut stand, image) = stand().await;
    run(&stand, json!({ "command": "echo" })).await;
    assert_eq!(percent(look(&stand, image).await), 2);
    run(
        &stand,
        json!({ "command": "fill", "path": "/state", "files": 2 }),
    )
    .await;
    assert!((50..60).contains(&percent(look(&stand, image).await)));
    run(
        &stand,
        json!({ "command": "fill", "path": "/state", "files": 6 }),
    )
    .await;
    let Some(Usage::Bytes(excess)) = look(&stand, image).await else {
        panic!("not too much")
    };
    let least = excess.least_bytes(LIMIT.total_bytes) >> 20;
    assert!((5..=6).contains(&least), "{least}");

    // Another state is another, and one with a folder that is closed to its own plugin is not measured.
    keep(&mut stand, 1);
    run(
        &stand,
        json!({ "command": "close", "path": "/state/closed" }),
    )
    .await;
    assert_eq!(look(&stand, image).await, Some(Usage::Unreadable));
}

#[tokio::test]
async fn a_watch_ends_when_there_is_too_much_and_lives_until_then() {
    let (stand, image) = stand().await;
    run(&stand, json!({ "command": "echo" })).await;
    let (name, body) = measure(&stand, image, Pace::Watching);
    let watch = stand.create(&name, body).await.unwrap();
    stand.start_container(&watch).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let state = stand.docker.inspect_container(&watch, None).await.unwrap();
    assert_eq!(state.state.unwrap().running, Some(true));

    let mut cell = stand.cell().await;
    let request = json!({ "command": "fill", "path": "/state" }).to_string();
    let envelope = stand.envelope(&stand.launch(&cell, &request));
    let began = Instant::now();
    let code = tokio::select! {
        code = stand.exit_code(&watch) => code,
        output = cell.run(&envelope) => panic!("it ended first: {output:?}"),
    };
    assert!(
        matches!(Usage::from_code(code), Some(Usage::Bytes(_) | Usage::Files)),
        "{code}"
    );
    assert!(began.elapsed() < Duration::from_secs(20));
    stand.remove(&watch).await.unwrap();
    stand.remove(&cell.id).await.unwrap();
}

#[tokio::test]
async fn a_state_that_nobody_has_yet_is_not_made_by_looking_at_it() {
    let (mut stand, image) = stand().await;
    let (name, body) = measure(&stand, image, Pace::Once);
    let error = stand.create(&name, body).await.unwrap_err().to_string();
    assert!(error.contains("keeps nothing yet"), "{error}");
    assert!(!has_volume(&stand).await);
    assert_eq!(stand.recorded.last("docker.refused"), None);

    // Nor is there any to be looked at of a plugin that keeps nothing, or has no walls.
    for (state, mode) in [
        (StateKind::None, Mode::Confined),
        (StateKind::Data, Mode::Unconfined),
    ] {
        stand.change_lock(|locked| {
            locked.proposed.state = state;
            locked.proposed.walls.mode = mode;
        });
        let (name, body) = measure(&stand, image, Pace::Once);
        let error = stand.create(&name, body).await.unwrap_err().to_string();
        assert!(error.contains("keeps nothing that is bounded"), "{error}");
    }
}

#[tokio::test]
async fn a_measure_is_what_the_lock_says_and_nothing_else() {
    let (stand, image) = stand().await;
    run(&stand, json!({ "command": "echo" })).await;
    let spoiled: [(&str, Value); 6] = [
        ("/HostConfig/Mounts/0/ReadOnly", json!(false)),
        ("/HostConfig/Mounts/0/Source", json!("bailey_secrets")),
        ("/HostConfig/Mounts/0/Target", json!("/")),
        ("/Entrypoint/3", json!("1099511627776")),
        ("/User", json!("0:0")),
        ("/Labels/bailey.state", json!("once")),
    ];
    for (place, value) in spoiled {
        let (name, body) = measure(&stand, image, Pace::Watching);
        let mut body = serde_json::to_value(body).unwrap();
        *body.pointer_mut(place).unwrap() = value;
        let body = serde_json::from_value(body).unwrap();
        let error = stand.create(&name, body).await.unwrap_err().to_string();
        assert!(error.contains("not what the lock says"), "{place}: {error}");
    }
    let (name, body) = measure(&stand, image, Pace::Watching);
    let id = stand.create(&name, body).await.unwrap();
    assert!(stand.attach(&id).await.is_err(), "a probe has no streams");
    stand.remove(&id).await.unwrap();
}

//! What must hold before a cell is made: the boot gate, the quarantine, the host paths, an engine whose events can be followed.

use bailey_cell::probe::path_code;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{Clear, lease_response};
use bailey_types::Serial;
use serde_json::{Value, json};

use super::world::World;

const ECHO: &str =
    "import sys\nsys.stdin.read()\nprint('{\"status\":\"ok\",\"result\":\"done\"}', end='')";

fn warm(subject: &mut Value) {
    subject["proposed"]["walls"] = json!({"warm": 1});
}

fn with_host_path(subject: &mut Value) {
    subject["proposed"]["walls"] =
        json!({"mode": {"kind": "credentialed", "uid": 1000, "gid": 1000}});
    subject["proposed"]["host_paths"] =
        json!([{"path": "/srv", "device": 1, "inode": 2, "writable": false}]);
}

#[tokio::test]
async fn a_plugin_that_crashes_in_a_loop_is_quarantined_until_somebody_clears_it() {
    let mut world = World::that("import sys\nsys.exit(3)", warm).await;
    world.ready().await;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
    let fields = world.until_audited("cell.quarantined").await;
    assert_eq!(fields["plugin"], "subject");
    let beat = world
        .session_now()
        .heartbeat_where(|beat| !beat.quarantined.is_empty())
        .await;
    assert_eq!(beat.quarantined[0].plugin, "subject");
    // It is about this plugin only: the runner takes other jobs.
    assert_eq!(beat.trouble, "");
    // Its own calls run too, in cells that are made for each.
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));

    let clear = Clear {
        plugin: "subject".into(),
        principal: "token:ops".into(),
    };
    let session = world.session_now();
    session.say(lease_response::Message::Clear(clear)).await;
    session
        .heartbeat_where(|beat| beat.quarantined.is_empty())
        .await;

    assert_eq!(
        world.until_audited("cell.released").await["by"],
        "token:ops"
    );
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
}

#[tokio::test]
async fn when_the_engines_events_end_nothing_starts_until_it_was_looked_at_again() {
    let mut world = World::with(ECHO).await;
    world.ready().await;
    world.proxy.events_cut.notify_one();
    let beat = world
        .session_now()
        .heartbeat_where(|beat| !beat.trouble.is_empty())
        .await;
    assert!(
        beat.trouble
            .starts_with("docker: following the engine's events"),
        "{beat:?}"
    );
    let session = world.session_now();
    session
        .heartbeat_where(|beat| beat.trouble.is_empty())
        .await;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
}

#[tokio::test]
async fn the_gate_stands_before_each_new_lock() {
    let mut world = World::with(ECHO).await;
    world.ready().await;
    *world.proxy.probe_code.lock().unwrap() = 21;
    world.write_lock(Serial(4));
    let beat = world
        .session_now()
        .heartbeat_where(|beat| beat.posture.starts_with("refused"))
        .await;
    assert!(beat.trouble.contains("seccomp"), "{beat:?}");
    let Outcome::NotStarted(not_started) = world.outcome().await else {
        panic!("it was started")
    };
    assert_eq!(not_started.reason, beat.trouble);
    *world.proxy.probe_code.lock().unwrap() = 0;
    world.write_lock(Serial(5));
    world
        .session_now()
        .heartbeat_where(|beat| beat.posture == "confined")
        .await;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
}

#[tokio::test]
async fn a_host_path_that_is_another_than_the_locked_one_refuses_the_job() {
    let mut world = World::that(ECHO, with_host_path).await;
    world.ready().await;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));

    *world.proxy.probe_code.lock().unwrap() = path_code(0).into();
    let Outcome::Refused(refused) = world.outcome().await else {
        panic!("it was started")
    };
    assert!(
        refused.reason.starts_with("/srv is not what it was")
            && refused.reason.contains("bailey plugin lock subject"),
        "{}",
        refused.reason
    );
    let fields = world.until_audited("cell.path_changed").await;
    assert_eq!(
        (&fields["plugin"], &fields["path"]),
        (&json!("subject"), &json!("/srv"))
    );

    // A look that says nothing lets nobody in either, but it may say more the next time.
    *world.proxy.probe_code.lock().unwrap() = 137;
    assert!(matches!(world.outcome().await, Outcome::NotStarted(_)));
    // Nothing of an earlier answer is kept.
    *world.proxy.probe_code.lock().unwrap() = 0;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
}

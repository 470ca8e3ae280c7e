//! Services: what the lock says is to last is put in once for each lock, and once in each life.

use std::collections::BTreeMap;
use std::time::Duration;

use bailey_test::TestStack;
use bailey_trust::{Asked, Lock, LockedPlugin, Origin, verify};
use bailey_types::{Clock, Serial, Sha256};
use serde_json::json;
use tonic::Status;

use crate::{Recorded, now, start, start_at};

const CONFIG: &str =
    "accounts: {default: {}}\nplugins: {watcher: {}, plain: {}, off: {enabled: false}}\n";

fn locked(name: &str, walls: &serde_json::Value) -> LockedPlugin {
    let zeros = "0".repeat(64);
    let command = json!({"name": "serve", "access": "read", "description": "", "idempotent": false, "retry_safe": false, "input_schema": null, "output_schema": null});
    let manifest = json!({
        "name": name, "version": "1", "description": "", "entrypoint": "run", "concurrency_safe": true,
        "commands": [command], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
        "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null},
    });
    let locked = json!({"proposed": {
        "manifest": manifest, "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": format!("sha256:{zeros}"),
        "entrypoint": ["/run"], "source": "test", "account": "default",
        "limits": {"memory_bytes": 1, "millicpus": 1, "pids": 1, "tmp_bytes": 1},
        "state": "none", "egress": [], "host_paths": [], "walls": walls,
    }, "tree_mac": zeros, "uid": 1, "holder_uid": 2});
    serde_json::from_value(locked).unwrap()
}

/// A lock with the service `watcher`, a plugin that is none, and one that is not enabled.
fn lock(stack: &TestStack, serial: u64) {
    let plugin = |name: &str, walls| (name.parse().unwrap(), locked(name, &walls));
    stack.write_config("config.yaml", CONFIG);
    stack.write_lock(&Lock {
        version: 1,
        stack: stack.trust().stack.clone(),
        serial: Serial(serial),
        signed_at: now(),
        config_files: BTreeMap::from([("config.yaml".to_owned(), CONFIG.to_owned())]),
        plugins: BTreeMap::from([
            plugin("watcher", json!({"service": {}})),
            plugin("plain", json!({})),
            plugin("off", json!({"service": {}})),
        ]),
        next_uid: 20_000,
    });
}

#[tokio::test]
async fn a_service_is_put_in_at_each_start_and_for_each_lock() {
    let stack = TestStack::new();
    lock(&stack, 1);
    let mut engine = Recorded::serve(&stack);
    let running = start(&stack);
    let (_, job) = engine.next().await;
    assert_eq!(
        (
            job.plugin.as_str(),
            job.command.as_str(),
            &job.payload[..],
            job.submitted_by.as_str()
        ),
        ("watcher", "serve", &b"{}"[..], "service")
    );
    let key = stack.trust().signing.scheduler;
    let origin = verify::<Origin>(&job.origin.unwrap(), &key).unwrap();
    let asked = Asked::Call {
        plugin: "watcher".parse().unwrap(),
        command: "serve".parse().unwrap(),
        payload_sha256: Sha256::of(b"{}"),
    };
    assert_eq!(origin.statement.principal, "service:watcher");
    assert_eq!(origin.statement.asked, asked);
    // Once, and neither what is no service nor what is not enabled.
    engine.silent().await;
    lock(&stack, 2);
    assert_eq!(engine.next().await.1.plugin, "watcher");
    running.stop().await;
    let running = start(&stack);
    assert_eq!(engine.next().await.1.plugin, "watcher");
    running.stop().await;
}

#[tokio::test]
async fn a_service_that_the_engine_did_not_take_is_sent_again() {
    let stack = TestStack::new();
    lock(&stack, 1);
    let mut engine = Recorded::serve(&stack);
    *engine.engine.answer.lock().unwrap() = Err(Status::unavailable("another lock"));
    let running = start(&stack);
    let (_, first) = engine.next().await;
    let (_, again) = engine.next().await;
    assert_eq!(first.origin, again.origin);
    *engine.engine.answer.lock().unwrap() = Ok(());
    // One may be under way.
    engine.next().await;
    running.stop().await;
}

#[tokio::test]
async fn a_refused_service_is_put_in_again_after_a_pause_that_grows() {
    let stack = TestStack::new();
    lock(&stack, 1);
    let mut engine = Recorded::serve(&stack);
    // An engine that has no lock yet, or an older one, says so.
    *engine.engine.answer.lock().unwrap() = Err(Status::failed_precondition("no lock"));
    let begun = now();
    let clock = Clock::fixed(begun);
    let running = start_at(&stack, clock.clone());
    let mut origins = vec![engine.next().await.1.origin];
    let mut after = Duration::ZERO;
    for pause in [1, 2, 4] {
        let pause = Duration::from_secs(pause);
        clock.set(begun.plus(after + pause / 2));
        engine.silent().await;
        after += pause;
        clock.set(begun.plus(after));
        origins.push(engine.next().await.1.origin);
    }
    *engine.engine.answer.lock().unwrap() = Ok(());
    clock.set(begun.plus(after + Duration::from_secs(8)));
    origins.push(engine.next().await.1.origin);
    origins.dedup();
    assert_eq!(origins.len(), 5);
    running.stop().await;
}

#[tokio::test]
async fn the_engine_is_told_of_each_service_once_a_minute_with_an_origin_of_its_own() {
    let stack = TestStack::new();
    lock(&stack, 1);
    let mut engine = Recorded::serve(&stack);
    let begun = now();
    let clock = Clock::fixed(begun);
    let running = start_at(&stack, clock.clone());
    let (_, first) = engine.next().await;
    clock.set(begun.plus(Duration::from_secs(59)));
    engine.silent().await;
    clock.set(begun.plus(Duration::from_mins(1)));
    let (_, again) = engine.next().await;
    assert_eq!(again.plugin, "watcher");
    assert_ne!(first.origin, again.origin);
    running.stop().await;
}

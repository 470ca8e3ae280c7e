//! What is kept ready: holders, and started cells under a grant of policy.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{ReportRequest, StartKind};
use bailey_trust::UNTRUSTED;
use bailey_types::{JobId, Serial};
use serde_json::Value;

use super::MINUTE;
use super::world::{LOOK, PATIENCE, World};

const ECHO: &str =
    "import sys\nsys.stdin.read()\nprint('{\"status\":\"ok\",\"result\":\"done\"}', end='')";

fn two_warm(subject: &mut Value) {
    subject["proposed"]["walls"] = serde_json::json!({"warm": 2});
}

fn with_egress(subject: &mut Value) {
    two_warm(subject);
    subject["proposed"]["egress"] = serde_json::json!(["example.org:443"]);
}

fn with_untrusted(subject: &mut Value) {
    two_warm(subject);
    let limits = subject["proposed"]["limits"].clone();
    subject["proposed"]["walls"]["untrusted"] = limits;
}

fn kind(report: &ReportRequest) -> StartKind {
    assert!(
        matches!(&report.outcome, Some(Outcome::Finished(finished)) if finished.exit_code == 0),
        "{report:?}"
    );
    report.timings.unwrap().start_kind()
}

async fn call(world: &mut World) -> ReportRequest {
    world.assign(JobId::new(), MINUTE).await;
    world.report().await
}

#[tokio::test]
async fn after_the_first_call_a_started_cell_waits_and_takes_the_next_one() {
    let mut world = World::that(ECHO, two_warm).await;
    world.ready().await;
    assert!(world.containers().await.is_empty());
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    let first = world.until_ready(1, 0).await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
    // One cell, one request: another one takes its place, and the holders take turns.
    let second = world.until_cells_are_ready(1).await;
    assert_ne!(first, second);
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
    world.until_cells_are_ready(1).await;
    assert_eq!(
        world.pools.asked.load(Ordering::SeqCst),
        1,
        "a grant serves for long"
    );
}

#[tokio::test]
async fn without_policys_grant_nothing_starts_ahead_and_calls_go_on() {
    let mut world = World::unstarted_that(ECHO, two_warm).await;
    world.pools.denies.store(true, Ordering::SeqCst);
    world.start();
    world.ready().await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    while world.pools.asked.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(LOOK).await;
    }
    world.until_there_are(0, 0).await;
    assert!(world.pooled().await.is_empty());
    assert_ne!(kind(&call(&mut world).await), StartKind::Warm);
}

#[tokio::test]
async fn a_plugin_without_a_pool_joins_a_holder_that_is_ready() {
    let mut world = World::with(ECHO).await;
    world.ready().await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    world.until_ready(0, 1).await;
    let held = world.holders().await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Held);
    world.until_ready(0, 1).await;
    assert_eq!(world.holders().await, held, "it serves the next cell too");
    assert_eq!(kind(&call(&mut world).await), StartKind::Held);
    assert_eq!(world.pools.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_plugin_with_egress_gets_a_holder_of_its_own_each_time() {
    let mut world = World::that(ECHO, with_egress).await;
    world.ready().await;
    for _ in 0..2 {
        assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
        world.until_there_are(0, 0).await;
        world.until_none_is_left().await;
    }
    assert_eq!(world.pools.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_untrusted_call_gets_nothing_that_was_there_before() {
    let mut world = World::that(ECHO, with_untrusted).await;
    world.ready().await;
    call(&mut world).await;
    let kept = world.until_ready(1, 0).await;
    world
        .assign_with(JobId::new(), MINUTE, |decision| {
            decision.account = UNTRUSTED.parse().unwrap();
        })
        .await;
    assert_eq!(kind(&world.report().await), StartKind::Cold);
    assert_eq!(world.until_ready(1, 0).await, kept);
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
}

#[tokio::test]
async fn a_decision_for_another_account_is_refused() {
    let mut world = World::that(ECHO, two_warm).await;
    world.ready().await;
    world
        .assign_with(JobId::new(), MINUTE, |decision| {
            decision.account = "other".parse().unwrap();
        })
        .await;
    let outcome = world.report().await.outcome;
    assert!(matches!(outcome, Some(Outcome::Refused(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_cell_that_writes_before_its_request_is_killed_and_audited() {
    let script = format!("import sys\nsys.stdout.write(' ')\nsys.stdout.flush()\n{ECHO}");
    let mut world = World::that(&script, two_warm).await;
    world.ready().await;
    // Where the request comes first, it may write what it wants.
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    let fields = world.until_audited("cell.early_output").await;
    assert_eq!(fields["plugin"], "subject");
    let container = fields["container"].as_str().unwrap().to_owned();
    while world.pooled().await.contains(&container) {
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test]
async fn a_warning_while_it_starts_is_kept_for_its_call() {
    let script = format!("import sys\nsys.stderr.write('warned')\nsys.stderr.flush()\n{ECHO}");
    let mut world = World::that(&script, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    world.until_ready(1, 0).await;
    let report = call(&mut world).await;
    assert_eq!(kind(&report), StartKind::Warm);
    let Some(Outcome::Finished(finished)) = report.outcome else {
        panic!("{report:?}")
    };
    // Standard output may overtake it, where the cell had hardly started: then it is told right after the answer.
    let told = if finished.stderr.is_empty() {
        let late = tokio::time::timeout(PATIENCE, world.amendments.recv()).await;
        late.unwrap().unwrap().stderr
    } else {
        finished.stderr
    };
    assert_eq!(told.as_ref(), b"warned");
}

#[tokio::test]
async fn a_plugin_whose_cells_do_not_stay_is_kept_no_longer() {
    let script = "import sys\nsys.exit(3)";
    let mut world = World::that(script, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    world.until_audited("cell.quarantined").await;
    world.until_there_are(0, 0).await;
}

#[tokio::test]
async fn another_lock_replaces_what_is_kept() {
    let mut world = World::that(ECHO, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    let old = world.until_ready(1, 0).await;
    world.write_lock(Serial(4));
    world.until_there_are(0, 0).await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    assert_ne!(world.until_ready(1, 0).await, old);
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
}

#[tokio::test]
async fn a_kept_cell_goes_with_its_holder_and_comes_back() {
    let mut world = World::that(ECHO, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    let old = world.until_ready(1, 0).await;
    let holder = world.holders().await.remove(0);
    super::subject::kill(&holder).await;
    while world.pooled().await == old {
        tokio::time::sleep(LOOK).await;
    }
    world.until_ready(1, 0).await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
}

#[tokio::test]
async fn a_runner_that_stops_leaves_nothing_ready() {
    let mut world = World::that(ECHO, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    world.until_ready(1, 0).await;
    world.until_there_are(1, 1).await;
    let stopping = Instant::now();
    world.ctx.shutdown.cancel();
    world.ctx.stopped().await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(5));
    assert!(world.containers().await.is_empty());
}

#[tokio::test]
async fn the_real_socket_proxy_takes_the_grant_and_then_the_request() {
    let mut world = World::walled(ECHO, two_warm).await;
    world.ready().await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    world.until_ready(1, 0).await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
    world.until_cells_are_ready(1).await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Warm);
    world.until_cells_are_ready(1).await;
    world.ctx.shutdown.cancel();
    world.ctx.stopped().await.unwrap();
    assert!(world.containers().await.is_empty());
}

#[tokio::test]
async fn the_real_socket_proxy_lets_cells_into_holders_one_after_the_other() {
    let mut world = World::walled(ECHO, |_| {}).await;
    world.ready().await;
    assert_eq!(kind(&call(&mut world).await), StartKind::Cold);
    world.until_ready(0, 1).await;
    let held = world.holders().await;
    for _ in 0..2 {
        assert_eq!(kind(&call(&mut world).await), StartKind::Held);
        world.until_ready(0, 1).await;
    }
    assert_eq!(world.holders().await, held);
}

#[tokio::test]
async fn the_real_socket_proxy_hands_on_what_an_idle_cell_writes() {
    let script = format!("print('early', flush=True)\n{ECHO}");
    let mut world = World::walled(&script, two_warm).await;
    world.ready().await;
    call(&mut world).await;
    world.until_audited("cell.early_output").await;
}

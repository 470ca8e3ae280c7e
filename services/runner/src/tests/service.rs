//! Cells that last.

use std::time::{Duration, Instant};

use bailey_proto::engine::v1::report_request::Outcome;
use bailey_proto::engine::v1::{StartKind, TakeLineRequest};
use bailey_types::JobId;
use serde_json::{Value, json};
use tonic::Status;

use super::subject;
use super::world::{PATIENCE, World};

/// Beats ten times a second when it serves, and answers when it is called.
const BEATS: &str = "import json, sys, time\n\
    request = json.load(sys.stdin)\n\
    if request['command'] == 'poll': sys.exit(print(json.dumps({'status': 'ok', 'result': 'called'})))\n\
    print('a line to begin with', file=sys.stderr, flush=True)\n\
    for n in range(10 ** 6):\n  print(json.dumps({'status': 'ok', 'result': str(n)}), flush=True); time.sleep(0.1)";

/// How long what lasts is assigned for.
const EVER: Duration = Duration::ZERO;

fn service(subject: &mut Value) {
    subject["proposed"]["walls"] = json!({"service": {}});
}

fn beating(subject: &mut Value) {
    subject["proposed"]["walls"] = json!({"service": {"heartbeat_seconds": 1}});
}

/// Starts the service; answers its job.
async fn serve(world: &World) -> JobId {
    let job = JobId::new();
    let serves =
        |decision: &mut bailey_trust::Decision| decision.command = "serve".parse().unwrap();
    world.assign_with(job, EVER, serves).await;
    job
}

async fn line(world: &mut World) -> TakeLineRequest {
    let line = tokio::time::timeout(PATIENCE, world.lines.recv()).await;
    line.unwrap().unwrap()
}

#[tokio::test]
async fn a_service_is_heard_line_by_line_beside_calls_and_ends_when_it_is_cancelled() {
    let mut world = World::that(BEATS, service).await;
    world.ready().await;
    let job = serve(&world).await;
    for number in 1..=3 {
        let line = line(&mut world).await;
        assert_eq!((&line.job_id, line.attempt), (&job.to_string(), 1));
        assert_eq!(line.number, number);
        let said: Value = serde_json::from_slice(&line.line).unwrap();
        assert_eq!(said["result"], (number - 1).to_string());
    }
    // The runner has two slots, and both are free.
    let (first, second) = (JobId::new(), JobId::new());
    for call in [first, second] {
        world.assign(call, PATIENCE).await;
    }
    for _ in 0..2 {
        let report = world.report().await;
        assert!(report.job_id == first.to_string() || report.job_id == second.to_string());
        assert!(matches!(report.outcome, Some(Outcome::Finished(_))));
    }
    world.cancel(job).await;
    let report = world.report().await;
    assert_eq!(report.job_id, job.to_string());
    let Some(Outcome::Lost(lost)) = report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert_eq!((lost.reason.as_str(), lost.stopped), ("cancelled", false));
    assert_eq!(&lost.stderr[..], b"a line to begin with\n");
    let timings = report.timings.unwrap();
    assert_eq!(timings.start_kind(), StartKind::Cold);
    world.until_none_is_left().await;
}

#[tokio::test]
async fn a_service_ends_with_its_runner_and_that_is_said() {
    let mut world = World::that(BEATS, service).await;
    world.ready().await;
    let job = serve(&world).await;
    line(&mut world).await;
    world.ctx.shutdown.cancel();
    let report = world.report().await;
    assert_eq!(report.job_id, job.to_string());
    let Some(Outcome::Lost(lost)) = report.outcome else {
        panic!("{:?}", report.outcome)
    };
    assert!(lost.stopped, "{lost:?}");
    world.ctx.stopped().await.unwrap();
    assert!(world.containers().await.is_empty());
}

#[tokio::test]
async fn a_service_that_ends_again_and_again_is_quarantined() {
    let script = "import sys; sys.stdin.read(); print('{}', flush=True); sys.exit(3)";
    let mut world = World::that(script, service).await;
    world.ready().await;
    for _ in 0..5 {
        serve(&world).await;
        let report = world.report().await;
        let Some(Outcome::Finished(finished)) = report.outcome else {
            panic!("{:?}", report.outcome)
        };
        // What it said went line by line.
        assert_eq!((finished.exit_code, finished.stdout.len()), (3, 0));
        assert_eq!(&line(&mut world).await.line[..], b"{}");
        // As the engine does, from the end and not from the start: ends that are closer together count once.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let fields = world.until_audited("cell.quarantined").await;
    assert_eq!(fields["plugin"], "subject");
    let beat = world.session_now();
    let beat = beat.heartbeat_where(|beat| !beat.quarantined.is_empty());
    assert_eq!(beat.await.quarantined[0].plugin, "subject");
    serve(&world).await;
    let Some(Outcome::NotStarted(not_started)) = world.report().await.outcome else {
        panic!("it was started")
    };
    assert!(
        not_started.reason.contains("bailey plugin clear"),
        "{not_started:?}"
    );
}

#[tokio::test]
async fn a_service_that_is_silent_is_not_well() {
    let script = "import sys, time; sys.stdin.read(); print('once', flush=True); time.sleep(600)";
    let mut world = World::that(script, beating).await;
    world.ready().await;
    serve(&world).await;
    assert_eq!(&line(&mut world).await.line[..], b"once");
    let Some(Outcome::Unhealthy(unhealthy)) = world.report().await.outcome else {
        panic!("it is thought well")
    };
    assert!(
        unhealthy.reason.contains("no line for 1 s"),
        "{unhealthy:?}"
    );
    world.until_none_is_left().await;

    // The neighbour: one that beats is let be.
    let mut world = World::that(BEATS, beating).await;
    world.ready().await;
    let job = serve(&world).await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        line(&mut world).await;
    }
    world.cancel(job).await;
    assert!(matches!(
        world.report().await.outcome,
        Some(Outcome::Lost(_))
    ));
}

#[tokio::test]
async fn a_line_waits_for_the_engine_and_what_it_does_not_want_ends_the_cell() {
    let mut world = World::that(BEATS, service).await;
    world.ready().await;
    *world.hears.lock().unwrap() = Some(Status::unavailable("away"));
    serve(&world).await;
    world.until_one_runs().await;
    *world.hears.lock().unwrap() = None;
    // Nothing was lost meanwhile.
    assert_eq!(line(&mut world).await.number, 1);
    assert_eq!(line(&mut world).await.number, 2);
    *world.hears.lock().unwrap() = Some(Status::failed_precondition("the attempt is over"));
    let Some(Outcome::Lost(lost)) = world.report().await.outcome else {
        panic!("it goes on")
    };
    assert!(lost.reason.contains("the attempt is over"), "{lost:?}");
}

#[tokio::test]
async fn the_next_cell_of_a_service_begins_when_the_one_before_is_gone() {
    let deaf = format!("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{BEATS}");
    let mut world = World::that(&deaf, service).await;
    world.ready().await;
    let first = serve(&world).await;
    let old = world.until_one_runs().await;
    // As the engine does when its stream was broken for long.
    world.cancel(first).await;
    let second = serve(&world).await;
    while line(&mut world).await.job_id != second.to_string() {}
    assert!(!world.cells().await.contains(&old));
    assert_eq!(world.report().await.job_id, first.to_string());

    // One that waits is cancelled as any other that has not begun.
    let third = serve(&world).await;
    world.cancel(third).await;
    let report = world.report().await;
    assert_eq!(report.job_id, third.to_string());
    assert!(matches!(report.outcome, Some(Outcome::NotStarted(_))));
}

#[tokio::test]
async fn a_service_that_somebody_kills_is_reported() {
    let mut world = World::that(BEATS, service).await;
    world.ready().await;
    serve(&world).await;
    line(&mut world).await;
    let id = world.until_one_runs().await;
    subject::kill(&id).await;
    let Some(Outcome::Finished(finished)) = world.report().await.outcome else {
        panic!("not finished")
    };
    assert_eq!(finished.exit_code, 137);
}

#[tokio::test]
async fn what_lasts_is_what_the_lock_says() {
    let mut world = World::that(BEATS, service).await;
    world.ready().await;
    // `serve` of a service as a call, and a call as what lasts.
    let serves =
        |decision: &mut bailey_trust::Decision| decision.command = "serve".parse().unwrap();
    world.assign_with(JobId::new(), PATIENCE, serves).await;
    let outcome = world.report().await.outcome;
    assert!(matches!(outcome, Some(Outcome::Refused(_))), "{outcome:?}");
    world.assign(JobId::new(), EVER).await;
    let outcome = world.report().await.outcome;
    assert!(matches!(outcome, Some(Outcome::Refused(_))), "{outcome:?}");
    assert!(world.cells().await.is_empty());
}

//! When a plugin's answer counts, and what becomes of the plugin afterwards.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bailey_proto::engine::v1::Finished;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_types::JobId;
use bollard::query_parameters::WaitContainerOptions;
use futures::StreamExt as _;

use super::world::{World, docker};
use super::{HANG, MINUTE};

const SAY_OK: &str = "import os, sys, time\nsys.stdin.read()\n\
                      def say(text): os.write(1, text.encode())\n\
                      ok = '{\"status\":\"ok\",\"result\":\"done\"}'\n\
                      error = '{\"status\":\"error\",\"error\":\"no\"}'\n";

async fn world(rest: &str) -> World {
    let mut world = World::with(&format!("{SAY_OK}{rest}")).await;
    world.ready().await;
    world
}

/// Runs a job; answers its report and how long after its start it came.
async fn finished(world: &mut World) -> (Finished, Duration) {
    let begun = Instant::now();
    world.assign(JobId::new(), MINUTE).await;
    let report = world.report().await;
    let Some(Outcome::Finished(finished)) = report.outcome else {
        panic!("{report:?}")
    };
    (finished, begun.elapsed())
}

#[tokio::test]
async fn an_answer_is_reported_while_its_plugin_goes_on_and_that_plugin_is_killed() {
    let mut world = world("say(ok)\ntime.sleep(600)").await;
    let (finished, took) = finished(&mut world).await;
    assert_eq!(finished.exit_code, 0);
    assert_eq!(&finished.stdout[..], br#"{"status":"ok","result":"done"}"#);
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert_eq!(world.cells().await.len(), 1, "it may end by itself");
    world.until_none_is_left().await;
    assert!(world.audit.kinds().is_empty(), "{:?}", world.audit.kinds());
}

#[tokio::test]
async fn a_cell_that_has_ended_is_removed_once_its_answer_is_reported() {
    // Given an engine that takes no report yet
    let mut world = world("say(ok)\ntime.sleep(0.3)").await;
    let busy = Arc::clone(&world.busy).lock_owned().await;

    // When a plugin has answered and ended
    world.assign(JobId::new(), MINUTE).await;
    let cell = world.until_one_runs().await;
    let docker = docker();
    let mut ended = docker.wait_container(&cell, None::<WaitContainerOptions>);
    assert!(ended.next().await.unwrap().is_ok());

    // Then it is still there, until the report is taken
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.cells().await, [cell]);
    drop(busy);
    world.report().await;
    world.until_none_is_left().await;
}

#[tokio::test]
async fn what_a_plugin_writes_after_its_answer_is_audited_and_fails_nothing() {
    let mut world = world("say(ok)\ntime.sleep(0.5)\nsay('late')").await;
    let (finished, _) = finished(&mut world).await;
    assert_eq!(&finished.stdout[..], br#"{"status":"ok","result":"done"}"#);
    let fields = world.until_audited("cell.late_output").await;
    assert_eq!(
        (&fields["plugin"], &fields["bytes"]),
        (&"subject".into(), &4.into())
    );
}

#[tokio::test]
async fn what_a_plugin_writes_to_standard_error_after_its_answer_is_told_later() {
    // The report waits for none of it.
    let rest = "def warn(text): os.write(2, text.encode())\n\
                warn('before\\n')\ntime.sleep(0.3)\nsay(ok)\ntime.sleep(0.5)\nwarn('after\\n')";
    let mut world = world(rest).await;
    let (finished, _) = finished(&mut world).await;
    assert_eq!(finished.stderr, "before\n");
    let told = tokio::time::timeout(MINUTE, world.amendments.recv()).await;
    let amendment = told.unwrap().unwrap();
    assert_eq!(amendment.attempt, 1);
    assert_eq!(amendment.stderr, "before\nafter\n");
    world.until_none_is_left().await;
}

#[tokio::test]
async fn what_is_behind_the_answer_already_is_reported_with_it() {
    let mut world = world("say(ok + 'x')\ntime.sleep(600)").await;
    let (finished, _) = finished(&mut world).await;
    // The engine refuses what is behind a response.
    assert_eq!(&finished.stdout[..], br#"{"status":"ok","result":"done"}x"#);
    assert_eq!(finished.exit_code, 137);
}

#[tokio::test]
async fn white_space_behind_the_answer_is_nothing() {
    let mut world = world("say(ok)\nsay('\\n')\ntime.sleep(0.3)\nsay('\\n')").await;
    assert_eq!(finished(&mut world).await.0.exit_code, 0);
    world.until_none_is_left().await;
    assert!(world.audit.kinds().is_empty(), "{:?}", world.audit.kinds());
}

#[tokio::test]
async fn the_exit_code_behind_an_error_is_waited_for_and_no_longer_than_a_second() {
    let mut patient = world("say(error)\ntime.sleep(0.3)\nsys.exit(78)").await;
    assert_eq!(finished(&mut patient).await.0.exit_code, 78);
    let mut stubborn = world("say(error)\ntime.sleep(600)").await;
    assert_eq!(finished(&mut stubborn).await.0.exit_code, 137);
    stubborn.until_none_is_left().await;
}

#[tokio::test]
async fn a_large_answer_is_whole() {
    let script = "import sys\nsys.stdin.read()\n\
                  print('{\"status\":\"ok\",\"result\":\"' + 'x' * (9 << 20) + '\"}', end='')";
    let mut world = World::with(script).await;
    world.ready().await;
    let (finished, _) = finished(&mut world).await;
    assert_eq!(finished.stdout.len(), (9 << 20) + 27);
    assert_eq!(finished.exit_code, 0);
}

#[tokio::test]
async fn a_cell_that_is_parted_with_holds_no_slot() {
    // Given a runner with two slots, and plugins that hang after their answer
    let mut world = world("say(ok)\ntime.sleep(600)").await;

    // When four jobs come one after the other
    let begun = Instant::now();
    for _ in 0..4 {
        finished(&mut world).await;
    }

    // Then none of them was given back, and some of their cells are still being parted with
    assert!(begun.elapsed() < Duration::from_secs(30));
    world.until_none_is_left().await;
}

#[tokio::test]
async fn a_cancelled_job_is_killed_whatever_it_has_written() {
    let mut world = World::with(&format!("print('{{\"status\":', flush=True)\n{HANG}")).await;
    world.ready().await;
    let job = JobId::new();
    world.assign(job, MINUTE).await;
    world.until_one_runs().await;
    world.cancel(job).await;
    let outcome = world.report().await.outcome;
    let lost = matches!(outcome, Some(Outcome::Lost(_) | Outcome::NotStarted(_)));
    assert!(lost, "{outcome:?}");
    world.until_none_is_left().await;
}

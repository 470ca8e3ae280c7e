//! The runner with the real Docker Engine of this machine, between an engine and a broker that the tests play.

mod answers;
mod footing;
mod peers;
mod ready;
mod reconcile;
mod service;
mod stand_in;
mod subject;
mod world;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bailey_proto::engine::v1::report_request::Outcome;
use bailey_types::JobId;
use stand_in::{Manner, Start};
use world::World;

use crate::attach::{STDERR_LIMIT_BYTES, STDOUT_LIMIT_BYTES};

const MINUTE: Duration = Duration::from_mins(1);
const HANG: &str = "import sys, time; sys.stdin.read(); time.sleep(600)";

#[tokio::test]
async fn a_plugin_gets_its_request_and_its_answer_is_reported() {
    let mut world = World::with("import sys; print(sys.stdin.read().strip()[::-1], end='')").await;
    let posture = world
        .ready()
        .await
        .heartbeat_where(|beat| !beat.posture.is_empty())
        .await
        .posture;
    assert_eq!(posture, "confined");
    world.assign(JobId::new(), MINUTE).await;
    let report = world.report().await;
    let Some(Outcome::Finished(finished)) = report.outcome else {
        panic!("{report:?}")
    };
    let reversed: String = r#"{"protocol":2,"command":"poll"}"#.chars().rev().collect();
    assert_eq!(finished.stdout, reversed.as_bytes());
    assert_eq!((finished.exit_code, finished.out_of_memory), (0, false));
    let timings = report.timings.unwrap();
    assert!(timings.create_us > 0 && timings.start_us > 0 && timings.run_us > 0);
    // As the engine said.
    assert_eq!(timings.ticket_us, 700);
    world.until_none_is_left().await;
}

#[tokio::test]
async fn whatever_a_plugin_prints_is_reported_as_it_is() {
    let hostile: [(&str, &[u8], i32); 5] = [
        ("print('no json', end='')", b"no json", 0),
        ("print('{}{}', end='')", b"{}{}", 0),
        ("", b"", 0),
        ("import sys; sys.exit(78)", b"", 78),
        ("import os; os.kill(os.getpid(), 11)", b"", 139),
    ];
    for (script, stdout, exit_code) in hostile {
        let mut world = World::with(script).await;
        world.ready().await;
        let Outcome::Finished(finished) = world.outcome().await else {
            panic!("{script}")
        };
        assert_eq!(
            (&finished.stdout[..], finished.exit_code),
            (stdout, exit_code),
            "{script}"
        );
    }
}

#[tokio::test]
async fn a_flood_is_cut_after_one_byte_too_many() {
    let script = "import sys\nwhile True: sys.stdout.write('x' * 65536)";
    let mut world = World::with(script).await;
    world.ready().await;
    let Outcome::Finished(finished) = world.outcome().await else {
        panic!("not finished")
    };
    assert_eq!(finished.stdout.len(), STDOUT_LIMIT_BYTES + 1);
}

#[tokio::test]
async fn a_flood_of_errors_hurts_nobody() {
    let script =
        "import sys\nfor i in range(64): sys.stderr.write('e' * 65536)\nprint('ok', end='')";
    let mut world = World::with(script).await;
    world.ready().await;
    let Outcome::Finished(finished) = world.outcome().await else {
        panic!("not finished")
    };
    assert_eq!(
        (&finished.stdout[..], finished.stderr.len()),
        (&b"ok"[..], STDERR_LIMIT_BYTES)
    );
}

#[tokio::test]
async fn a_plugin_that_hangs_is_asked_to_end() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    let Outcome::TimedOut(timed_out) = world.outcome_within(Duration::from_millis(500)).await
    else {
        panic!("not timed out")
    };
    assert!(!timed_out.killed);
}

#[tokio::test]
async fn a_plugin_that_ignores_sigterm_is_killed_after_its_grace() {
    let script = "import signal, sys, time\nsignal.signal(15, signal.SIG_IGN)\n\
                  sys.stderr.write('here')\nsys.stderr.flush()\nsys.stdin.read()\ntime.sleep(600)";
    let mut world = World::with(script).await;
    world.ready().await;
    let started = Instant::now();
    let Outcome::TimedOut(timed_out) = world.outcome_within(Duration::from_millis(500)).await
    else {
        panic!("not timed out")
    };
    assert!(timed_out.killed);
    assert_eq!(&timed_out.stderr[..], b"here");
    assert!(started.elapsed() >= Duration::from_millis(5500));
}

#[tokio::test]
async fn a_plugin_that_eats_memory_is_told_apart() {
    let mut world = World::with("x = b'x' * (1 << 30)\nprint(len(x))").await;
    world.ready().await;
    let Outcome::Finished(finished) = world.outcome().await else {
        panic!("not finished")
    };
    assert!(
        finished.out_of_memory || finished.exit_code == 1,
        "{finished:?}"
    );
}

#[tokio::test]
async fn a_refused_launch_is_final() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    *world.proxy.manner.lock().unwrap() = Manner::Refuse("the ticket is for another plugin");
    let Outcome::Refused(refused) = world.outcome().await else {
        panic!("not refused")
    };
    assert_eq!(refused.reason, "the ticket is for another plugin");
}

#[tokio::test]
async fn what_socket_proxy_puts_off_does_not_count() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    *world.proxy.manner.lock().unwrap() = Manner::PutOff("the ticket was valid until noon");
    let Outcome::NotStarted(put_off) = world.outcome().await else {
        panic!("it counted")
    };
    assert_eq!(put_off.reason, "the ticket was valid until noon");
}

#[tokio::test]
async fn a_decision_that_is_not_policys_or_not_for_this_job_makes_no_container() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    world
        .assign_with(JobId::new(), MINUTE, |decision| {
            decision.job = JobId::new();
        })
        .await;
    assert!(matches!(
        world.report().await.outcome,
        Some(Outcome::Refused(_))
    ));
    let other = bailey_types::ImageId(bailey_types::Sha256([9; 32]));
    world
        .assign_with(JobId::new(), MINUTE, |decision| {
            decision.image = other;
        })
        .await;
    assert!(matches!(
        world.report().await.outcome,
        Some(Outcome::Refused(_))
    ));
    let older = bailey_types::Serial(2);
    world
        .assign_with(JobId::new(), MINUTE, |decision| {
            decision.lock_serial = older;
        })
        .await;
    assert!(matches!(
        world.report().await.outcome,
        Some(Outcome::NotStarted(_))
    ));
}

#[tokio::test]
async fn a_socket_proxy_that_hangs_up_loses_the_cell() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    *world.proxy.manner.lock().unwrap() = Manner::HangUp;
    assert!(matches!(world.outcome().await, Outcome::Lost(_)));
}

#[tokio::test]
async fn a_cancelled_job_is_killed() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    let job = JobId::new();
    world.assign(job, MINUTE).await;
    world.until_one_runs().await;
    world.cancel(job).await;
    let outcome = world.report().await.outcome;
    assert!(
        matches!(outcome, Some(Outcome::Lost(_) | Outcome::NotStarted(_))),
        "{outcome:?}"
    );
    world.until_none_is_left().await;
}

#[tokio::test]
async fn a_start_that_was_not_answered_counts_where_the_cell_ran() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    *world.proxy.next_start.lock().unwrap() = Some(Start::Done);
    assert!(matches!(world.outcome().await, Outcome::Lost(_)));
    *world.proxy.next_start.lock().unwrap() = Some(Start::Dropped);
    assert!(matches!(world.outcome().await, Outcome::NotStarted(_)));
    world.until_none_is_left().await;
}

#[tokio::test]
async fn a_container_that_somebody_else_kills_is_no_answer() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    world.assign(JobId::new(), MINUTE).await;
    let container = world.until_one_runs().await;
    let force = bollard::query_parameters::RemoveContainerOptionsBuilder::new()
        .force(true)
        .build();
    world::docker()
        .remove_container(&container, Some(force))
        .await
        .unwrap();
    let outcome = world.report().await.outcome;
    assert!(
        !matches!(outcome, Some(Outcome::Finished(ref finished)) if finished.exit_code == 0),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn leftovers_of_an_earlier_life_are_removed_before_the_first_job() {
    let mut world = World::unstarted(HANG).await;
    world.leave_behind().await;
    assert_eq!(world.containers().await.len(), 1);
    world.start();
    world.ready().await;
    assert!(world.containers().await.is_empty());
}

#[tokio::test]
async fn while_docker_is_down_nothing_starts_and_it_recovers_by_itself() {
    let mut world = World::with("print('{}', end='')").await;
    world.ready().await;
    world.proxy.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(world.outcome().await, Outcome::NotStarted(_)));
    let session = world.session_now();
    let beat = session
        .heartbeat_where(|beat| !beat.trouble.is_empty())
        .await;
    assert!(
        beat.trouble.starts_with("docker: ") && beat.trouble.contains("Docker does not answer"),
        "{beat:?}"
    );
    world.proxy.is_down.store(false, Ordering::SeqCst);
    world
        .session_now()
        .heartbeat_where(|beat| beat.trouble.is_empty())
        .await;
    assert!(matches!(world.outcome().await, Outcome::Finished(_)));
}

#[tokio::test]
async fn a_container_that_cannot_be_removed_is_removed_later() {
    let mut world = World::with("print('{}', end='')").await;
    world.ready().await;
    world.proxy.is_sticky.store(true, Ordering::SeqCst);
    world.assign(JobId::new(), MINUTE).await;
    assert!(matches!(
        world.report().await.outcome,
        Some(Outcome::Finished(_))
    ));
    assert_eq!(world.cells().await.len(), 1);
    world.proxy.is_sticky.store(false, Ordering::SeqCst);
    world.until_none_is_left().await;
}

#[tokio::test]
async fn without_the_walls_no_job_runs() {
    let mut world = World::unstarted(HANG).await;
    *world.proxy.probe_code.lock().unwrap() = 21;
    world.start();
    let beat = world
        .session()
        .await
        .heartbeat_where(|beat| !beat.posture.is_empty())
        .await;
    assert_eq!(
        beat.posture,
        "refused: the engine does not enforce seccomp profiles"
    );
    assert_eq!(beat.trouble, beat.posture);
}

#[tokio::test]
async fn after_a_reconnect_the_engine_hears_what_is_still_held() {
    let mut world = World::with(HANG).await;
    let instance = world.ready().await.hello.instance_id.clone();
    let job = JobId::new();
    world.assign(job, MINUTE).await;
    world.until_one_runs().await;
    world.hang_up();
    let hello = world.session().await.hello.clone();
    assert_eq!(hello.instance_id, instance);
    assert_eq!(hello.held.len(), 1);
    assert_eq!(hello.held[0].job_id, job.to_string());
    world.cancel(job).await;
    world.report().await;
}

#[tokio::test]
async fn more_jobs_than_slots_are_given_back() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    let jobs = [JobId::new(), JobId::new(), JobId::new()];
    for job in jobs {
        world.assign(job, MINUTE).await;
    }
    let report = world.report().await;
    assert_eq!(report.job_id, jobs[2].to_string());
    assert!(matches!(report.outcome, Some(Outcome::NotStarted(_))));
    for job in &jobs[..2] {
        world.cancel(*job).await;
        world.report().await;
    }
}

#[tokio::test]
async fn a_runner_that_stops_ends_its_cells_and_says_so() {
    let mut world = World::with(HANG).await;
    world.ready().await;
    world.assign(JobId::new(), MINUTE).await;
    world.until_one_runs().await;
    let stopping = Instant::now();
    world.ctx.shutdown.cancel();
    let outcome = world.report().await.outcome;
    assert!(
        matches!(outcome, Some(Outcome::Lost(_) | Outcome::NotStarted(_))),
        "{outcome:?}"
    );
    world.ctx.stopped().await.unwrap();
    assert!(stopping.elapsed() < Duration::from_secs(5));
    assert!(world.containers().await.is_empty());
}

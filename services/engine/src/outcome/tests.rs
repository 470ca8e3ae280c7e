use bailey_proto::engine::v1::{Lost, NotStarted, Refused};
use bailey_types::JobId;
use proptest::prelude::*;

use super::*;

const BASE: Duration = Duration::from_secs(30);

fn job(attempt: u32, uncounted: u32, max_attempts: u32) -> Job {
    Job {
        id: JobId::new(),
        plugin: "a".parse().unwrap(),
        command: "poll".parse().unwrap(),
        status: Status::Running,
        attempt,
        uncounted,
        max_attempts,
        submitted_by: "api".into(),
        dedupe_key: String::new(),
        created_at: Timestamp(0),
        started_at: None,
        completed_at: None,
        next_retry_at: None,
        waiting_for: String::new(),
        result: None,
        last_error: None,
        stderr: None,
        logs: Vec::new(),
        parent: None,
        source_event: None,
        place: None,
        route_depth: 0,
        generation: 0,
        principal: String::new(),
        decision: None,
        runner: None,
    }
}

fn finished(stdout: &str, exit_code: i32) -> Reported {
    Reported::Finished(Finished {
        stdout: stdout.to_owned().into(),
        exit_code,
        ..Finished::default()
    })
}

fn failure(reported: Reported) -> Failed {
    match judge(reported, Duration::from_mins(1)) {
        Verdict::Failed(failed) => failed,
        other @ (Verdict::Succeeded { .. } | Verdict::NotStarted(_)) => panic!("{other:?}"),
    }
}

#[test]
fn a_good_response_succeeds_whatever_the_exit_code() {
    let verdict = judge(finished(r#"{"status":"ok","result":"done"}"#, 1), BASE);
    assert!(matches!(verdict, Verdict::Succeeded { success, .. } if success.result == "done"));
}

#[test]
fn each_failure_has_the_token_of_the_reference_and_says_whether_to_try_again() {
    let error = r#"{"status":"error","error":"no"}"#;
    let final_error = r#"{"status":"error","error":"no","retry":false}"#;
    for (reported, token, again) in [
        (finished(error, 0), "plugin_error", Again::MayHelp),
        (
            finished(final_error, 0),
            "plugin_retry_false",
            Again::Useless,
        ),
        (finished(error, 78), "exit_code_78", Again::Useless),
        (finished("not json", 0), "spawn_error", Again::MayHelp),
        (finished("", 0), "nil_response", Again::MayHelp),
        (finished("{} {}", 0), "spawn_error", Again::MayHelp),
        (
            Reported::TimedOut(TimedOut::default()),
            "timeout",
            Again::MayHelp,
        ),
        (Reported::Lost(Lost::default()), "lost", Again::MayHelp),
        (
            Reported::Refused(Refused::default()),
            "refused",
            Again::Useless,
        ),
    ] {
        let failed = failure(reported);
        assert_eq!((failed.token, failed.again), (token, again));
    }
    assert!(matches!(
        judge(Reported::NotStarted(NotStarted { reason: "docker".into() }), BASE),
        Verdict::NotStarted(reason) if reason == "docker"
    ));
}

#[test]
fn json_that_policy_would_refuse_later_fails_the_job_that_wrote_it() {
    let number = r#"{"status":"ok","result":"x","events":[{"type":"a.b","payload":{"n":9007199254740993}}]}"#;
    let failed = failure(finished(number, 0));
    let error = failed.traces.error.unwrap();
    assert!(
        error.contains("events[0]") && error.contains("2^53"),
        "{error}"
    );
}

#[test]
fn a_retry_comes_until_the_attempts_are_used_up() {
    let failed = failure(finished("", 0));
    let fate_of = |job: &Job| fate(job, &failed, BASE, 0.0, Timestamp(0));
    assert!(
        matches!(fate_of(&job(1, 0, 4)), Fate::Again(retry) if retry.not_before == Timestamp(30_000))
    );
    assert!(
        matches!(fate_of(&job(3, 0, 4)), Fate::Again(retry) if retry.not_before == Timestamp(120_000))
    );
    assert!(matches!(fate_of(&job(4, 0, 4)), Fate::End(Status::Dead)));
    assert!(
        matches!(fate_of(&job(4, 1, 4)), Fate::Again(_)),
        "an attempt that did not count is not used up"
    );
}

#[test]
fn a_single_try_is_not_dead_but_failed_or_timed_out() {
    let timed_out = failure(Reported::TimedOut(TimedOut::default()));
    assert!(matches!(
        fate(&job(1, 0, 1), &timed_out, BASE, 0.0, Timestamp(0)),
        Fate::End(Status::TimedOut)
    ));
    let nothing = failure(finished("", 0));
    assert!(matches!(
        fate(&job(1, 0, 1), &nothing, BASE, 0.0, Timestamp(0)),
        Fate::End(Status::Failed)
    ));
}

#[test]
fn an_attempt_that_does_not_count_is_made_again_soon_and_then_less_often() {
    let waits = [0, 1, 5, 6, 40].map(|before| {
        uncounted(&job(before + 1, before, 4), Timestamp(0))
            .not_before
            .0
            / 1000
    });
    assert_eq!(waits, [1, 2, 32, 60, 60]);
}

proptest! {
    #[test]
    fn backoff_is_the_references_formula(tries in 1_u32..6, luck in 0.0..=1.0_f64) {
        // Reference 4.6: base × 2^(attempt−1) + rand[0, base/4].
        let wait = backoff(BASE, tries, luck);
        let least = BASE * 2_u32.pow(tries - 1);
        prop_assert!(wait >= least && wait <= least + BASE / 4);
    }

    #[test]
    fn backoff_never_overflows(tries in any::<u32>()) {
        prop_assert!(backoff(Duration::from_hours(1), tries, 1.0) >= Duration::from_hours(1));
    }
}

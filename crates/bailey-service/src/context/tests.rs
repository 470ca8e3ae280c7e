use super::*;

#[tokio::test]
async fn readiness_follows_what_the_parts_say() {
    let process = Process::new();
    let presence = process.presence();
    let now = || {
        (
            presence.borrow().readiness,
            presence.borrow().detail.clone(),
        )
    };

    process.trouble("docker", Some("docker: connection refused".into()));
    assert_eq!(
        now(),
        (Readiness::Starting, "docker: connection refused".into())
    );
    process.ready();
    assert_eq!(
        now(),
        (Readiness::Degraded, "docker: connection refused".into())
    );
    process.trouble("docker", None);
    assert_eq!(now(), (Readiness::Ready, String::new()));
    process.degraded("nothing is locked yet");
    assert_eq!(now(), (Readiness::Degraded, "nothing is locked yet".into()));
    process.ready();
    assert_eq!(now(), (Readiness::Ready, String::new()));
}

#[tokio::test]
async fn a_failed_task_ends_the_process_with_its_error() {
    let process = Process::new();
    process.spawn("other", {
        let shutdown = process.shutdown.clone();
        async move {
            shutdown.cancelled().await;
            Ok(())
        }
    });
    process.spawn("leaky", async { Err(anyhow::anyhow!("the roof leaks")) });
    let error = process.stopped().await.unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "the task \"leaky\" failed: the roof leaks"
    );
}

#[tokio::test]
async fn a_panicking_task_ends_the_process() {
    let process = Process::new();
    process.spawn("nervous", async { panic!("boo") });
    assert!(
        process
            .stopped()
            .await
            .unwrap_err()
            .to_string()
            .contains("\"nervous\" panicked")
    );
}

#[tokio::test]
async fn a_finished_task_does_not_end_the_process() {
    let process = Process::new();
    process.spawn("short", async { Ok(()) });
    let ended = tokio::time::timeout(Duration::from_millis(50), process.stopped()).await;
    assert!(ended.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_end_is_given_up() {
    let process = Process::new();
    process.spawn("deaf", async { std::future::pending().await });
    process.shutdown.cancel();
    let started = tokio::time::Instant::now();
    process.stopped().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(process.presence().borrow().readiness, Readiness::Stopping);
}

#[tokio::test]
async fn a_service_that_is_told_to_stop_before_it_started_has_not_failed() {
    let process = Process::new();
    process
        .run(Signals::new().unwrap(), async { Err(Stopped.into()) })
        .await
        .unwrap();
    let failed = process.run(Signals::new().unwrap(), async {
        Err(anyhow::Error::from(std::io::Error::other("no")))
    });
    assert!(failed.await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_stop_is_cut_short() {
    let process = Process::new();
    process.shutdown.cancel();
    let started = tokio::time::Instant::now();
    process
        .run(Signals::new().unwrap(), std::future::pending())
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_failed_task_is_the_reason_even_while_the_service_starts() {
    let process = Process::new();
    process.spawn("leaky", async { Err(anyhow::anyhow!("the roof leaks")) });
    let shutdown = process.shutdown.clone();
    let starting = async move {
        shutdown.cancelled().await;
        Err(Stopped.into())
    };
    let error = process
        .run(Signals::new().unwrap(), starting)
        .await
        .unwrap_err();
    assert!(format!("{error:#}").ends_with("the roof leaks"));
}

#[tokio::test]
async fn what_carries_away_ends_after_what_it_carries() {
    let process = Process::new();
    let (left, mut carried) = tokio::sync::mpsc::channel(2);
    let (shutdown, drained) = (process.shutdown.clone(), process.drained.clone());
    process.spawn("works", async move {
        shutdown.cancelled().await;
        tokio::task::yield_now().await;
        left.send("work").await?;
        Ok(())
    });
    process.spawn_last("carries", async move {
        drained.cancelled().await;
        anyhow::ensure!(carried.try_recv() == Ok("work"), "it was not there yet");
        Ok(())
    });
    process.shutdown.cancel();
    process.stopped().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_does_not_carry_away_in_time_is_given_up() {
    let process = Process::new();
    process.spawn("deaf", async { std::future::pending().await });
    process.spawn_last("stuck", async { std::future::pending().await });
    process.shutdown.cancel();
    let started = tokio::time::Instant::now();
    process.stopped().await.unwrap();
    // Before a stop is cut short.
    assert!(started.elapsed() < DEADLINE, "{:?}", started.elapsed());
}

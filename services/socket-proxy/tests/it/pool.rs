//! Cells that are started before there is a request.

use bailey_cell::launch::Control;
use bailey_trust::PoolGrant;
use bailey_types::{ImageId, Serial, Service, Sha256, Timestamp};

use crate::stand::{Stand, WaitingCell};

type Spoil = fn(&mut PoolGrant);

async fn stand(warm: u32) -> Stand {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.walls.warm = warm);
    stand
}

fn refusal(control: Control) -> String {
    let Control::Refused(reason) = control else {
        panic!("{control:?}")
    };
    reason
}

#[tokio::test]
async fn a_granted_cell_idles_and_serves_whichever_job_comes() {
    let stand = stand(1).await;
    let mut cell = stand.pooled().await;
    assert!(stand.start_container(&cell.id).await.is_err());

    cell.send(&stand.granted(1)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    stand.start_container(&cell.id).await.unwrap();
    let envelope = stand.envelope(&stand.launch(&cell, r#"{"command":"echo"}"#));
    cell.send(&envelope).await;
    assert_eq!(cell.control().await, Control::Launched(true));

    assert_eq!(cell.output().await.out, b"{\"command\":\"echo\"}\n");
    let fed = stand.recorded.last("launch.fed").unwrap();
    assert_eq!(fed["job"], cell.job.to_string());
}

#[tokio::test]
async fn without_a_grant_nothing_is_started_ahead() {
    let stand = stand(1).await;
    // A cell for a job needs its launch, a pooled one its grant: also for being fed.
    for cell in [stand.cell().await, stand.pooled().await] {
        let error = stand.start_container(&cell.id).await.unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
    }
    assert!(stand.recorded.last("docker.refused").is_some());
    let mut cell = stand.pooled().await;
    let envelope = stand.envelope(&stand.launch(&cell, r#"{"command":"echo"}"#));
    let output = cell.run(&envelope).await;
    let reason = refusal(output.control.unwrap());
    assert!(reason.contains("neither"), "{reason}");
    // A grant is no use to a cell that was made for a job.
    let mut cell = stand.cell().await;
    cell.send(&stand.granted(1)).await;
    assert!(refusal(cell.control().await).contains("pooled"));
}

#[tokio::test]
async fn a_grant_with_anything_wrong_is_refused_and_audited() {
    let spoils: [(Spoil, &str); 4] = [
        (|g| g.image = ImageId(Sha256([8; 32])), "another image"),
        (|g| g.plugin = "other".parse().unwrap(), "another plugin"),
        (|g| g.lock_serial = Serial(1), "another lock"),
        (
            |g| g.expires_at = Timestamp(g.issued_at.0 + 3_600_001),
            "valid from",
        ),
    ];
    let stand = stand(8).await;
    for (spoil, word) in spoils {
        let mut grant = stand.grant(8);
        spoil(&mut grant);
        let mut cell = stand.pooled().await;
        cell.send(&stand.grant_by(&grant, Service::Policy)).await;
        let reason = refusal(cell.control().await);
        assert!(reason.contains(word), "{reason:?} does not say {word:?}");
        assert_eq!(
            stand.recorded.last("launch.refused").unwrap()["reason"],
            reason
        );
        assert!(stand.start_container(&cell.id).await.is_err());
    }
    // Only policy grants.
    let mut cell = stand.pooled().await;
    cell.send(&stand.grant_by(&stand.grant(8), Service::Broker))
        .await;
    assert!(refusal(cell.control().await).contains("signature"));
    // And once.
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(8)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    cell.send(&stand.granted(8)).await;
    assert!(refusal(cell.control().await).contains("once"));
}

#[tokio::test]
async fn no_more_cells_idle_than_grant_and_lock_allow() {
    let stand = stand(2).await;
    let (mut first, mut second, mut third) = (
        stand.pooled().await,
        stand.pooled().await,
        stand.pooled().await,
    );
    for cell in [&mut first, &mut second] {
        cell.send(&stand.granted(9)).await;
        assert_eq!(cell.control().await, Control::Granted(true));
    }
    third.send(&stand.granted(9)).await;
    assert!(refusal(third.control().await).contains("2 idle cells"));

    // One that is gone makes room, but no more than the grant says.
    stand.remove(&first.id).await.unwrap();
    let mut fourth = stand.pooled().await;
    fourth.send(&stand.granted(1)).await;
    assert!(refusal(fourth.control().await).contains("1 idle cells"));
    let mut fifth = stand.pooled().await;
    fifth.send(&stand.granted(2)).await;
    assert_eq!(fifth.control().await, Control::Granted(true));
}

#[tokio::test]
async fn what_keeps_or_reaches_something_is_never_pooled() {
    let mut stand = Stand::start().await;
    let refused = async |stand: &Stand| {
        let id = bailey_types::JobId::new();
        let (name, body) = stand.derived_as(bailey_cell::Seat::Pool { id }, false, None);
        stand.create(&name, body).await.unwrap_err().to_string()
    };
    assert!(refused(&stand).await.contains("no warm cells"));
    stand.change_lock(|locked| {
        locked.proposed.walls.warm = 1;
        locked.proposed.state = bailey_trust::StateKind::Data;
    });
    assert!(refused(&stand).await.contains("not started ahead"));
    stand.change_lock(|locked| locked.proposed.walls.warm = 1);
    stand.pooled().await;
}

#[tokio::test]
async fn output_before_the_request_is_the_end_and_a_complaint_is_not() {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| {
        locked.proposed.walls.warm = 1;
        locked.proposed.entrypoint.push("early".into());
    });
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(1)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    stand.start_container(&cell.id).await.unwrap();
    let output = cell.output_and_control().await;
    assert!(output.out.starts_with(b"{\"status\""), "{output:?}");
    assert!(refusal(output.control.unwrap()).contains("before it had a request"));
    stand.remove(&cell.id).await.unwrap();

    stand.change_lock(|locked| {
        locked.proposed.walls.warm = 1;
        locked.proposed.entrypoint.push("complain".into());
    });
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(1)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    stand.start_container(&cell.id).await.unwrap();
    let complaint = cell.attached_next().await;
    assert!(complaint.contains("old"), "{complaint}");
    cell.send(&stand.envelope(&stand.launch(&cell, r#"{"command":"echo"}"#)))
        .await;
    assert_eq!(cell.control().await, Control::Launched(true));
    assert_eq!(cell.output().await.out, b"{\"command\":\"echo\"}\n");
}

#[tokio::test]
async fn one_launch_is_one_start() {
    let stand = stand(1).await;
    let mut cold = stand.cell().await;
    let mut warm = stand.pooled().await;
    warm.send(&stand.granted(1)).await;
    assert_eq!(warm.control().await, Control::Granted(true));
    stand.start_container(&warm.id).await.unwrap();
    let envelope =
        |cell: &WaitingCell| stand.envelope(&stand.launch(cell, r#"{"command":"echo"}"#));
    let cold_envelope = envelope(&cold);
    let output = cold.run(&cold_envelope).await;
    assert_eq!(output.out, b"{\"command\":\"echo\"}\n");
    let warm_envelope = envelope(&warm);
    warm.send(&warm_envelope).await;
    assert_eq!(warm.control().await, Control::Launched(true));
    warm.output().await;

    for cell in [&cold.id, &warm.id] {
        stand.exit_code(cell).await;
        assert_eq!(status(stand.start_container(cell).await), 403);
    }
}

fn status(answer: Result<(), bollard::errors::Error>) -> u16 {
    match answer {
        Err(bollard::errors::Error::DockerResponseServerError { status_code, .. }) => status_code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_allowed_under_another_lock_neither_starts_nor_is_fed() {
    let mut stand = stand(1).await;
    let mut granted = stand.pooled().await;
    granted.send(&stand.granted(1)).await;
    assert_eq!(granted.control().await, Control::Granted(true));
    let mut launched = stand.cell().await;
    let envelope = stand.envelope(&stand.launch(&launched, r#"{"command":"echo"}"#));
    launched.send(&envelope).await;
    assert_eq!(launched.control().await, Control::Launched(true));
    let mut late = stand.cell().await;
    let envelope = stand.envelope(&stand.launch(&late, r#"{"command":"echo"}"#));

    stand.change_lock(|locked| locked.proposed.walls.warm = 1);

    for cell in [&granted.id, &launched.id] {
        assert_eq!(status(stand.start_container(cell).await), 409);
    }
    // No refusal, which would be final: the next attempt is decided under the new lock.
    let why = late.put_off(&envelope).await;
    assert!(why.contains("lock"), "{why}");
}

#[tokio::test]
async fn a_ticket_feeds_one_cell_whichever_comes_first() {
    let stand = stand(2).await;
    let (mut first, mut second) = (ready(&stand, 2).await, ready(&stand, 2).await);
    let envelope = stand.envelope(&stand.launch(&first, r#"{"command":"echo"}"#));
    first.send(&envelope).await;
    assert_eq!(first.control().await, Control::Launched(true));
    second.send(&envelope).await;
    assert!(refusal(second.control().await).contains("redeemed already"));
    let refused = stand.recorded.last("launch.refused").unwrap();
    assert_eq!(refused["container"], second.id);
    assert_eq!(first.output().await.out, b"{\"command\":\"echo\"}\n");
    assert!(second.output().await.out.is_empty());
    stand.remove(&second.id).await.unwrap();

    // The next ticket for the same plugin is another one.
    let mut third = ready(&stand, 2).await;
    let envelope = stand.envelope(&stand.launch(&third, r#"{"command":"echo"}"#));
    third.send(&envelope).await;
    assert_eq!(third.control().await, Control::Launched(true));
}

#[tokio::test]
async fn a_ticket_of_an_earlier_life_feeds_nothing_and_is_not_final() {
    let mut stand = stand(3).await;
    let mut first = ready(&stand, 3).await;
    let envelope = stand.envelope(&stand.launch(&first, r#"{"command":"echo"}"#));
    first.send(&envelope).await;
    assert_eq!(first.control().await, Control::Launched(true));
    first.output().await;
    stand.restart().await;

    // It remembers nothing of what was redeemed before.
    let mut second = ready(&stand, 3).await;
    let why = second.put_off(&envelope).await;
    assert!(why.contains("before socket-proxy was started"), "{why}");
    stand.remove(&second.id).await.unwrap();

    let mut third = ready(&stand, 3).await;
    let envelope = stand.envelope(&stand.launch(&third, r#"{"command":"echo"}"#));
    third.send(&envelope).await;
    assert_eq!(third.control().await, Control::Launched(true));
}

/// A pooled cell that waits for its request.
async fn ready(stand: &Stand, most: u32) -> WaitingCell {
    let mut cell = stand.pooled().await;
    cell.send(&stand.granted(most)).await;
    assert_eq!(cell.control().await, Control::Granted(true));
    stand.start_container(&cell.id).await.unwrap();
    cell
}

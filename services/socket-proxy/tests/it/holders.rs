//! Held namespaces: one cell at a time, and the way out of those that have one.

use std::path::Path;

use bailey_cell::launch::{Control, signed_from_line};
use bailey_trust::{Decision, verify};
use bailey_types::{ImageId, JobId};

use crate::stand::{Stand, args, engine, fixture_path, seat};

/// A proxy that knows an image of holders, and the id of that.
async fn stand(egress: bool) -> (Stand, ImageId) {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| {
        if egress {
            locked.proposed.egress = vec!["example.org:443".into()];
        }
    });
    let fixture = fixture_path();
    // Images of ours carry labels that no other may have.
    let label = "LABEL%20bailey.image.content%3Dx";
    let files = [("holder", Path::new(&fixture))];
    let reference = stand.import("holder", label, &files).await;
    let image = socket_proxy::seal::find(&engine(), &reference)
        .await
        .unwrap();
    stand
        .restart_with(socket_proxy::Args {
            holder_image: Some(reference),
            ..args()
        })
        .await;
    (stand, image)
}

async fn holder(stand: &Stand, image: ImageId) -> String {
    let (name, body) = stand.derived_holder(image);
    let id = stand.create(&name, body).await.unwrap();
    stand.start_container(&id).await.unwrap();
    id
}

async fn refused(stand: &Stand, holder: &str) -> String {
    let (name, body) = stand.derived_as(seat(JobId::new()), false, Some(holder));
    stand.create(&name, body).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_cell_in_a_held_namespace_runs_and_leaves_it_to_the_next() {
    let (stand, image) = stand(false).await;
    let asked = stand.docker.inspect_image("bailey-holder").await.unwrap();
    assert_eq!(asked.id, Some(image.to_string()));
    let holder = holder(&stand, image).await;
    for _ in 0..2 {
        let job = JobId::new();
        let derived = stand.derived_as(seat(job), false, Some(&holder));
        let mut cell = stand.cell_as(job, derived).await;
        let taken = refused(&stand, &holder).await;
        assert!(taken.contains("not free"), "{taken}");

        let envelope = stand.envelope(&stand.launch(&cell, r#"{"command":"walls"}"#));
        let output = cell.run(&envelope).await;

        let seen: serde_json::Value = serde_json::from_slice(&output.out).unwrap();
        assert_eq!(seen["interfaces"], 1, "no route");
        assert_eq!(seen["processes"], 2, "the holder's processes are not seen");
        stand.remove(&cell.id).await.unwrap();
    }
    // A holder that was told to end holds nothing.
    stand
        .docker
        .kill_container(
            &holder,
            None::<bollard::query_parameters::KillContainerOptions>,
        )
        .await
        .unwrap_err();
    let options = bollard::query_parameters::KillContainerOptionsBuilder::new()
        .signal("SIGKILL")
        .build();
    stand
        .docker
        .kill_container(&holder, Some(options))
        .await
        .unwrap();
    assert!(refused(&stand, &holder).await.contains("not free"));
    stand.remove(&holder).await.unwrap();
}

#[tokio::test]
async fn only_a_started_holder_of_the_same_plugin_and_lock_is_joined() {
    let (mut stand, image) = stand(false).await;
    let (name, body) = stand.derived_holder(image);
    let id = stand.create(&name, body).await.unwrap();
    assert!(refused(&stand, &id).await.contains("not free"));
    stand.start_container(&id).await.unwrap();
    assert!(
        stand.start_container(&id).await.is_err(),
        "it is started once"
    );
    assert!(stand.attach(&id).await.is_err(), "nobody attaches to it");
    let no_holder = refused(&stand, &"0".repeat(64)).await;
    assert!(no_holder.contains("only a holder"), "{no_holder}");
    let cell = stand.cell().await;
    assert!(refused(&stand, &cell.id).await.contains("only a holder"));

    stand.change_lock(|_| ());
    assert!(refused(&stand, &id).await.contains("another lock"));

    // A later life of the proxy does not know whose it was.
    let other = holder(&stand, image).await;
    stand.restart().await;
    assert!(refused(&stand, &other).await.contains("not free"));
    stand.remove(&other).await.unwrap();
}

#[tokio::test]
async fn the_lease_of_a_way_out_is_the_signed_decision_and_is_given_once() {
    let (stand, image) = stand(true).await;
    // Without a holder there is no such cell.
    let (name, body) = stand.derived(JobId::new());
    let error = stand.create(&name, body).await.unwrap_err().to_string();
    assert!(error.contains("need a holder"), "{error}");

    let holder = holder(&stand, image).await;
    let job = JobId::new();
    let derived = stand.derived_as(seat(job), false, Some(&holder));
    let mut cell = stand.cell_as(job, derived).await;
    let mut launch = stand.launch(&cell, r#"{"command":"dial"}"#);
    launch.decision.egress = vec!["example.org:443".into()];
    let output = cell.run(&stand.envelope(&launch)).await;

    // What the holder got is told by it to whoever asks inside: the cell.
    let error = String::from_utf8_lossy(&output.err).into_owned();
    let signed = signed_from_line(&output.out).unwrap_or_else(|e| panic!("{e}: {error}"));
    let policy = &stand.ctx.trust.signing.policy;
    let decision = verify::<Decision>(&signed, policy).unwrap().statement;
    assert_eq!(decision.id, launch.decision.id);

    stand.remove(&cell.id).await.unwrap();
    let spent = refused(&stand, &holder).await;
    assert!(spent.contains("not free"), "{spent}");
}

#[tokio::test]
async fn decision_and_container_agree_on_the_way_out() {
    let (stand, image) = stand(true).await;
    let holder = holder(&stand, image).await;
    let job = JobId::new();
    let derived = stand.derived_as(seat(job), false, Some(&holder));
    let mut cell = stand.cell_as(job, derived).await;
    let launch = stand.launch(&cell, r#"{"command":"dial"}"#);
    let output = cell.run(&stand.envelope(&launch)).await;
    let Some(Control::Refused(reason)) = output.control else {
        panic!("{output:?}")
    };
    assert!(reason.contains("egress"), "{reason}");
}

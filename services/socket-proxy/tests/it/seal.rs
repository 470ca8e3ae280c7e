//! Sealing: what becomes an image, and what does not.

use bailey_proto::management::v1::InspectImageRequest;
use bailey_types::Sha256;
use http::Method;
use serde_json::Value;
use tonic::Code;

use crate::stand::{Stand, args, engine, fixture_tar, seal_header, seal_messages};

async fn leftovers(stand: &Stand) -> Vec<Value> {
    let all: Vec<Value> = engine()
        .json(Method::GET, "/containers/json?all=1", None)
        .await
        .unwrap();
    all.into_iter()
        .filter(|c| {
            c["Names"]
                .to_string()
                .contains(&format!("bailey-{}-seal", stand.id))
        })
        .collect()
}

#[tokio::test]
async fn a_sealed_image_holds_the_files_and_nothing_of_the_container() {
    let stand = Stand::bare(args()).await;
    let base = stand.import_base("base", &[]).await;

    let sealed = stand.seal(&base, "fixture").await.unwrap();

    assert_eq!(sealed.tar_sha256, Sha256::of(&fixture_tar()).0.to_vec());
    let path = format!("/images/{}/json", sealed.image_id);
    let image: Value = engine().json(Method::GET, &path, None).await.unwrap();
    let config = &image["Config"];
    assert_eq!(config["Entrypoint"], serde_json::json!(["/plugin/fixture"]));
    let labels = config["Labels"].as_object().unwrap();
    assert_eq!(labels["bailey.image.plugin"], "fixture");
    assert_eq!(labels["bailey.image.tree"], "07".repeat(32));
    assert_eq!(labels["bailey.image.base"], "false");
    assert_eq!(labels["bailey.image.stack"], stand.id.as_str());
    assert_eq!(labels.len(), 4);
    assert!(config["Volumes"].is_null() && config["OnBuild"].is_null());
    assert_eq!(leftovers(&stand).await, Vec::<Value>::new());
    assert_eq!(
        stand.recorded.last("plugin.sealed").unwrap()["image"],
        sealed.image_id
    );
}

#[tokio::test]
async fn only_our_base_images_are_sealed_on() {
    let stand = Stand::bare(args()).await;
    let foreign = stand.import("foreign", "LABEL%20x%3Dy", &[]).await;
    let status = stand.seal(&foreign, "fixture").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    let status = stand.seal("bd-test:absent", "fixture").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "{status:?}");
    // One of ours that somebody made more of.
    let volume = "LABEL%20bailey.image.base%3Dtrue&changes=VOLUME%20/data";
    let volume = stand.import("volume", volume, &[]).await;
    let status = stand.seal(&volume, "fixture").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("VOLUME"), "{status:?}");
    // A sealed image is no base.
    let base = stand.import_base("base", &[]).await;
    let sealed = stand.seal(&base, "fixture").await.unwrap();
    let status = stand.seal(&sealed.image_id, "fixture").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
}

#[tokio::test]
async fn another_tar_than_announced_becomes_no_image() {
    let stand = Stand::bare(args()).await;
    let base = stand.import_base("base", &[]).await;
    let tar = fixture_tar();
    let mut header = seal_header(&base, "fixture", &tar);
    header.tar_sha256 = vec![0; 32].into();
    let messages = seal_messages(header, &tar);
    let status = stand
        .seals()
        .await
        .seal(futures::stream::iter(messages))
        .await
        .unwrap_err();
    assert!(status.message().contains("SHA-256"), "{status:?}");

    let mut messages = seal_messages(seal_header(&base, "fixture", &tar), &tar);
    messages.remove(0);
    let status = stand
        .seals()
        .await
        .seal(futures::stream::iter(messages))
        .await
        .unwrap_err();
    assert!(status.message().contains("header"), "{status:?}");

    let header = seal_header(&base, "fixture", b"no tar");
    let messages = seal_messages(header, b"no tar");
    assert!(
        stand
            .seals()
            .await
            .seal(futures::stream::iter(messages))
            .await
            .is_err()
    );
    assert_eq!(leftovers(&stand).await, Vec::<Value>::new());
}

#[tokio::test]
async fn nothing_is_sealed_where_state_will_be() {
    let stand = Stand::bare(args()).await;
    let base = stand.import_base("base", &[]).await;
    let sealed_with = async |path: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o444);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty())
            .unwrap();
        let tar = tar.into_inner().unwrap();
        let messages = seal_messages(seal_header(&base, "fixture", &tar), &tar);
        let mut seals = stand.seals().await;
        seals.seal(futures::stream::iter(messages)).await
    };
    for place in ["state/usercustomize.py", "home/plugin/.curlrc"] {
        let status = sealed_with(place).await.unwrap_err();
        assert!(
            status.message().contains("belongs to the base"),
            "{status:?}"
        );
    }
    sealed_with("plugin/state").await.unwrap();
}

#[tokio::test]
async fn images_with_volumes_triggers_or_our_labels_are_refused() {
    let stand = Stand::bare(args()).await;
    let base = stand.import_base("base", &[]).await;
    let fine = stand.import("fine", "ENV%20a%3Db", &[]).await;
    let volume = stand.import("volume", "VOLUME%20/data", &[]).await;
    let trigger = stand.import("trigger", "ONBUILD%20RUN%20x", &[]).await;
    let label = stand
        .import("label", "LABEL%20bailey.kind%3Dcell", &[])
        .await;
    let mut seals = stand.seals().await;
    for image in [base, fine] {
        let answer = seals
            .inspect_image(InspectImageRequest { image })
            .await
            .unwrap()
            .into_inner();
        assert!(answer.image_id.starts_with("sha256:"));
    }
    for image in [volume, trigger, label] {
        let status = seals
            .inspect_image(InspectImageRequest {
                image: image.clone(),
            })
            .await
            .unwrap_err();
        assert_eq!(
            status.code(),
            Code::FailedPrecondition,
            "{image}: {status:?}"
        );
    }
    let image = "../containers/json".into();
    let status = seals
        .inspect_image(InspectImageRequest { image })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

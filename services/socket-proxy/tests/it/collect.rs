//! What earlier locks left behind goes, and nothing else.

use bailey_proto::management::v1::CollectRequest;
use bailey_trust::StateKind;
use bailey_types::JobId;
use http::Method;
use serde_json::Value;
use tonic::Code;

use crate::stand::{Stand, args, engine};

async fn exists(path: &str) -> bool {
    let found: Result<Value, _> = engine().json(Method::GET, path, None).await;
    found.is_ok()
}

async fn collect(stand: &Stand, older_than_seconds: u32) -> (Vec<String>, Vec<String>) {
    let request = CollectRequest { older_than_seconds };
    let collected = stand.engine_client().await.collect(request).await;
    let collected = collected.unwrap().into_inner();
    (collected.image_ids, collected.volumes)
}

#[tokio::test]
async fn sealed_images_that_nothing_names_are_removed() {
    let mut stand = Stand::start().await;
    let base = format!("bd-test:{}-base", stand.id);
    let first = stand.image().to_string();
    // Given a newer seal, and a cell that was made under the first
    let (name, body) = stand.derived(JobId::new());
    let cell = stand.create(&name, body).await.unwrap();
    let second = stand.seal(&base, "fixture").await.unwrap().image_id;
    let other = stand.seal(&base, "other").await.unwrap().image_id;
    stand.lock_plugin(&second, 2);

    // Then the one that may be locked next stays as long as it is young
    assert_eq!(collect(&stand, 3600).await, (Vec::new(), Vec::new()));
    // And otherwise goes, while that of the cell stays
    assert_eq!(collect(&stand, 0).await.0, [other]);
    assert!(exists(&format!("/images/{first}/json")).await);
    let audited = stand.recorded.last("images.collected").unwrap();
    assert_eq!(audited["lock"], 2);

    // Until the cell is gone; what is locked, and the base, stay for good
    stand.remove(&cell).await.unwrap();
    assert_eq!(collect(&stand, 0).await.0, [first]);
    assert!(exists(&format!("/images/{second}/json")).await);
    assert!(exists(&format!("/images/{base}/json")).await);
}

#[tokio::test]
async fn a_proxy_that_starts_tidies_up_by_itself() {
    let mut stand = Stand::start().await;
    let base = format!("bd-test:{}-base", stand.id);
    let locked = stand.image().to_string();
    let other = stand.seal(&base, "other").await.unwrap().image_id;

    stand
        .restart_with(socket_proxy::Args {
            keep_images_seconds: 0,
            ..args()
        })
        .await;

    let path = format!("/images/{other}/json");
    let gone = async { while exists(&path).await {} };
    let patience = std::time::Duration::from_secs(30);
    tokio::time::timeout(patience, gone).await.unwrap();
    assert!(exists(&format!("/images/{locked}/json")).await);
}

#[tokio::test]
async fn state_goes_only_where_it_was_reset() {
    let mut stand = Stand::start().await;
    stand.change_lock(|locked| locked.proposed.state = StateKind::Data);
    let (name, body) = stand.derived(JobId::new());
    let cell = stand.create(&name, body).await.unwrap();
    let volume = format!("bailey-{}.state.fixture.0", stand.id);
    assert!(exists(&format!("/volumes/{volume}")).await);
    assert_eq!(collect(&stand, 0).await.1, Vec::<String>::new());

    stand.change_lock(|locked| locked.state_generation = 1);
    // In use
    assert_eq!(collect(&stand, 0).await.1, Vec::<String>::new());
    stand.remove(&cell).await.unwrap();
    assert_eq!(collect(&stand, 0).await.1, [volume]);
}

#[tokio::test]
async fn without_a_lock_nothing_is_removed() {
    let stand = Stand::bare(args()).await;
    let base = stand.import_base("base", &[]).await;
    let sealed = stand.seal(&base, "fixture").await.unwrap().image_id;
    let mut client = stand.engine_client().await;
    let status = client.collect(CollectRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(exists(&format!("/images/{sealed}/json")).await);
}

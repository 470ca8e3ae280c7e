//! `vault set`: to whom a secret is granted.

use crate::stand::Bench;

#[tokio::test]
async fn a_secret_is_granted_to_whomever_there_is_and_only_strangers_are_registered() {
    let bench = Bench::start();
    let set = async |grant: &str| {
        let args = ["vault", "set", "key", "--generate", "--grant", grant];
        bench.bailey(&args).await
    };
    for known in ["core", "shop"] {
        let granted = set(known).await.expect(0);
        assert!(!granted.stdout.contains("registered"), "{granted:?}");
        granted.says(&format!("set for {known}: key"));
    }
    set("new")
        .await
        .expect(0)
        .says("registered the principal new")
        .says("set for new: key");
    // Whoever was revoked is not granted anything without a word.
    let refused = set("gone").await;
    assert_ne!(refused.code, Some(0));
    refused.complains("registered already");
}

//! Who can open the vault, over the management socket.

use std::os::unix::fs::PermissionsExt as _;

use bailey_proto::management::v1::{
    AddRecipientRequest, ExportRequest, ListRecipientsRequest, RemoveRecipientRequest,
    StatusRequest, UnsealRequest,
};
use bailey_trust::SealingKey;
use bailey_types::Service;
use tonic::Code;

use crate::harness::{Broker, logged};

/// In place, as it must be done where the file is mounted by itself.
fn put_key(broker: &Broker, text: &str) {
    let path = broker.stack.secrets_dir().join("age.key");
    let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode));
    mode(0o600).unwrap();
    std::fs::write(&path, text).unwrap();
    mode(0o400).unwrap();
}

fn vault_file(broker: &Broker) -> Vec<u8> {
    let ctx = broker.stack.context(Service::Broker);
    std::fs::read(ctx.settings.data_dir.join("vault.age")).unwrap()
}

#[tokio::test]
async fn a_sealed_broker_is_unsealed_by_hand_without_an_admin_token() {
    let mut broker = Broker::start().await;
    broker.init().await;
    broker.stop().await;
    let right = broker.stack.vault_key();
    put_key(&broker, &SealingKey::generate().to_file_text());
    broker.start_again().await;
    let mut anybody = broker.custody("").await;
    let answer = anybody.unseal(UnsealRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.state, "sealed");
    assert!(answer.detail.contains("another key"), "{}", answer.detail);
    // While it is sealed nothing else is done, whoever asks.
    let listed = anybody.list_recipients(ListRecipientsRequest {}).await;
    assert_eq!(listed.unwrap_err().code(), Code::Unavailable);
    put_key(&broker, &right.to_file_text());
    let answer = anybody.unseal(UnsealRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.state, "open");
    let status = broker
        .vault("")
        .await
        .status(StatusRequest {})
        .await
        .unwrap();
    assert_eq!(status.into_inner().state, "open");
    // The certificate authority is there too, at once.
    broker.no_longer_says("sealed").await;
    broker.audit.entry("vault.unsealed").await;
}

#[tokio::test]
async fn unsealing_is_tried_a_few_times_a_minute_only() {
    let broker = Broker::start().await;
    let mut anybody = broker.custody("").await;
    let mut tries = 0;
    let refused = loop {
        match anybody.unseal(UnsealRequest {}).await {
            Ok(_) => tries += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((tries, refused.code()), (10, Code::ResourceExhausted));
}

#[tokio::test]
async fn another_uid_unseals_nothing() {
    let broker = Broker::start_with(Broker::for_another_uid).await;
    let refused = broker.custody("").await.unseal(UnsealRequest {}).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn recipients_are_the_admins_to_change_and_in_the_audit_log() {
    let broker = Broker::start().await;
    let admin = broker.init().await;
    let paper = SealingKey::generate();
    let recipient = paper.recipient().to_string();
    let add = || AddRecipientRequest {
        recipient: recipient.clone(),
        note: "in the safe".into(),
    };
    let remove = || RemoveRecipientRequest {
        recipient: recipient.clone(),
    };
    let mut nobody = broker.custody("blyadmin_wrong").await;
    for refused in [
        nobody.add_recipient(add()).await.map(drop),
        nobody.remove_recipient(remove()).await.map(drop),
        nobody
            .list_recipients(ListRecipientsRequest {})
            .await
            .map(drop),
        nobody
            .export(ExportRequest {
                recipients: vec![recipient.clone()],
            })
            .await
            .map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    }
    assert!(paper.open(&vault_file(&broker), 1 << 20).is_err());

    let mut custody = broker.custody(&admin).await;
    let added = custody.add_recipient(add()).await.unwrap().into_inner();
    assert_eq!(added.outcome, "added");
    assert_eq!(
        broker.audit.entry("vault.recipient_added").await["recipient"],
        recipient
    );
    assert!(paper.open(&vault_file(&broker), 1 << 20).is_ok());
    let again = custody.add_recipient(add()).await.unwrap().into_inner();
    assert_eq!(again.outcome, "exists");
    let listed = custody
        .list_recipients(ListRecipientsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.own, broker.stack.trust().vault.to_string());
    let [known] = listed.others.as_slice() else {
        panic!("{listed:?}");
    };
    assert_eq!(
        (&known.recipient, known.note.as_str()),
        (&recipient, "in the safe")
    );

    custody.remove_recipient(remove()).await.unwrap();
    assert!(paper.open(&vault_file(&broker), 1 << 20).is_err());
    let gone = custody.remove_recipient(remove()).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    let refused = broker.audit.entry("vault.refused").await;
    assert_eq!(
        (&refused["operation"], &refused["recipient"]),
        (&"remove_recipient".into(), &recipient.as_str().into())
    );
    // What is no recipient, or the stack's own.
    let own = broker.stack.trust().vault.to_string();
    let secret = paper.to_file_text().lines().last().unwrap().to_owned();
    for wrong in ["age1nonsense", &secret, &own] {
        let wrong = AddRecipientRequest {
            recipient: wrong.to_owned(),
            note: String::new(),
        };
        let refused = custody.add_recipient(wrong).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(!refused.message().contains(&secret[20..40]));
    }
    assert!(!logged().contains(&secret[20..40]));
}

#[tokio::test]
async fn an_export_is_for_its_recipients_only_and_not_without_a_record() {
    let mut broker = Broker::start().await;
    let admin = broker.init().await;
    broker.grant_demo_key(&admin, "canary-export").await;
    let (reader, other) = (SealingKey::generate(), SealingKey::generate());
    let to = |keys: &[&SealingKey]| ExportRequest {
        recipients: keys.iter().map(|key| key.recipient().to_string()).collect(),
    };
    let mut custody = broker.custody(&admin).await;
    let export = custody
        .export(to(&[&reader]))
        .await
        .unwrap()
        .into_inner()
        .vault;
    let plain = reader.open(&export, 1 << 20).unwrap();
    let read: serde_json::Value = serde_json::from_slice(&plain).unwrap();
    assert!(read["secrets"]["demo_key"].is_object());
    assert!(other.open(&export, 1 << 20).is_err());
    assert!(broker.stack.vault_key().open(&export, 1 << 20).is_err());
    let recorded = broker.audit.entry("vault.exported").await;
    assert_eq!(recorded["recipients"][0], reader.recipient().to_string());
    for keys in [&[][..], &[&reader; 9][..]] {
        let refused = custody.export(to(keys)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    broker.served.take().unwrap().stop().await;
    let refused = custody.export(to(&[&reader])).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
}

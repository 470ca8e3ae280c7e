//! That a change is kept is what an earlier vault is known by: the log gets it whatever becomes of a write, and nobody waits for it.

use std::time::Duration;

use bailey_proto::management::v1::{ListRequest, RevokeTokenRequest};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::Code;

use crate::audit::Mode;
use crate::record::register;
use crate::rollback::World;

/// Less than the broker waits for the log.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A new life, in which the log behaves so from the beginning.
async fn started(world: &mut World, mode: Mode) {
    world.broker.stop().await;
    world.broker.audit.behave(mode);
    world.broker.start_again().await;
}

/// The revocation is on the log; that the vault forgets the deed is what the earlier file in its place prevents.
#[tokio::test]
async fn a_revocation_that_was_taken_back_before_it_was_told_is_known() {
    let mut world = World::new().await;
    let earlier = world.file();
    world.broker.served.take().unwrap().stop().await;
    world.revoke().await;
    let now = world.file();
    world.put(&earlier);
    world.broker.served = Some(world.broker.audit.serve(&world.broker.stack));
    world.broker.audit.entry("token.revoked").await;
    // It is noticed while the broker runs,
    let alarm = world.broker.audit.entry("vault.changed_outside");
    timeout(AT_ONCE * 3, alarm).await.unwrap();
    world.broker.says("was changed by somebody else").await;
    assert_eq!(world.broker.audit.count("vault.changed_outside"), 1);
    assert!(world.status().await.detail.contains("vault export"));
    // and the next life does not take it for the vault of now;
    world.broker.restart().await;
    world.refuses_it().await;
    assert!(world.status().await.earlier);
    // but the one in which the deed still waits.
    world.broker.stop().await;
    world.put(&now);
    world.broker.start_again().await;
    world.opens().await;
    assert_eq!(
        world.shown().await.unwrap_err().code(),
        Code::Unauthenticated
    );
}

#[tokio::test]
async fn that_a_change_is_kept_is_told_until_the_log_has_it() {
    let world = World::new().await;
    let told = world.broker.audit.count("vault.kept");
    world.broker.audit.behave(Mode::RefuseKept);
    let mut vault = world.broker.vault(&world.admin).await;
    vault.register_principal(register("one")).await.unwrap();
    world.broker.audit.refused_kept(1).await;
    assert_eq!(world.broker.audit.count("vault.kept"), told);
    world.broker.audit.behave(Mode::Take);
    timeout(AT_ONCE * 3, world.kept()).await.unwrap();
}

#[tokio::test]
async fn nobody_who_gives_waits_until_the_log_has_what_is_kept() {
    let world = World::new().await;
    world.broker.audit.behave(Mode::HoldKept);
    let mut vault = world.broker.vault(&world.admin).await;
    for name in ["one", "two", "three"] {
        let done = timeout(AT_ONCE, vault.register_principal(register(name)));
        done.await.unwrap().unwrap();
    }
    world.broker.audit.behave(Mode::Take);
    timeout(AT_ONCE * 3, world.kept()).await.unwrap();
}

/// A service that stops delivers what it has still to say.
#[tokio::test]
async fn what_was_kept_just_before_a_stop_is_told() {
    let mut world = World::new().await;
    let mut vault = world.broker.vault(&world.admin).await;
    vault.register_principal(register("last")).await.unwrap();
    let revision = world.status().await.revision;
    world.broker.stop().await;
    let all = world.broker.audit.all();
    let last = all.iter().rfind(|entry| entry["kind"] == "vault.kept");
    assert_eq!(last.unwrap()["fields"]["revision"], revision);
}

/// Otherwise each start would look through all that was written since the last change.
#[tokio::test]
async fn each_start_tells_it_again() {
    let mut world = World::new().await;
    for _ in 0..2 {
        let told = world.broker.audit.count("vault.kept");
        world.broker.restart().await;
        let again = async {
            while world.broker.audit.count("vault.kept") == told {
                tokio::task::yield_now().await;
            }
        };
        timeout(AT_ONCE * 3, again).await.unwrap();
    }
}

#[tokio::test]
async fn whoever_wants_something_waits_a_bounded_time_for_a_long_log() {
    let mut world = World::new().await;
    started(&mut world, Mode::Endless).await;
    let shown = timeout(Duration::from_secs(7), world.shown()).await;
    let refused = shown.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("still compared"), "{refused}");
    assert!(world.status().await.detail.contains("still compared"));
}

#[tokio::test]
async fn nobody_who_takes_something_away_waits_for_the_comparison() {
    let mut world = World::new().await;
    started(&mut world, Mode::Mute).await;
    let mut giving = world.broker.vault(&world.admin).await;
    let mut asked = JoinSet::new();
    asked.spawn(async move { giving.register_principal(register("new")).await });
    let mut taking = world.broker.vault(&world.admin).await;
    for name in ["stolen", "other"] {
        let name = name.into();
        let done = taking.revoke_token(RevokeTokenRequest { name });
        timeout(AT_ONCE, done).await.unwrap().unwrap();
    }
    let given = asked.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(given.code(), Code::Unavailable, "{given}");
    world.broker.audit.behave(Mode::Take);
    world.opens().await;
}

#[tokio::test]
async fn why_it_was_not_compared_is_said() {
    let mut world = World::new().await;
    started(&mut world, Mode::Damaged).await;
    world.broker.says("a bundle of it is damaged").await;
    let detail = world.status().await.detail;
    assert!(
        detail.contains("a bundle of it is damaged") && !detail.contains("did not answer"),
        "{detail}"
    );
    let refused = world.shown().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    world.broker.audit.behave(Mode::Take);
    world.opens().await;
}

/// What waits for room is in nobody's way.
#[tokio::test]
async fn an_alarm_of_the_vault_is_told_where_the_log_takes_nothing_else() {
    let mut world = World::new().await;
    let earlier = world.file();
    world.revoke().await;
    world.kept().await;
    world.broker.audit.behave(Mode::Full);
    // Refused over and over: it fills the queue to the log, which takes none of it.
    let refused = world.broker.vault("wrong").await;
    for _ in 0..3 {
        let wrong = refused.clone().list(ListRequest {}).await;
        assert_eq!(wrong.unwrap_err().code(), Code::Unauthenticated);
    }
    world.put(&earlier);
    let name = "other".into();
    let mut vault = world.broker.vault(&world.admin).await;
    assert!(
        vault
            .revoke_token(RevokeTokenRequest { name })
            .await
            .is_err()
    );
    let alarm = world.broker.audit.entry("vault.changed_outside");
    timeout(AT_ONCE * 3, alarm).await.unwrap();
    assert_eq!(world.broker.audit.count("manage.refused"), 0);
    world.broker.restart().await;
    let alarm = world.broker.audit.entry("vault.earlier_refused");
    timeout(AT_ONCE * 3, alarm).await.unwrap();
}

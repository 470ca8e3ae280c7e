//! Plugins whose folder has changed since they were sealed, and cells that are started ahead.

use std::fs;
use std::path::{Path, PathBuf};

use bailey_plugin::Limits;
use bailey_plugin::tree::Tree;
use bailey_proto::policy::v1::GrantPoolRequest;
use bailey_proto::policy::v1::grant_pool_response::Outcome;
use bailey_proto::policy::v1::pool_service_client::PoolServiceClient;
use bailey_service::Readiness;
use bailey_trust::{HostPath, Lock, LockedPlugin, PoolGrant, StateKind, verify};
use bailey_types::{Clock, Serial, Service};
use tonic::Code;

use crate::peers::Mode;
use crate::stack::{CONFIG, TestPolicy, lock};

/// A lock whose plugin `echo` was sealed from `dir`.
fn sealed(serial: u64, dir: &Path) -> Lock {
    let mut lock = lock(serial);
    let tree = Tree::read(dir).unwrap();
    let files = tree.files.iter();
    let echo = &mut echo(&mut lock).proposed;
    echo.files = files
        .map(|(path, file)| (path.clone(), file.blake3))
        .collect();
    echo.tree_blake3 = tree.blake3;
    echo.source = dir.display().to_string();
    echo.egress = vec!["example.org:443".into()];
    lock
}

fn echo(lock: &mut Lock) -> &mut LockedPlugin {
    lock.plugins.get_mut(&"echo".parse().unwrap()).unwrap()
}

/// As [`sealed`], with an account for what has changed since.
fn sealed_with_untrusted(serial: u64, dir: &Path) -> Lock {
    let mut lock = sealed(serial, dir);
    let config = CONFIG.replace("  other: {}\n", "  other: {}\n  untrusted: {}\n");
    lock.config_files.insert("config.yaml".into(), config);
    echo(&mut lock).proposed.walls.untrusted = Some(Limits::default());
    lock
}

fn folder(policy: &TestPolicy) -> PathBuf {
    let dir = policy.stack.dir().join("plugins/echo");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("run.py"), "sealed").unwrap();
    dir
}

#[tokio::test]
async fn a_plugin_that_has_changed_runs_as_untrusted_with_nothing_until_it_is_locked_again() {
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&sealed_with_untrusted(5, &dir));
    let (decision, _) = policy.allowed(policy.call("poll", "{}")).await;
    assert_eq!(decision.account.as_str(), "default");
    assert_eq!(decision.egress, ["example.org:443"]);

    fs::write(dir.join("run.py"), "SEALED").unwrap();
    for _ in 0..3 {
        let (decision, _) = policy.allowed(policy.call("poll", "{}")).await;
        assert_eq!(decision.account.as_str(), "untrusted");
        assert!(decision.egress.is_empty());
    }
    // Its neighbour is what it was.
    let (decision, _) = policy.allowed(policy.event()).await;
    assert_eq!(decision.account.as_str(), "default");

    policy.stack.write_lock(&sealed_with_untrusted(6, &dir));
    let (decision, _) = policy.allowed(policy.call("poll", "{}")).await;
    assert_eq!(decision.account.as_str(), "default");
    assert_eq!(policy.audit.recorded("plugin.drifted", 1).await.len(), 1);
}

#[tokio::test]
async fn without_an_account_for_it_a_plugin_that_has_changed_does_not_run() {
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&sealed(5, &dir));
    policy.allowed(policy.call("poll", "{}")).await;
    fs::write(dir.join("more.py"), "").unwrap();
    assert_eq!(policy.denied(policy.call("poll", "{}")).await, "drifted");
    let told = policy.audit.recorded("plugin.drifted", 1).await;
    assert_eq!(told[0]["fields"]["plugin"], "echo");
    assert_ne!(told[0]["fields"]["found"], told[0]["fields"]["sealed"]);
    fs::remove_file(dir.join("more.py")).unwrap();
    policy.allowed(policy.call("poll", "{}")).await;
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(policy.denied(policy.call("poll", "{}")).await, "drifted");
    // Once for each change, however often it was looked at.
    let told = policy.audit.recorded("plugin.drifted", 2).await;
    assert_eq!(told.len(), 2);
    assert!(told[1]["fields"]["found"].is_null());
}

/// Policy, and the folder of a plugin that was changed after lock 5 had sealed it.
async fn changed_since_lock_5() -> (TestPolicy, PathBuf) {
    let mut policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&sealed(5, &dir));
    fs::write(dir.join("run.py"), "SEALED").unwrap();
    policy.restart().await;
    (policy, dir)
}

#[tokio::test]
async fn a_plugin_that_has_changed_is_told_without_a_call() {
    let (policy, _) = changed_since_lock_5().await;
    let mut presence = policy.presence();
    let degraded = presence
        .wait_for(|presence| presence.detail.contains("has changed"))
        .await
        .unwrap()
        .clone();
    assert_eq!(degraded.readiness, Readiness::Degraded);
    let expected = "plugin echo has changed since it was locked: run.py is another; run `bailey plugin lock echo`";
    assert!(degraded.detail.contains(expected), "{}", degraded.detail);
}

#[tokio::test]
async fn what_is_said_of_a_folder_is_about_the_lock_that_it_goes_by() {
    let (policy, dir) = changed_since_lock_5().await;
    let mut presence = policy.presence();
    let changed = presence.wait_for(|now| now.detail.contains("has changed"));
    changed.await.unwrap();
    // When the changed folder is locked, then whoever waits for that lock is not told to lock it.
    policy.stack.write_lock(&sealed(6, &dir));
    let taken = presence.wait_for(|now| now.lock_serial == Some(6));
    assert_eq!(taken.await.unwrap().detail, "");
}

#[tokio::test]
async fn files_that_differ_from_the_lock_are_told_and_change_nothing() {
    let mut policy = TestPolicy::start().await;
    let mut presence = policy.presence();
    presence
        .wait_for(|now| now.detail.is_empty())
        .await
        .unwrap();
    policy
        .stack
        .write_config("config.yaml", &format!("{CONFIG}# edited\n"));
    policy.restart().await;
    let mut presence = policy.presence();
    presence
        .wait_for(|now| {
            now.detail
                .contains("the configuration has changed since it was locked")
        })
        .await
        .unwrap();
    policy.allowed(policy.call("poll", "{}")).await;
}

#[tokio::test]
async fn which_lock_it_goes_by_is_said_once_what_it_says_is_about_that_one() {
    let mut policy = TestPolicy::start().await;
    let mut presence = policy.presence();
    presence
        .wait_for(|now| now.lock_serial == Some(5))
        .await
        .unwrap();
    // Given a configuration that differs from the lock, as policy says,
    let edited = format!("{CONFIG}# edited\n");
    policy.stack.write_config("config.yaml", &edited);
    policy.restart().await;
    let mut presence = policy.presence();
    presence
        .wait_for(|now| now.lock_serial == Some(5) && !now.detail.is_empty())
        .await
        .unwrap();
    // when it is locked, then nothing is said of that any more as soon as policy goes by that lock; which is long before it looks at the files again.
    let mut next = lock(6);
    next.config_files.insert("config.yaml".into(), edited);
    policy.stack.write_lock(&next);
    let taken = presence.wait_for(|now| now.lock_serial == Some(6));
    let taken = tokio::time::timeout(std::time::Duration::from_secs(3), taken);
    let taken = taken.await.unwrap().unwrap().clone();
    assert_eq!(taken.detail, "");
}

async fn ask(policy: &TestPolicy, plugin: &str) -> Result<PoolGrant, String> {
    let mut runner = PoolServiceClient::new(policy.runner.channel(Service::Policy));
    let request = GrantPoolRequest {
        plugin: plugin.into(),
    };
    let answer = runner.grant_pool(request).await.unwrap().into_inner();
    match answer.outcome.unwrap() {
        Outcome::Grant(signed) => {
            let key = &policy.stack.trust().signing.policy;
            let grant = verify::<PoolGrant>(&signed, key).unwrap().statement;
            grant.check_time(Clock::system().now()).unwrap();
            Ok(grant)
        }
        Outcome::Denied(denied) => {
            assert!(!denied.detail.is_empty());
            Err(denied.reason)
        }
    }
}

/// A lock that lets three cells of `echo` be started ahead, but for what `spoil` does to it.
fn pooled(serial: u64, dir: &Path, spoil: fn(&mut LockedPlugin)) -> Lock {
    let mut lock = sealed(serial, dir);
    let echo = echo(&mut lock);
    echo.proposed.egress.clear();
    echo.proposed.walls.warm = 3;
    spoil(echo);
    lock
}

#[tokio::test]
async fn a_pool_is_granted_for_an_hour_and_recorded_once() {
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&pooled(5, &dir, |_| {}));
    let grant = ask(&policy, "echo").await.unwrap();
    assert_eq!((grant.plugin.as_str(), grant.cells), ("echo", 3));
    assert_eq!(grant.lock_serial, Serial(5));
    assert!(grant.expires_at <= grant.issued_at.plus(PoolGrant::MAX_VALIDITY));
    // Asking again gives the same one, not another record.
    assert_eq!(ask(&policy, "echo").await.unwrap(), grant);
    let recorded = policy.audit.entries("pool.granted");
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0]["fields"]["grant"], grant.id.to_string());
    // Another lock, another grant.
    policy.stack.write_lock(&pooled(6, &dir, |_| {}));
    let next = ask(&policy, "echo").await.unwrap();
    assert_ne!(next.id, grant.id);
    assert_eq!(next.lock_serial, Serial(6));
}

#[tokio::test]
async fn only_cells_that_can_do_nothing_are_started_ahead() {
    type Spoil = fn(&mut LockedPlugin);
    let spoils: [(Spoil, &str); 5] = [
        (|echo| echo.proposed.walls.warm = 0, "not_pooled"),
        (|echo| echo.proposed.state = StateKind::Data, "not_pooled"),
        (
            |echo| echo.proposed.egress = vec!["example.org:443".into()],
            "not_pooled",
        ),
        (
            |echo| {
                echo.proposed.host_paths = vec![HostPath {
                    path: "/srv/media".into(),
                    device: 1,
                    inode: 2,
                    writable: false,
                }];
            },
            "not_pooled",
        ),
        (
            |echo| echo.proposed.account = "other".parse().unwrap(),
            "not_locked_account",
        ),
    ];
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    assert_eq!(ask(&policy, "echo").await.unwrap_err(), "lock_missing");
    let mut serial = 5;
    for (spoil, reason) in spoils {
        policy.stack.write_lock(&pooled(serial, &dir, spoil));
        assert_eq!(ask(&policy, "echo").await.unwrap_err(), reason);
        policy.stack.write_lock(&pooled(serial + 1, &dir, |_| {}));
        ask(&policy, "echo").await.unwrap();
        serial += 2;
    }
    assert_eq!(
        ask(&policy, "unknown").await.unwrap_err(),
        "plugin_not_locked"
    );
    policy.stack.write_lock(&lock(4));
    assert_eq!(ask(&policy, "echo").await.unwrap_err(), "lock_older");
    policy.audit.recorded("pool.refused", 1).await;
}

#[tokio::test]
async fn a_pool_ends_with_its_plugins_seal() {
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&pooled(5, &dir, |echo| {
        echo.proposed.walls.untrusted = Some(Limits::default());
    }));
    ask(&policy, "echo").await.unwrap();
    fs::write(dir.join("run.py"), "SEALED").unwrap();
    assert_eq!(ask(&policy, "echo").await.unwrap_err(), "drifted");
}

#[tokio::test]
async fn without_a_record_no_pool_is_granted() {
    let policy = TestPolicy::start_unlocked().await;
    let dir = folder(&policy);
    policy.stack.write_lock(&pooled(5, &dir, |_| {}));
    policy.audit.set(Mode::Down);
    let mesh = policy.stack.mesh(Service::Runner);
    let mut runner = PoolServiceClient::new(mesh.channel(Service::Policy));
    let request = GrantPoolRequest {
        plugin: "echo".into(),
    };
    let refused = runner.grant_pool(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    policy.audit.set(Mode::Good);
    ask(&policy, "echo").await.unwrap();
}

#[tokio::test]
async fn only_the_runner_may_ask_for_a_pool() {
    let policy = TestPolicy::start().await;
    for service in Service::ALL {
        let mesh = policy.stack.mesh(*service);
        let mut client = PoolServiceClient::new(mesh.channel(Service::Policy));
        let request = GrantPoolRequest {
            plugin: "echo".into(),
        };
        let answer = client.grant_pool(request).await;
        if *service == Service::Runner {
            assert!(answer.is_ok());
        } else {
            assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
        }
    }
}

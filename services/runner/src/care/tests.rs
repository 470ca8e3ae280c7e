use bailey_service::Settings;
use bailey_trust::TrustFile;
use bailey_types::{PluginName, Service};

use super::*;
use crate::reconcile::testing::{Stand, lock, locked, write};

/// A stack whose engine does not exist.
struct Yard {
    care: Arc<Care>,
    stand: Stand,
    ctx: Context,
    _dir: tempfile::TempDir,
}

fn yard() -> Yard {
    let dir = tempfile::tempdir().unwrap();
    let lock = write(dir.path(), &lock("home", &[("subject", 'a')]));
    let settings = Settings::for_test(dir.path());
    let trust = TrustFile::read(&settings.config_dir.join("trust.json")).unwrap();
    let ctx = Context::for_test(Service::Runner, settings, trust);
    let engine = Engine::new(dir.path().join("no-engine"));
    let stand = Stand::new(engine, "home".parse().unwrap(), lock);
    Yard {
        care: Arc::new(Care::new(&ctx, Arc::clone(&stand.reconciler))),
        stand,
        ctx,
        _dir: dir,
    }
}

impl Yard {
    fn admit(&self) -> Result<(), String> {
        let admitted = self.care.admit();
        admitted.map_err(|trouble| trouble.sentence().to_owned())
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stays_away_is_one_alert_and_one_change_of_the_standing() {
    let yard = yard();
    let mut standing = yard.care.standing();
    let care = Arc::clone(&yard.care);
    let tending = async move { care.tend().await };
    let mut changes = Vec::new();
    let watching = async {
        loop {
            standing.changed().await.unwrap();
            changes.push(standing.borrow_and_update().clone());
        }
    };
    tokio::select! {
        () = tending => panic!("it ended"),
        () = watching => {}
        () = tokio::time::sleep(Duration::from_mins(10)) => {}
    }
    let [change] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert!(!change.is_docker_well);
    assert!(change.trouble.starts_with("docker: "), "{change:?}");
    assert!(yard.care.vitals().alerted);
    assert!(yard.ctx.presence().borrow().detail.contains("docker"));
    // It looked again and again all the while.
    assert!(yard.care.vitals().failures > 10);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_admitted_before_the_gate_has_run_or_where_it_refuses() {
    let yard = yard();
    let early = yard.admit().unwrap_err();
    assert!(early.contains("boot gate has not run"), "{early}");
    yard.care.vitals().walls = Some(gate::Walls::Missing("no seccomp".into()));
    assert_eq!(yard.admit().unwrap_err(), "refused: no seccomp");
    yard.care.vitals().walls = Some(gate::Walls::Stand);
    assert_eq!(yard.admit(), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_is_shown_until_somebody_clears_it() {
    let yard = yard();
    yard.care.vitals().walls = Some(gate::Walls::Stand);
    let plugin: PluginName = "subject".parse().unwrap();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(2)).await;
        let quarantine = &yard.stand.reconciler.quarantine;
        quarantine.crashed(&plugin, &locked('a'), "it ended with exit code 3");
    }
    let check = || {
        yard.stand
            .reconciler
            .quarantine
            .check(&plugin, &locked('a'))
    };
    let reason = check().unwrap_err();
    assert!(reason.contains("quarantined"), "{reason}");
    // Its calls go on, in cells that are made for each.
    assert_eq!(yard.admit(), Ok(()));
    yard.care.judge();
    let standing = yard.care.standing().borrow().clone();
    assert_eq!(standing.quarantined.len(), 1);
    assert!(yard.ctx.presence().borrow().detail.contains("quarantined"));

    let clear = |plugin: &str| Clear {
        plugin: plugin.to_owned(),
        principal: "token:ops".to_owned(),
    };
    yard.care.clear(&clear("other"));
    yard.care.clear(&clear("no name at all"));
    assert!(check().is_err());
    yard.care.clear(&clear("subject"));
    assert_eq!(check(), Ok(()));
    let entry = yard.stand.recorded.last("cell.released").unwrap();
    assert_eq!(entry["by"], "token:ops");
}

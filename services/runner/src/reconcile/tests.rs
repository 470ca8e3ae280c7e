use super::testing::{Stand, lock, write};
use super::*;

fn stand(dir: &tempfile::TempDir) -> Stand {
    let lock = lock("home", &[("subject", 'a')]);
    let engine = Engine::new(dir.path().join("no-engine"));
    Stand::new(engine, "home".parse().unwrap(), write(dir.path(), &lock))
}

fn death(id: &str) -> Death {
    Death {
        id: id.to_owned(),
        exit_code: "3".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_container_that_keeps_dying_is_told_to_its_keeper_each_time_and_then_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let stand = stand(&dir);
    for id in ["1", "2", "3", "4", "5"] {
        assert_eq!(stand.recorded.kinds(), [""; 0]);
        stand.keeper.keep(id);
        stand.reconciler.died(&death(id));
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(stand.keeper.gone(), ["1", "2", "3", "4", "5"]);
    assert_eq!(stand.recorded.kinds(), ["cell.quarantined"]);
    let reason = &stand.reconciler.quarantine.held().borrow()[0]
        .reason
        .clone();
    assert!(reason.contains("exit code 3"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_nobody_keeps_is_no_news() {
    let dir = tempfile::tempdir().unwrap();
    let stand = stand(&dir);
    stand.keeper.keep("1");
    for _ in 0..20 {
        // A cell with a request, or somebody else's container.
        stand.reconciler.died(&death("2"));
        tokio::time::advance(Duration::from_secs(2)).await;
    }
    assert_eq!(stand.keeper.gone(), [""; 0]);
    assert_eq!(stand.recorded.kinds(), [""; 0]);
}

#[tokio::test]
async fn without_an_engine_nothing_is_told_and_nothing_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let stand = stand(&dir);
    stand.keeper.keep("1");
    let error = stand.reconciler.follow().await;
    assert_eq!(error.meaning(), Meaning::Unwell, "{}", error.sentence());
    assert!(stand.reconciler.pass().await.is_err());
    assert_eq!(stand.keeper.gone(), [""; 0]);
}

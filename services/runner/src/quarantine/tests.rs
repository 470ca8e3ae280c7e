use serde_json::json;

use super::*;
use crate::audit::Recorded;
use crate::reconcile::testing::{lock, locked};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

struct Stand {
    quarantine: Quarantine,
    recorded: Arc<Recorded>,
    plugin: PluginName,
}

impl Stand {
    fn new() -> Self {
        let recorded = Arc::new(Recorded::default());
        Self {
            quarantine: Quarantine::new(Arc::clone(&recorded) as _),
            recorded,
            plugin: "subject".parse().unwrap(),
        }
    }

    /// Counts a crash that many times; answers whether the plugin is held then.
    async fn crash(&self, times: usize, apart: Duration) -> bool {
        let mut held = false;
        for _ in 0..times {
            tokio::time::advance(apart).await;
            held = self
                .quarantine
                .crashed(&self.plugin, &locked('a'), "it ended with exit code 3");
        }
        held
    }

    fn check(&self, digit: char) -> Result<(), String> {
        self.quarantine.check(&self.plugin, &locked(digit))
    }
}

#[tokio::test(start_paused = true)]
async fn five_crashes_in_ten_minutes_are_a_loop_and_four_are_not() {
    let stand = Stand::new();
    assert!(!stand.crash(4, MINUTE).await);
    assert_eq!(stand.check('a'), Ok(()));
    assert!(stand.crash(1, MINUTE).await);
    let reason = stand.check('a').unwrap_err();
    assert!(
        reason.contains("subject is quarantined")
            && reason.contains("exit code 3")
            && reason.contains("bailey plugin clear subject"),
        "{reason}"
    );
    assert_eq!(
        *stand.quarantine.held().borrow(),
        [Held {
            plugin: stand.plugin.clone(),
            reason
        }]
    );
    stand.crash(3, MINUTE).await;
    assert_eq!(stand.recorded.kinds(), ["cell.quarantined"]);
}

#[tokio::test(start_paused = true)]
async fn crashes_that_are_far_apart_are_no_loop() {
    let stand = Stand::new();
    assert!(!stand.crash(50, MINUTE * 5 / 2).await);
    assert_eq!(stand.check('a'), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn what_ends_many_containers_at_once_counts_once() {
    let stand = Stand::new();
    assert!(!stand.crash(100, Duration::from_millis(5)).await);
    assert!(!stand.crash(3, SECOND).await);
    assert!(stand.crash(1, SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn the_next_try_waits_longer_after_each_crash() {
    let stand = Stand::new();
    let pause = || stand.quarantine.pause(&stand.plugin);
    assert_eq!(pause(), Duration::ZERO);
    for seconds in [1, 2, 4, 8] {
        stand.crash(1, 10 * SECOND).await;
        assert_eq!(pause(), seconds * SECOND);
    }
    tokio::time::advance(3 * SECOND).await;
    assert_eq!(pause(), 5 * SECOND);
    tokio::time::advance(WINDOW).await;
    assert_eq!(pause(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn time_alone_frees_nothing_and_the_operator_does() {
    let stand = Stand::new();
    stand.crash(5, SECOND).await;
    tokio::time::advance(100 * WINDOW).await;
    assert!(stand.check('a').is_err());
    assert!(
        !stand
            .quarantine
            .clear(&"other".parse().unwrap(), "token:ops")
    );
    assert!(stand.check('a').is_err());
    assert!(stand.quarantine.clear(&stand.plugin, "token:ops"));
    assert_eq!(stand.check('a'), Ok(()));
    assert!(stand.quarantine.held().borrow().is_empty());
    assert!(!stand.quarantine.clear(&stand.plugin, "token:ops"));
    assert_eq!(
        stand.recorded.kinds(),
        ["cell.quarantined", "cell.released"]
    );
    // It counts from nothing.
    assert!(!stand.crash(4, SECOND).await);
    assert!(stand.crash(1, SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_changes_the_plugin_frees_it_and_any_other_does_not() {
    let stand = Stand::new();
    stand.crash(5, SECOND).await;
    stand
        .quarantine
        .follow(&lock("home", &[("subject", 'a'), ("other", 'b')]));
    assert!(stand.check('a').is_err());
    assert_eq!(stand.check('b'), Ok(()));
    stand.quarantine.follow(&lock("home", &[("subject", 'b')]));
    assert!(stand.quarantine.held().borrow().is_empty());
    assert_eq!(stand.check('b'), Ok(()));
    // The old entry back again is a new beginning too.
    assert_eq!(stand.check('a'), Ok(()));
    let entry = stand.recorded.last("cell.released");
    assert_eq!(entry, Some(json!({"plugin": "subject", "by": "lock"})));
}

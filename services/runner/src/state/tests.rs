//! The clock stands still until everybody waits, so what the tests say of time is exact.

use std::collections::VecDeque;
use std::pin::pin;

use bailey_cell::Seat;
use bailey_cell::usage::{Excess, Percent};
use bailey_test::TestStack;
use bailey_trust::{LockedPlugin, Mode, StateKind};
use bailey_types::{AttemptNumber, JobId, Serial, Service, StackId};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::Recorded;

const GIB: u64 = 1 << 30;
const LIMIT: StateLimit = StateLimit {
    total_bytes: GIB,
    files: 100,
};

fn within() -> Usage {
    Usage::Within(Percent::of(1, 2))
}

fn over() -> Usage {
    Usage::Bytes(Excess::of(GIB * 2, GIB))
}

/// Answers each look from a list, each watch by the next thing that is `seen`.
struct Played {
    looks: Mutex<VecDeque<Result<Measured, Trouble>>>,
    asked: Mutex<Vec<(Pace, Instant)>>,
    seen: watch::Sender<Option<Usage>>,
    limit: Mutex<StateLimit>,
    watching: watch::Sender<usize>,
}

impl Survey for Played {
    fn measure<'a>(
        &'a self,
        _: &'a Whose,
        pace: Pace,
        until: CancellationToken,
    ) -> BoxFuture<'a, Result<Measured, Trouble>> {
        self.asked.lock().unwrap().push((pace, Instant::now()));
        let limit = *self.limit.lock().unwrap();
        async move {
            if pace == Pace::Once {
                let next = self.looks.lock().unwrap().pop_front();
                return next.unwrap_or(Ok(Measured::Found(limit, within())));
            }
            self.watching.send_modify(|watching| *watching += 1);
            let mut seen = self.seen.subscribe();
            let measured = tokio::select! {
                usage = seen.wait_for(Option::is_some) => Measured::Found(limit, usage.unwrap().unwrap()),
                () = until.cancelled() => Measured::Stopped,
            };
            self.watching.send_modify(|watching| *watching -= 1);
            Ok(measured)
        }
        .boxed()
    }

    fn limit(&self, _: &Whose) -> Option<StateLimit> {
        Some(*self.limit.lock().unwrap())
    }
}

struct World {
    states: States,
    survey: Arc<Played>,
    audit: Arc<Recorded>,
    stack: StackId,
    plugin: PluginName,
    locked: LockedPlugin,
    _dir: TestStack,
}

fn locked() -> LockedPlugin {
    let zeros = "0".repeat(64);
    let proposed = json!({
        "manifest": {
            "name": "notes", "version": "1", "description": "", "entrypoint": "run", "concurrency_safe": true,
            "commands": [], "fact_outputs": [], "config_keys": {"required": [], "optional": []},
            "container": {"image": null, "entrypoint": null, "memory_bytes": null, "millicpus": null, "pids": null, "tmp_bytes": null},
        },
        "manifest_blake3": zeros, "tree_blake3": zeros, "tar_sha256": zeros, "image": format!("sha256:{zeros}"),
        "entrypoint": ["/run"], "source": "test", "account": "default",
        "limits": {"memory_bytes": 1, "millicpus": 1, "pids": 1, "tmp_bytes": 1},
        "state": "data", "egress": [], "host_paths": [], "walls": {"state_limit": LIMIT},
    });
    let locked =
        json!({"proposed": proposed, "tree_mac": zeros, "uid": 20_000, "holder_uid": 20_001});
    serde_json::from_value(locked).unwrap()
}

impl World {
    /// A runner's life in which looks find this, one after another, and then that all is well.
    fn with(looks: &[Usage]) -> Self {
        let dir = TestStack::new();
        let found = |usage: &Usage| Ok(Measured::Found(LIMIT, *usage));
        let survey = Arc::new(Played {
            looks: Mutex::new(looks.iter().map(found).collect()),
            asked: Mutex::default(),
            seen: watch::Sender::default(),
            limit: Mutex::new(LIMIT),
            watching: watch::Sender::default(),
        });
        let audit = Arc::new(Recorded::default());
        let ctx = dir.context(Service::Runner);
        Self {
            states: States::new(ctx, Arc::clone(&survey) as _, Arc::clone(&audit) as _),
            survey,
            audit,
            stack: "home".parse().unwrap(),
            plugin: "notes".parse().unwrap(),
            locked: locked(),
            _dir: dir,
        }
    }

    fn cell(&self) -> CellSpec<'_> {
        CellSpec {
            stack: &self.stack,
            serial: Serial(1),
            plugin: &self.plugin,
            locked: &self.locked,
            seat: Seat::Job {
                job: JobId::new(),
                attempt: AttemptNumber(1),
            },
            untrusted: false,
            holder: None,
        }
    }

    async fn admit(&self) -> Result<(), Outcome> {
        self.states.admit(&self.cell()).await
    }

    fn begun(&self) -> Ward {
        let mut ward = self.states.ward(&self.cell()).unwrap();
        ward.begin();
        ward
    }

    fn asked(&self) -> Vec<Pace> {
        let asked = self.survey.asked.lock().unwrap();
        asked.iter().map(|(pace, _)| *pace).collect()
    }

    async fn until_watched(&self) {
        let mut watching = self.survey.watching.subscribe();
        watching.wait_for(|watching| *watching > 0).await.unwrap();
    }

    /// Lets everything happen that comes by itself.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_mins(1)).await;
    }

    fn audited(&self) -> Vec<&'static str> {
        self.audit.kinds()
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_call_waits_for_a_look_and_the_next_do_not() {
    let world = World::with(&[]);
    world.admit().await.unwrap();
    assert_eq!(world.asked(), [Pace::Once]);
    for _ in 0..5 {
        world.admit().await.unwrap();
        drop(world.begun());
    }
    assert_eq!(world.asked(), [Pace::Once]);
    world.settle().await;
    // One look for all of them, behind them.
    assert_eq!(world.asked(), [Pace::Once, Pace::Once]);
}

#[tokio::test(start_paused = true)]
async fn what_keeps_nothing_or_has_no_walls_is_not_measured() {
    let mut world = World::with(&[over()]);
    let mut none = locked();
    none.proposed.state = StateKind::None;
    let mut unconfined = locked();
    unconfined.proposed.walls.mode = Mode::Unconfined;
    for locked in [none, unconfined] {
        world.locked = locked;
        world.admit().await.unwrap();
        assert!(world.states.ward(&world.cell()).is_none());
    }
    assert!(world.asked().is_empty());
    world.locked = locked();
    assert!(world.admit().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_short_call_that_kept_too_much_is_the_last_one() {
    let world = World::with(&[within(), over(), over()]);
    world.admit().await.unwrap();
    drop(world.begun());
    world.settle().await;
    let Err(Outcome::Refused(reason)) = world.admit().await else {
        panic!("not refused")
    };
    assert!(
        reason.starts_with("state of notes holds 2 GiB or more; its limit is 1 GiB"),
        "{reason}"
    );
    assert_eq!(world.audited(), ["state.over_limit"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_call_is_watched_and_ended() {
    let world = World::with(&[within(), over()]);
    world.admit().await.unwrap();
    let began = Instant::now();
    let ward = world.begun();
    let mut over_limit = pin!(ward.over());
    world.until_watched().await;
    assert_eq!(began.elapsed(), HEAD_START);
    tokio::time::sleep(Duration::from_hours(20)).await;
    assert!(over_limit.as_mut().now_or_never().is_none());
    world.survey.seen.send_replace(Some(over()));
    over_limit.await;
    let Outcome::Refused(reason) = refused(Some(&ward)) else {
        panic!("not refused")
    };
    assert!(reason.contains("2 GiB or more"), "{reason}");
    drop(ward);
    world.settle().await;
    assert_eq!(world.audited(), ["state.over_limit"]);
    assert_eq!(world.asked().last(), Some(&Pace::Once));
}

#[tokio::test(start_paused = true)]
async fn calls_one_after_another_are_watched_as_one() {
    let world = World::with(&[]);
    world.admit().await.unwrap();
    for _ in 0..100 {
        let ward = world.begun();
        tokio::time::sleep(Duration::from_secs(3)).await;
        drop(ward);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.settle().await;
    assert_eq!(world.asked(), [Pace::Once, Pace::Watching, Pace::Once]);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_made_room_is_seen_at_the_next_call() {
    let world = World::with(&[over(), over(), within()]);
    assert!(world.admit().await.is_err());
    // So fresh that nobody looks again.
    assert!(world.admit().await.is_err());
    assert_eq!(world.asked().len(), 1);
    tokio::time::sleep(FRESH).await;
    assert!(world.admit().await.is_err());
    tokio::time::sleep(FRESH).await;
    world.admit().await.unwrap();
    assert_eq!(world.audited(), ["state.over_limit"]);
}

#[tokio::test(start_paused = true)]
async fn another_limit_or_another_state_is_measured_at_once() {
    let mut world = World::with(&[over()]);
    assert!(world.admit().await.is_err());
    let more = StateLimit {
        total_bytes: 3 * GIB,
        ..LIMIT
    };
    world.locked.proposed.walls.state_limit = more;
    *world.survey.limit.lock().unwrap() = more;
    world.admit().await.unwrap();
    world.survey.looks.lock().unwrap().extend([
        Ok(Measured::Found(more, over())),
        Ok(Measured::Found(more, within())),
    ]);
    world.locked.state_generation = 1;
    assert!(world.admit().await.is_err());
    world.locked.state_generation = 2;
    world.admit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_raised_while_a_cell_runs_does_not_end_it() {
    let world = World::with(&[]);
    world.admit().await.unwrap();
    let ward = world.begun();
    world.until_watched().await;
    world.survey.limit.lock().unwrap().total_bytes = 3 * GIB;
    world.survey.seen.send_replace(Some(over()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.survey.seen.send_replace(None);
    assert!(ward.over().now_or_never().is_none());
    assert!(world.audited().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_the_call_and_not_the_plugin() {
    let world = World::with(&[within()]);
    world.admit().await.unwrap();
    let ward = world.begun();
    let over_limit = pin!(ward.over());
    world.until_watched().await;
    world.survey.seen.send_replace(Some(Usage::Disk));
    over_limit.await;
    drop(ward);
    world.settle().await;
    assert_eq!(world.audited(), ["state.disk_low"]);
    world.admit().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_ended_one_cell_does_not_end_another_that_begins_beside_it() {
    let world = World::with(&[]);
    world.admit().await.unwrap();
    let first = world.begun();
    let beside = world.begun();
    world.until_watched().await;
    world.survey.seen.send_replace(Some(Usage::Disk));
    first.over().await;
    assert!(beside.over().now_or_never().is_some());
    world.survey.seen.send_replace(None);
    // The first is not removed yet, and from here on one always runs.
    let second = world.begun();
    drop((first, beside));
    tokio::time::sleep(Duration::from_hours(1)).await;
    let third = world.begun();
    drop(second);
    assert!(third.over().now_or_never().is_none());
    // The neighbour: what is too much again ends what runs then.
    world.survey.seen.send_replace(Some(over()));
    third.over().await;
    let Outcome::Refused(reason) = refused(Some(&third)) else {
        panic!("not refused")
    };
    assert!(reason.contains("2 GiB or more"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_refuses_nothing_for_good_and_is_made_up_for() {
    let world = World::with(&[]);
    let failed = || Err(Trouble::Docker("it is away".into()));
    world.survey.looks.lock().unwrap().push_back(failed());
    let admitted = world.admit().await;
    assert_eq!(
        admitted,
        Err(Outcome::NotStarted(Trouble::Docker("it is away".into())))
    );
    world.admit().await.unwrap();
    world.survey.looks.lock().unwrap().extend([
        failed(),
        failed(),
        Ok(Measured::Found(LIMIT, over())),
        Ok(Measured::Found(LIMIT, over())),
    ]);
    drop(world.begun());
    world.settle().await;
    assert!(world.admit().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_together_share_one_look() {
    let world = World::with(&[]);
    let admitted = futures::future::join_all((0..8).map(|_| world.admit())).await;
    assert!(admitted.iter().all(Result::is_ok));
    assert_eq!(world.asked().len(), 1);
}

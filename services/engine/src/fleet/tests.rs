use super::*;

const EXPIRY: Duration = Duration::from_secs(20);

fn link(slots: usize) -> (Link, mpsc::Receiver<Result<LeaseResponse, tonic::Status>>) {
    mpsc::channel(slots)
}

fn lease() -> Lease {
    (JobId::new(), 1)
}

fn none() -> BTreeSet<Lease> {
    BTreeSet::new()
}

fn beat(held: &[Lease], trouble: &str) -> Heartbeat {
    Heartbeat {
        held: held.iter().copied().collect(),
        trouble: trouble.into(),
        posture: "confined".into(),
        ..Heartbeat::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_life_of_the_runner_gives_up_what_the_earlier_one_held() {
    let lease = lease();
    let fleet = Fleet::new(vec![(lease.0, lease.1, "old".into())], EXPIRY);
    let (sender, _assignments) = link(2);
    // It may have been gone for long before there is another.
    let gone = EXPIRY / 2;
    tokio::time::advance(gone).await;
    let found = fleet.hello("new", 2, &none(), 1, sender);
    assert_eq!(
        found,
        Disagreement {
            given_up: vec![(lease, gone)],
            cancelled: vec![]
        }
    );
    assert_eq!(fleet.room(), Room::At("new".into()));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_comes_back_keeps_what_it_still_holds_and_nothing_else() {
    let (kept, lost, stranger) = (lease(), lease(), lease());
    let running = vec![(kept.0, 1, "r".into()), (lost.0, 1, "r".into())];
    let fleet = Fleet::new(running, EXPIRY);
    let (sender, _assignments) = link(2);
    let found = fleet.hello("r", 2, &BTreeSet::from([kept, stranger]), 1, sender);
    assert_eq!(
        found,
        Disagreement {
            given_up: vec![(lost, Duration::ZERO)],
            cancelled: vec![stranger]
        }
    );
    let (given_up, _) = fleet.expired();
    assert_eq!(given_up, []);
}

#[tokio::test(start_paused = true)]
async fn leases_expire_when_nobody_answers_for_them() {
    let lease = lease();
    let fleet = Fleet::new(vec![(lease.0, lease.1, "gone".into())], EXPIRY);
    let (given_up, next) = fleet.expired();
    assert_eq!((given_up, next), (vec![], Some(Instant::now() + EXPIRY)));
    tokio::time::advance(EXPIRY).await;
    assert_eq!(fleet.expired(), (vec![(lease, EXPIRY)], None));
    assert_eq!(fleet.expired(), (vec![], None));
}

#[tokio::test(start_paused = true)]
async fn jobs_go_where_a_slot_is_free_and_nothing_is_wrong() {
    let fleet = Fleet::new(Vec::new(), EXPIRY);
    assert_eq!(fleet.room(), Room::None("no runner is connected".into()));
    let (sender, mut assignments) = link(1);
    fleet.hello("r", 1, &none(), 1, sender);
    fleet.heartbeat("r", 1, &beat(&[], "docker: gone")).unwrap();
    assert_eq!(fleet.room(), Room::None("the runner: docker: gone".into()));
    fleet.heartbeat("r", 1, &beat(&[], "")).unwrap();
    let lease = lease();
    assert!(fleet.assign("r", lease, LeaseResponse::default()));
    assert!(assignments.recv().await.is_some());
    assert_eq!(fleet.room(), Room::None("every slot is taken".into()));
    fleet.release(lease);
    assert_eq!(fleet.room(), Room::At("r".into()));
    fleet.disconnected("r", 1);
    assert!(!fleet.assign("r", lease, LeaseResponse::default()));
    assert_eq!(fleet.overview(), Overview::default());
}

#[tokio::test(start_paused = true)]
async fn one_heartbeat_without_a_lease_means_nothing_but_lasting_silence_does() {
    let fleet = Fleet::new(Vec::new(), EXPIRY);
    let (sender, _assignments) = link(1);
    fleet.hello("r", 1, &none(), 1, sender);
    let lease = lease();
    assert!(fleet.assign("r", lease, LeaseResponse::default()));
    assert_eq!(
        fleet.heartbeat("r", 1, &beat(&[], "")),
        Some(Disagreement::default())
    );
    tokio::time::advance(EXPIRY).await;
    let found = fleet.heartbeat("r", 1, &beat(&[], "")).unwrap();
    assert_eq!(found.given_up, [(lease, EXPIRY)]);
    assert_eq!(fleet.room(), Room::At("r".into()));
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_speaks_for_nobody() {
    let fleet = Fleet::new(Vec::new(), EXPIRY);
    let (first, _first) = link(1);
    let (second, _second) = link(1);
    fleet.hello("r", 1, &none(), 1, first);
    fleet.hello("r", 1, &none(), 2, second);
    assert_eq!(fleet.heartbeat("r", 1, &beat(&[], "")), None);
    fleet.disconnected("r", 1);
    assert_eq!(fleet.room(), Room::At("r".into()));
}

#[tokio::test(start_paused = true)]
async fn a_clearance_goes_to_the_runner_that_has_quarantined_the_plugin_and_to_no_other() {
    let fleet = Fleet::new(Vec::new(), EXPIRY);
    let clear = LeaseResponse::default();
    assert_eq!(fleet.clear("echo", &clear), Err(NotCleared::NoRunner));

    let (sender, mut messages) = link(1);
    fleet.hello("r", 2, &none(), 1, sender);
    let said = Heartbeat {
        quarantined: BTreeMap::from([("echo".to_owned(), "it ended too often".to_owned())]),
        ..beat(&[], "")
    };
    fleet.heartbeat("r", 1, &said).unwrap();

    assert_eq!(
        fleet.clear("other", &clear),
        Err(NotCleared::NotQuarantined)
    );
    assert!(messages.try_recv().is_err());
    assert_eq!(fleet.clear("echo", &clear), Ok(()));
    assert!(messages.try_recv().is_ok());

    fleet.heartbeat("r", 1, &beat(&[], "")).unwrap();
    assert_eq!(fleet.clear("echo", &clear), Err(NotCleared::NotQuarantined));
    fleet.disconnected("r", 1);
    assert_eq!(fleet.clear("echo", &clear), Err(NotCleared::NoRunner));
}

#[tokio::test(start_paused = true)]
async fn a_late_end_of_one_attempt_leaves_the_next_one_of_a_service_without_a_slot() {
    let fleet = Fleet::new(Vec::new(), EXPIRY);
    let (sender, _assignments) = link(4);
    fleet.hello("r", 1, &none(), 1, sender);
    let (first, second) = {
        let job = JobId::new();
        ((job, 1), (job, 2))
    };
    assert!(fleet.assign_lasting("r", first, LeaseResponse::default()));
    fleet.release(first);
    assert!(fleet.assign_lasting("r", second, LeaseResponse::default()));
    // Reported once more.
    fleet.release(first);
    assert_eq!(fleet.room(), Room::At("r".into()));
    // The neighbour: a call takes the one slot.
    assert!(fleet.assign("r", lease(), LeaseResponse::default()));
    assert_eq!(fleet.room(), Room::None("every slot is taken".into()));
}

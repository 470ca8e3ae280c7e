use super::*;

/// A root and an intermediate with these many days to go from the epoch on.
fn pair(root_days: u32, intermediate_days: u32) -> (CaCertificate, CaCertificate) {
    let stack = bailey_test::TestStack::new();
    let mut root = CaCertificate::from_pem(&stack.trust().root_ca_pem).unwrap();
    let mut intermediate = stack.authority().intermediate();
    root.not_after = Timestamp(0).plus(DAY * root_days);
    intermediate.not_after = Timestamp(0).plus(DAY * intermediate_days);
    (root, intermediate)
}

#[tokio::test]
async fn an_intermediate_is_replaced_ninety_days_before_its_end() {
    let (root, intermediate) = pair(3650, 91);
    assert!(!is_due(&root, &intermediate, Timestamp(0)));
    assert!(is_due(&root, &intermediate, Timestamp(0).plus(DAY)));
    assert!(is_due(&root, &intermediate, Timestamp(0).plus(DAY * 100)));
}

/// It would be replaced for ever.
#[tokio::test]
async fn an_intermediate_that_ends_with_its_root_is_not_replaced() {
    let (root, intermediate) = pair(50, 50);
    assert!(!is_due(&root, &intermediate, Timestamp(0)));
    let (root, intermediate) = pair(52, 50);
    assert!(is_due(&root, &intermediate, Timestamp(0)));
}

#[tokio::test]
async fn what_is_issued_while_the_new_intermediate_is_written_ends_before_the_last_certificate() {
    let (_, replaced) = pair(3650, 91);
    let (lifetime, now) = (Duration::from_hours(24), Timestamp(0));
    let meanwhile = now.plus(Duration::from_secs(30)).plus(lifetime);
    let last = last_certificate(&replaced, lifetime, now);
    assert!(meanwhile < last && last < meanwhile.plus(Duration::from_mins(1)));
    // No certificate outlives its intermediate.
    let last = last_certificate(&replaced, DAY * 400, now);
    assert_eq!(last, replaced.not_after);
}

#[test]
fn a_rotation_that_was_recorded_and_failed_is_left_alone_for_an_hour() {
    let write = crate::durable::failed("writing", std::path::Path::new("x"));
    let write = Error::Write(write(std::io::Error::from_raw_os_error(28)));
    assert_eq!(write.pause(), RECORDED);
    let before = [
        Error::Sealed("no key".into()),
        Error::NotRecorded(NotRecorded::NotOnTheMesh),
    ];
    assert!(before.iter().all(|error| error.pause().is_zero()));
}

#[tokio::test]
async fn an_intermediate_that_a_lost_key_sealed_says_which_file_is_in_the_way() {
    let stack = bailey_test::TestStack::new();
    let ctx = stack.context(Service::Broker);
    let path = ctx.settings.data_dir.join("intermediate.age");
    let lost = bailey_trust::SealingKey::generate().recipient();
    std::fs::write(&path, lost.seal(b"{}").unwrap()).unwrap();
    let refused = Keeper::open(&ctx.settings, &ctx.trust);
    let refused = refused.map(|_| ()).unwrap_err().to_string();
    assert!(
        refused.contains(&path.display().to_string()) && refused.contains("recovery.md"),
        "{refused}"
    );
    std::fs::remove_file(&path).unwrap();
    assert!(Keeper::open(&ctx.settings, &ctx.trust).is_ok());
}

/// The file with all of them is read again at the next start: it must not grow beyond what is read.
#[tokio::test]
async fn no_more_intermediates_are_retired_than_can_be_kept() {
    let stack = bailey_test::TestStack::new();
    let ctx = stack.context(Service::Broker);
    let opened = || Keeper::open(&ctx.settings, &ctx.trust).unwrap();
    let mut now = ctx.clock.now();
    let end = now.plus(DAY);
    let keeper = opened();
    for _ in 0..keeper::RETIRED_LIMIT {
        now = now.plus(Duration::from_secs(1));
        keeper.install(keeper.make(now).unwrap(), now, end).unwrap();
    }
    assert!(matches!(keeper.make(now), Err(Error::TooOften(at)) if at == end));
    // It can be read again, and there is room when certificates have ended.
    let keeper = opened();
    assert_eq!(keeper.retired(now).len(), keeper::RETIRED_LIMIT);
    keeper.make(end).unwrap();
}

#[tokio::test]
async fn the_end_of_the_root_is_told_with_its_day() {
    let (root, _) = pair(50, 50);
    let told = ends(&root, Timestamp(0));
    assert!(told.starts_with("the root CA ends on 1970-02-20"), "{told}");
    assert!(ends(&root, Timestamp(0).plus(DAY * 51)).contains("ended on"));
}

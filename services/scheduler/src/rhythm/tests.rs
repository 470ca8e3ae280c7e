use proptest::prelude::*;

use super::*;

fn every(interval: Duration, anchor: i64) -> Rhythm {
    Rhythm::new(&When::Every(interval), Timestamp(anchor)).unwrap()
}

fn cron(expression: &str, timezone: &str) -> Rhythm {
    let when = When::Cron {
        expression: expression.into(),
        timezone: timezone.parse().unwrap(),
    };
    Rhythm::new(&when, Timestamp(0)).unwrap()
}

fn at(text: &str) -> Timestamp {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc().into()
}

#[test]
fn an_interval_below_a_second_is_kept_to_the_millisecond() {
    let rhythm = every(Duration::from_millis(250), 1000);
    assert_eq!(rhythm.after(Timestamp(0)), Some(Timestamp(1000)));
    assert_eq!(rhythm.after(Timestamp(1000)), Some(Timestamp(1250)));
    assert_eq!(rhythm.after(Timestamp(1249)), Some(Timestamp(1250)));
    assert_eq!(rhythm.after(Timestamp(1251)), Some(Timestamp(1500)));
}

proptest! {
    #[test]
    fn starts_stay_on_the_grid_however_late_the_timer_wakes(
        interval in 1_i64..100_000, anchor in 0_i64..1_000_000, late in 0_i64..10_000_000,
    ) {
        let rhythm = every(Duration::from_millis(interval.unsigned_abs()), anchor);
        let next = rhythm.after(Timestamp(anchor + late)).unwrap();
        prop_assert_eq!((next.0 - anchor) % interval, 0);
        prop_assert!(next.0 > anchor + late && next.0 <= anchor + late + interval);
    }
}

#[test]
fn cron_reads_the_clock_of_its_place() {
    let rhythm = cron("0 7 * * 1-5", "Europe/Berlin");
    // Friday after seven in Berlin: Monday, in winter at six UTC.
    assert_eq!(
        rhythm.after(at("2026-01-09T06:00:00Z")),
        Some(at("2026-01-12T06:00:00Z"))
    );
    assert_eq!(
        rhythm.after(at("2026-01-09T05:59:59.999Z")),
        Some(at("2026-01-09T06:00:00Z"))
    );
    // In summer at five UTC.
    assert_eq!(
        rhythm.after(at("2026-07-08T12:00:00.123Z")),
        Some(at("2026-07-09T05:00:00Z"))
    );
}

#[test]
fn a_wall_clock_time_that_does_not_exist_or_exists_twice_starts_once() {
    let rhythm = cron("30 2 * * *", "Europe/Berlin");
    // 2026-03-29: 02:00 to 03:00 is left out; 2026-10-25: 02:00 to 03:00 comes twice.
    let spring = rhythm.after(at("2026-03-28T12:00:00Z")).unwrap();
    assert!(rhythm.after(spring).unwrap().since(spring) > Duration::from_hours(12));
    let autumn = rhythm.after(at("2026-10-24T12:00:00Z")).unwrap();
    assert!(rhythm.after(autumn).unwrap().since(autumn) > Duration::from_hours(12));
}

#[test]
fn a_date_that_never_comes_has_no_next_start() {
    assert_eq!(
        cron("0 0 30 2 *", "UTC").after(at("2026-01-01T00:00:00Z")),
        None
    );
}

#[test]
fn missed_starts_are_treated_as_the_schedule_says() {
    let rhythm = every(Duration::from_mins(10), 0);
    let minute = |m: i64| Timestamp(m * 60_000);
    // Slots at 10, 20, 30, 40; it is 45 and the last one that was started is 0.
    assert_eq!(rhythm.missed(minute(10), minute(45), CatchUp::Skip), []);
    assert_eq!(
        rhythm.missed(minute(10), minute(45), CatchUp::RunOnce),
        [minute(40)]
    );
    assert_eq!(
        rhythm.missed(minute(10), minute(45), CatchUp::RunAll),
        [10, 20, 30, 40].map(minute)
    );
    assert_eq!(rhythm.missed(minute(50), minute(45), CatchUp::RunAll), []);
}

#[test]
fn a_start_that_was_just_missed_is_made_up_for() {
    let nightly = cron("0 3 * * *", "UTC");
    let slot = at("2026-01-10T03:00:00Z");
    assert_eq!(
        nightly.missed(slot, at("2026-01-10T03:00:20Z"), CatchUp::Skip),
        [slot]
    );
    assert_eq!(
        nightly.missed(slot, at("2026-01-10T03:01:00Z"), CatchUp::Skip),
        []
    );
}

#[test]
fn run_all_has_a_limit() {
    let rhythm = every(Duration::from_secs(1), 0);
    let slots = rhythm.missed(Timestamp(0), Timestamp(1_000_000), CatchUp::RunAll);
    assert_eq!(
        (slots.len(), slots[99]),
        (MAX_CAUGHT_UP, Timestamp(1_000_000))
    );
}

use bailey_config::{IfRunning, Schedule};

use super::*;

fn entry(when: When) -> Entry {
    let schedule = Schedule {
        id: "default".parse().unwrap(),
        when,
        command: "poll".parse().unwrap(),
        payload: serde_json::Map::new(),
        jitter: Duration::ZERO,
        catch_up: CatchUp::Skip,
        if_running: IfRunning::Skip,
    };
    Entry {
        schedule,
        max_outstanding: 1,
    }
}

const MINUTE: Duration = Duration::from_mins(1);

#[test]
fn a_new_interval_starts_at_once_and_a_new_cron_waits() {
    let now = Timestamp(10_000);
    let (_, row, missed) = resumed(&entry(When::Every(MINUTE)), None, now).unwrap();
    assert_eq!((row.due, row.anchor, missed), (now, now, Vec::new()));
    let cron = When::Cron {
        expression: "0 * * * *".into(),
        timezone: chrono_tz::UTC,
    };
    let (_, row, _) = resumed(&entry(cron), None, now).unwrap();
    assert_eq!(row.due, Timestamp(3_600_000));
}

#[test]
fn what_is_not_due_goes_on_where_it_was() {
    let (_, first, _) = resumed(&entry(When::Every(MINUTE)), None, Timestamp(0)).unwrap();
    let known = Row {
        slot: Timestamp(60_000),
        due: Timestamp(60_000),
        ..first
    };
    let (_, row, missed) = resumed(
        &entry(When::Every(MINUTE)),
        Some(known.clone()),
        Timestamp(30_000),
    )
    .unwrap();
    assert_eq!((row, missed), (known, Vec::new()));
}

#[test]
fn a_changed_interval_counts_from_the_last_start() {
    let known = Row {
        rhythm: "other".into(),
        anchor: Timestamp(0),
        slot: Timestamp(500_000),
        due: Timestamp(500_000),
        last_fired: Some(Timestamp(100_000)),
    };
    let (_, row, _) = resumed(
        &entry(When::Every(MINUTE)),
        Some(known.clone()),
        Timestamp(110_000),
    )
    .unwrap();
    assert_eq!(row.due, Timestamp(160_000));
    let (_, row, _) =
        resumed(&entry(When::Every(MINUTE)), Some(known), Timestamp(400_000)).unwrap();
    assert_eq!(row.due, Timestamp(400_000));
}

#[test]
fn jitter_puts_off_one_start_and_not_the_grid() {
    let mut entry = entry(When::Every(MINUTE));
    entry.schedule.jitter = Duration::from_secs(30);
    let (rhythm, mut row, _) = resumed(&entry, None, Timestamp(0)).unwrap();
    for n in 1..100 {
        row = next(&entry, &rhythm, &row, row.due);
        assert_eq!(row.slot, Timestamp(n * 60_000));
        assert!(row.due >= row.slot && row.due < row.slot.plus(Duration::from_secs(30)));
    }
}

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn shelf(cells: usize, holders: usize) -> Shelf<u32, u32> {
    Shelf::new(Bounds { cells, holders }, Instant::now())
}

fn far(now: Instant) -> Instant {
    now + LIFE
}

/// Makes whatever is planned; answers how many cells and holders that were.
fn fill(shelf: &mut Shelf<u32, u32>, now: Instant) -> (usize, usize) {
    let (mut cells, mut holders) = (0, 0);
    for step in shelf.plan(now, true) {
        match step {
            Step::MakeCell(_) => {
                cells += 1;
                shelf.made_cell(100, far(now), now);
            }
            Step::MakeHolder => {
                holders += 1;
                shelf.made_holder(200, far(now), now);
            }
            Step::DropHolder(_) | Step::DropCell(_) => {}
        }
    }
    (cells, holders)
}

#[test]
fn after_the_first_use_there_is_one_cell_and_its_holder() {
    let now = Instant::now();
    let mut shelf = shelf(3, 4);
    assert_eq!(shelf.plan(now, true), [Step::MakeCell(None)]);
    // It is made already.
    assert_eq!(shelf.plan(now, true), []);
    shelf.made_cell(1, far(now), now);
    assert_eq!(shelf.take_cell(now), Some(1));
    // The next one is made at once; the holder of the first comes back for the one after.
    assert_eq!(shelf.plan(now, true), [Step::MakeCell(None)]);
    assert_eq!(shelf.give_back(7, far(now), now), None);
    shelf.made_cell(2, far(now), now);
    assert_eq!(shelf.take_cell(now), Some(2));
    assert_eq!(shelf.plan(now, true), [Step::MakeCell(Some((7, far(now))))]);
}

#[test]
fn who_finds_nothing_makes_it_grow_up_to_its_bound() {
    let now = Instant::now();
    let mut shelf = shelf(2, 0);
    fill(&mut shelf, now);
    assert!(shelf.take_cell(now).is_some());
    for _ in 0..5 {
        assert_eq!(shelf.take_cell(now), None);
    }
    assert_eq!(fill(&mut shelf, now).0, 2);
    assert_eq!(fill(&mut shelf, now).0, 0);
}

#[test]
fn a_plugin_without_a_pool_gets_holders_and_no_cells() {
    let now = Instant::now();
    let mut shelf = shelf(0, 2);
    assert_eq!(shelf.take_cell(now), None);
    assert_eq!(fill(&mut shelf, now), (0, 1));
    let (holder, until) = shelf.take_holder(now).unwrap();
    // Whoever finds none makes it grow; those in use count, because they come back.
    for _ in 0..5 {
        assert_eq!(shelf.take_holder(now), None);
    }
    assert_eq!(fill(&mut shelf, now), (0, 1));
    assert_eq!(shelf.give_back(holder, until, now), None);
    assert_eq!(fill(&mut shelf, now), (0, 0));
    shelf.take_holder(now).unwrap();
    shelf.lost_holder();
    assert_eq!(fill(&mut shelf, now), (0, 1));
}

#[test]
fn without_bounds_nothing_is_kept() {
    let now = Instant::now();
    let mut shelf = shelf(0, 0);
    assert_eq!(shelf.take_cell(now), None);
    assert_eq!(shelf.take_holder(now), None);
    shelf.used(now);
    assert_eq!(fill(&mut shelf, now), (0, 0));
}

#[test]
fn what_nobody_uses_for_ten_minutes_goes_and_comes_back_with_the_next_use() {
    let now = Instant::now();
    let mut shelf = shelf(1, 1);
    fill(&mut shelf, now);
    assert_eq!(shelf.plan(now + IDLE - SECOND, true), []);
    let later = now + 2 * IDLE;
    assert_eq!(shelf.plan(later, true), [Step::DropCell(100)]);
    shelf.lost_holder();
    assert_eq!(shelf.plan(later, true), []);
    let still_later = later + IDLE;
    assert_eq!(shelf.plan(still_later, true), []);
    shelf.used(still_later);
    assert_eq!(shelf.plan(still_later, true), [Step::MakeCell(None)]);
}

#[test]
fn what_is_too_old_is_replaced_and_never_given_out() {
    let now = Instant::now();
    let mut shelf = shelf(1, 1);
    shelf.plan(now, true);
    shelf.made_cell(1, now + SECOND, now);
    assert_eq!(shelf.take_cell(now + SECOND), None);
    let steps = shelf.plan(now + SECOND, true);
    assert_eq!(steps, [Step::DropCell(1), Step::MakeCell(None)]);
    assert_eq!(shelf.give_back(5, now, now + SECOND), Some(5));
}

#[test]
fn after_a_failure_nothing_is_made_for_a_while() {
    let now = Instant::now();
    let mut shelf = shelf(1, 1);
    shelf.plan(now, true);
    shelf.failed_cell(now + SECOND);
    shelf.lost_holder();
    assert_eq!(shelf.plan(now, true), []);
    assert_eq!(shelf.plan(now + SECOND, true), [Step::MakeCell(None)]);
}

#[test]
fn where_cells_may_not_be_made_holders_still_are() {
    let now = Instant::now();
    let mut shelf = shelf(1, 1);
    assert_eq!(shelf.plan(now, false), [Step::MakeHolder]);
}

#[test]
fn policy_may_allow_less_than_the_lock() {
    let now = Instant::now();
    let mut shelf = shelf(3, 0);
    for _ in 0..3 {
        shelf.take_cell(now);
    }
    shelf.limit_cells(2);
    assert_eq!(fill(&mut shelf, now).0, 2);
}

#[test]
fn a_cell_that_is_lost_is_nobodys() {
    let now = Instant::now();
    let mut shelf = shelf(1, 0);
    shelf.plan(now, true);
    let number = shelf.made_cell(1, far(now), now);
    assert_eq!(shelf.lost_cell(number), Some(1));
    assert_eq!(shelf.lost_cell(number), None);
    assert_eq!(shelf.take_cell(now), None);
}

#[test]
fn a_holder_that_nobody_uses_goes_while_the_plugin_is_in_use() {
    let now = Instant::now();
    let mut shelf = shelf(0, 2);
    shelf.take_holder(now);
    shelf.take_holder(now);
    assert_eq!(fill(&mut shelf, now), (0, 2));
    let later = now + 2 * IDLE;
    shelf.used(later);
    let steps = shelf.plan(later, true);
    assert_eq!(steps, [Step::DropHolder(200), Step::DropHolder(200)]);
    shelf.used(later);
    assert_eq!(fill(&mut shelf, later), (0, 1));
}

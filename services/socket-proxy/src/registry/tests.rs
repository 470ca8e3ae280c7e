use bailey_cell::{Pace, Target, label};
use bailey_types::{AttemptNumber, JobId};
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp(1_000);

fn id(digit: char) -> ContainerId {
    digit.to_string().repeat(64).parse().unwrap()
}

fn record(identity: Identity) -> Record {
    Record {
        identity,
        image: image(),
        egress: false,
    }
}

fn cell_of(seat: Seat, holder: Option<char>) -> Record {
    record(Identity::Cell {
        plugin: "greet".parse().unwrap(),
        seat,
        serial: Serial(1),
        untrusted: false,
        holder: holder.map(|digit| id(digit).as_str().into()),
    })
}

fn cell() -> Record {
    let (job, attempt) = (JobId::new(), AttemptNumber(1));
    cell_of(Seat::Job { job, attempt }, None)
}

fn pooled() -> Record {
    cell_of(Seat::Pool { id: JobId::new() }, None)
}

fn held(holder: char) -> Record {
    let (job, attempt) = (JobId::new(), AttemptNumber(1));
    cell_of(Seat::Job { job, attempt }, Some(holder))
}

fn holder(egress: bool) -> Record {
    let identity = Identity::Holder {
        plugin: "greet".parse().unwrap(),
        id: JobId::new(),
        serial: Serial(1),
    };
    Record {
        egress,
        ..record(identity)
    }
}

fn probe() -> Record {
    record(Identity::Probe {
        job: JobId::new(),
        target: Target::Walls,
    })
}

fn numbered(number: usize) -> ContainerId {
    format!("{number:064x}").parse().unwrap()
}

fn image() -> ImageId {
    format!("sha256:{}", "a".repeat(64)).parse().unwrap()
}

fn claim(registry: &Registry, holder: char) -> Result<(), Denied> {
    registry.claim(&id(holder), &"greet".parse().unwrap(), Serial(1))
}

#[test]
fn only_a_full_id_is_an_id() {
    assert!("a".repeat(64).parse::<ContainerId>().is_ok());
    for text in [
        "a".repeat(12),
        "A".repeat(64),
        "g".repeat(64),
        "bailey-home-cell-1".into(),
    ] {
        assert!(text.parse::<ContainerId>().is_err(), "{text}");
    }
}

#[test]
fn a_cell_is_attached_to_once() {
    let registry = Registry::default();
    registry.made(id('a'), cell());
    registry.made(id('b'), holder(true));
    assert!(registry.begin_attach(&id('a')).is_ok());
    for (digit, denied) in [
        ('a', Denied::AttachedBefore),
        ('b', Denied::NoCell),
        ('c', Denied::Unknown),
    ] {
        assert_eq!(registry.begin_attach(&id(digit)).unwrap_err(), denied);
    }
}

#[test]
fn a_cell_is_started_when_it_is_fed_or_granted_and_not_before() {
    let registry = Registry::default();
    let start = |digit| registry.begin_start(&id(digit), NOW).map(drop);
    registry.made(id('a'), cell());
    assert_eq!(start('a'), Err(Denied::NoLeave));
    registry.fed(&id('a')).unwrap();
    assert_eq!(start('a'), Ok(()));
    assert_eq!(
        registry.fed(&id('a')),
        Err(Denied::NoLeave),
        "it is fed once"
    );

    registry.made(id('b'), pooled());
    assert_eq!(start('b'), Err(Denied::NoLeave));
    assert_eq!(
        registry.fed(&id('b')),
        Err(Denied::NoLeave),
        "a pooled cell needs its grant first"
    );
    registry.grant(&id('b'), 1, NOW).unwrap();
    assert_eq!(start('b'), Ok(()));
    assert_eq!(registry.fed(&id('b')), Ok(()));

    registry.made(id('c'), cell());
    let granted = registry.grant(&id('c'), 9, NOW);
    assert_eq!(granted, Err(Denied::NotPooled));

    registry.made(id('d'), pooled());
    registry.grant(&id('d'), 1, NOW).unwrap();
    let later = registry.begin_start(&id('d'), NOW.plus(std::time::Duration::from_secs(1)));
    assert_eq!(later.unwrap_err(), Denied::Expired);
    assert_eq!(start('d'), Ok(()), "nothing was used up");
}

#[test]
fn every_container_is_started_once() {
    let registry = Registry::default();
    let start = |digit| registry.begin_start(&id(digit), NOW).map(drop);
    registry.made(id('a'), cell());
    registry.fed(&id('a')).unwrap();
    // One that idled, and is fed afterwards
    registry.made(id('b'), pooled());
    registry.grant(&id('b'), 1, NOW).unwrap();
    registry.made(id('c'), probe());
    for digit in ['a', 'b', 'c'] {
        assert_eq!(start(digit), Ok(()));
        assert_eq!(start(digit), Err(Denied::StartedBefore));
    }
    registry.fed(&id('b')).unwrap();
    assert_eq!(start('b'), Err(Denied::StartedBefore));
}

#[test]
fn holders_and_probes_run_in_bounded_numbers() {
    let registry = Registry::default();
    let start = |number| registry.begin_start(&numbered(number), NOW).map(drop);
    let of = |plugin: usize| {
        let identity = Identity::Holder {
            plugin: format!("plugin-{plugin}").parse().unwrap(),
            id: JobId::new(),
            serial: Serial(1),
        };
        record(identity)
    };
    for number in 0..512 {
        registry.made(numbered(number), of(number / 64));
        assert_eq!(start(number), Ok(()));
        registry.holds(&numbered(number));
    }
    registry.made(numbered(600), of(9));
    let total = Denied::TooManyRun(512, "holders");
    assert_eq!(start(600), Err(total));
    registry.forget(&numbered(0));
    // The first plugin has one less, the second has all that it may.
    registry.made(numbered(601), of(1));
    let of_plugin = Denied::TooManyRun(64, "holders of this plugin");
    assert_eq!(start(601), Err(of_plugin));
    assert_eq!(start(600), Ok(()), "a refused start is not used up");

    for number in 700..716 {
        registry.made(numbered(number), probe());
        assert_eq!(start(number), Ok(()));
    }
    registry.made(numbered(716), probe());
    assert_eq!(start(716), Err(Denied::TooManyRun(16, "probes")));
    registry.forget(&numbered(700));
    assert_eq!(start(716), Ok(()));
}

#[test]
fn what_is_being_made_takes_room() {
    let registry = Registry::default();
    for number in 1..MAX_CONTAINERS {
        registry.made(numbered(number), cell());
    }
    let slot = registry.reserve();
    assert!(slot.is_some());
    assert!(registry.reserve().is_none());
    drop(slot);
    assert!(registry.reserve().is_some());
}

#[test]
fn a_list_forgets_what_was_there_before_it_and_is_not_in_it() {
    let registry = Registry::default();
    registry.made(id('a'), holder(false));
    registry.begin_start(&id('a'), NOW).unwrap();
    registry.holds(&id('a'));
    claim(&registry, 'a').unwrap();
    registry.made(id('b'), held('a'));

    let listing = registry.begin_list();
    registry.made(id('c'), cell());
    let settled = settle(listing, &[listed_holder('a')]);

    assert_eq!(settled.gone, [id('b')]);
    assert_eq!(claim(&registry, 'a'), Ok(()), "its cell is gone");
    assert!(
        registry.begin_attach(&id('c')).is_ok(),
        "made while the list was under way"
    );
}

#[test]
fn a_list_that_is_out_of_date_brings_nothing_back() {
    let registry = Registry::default();
    registry.made(id('a'), cell());
    let (first, second) = (registry.begin_list(), registry.begin_list());
    registry.forget(&id('a'));
    for stale in [first, second] {
        settle(stale, &[listed_holder('a')]);
        assert!(registry.look_up(&id('a')).is_none());
    }
    assert!(registry.books().forgotten.is_empty());
    // A newer one is right.
    assert_eq!(settle(registry.begin_list(), &[listed_holder('a')]).ours, 1);
    assert!(registry.look_up(&id('a')).is_some());
}

fn settle(listing: Listing<'_>, listed: &[serde_json::Value]) -> Settled {
    let listed: Vec<Listed> = serde_json::from_value(json!(listed)).unwrap();
    listing.settle(&"home".parse().unwrap(), &listed)
}

fn listed_holder(digit: char) -> serde_json::Value {
    let holder = JobId::new().to_string();
    json!({
        "Id": id(digit).as_str(), "Names": [format!("/bailey-home-holder-{holder}")], "ImageID": image().to_string(),
        "Labels": { label::STACK: "home", label::KIND: "holder", label::PLUGIN: "greet", label::JOB: holder, label::LOCK: "1" },
    })
}

#[test]
fn no_more_cells_idle_than_are_granted() {
    let registry = Registry::default();
    for digit in ['a', 'b', 'c'] {
        registry.made(id(digit), pooled());
    }
    let grant = |digit| registry.grant(&id(digit), 2, NOW);
    assert_eq!((grant('a'), grant('b')), (Ok(()), Ok(())));
    assert_eq!(grant('c'), Err(Denied::TooMany(2)));
    assert_eq!(grant('a'), Err(Denied::NotPooled), "a cell is granted once");
    // One that gets its request, or is gone, idles no more.
    registry.fed(&id('a')).unwrap();
    assert_eq!(grant('c'), Ok(()));
    registry.made(id('d'), pooled());
    assert_eq!(grant('d'), Err(Denied::TooMany(2)));
    registry.forget(&id('b'));
    assert_eq!(grant('d'), Ok(()));
}

#[test]
fn watches_have_bounds_of_their_own() {
    let registry = Registry::default();
    let watch = |plugin: &str| {
        record(Identity::Probe {
            job: JobId::new(),
            target: Target::State(plugin.parse().unwrap(), Serial(1), Pace::Watching),
        })
    };
    let begin = |number: usize, record: Record| {
        registry.made(numbered(number), record);
        registry.begin_start(&numbered(number), NOW).map(drop)
    };
    for number in 0..4 {
        assert_eq!(begin(number, watch("greet")), Ok(()));
    }
    let full = Denied::TooManyRun(4, "watches of this plugin");
    assert_eq!(begin(4, watch("greet")), Err(full));
    for number in 5..257 {
        assert_eq!(begin(number, watch(&format!("p{number}"))), Ok(()));
    }
    let full = Denied::TooManyRun(256, "watches");
    assert_eq!(begin(257, watch("other")), Err(full));
    // Nobody else waits for them.
    assert_eq!(begin(258, probe()), Ok(()));
}

#[test]
fn a_holder_has_one_cell_at_a_time() {
    let registry = Registry::default();
    registry.made(id('a'), holder(false));
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree), "not started");
    registry.begin_start(&id('a'), NOW).unwrap();
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree), "not running");
    registry.holds(&id('a'));
    assert_eq!(
        registry.begin_start(&id('a'), NOW).unwrap_err(),
        Denied::StartedBefore
    );

    // Claimed, and given back because no cell came of it
    claim(&registry, 'a').unwrap();
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree));
    registry.give_back(&id('a'));

    // Taken until its cell is removed
    claim(&registry, 'a').unwrap();
    registry.made(id('b'), held('a'));
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree));
    registry.forget(&id('b'));
    assert_eq!(claim(&registry, 'a'), Ok(()));
    registry.give_back(&id('a'));

    // And of no use after a signal
    registry.signalled(&id('a'));
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree));
}

#[test]
fn a_holder_with_a_way_out_serves_one_cell() {
    let registry = Registry::default();
    registry.made(id('a'), holder(true));
    registry.begin_start(&id('a'), NOW).unwrap();
    registry.holds(&id('a'));
    claim(&registry, 'a').unwrap();
    registry.made(id('b'), held('a'));
    registry.forget(&id('b'));
    assert_eq!(claim(&registry, 'a'), Err(Denied::NotFree));
}

#[test]
fn a_holder_is_for_its_own_plugin_under_its_own_lock() {
    let registry = Registry::default();
    registry.made(id('a'), holder(false));
    registry.made(id('b'), cell());
    registry.begin_start(&id('a'), NOW).unwrap();
    registry.holds(&id('a'));
    let other = registry.claim(&id('a'), &"other".parse().unwrap(), Serial(1));
    assert_eq!(other, Err(Denied::OtherHolder));
    let newer = registry.claim(&id('a'), &"greet".parse().unwrap(), Serial(2));
    assert_eq!(newer, Err(Denied::OtherHolder));
    assert_eq!(claim(&registry, 'b'), Err(Denied::NoHolder));
    assert_eq!(claim(&registry, 'c'), Err(Denied::NoHolder));
    assert_eq!(claim(&registry, 'a'), Ok(()));
}

#[test]
fn what_is_adopted_is_ours_and_good_for_nothing() {
    const ID: &str = "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    let labels = |kind: &str| {
        json!({
            label::STACK: "home", label::KIND: kind, label::PLUGIN: "greet",
            label::JOB: ID, label::ATTEMPT: "1", label::LOCK: "1",
        })
    };
    let entry = |digit: char, name: &str, labels: serde_json::Value| json!({ "Id": digit.to_string().repeat(64), "Names": [name], "ImageID": image().to_string(), "Labels": labels });
    let name = format!("/bailey-home-cell-{ID}-1");
    let mut other_stack = labels("cell");
    other_stack[label::STACK] = "away".into();
    let mut pool = labels("cell");
    pool[label::POOL] = ID.into();
    pool.as_object_mut().unwrap().remove(label::JOB);
    let listed = json!([
        entry('a', &name, labels("cell")),
        entry('b', "/somebody-else", labels("cell")),
        entry('c', &name, other_stack),
        entry('d', &name, json!({})),
        entry('e', &format!("/bailey-home-holder-{ID}"), labels("holder")),
        entry('f', &format!("/bailey-home-cell-pool-{ID}"), pool),
        entry('0', &format!("{name}0"), labels("cell")),
    ]);
    let listed: Vec<Listed> = serde_json::from_value(listed).unwrap();
    let registry = Registry::default();

    let settled = registry.begin_list();
    let settled = settled.settle(&"home".parse().unwrap(), &listed);
    assert_eq!((settled.ours, settled.gone.len()), (3, 0));

    let attached = registry.begin_attach(&id('a'));
    assert_eq!(attached.unwrap_err(), Denied::AttachedBefore);
    let started = registry.begin_start(&id('a'), NOW);
    assert_eq!(started.unwrap_err(), Denied::NoLeave);
    assert_eq!(claim(&registry, 'e'), Err(Denied::NotFree));
    // A cell that idled may idle still.
    registry.made(id('1'), pooled());
    let granted = registry.grant(&id('1'), 1, NOW);
    assert_eq!(granted, Err(Denied::TooMany(1)));
    registry.forget(&id('f'));
    assert_eq!(registry.grant(&id('1'), 1, NOW), Ok(()));
}

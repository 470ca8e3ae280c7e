use std::collections::BTreeMap;

use bailey_types::{JobId, Timestamp};

use super::*;
use crate::job::Status;

const CONFIG: &str = "
accounts: {default: {}}
plugins: {a: , b: , c: }
pipelines:
  - {name: first, on: in.come, steps: [{id: one, uses: a}, {id: two, uses: b}]}
  - {name: second, on: a.done, steps: [{uses: c}]}
  - {name: picky, on: a.done, from_plugin: b, steps: [{uses: c}]}
  - {name: loop, on: c.done, steps: [{uses: c}]}
  - {name: shallow, on: never, max_depth: 1, steps: [{id: one, uses: a}, {id: two, uses: b}]}
";

fn config() -> Config {
    bailey_config::parse(&BTreeMap::from([(
        "config.yaml".to_owned(),
        CONFIG.to_owned(),
    )]))
    .unwrap()
}

fn event(text: &str) -> EventType {
    text.parse().unwrap()
}

fn job(plugin: &str, place: Option<(&str, &str)>, generation: u32) -> Job {
    let place = place.map(|(pipeline, step)| Place {
        pipeline: pipeline.parse().unwrap(),
        step: step.parse().unwrap(),
        instance: "i".into(),
        event_type: event("in.come"),
        event_index: 0,
    });
    Job {
        id: JobId::new(),
        plugin: plugin.parse().unwrap(),
        command: "handle".parse().unwrap(),
        status: Status::Running,
        attempt: 1,
        uncounted: 0,
        max_attempts: 4,
        submitted_by: "route".into(),
        dedupe_key: String::new(),
        created_at: Timestamp(0),
        started_at: None,
        completed_at: None,
        next_retry_at: None,
        waiting_for: String::new(),
        result: None,
        last_error: None,
        stderr: None,
        logs: Vec::new(),
        parent: None,
        source_event: None,
        place,
        route_depth: 0,
        generation,
        principal: String::new(),
        decision: None,
        runner: None,
    }
}

fn names(routes: &Routes) -> Vec<(&str, &str, u32, u32)> {
    let name = |t: &Target| {
        (
            t.place.pipeline.to_string(),
            t.place.step.to_string(),
            t.route_depth,
            t.generation,
        )
    };
    let names: Vec<_> = routes.targets.iter().map(name).collect();
    names
        .leak()
        .iter()
        .map(|(p, s, d, g)| (p.as_str(), s.as_str(), *d, *g))
        .collect()
}

#[test]
fn an_event_from_outside_starts_every_pipeline_that_waits_for_exactly_its_type() {
    let config = config();
    assert_eq!(
        names(&from_outside(&config, &event("in.come"))),
        [("first", "one", 0, 1)]
    );
    assert_eq!(
        names(&from_outside(&config, &event("a.done"))),
        [("second", "step_1", 0, 1)]
    );
    assert_eq!(names(&from_outside(&config, &event("in"))), []);
}

#[test]
fn an_event_within_a_pipeline_leads_to_the_next_step_and_starts_others() {
    let config = config();
    let routes = from_job(
        &config,
        &job("a", Some(("first", "one")), 1),
        &event("a.done"),
        3,
    );
    assert_eq!(
        names(&routes),
        [("first", "two", 1, 1), ("second", "step_1", 0, 2)]
    );
    assert_eq!(routes.targets[0].place.instance, "i");
    assert_ne!(routes.targets[1].place.instance, "i");
    assert!(
        routes
            .targets
            .iter()
            .all(|target| target.place.event_index == 3)
    );
}

#[test]
fn a_pipeline_may_want_one_plugin_only() {
    let config = config();
    let routes = from_job(&config, &job("b", None, 0), &event("a.done"), 0);
    assert_eq!(
        names(&routes),
        [("second", "step_1", 0, 1), ("picky", "step_1", 0, 1)]
    );
}

#[test]
fn the_last_step_leads_nowhere() {
    let routes = from_job(
        &config(),
        &job("b", Some(("first", "two")), 1),
        &event("ductile.step.succeeded"),
        0,
    );
    assert_eq!(routes, Routes::default());
}

#[test]
fn max_depth_and_a_pipeline_that_starts_itself_come_to_an_end() {
    let config = config();
    let shallow = from_job(
        &config,
        &job("a", Some(("shallow", "one")), 1),
        &event("x"),
        0,
    );
    assert_eq!((shallow.targets.len(), shallow.too_deep.len()), (0, 1));
    let last = from_job(
        &config,
        &job("c", Some(("loop", "step_1")), MAX_GENERATIONS - 1),
        &event("c.done"),
        0,
    );
    assert_eq!(names(&last), [("loop", "step_1", 0, MAX_GENERATIONS)]);
    let over = from_job(
        &config,
        &job("c", Some(("loop", "step_1")), MAX_GENERATIONS),
        &event("c.done"),
        0,
    );
    assert_eq!((over.targets.len(), over.too_deep.len()), (0, 1));
}

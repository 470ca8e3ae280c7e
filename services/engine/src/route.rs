//! Where an event leads (reference: ductile 3.4). Routing is by exact type; no match is no error.

use bailey_config::{Config, Pipeline, Step};
use bailey_types::{EventType, PluginName};

use crate::job::{Job, Place};

/// Most pipeline instances in a row, each started by an event of the one before: what ends a pipeline that starts itself.
pub const MAX_GENERATIONS: u32 = 20;

/// A step that an event starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The plugin whose `handle` runs.
    pub plugin: PluginName,
    /// The step.
    pub place: Place,
    /// How many steps of its instance lead to it.
    pub route_depth: u32,
    /// How many instances lead to it.
    pub generation: u32,
}

/// What an event leads to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The steps that it starts.
    pub targets: Vec<Target>,
    /// Those that it does not start, because too much leads to them already.
    pub too_deep: Vec<String>,
}

/// Where an event from outside leads.
pub fn from_outside(config: &Config, event_type: &EventType) -> Routes {
    let mut routes = Routes::default();
    for pipeline in config.pipelines_on(event_type, None) {
        start(&mut routes, pipeline, event_type, 0, 1);
    }
    routes
}

/// Where the event at `index` among those of `job` leads: to the next step, and to every pipeline that it starts.
pub fn from_job(config: &Config, job: &Job, event_type: &EventType, index: u32) -> Routes {
    let mut routes = Routes::default();
    follow(&mut routes, config, job, event_type, index);
    for pipeline in config.pipelines_on(event_type, Some(&job.plugin)) {
        start(
            &mut routes,
            pipeline,
            event_type,
            index,
            job.generation.saturating_add(1),
        );
    }
    routes
}

fn follow(routes: &mut Routes, config: &Config, job: &Job, event_type: &EventType, index: u32) {
    let Some(place) = &job.place else { return };
    // A pipeline that was taken out of the configuration in the meantime leads nowhere.
    let Some(pipeline) = config
        .pipelines
        .iter()
        .find(|pipeline| pipeline.name == place.pipeline)
    else {
        return;
    };
    let Some(step) = pipeline.next(&place.step) else {
        return;
    };
    let route_depth = job.route_depth.saturating_add(1);
    if pipeline.max_depth.is_some_and(|most| route_depth >= most) {
        routes.too_deep.push(format!(
            "{}/{}: max_depth is reached",
            pipeline.name, step.id
        ));
        return;
    }
    let place = placed(pipeline, step, place.instance.clone(), event_type, index);
    routes.targets.push(Target {
        plugin: step.uses.clone(),
        place,
        route_depth,
        generation: job.generation,
    });
}

fn start(
    routes: &mut Routes,
    pipeline: &Pipeline,
    event_type: &EventType,
    index: u32,
    generation: u32,
) {
    let Some(step) = pipeline.entry() else { return };
    if generation > MAX_GENERATIONS {
        routes.too_deep.push(format!(
            "{}: {MAX_GENERATIONS} pipelines in a row",
            pipeline.name
        ));
        return;
    }
    let place = placed(
        pipeline,
        step,
        uuid::Uuid::now_v7().to_string(),
        event_type,
        index,
    );
    routes.targets.push(Target {
        plugin: step.uses.clone(),
        place,
        route_depth: 0,
        generation,
    });
}

fn placed(
    pipeline: &Pipeline,
    step: &Step,
    instance: String,
    event_type: &EventType,
    event_index: u32,
) -> Place {
    Place {
        pipeline: pipeline.name.clone(),
        step: step.id.clone(),
        instance,
        event_type: event_type.clone(),
        event_index,
    }
}

#[cfg(test)]
mod tests;

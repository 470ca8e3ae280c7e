//! `pipelines:`

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bailey_types::{EventType, PipelineName, PluginName, StepId};
use bailey_yaml::At;
use serde::{Deserialize, Serialize};

use crate::error::Report;
use crate::plugin::PluginConfig;
use crate::raw;
use crate::service::{HOUR, duration, span};

/// One pipeline: steps that run one after the other once an event has come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pipeline {
    /// Unique.
    pub name: PipelineName,
    /// The event that starts it.
    pub on: EventType,
    /// If given, only an event of this plugin does.
    pub from_plugin: Option<PluginName>,
    /// Most steps from the first event on; unset: no limit. As many as it has steps unless given.
    pub max_depth: Option<u32>,
    /// Whether a caller waits for the result.
    pub execution_mode: ExecutionMode,
    /// How long it waits.
    #[serde(serialize_with = "duration")]
    pub timeout: Duration,
    /// At least one, in order.
    pub steps: Vec<Step>,
}

impl Pipeline {
    /// The step that the event starts.
    pub fn entry(&self) -> Option<&Step> {
        self.steps.first()
    }

    /// The step with this id.
    pub fn step(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == *id)
    }

    /// The step that follows `id`: the one edge that leads out of it.
    pub fn next(&self, id: &StepId) -> Option<&Step> {
        self.steps.iter().skip_while(|step| step.id != *id).nth(1)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Unique in its pipeline.
    pub id: StepId,
    /// The plugin (or alias) whose command `handle` runs.
    pub uses: PluginName,
}

/// `execution_mode:`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// The caller gets a job id.
    #[default]
    Async,
    /// The caller gets the result.
    Synchronous,
}

/// The longest pipeline.
const MAX_STEPS: usize = 256;

pub(crate) fn pipeline(
    raw: raw::Pipeline,
    plugins: &BTreeMap<PluginName, PluginConfig>,
    report: &mut Report<'_>,
) -> Option<Pipeline> {
    if let Some(plugin) = raw
        .from_plugin
        .as_ref()
        .filter(|plugin| !plugins.contains_key(&plugin.value))
    {
        report.push(
            plugin.place,
            format!(
                "from_plugin names {}, which is not under plugins",
                plugin.value
            ),
        );
    }
    if raw.steps.value.is_empty() || raw.steps.value.len() > MAX_STEPS {
        report.push(
            raw.steps.place,
            format!("a pipeline needs 1 to {MAX_STEPS} steps"),
        );
        return None;
    }
    let steps = steps(raw.steps.value, plugins, report)?;
    let derived = u32::try_from(steps.len()).ok();
    let max_depth = match raw.max_depth {
        Some(At { value: 0, .. }) => None,
        Some(depth) => Some(depth.value),
        None => derived,
    };
    let waits = Duration::from_millis(1)..=HOUR;
    Some(Pipeline {
        name: raw.name.value,
        on: raw.on,
        from_plugin: raw.from_plugin.map(|plugin| plugin.value),
        max_depth,
        execution_mode: raw.execution_mode,
        timeout: span(
            raw.timeout,
            Duration::from_secs(30),
            waits,
            "timeout",
            report,
        ),
        steps,
    })
}

fn steps(
    raw: Vec<raw::Step>,
    plugins: &BTreeMap<PluginName, PluginConfig>,
    report: &mut Report<'_>,
) -> Option<Vec<Step>> {
    let mut ids = BTreeSet::new();
    let mut steps = Vec::new();
    for (nth, step) in raw.into_iter().enumerate() {
        match plugins.get(&step.uses.value) {
            None => report.push(
                step.uses.place,
                format!("uses names {}, which is not under plugins", step.uses.value),
            ),
            Some(plugin) if !plugin.enabled => {
                report.push(
                    step.uses.place,
                    format!("uses names {}, which is not enabled", step.uses.value),
                );
            }
            Some(_) => {}
        }
        let place = step.id.as_ref().map_or(step.uses.place, |id| id.place);
        let id = match step.id {
            Some(id) => id.value,
            None => format!("step_{}", nth + 1).parse().ok()?,
        };
        if !ids.insert(id.clone()) {
            report.push(
                place,
                format!("the step id {id} is used twice in this pipeline"),
            );
        }
        steps.push(Step {
            id,
            uses: step.uses.value,
        });
    }
    Some(steps)
}

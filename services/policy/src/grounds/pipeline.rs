//! Calls that follow from other jobs, along the edges of locked pipelines.

use bailey_config::Pipeline;
use bailey_trust::{Decision, DecisionOrigin, Loaded};
use bailey_types::PluginName;

use super::{Call, Found, Parent, Place, Uses, Within};
use crate::denial::{Denial, Reason};
use crate::lock::View;
use crate::request::HANDLE;

/// The pipeline that `step` names, if the step is its entry and runs this plugin.
pub(super) fn started_by<'a>(
    call: &Call,
    step: &Place,
    loaded: &'a Loaded<View>,
) -> Option<&'a Pipeline> {
    let pipeline = pipeline(step, loaded)?;
    let entry = pipeline.entry()?;
    (entry.id == step.step && runs(call, &entry.uses)).then_some(pipeline)
}

fn pipeline<'a>(step: &Place, loaded: &'a Loaded<View>) -> Option<&'a Pipeline> {
    loaded
        .view
        .config
        .pipelines
        .iter()
        .find(|pipeline| pipeline.name == step.pipeline)
}

/// A step runs the command `handle` of its plugin.
fn runs(call: &Call, plugin: &PluginName) -> bool {
    call.plugin == *plugin && call.command.as_str() == HANDLE
}

/// The edge or the pipeline that leads from the parent to the call.
pub(super) fn by_parent(
    call: &Call,
    parent: Decision,
    loaded: &Loaded<View>,
) -> Result<Found, Denial> {
    let no_edge = |detail: String| Reason::NoSuchEdge.because(detail);
    let step = call
        .step
        .as_ref()
        .ok_or_else(|| no_edge("only pipelines' steps follow from other jobs".into()))?;
    let stands_at = match &parent.origin {
        DecisionOrigin::Root { step, .. } => step.as_ref().map(|(pipeline, step)| (pipeline, step)),
        DecisionOrigin::Step { pipeline, step, .. } => Some((pipeline, step)),
    };
    let follows = stands_at
        .filter(|(name, _)| **name == step.pipeline)
        .is_some_and(|(_, from)| {
            let next = pipeline(step, loaded).and_then(|pipeline| pipeline.next(from));
            next.is_some_and(|next| next.id == step.step && runs(call, &next.uses))
        });
    let starts = started_by(call, step, loaded).is_some_and(|pipeline| {
        let from_there = pipeline
            .from_plugin
            .as_ref()
            .is_none_or(|plugin| *plugin == parent.plugin);
        pipeline.on.as_str() == step.event_type && from_there
    });
    let within = match (follows, starts) {
        (true, _) => Within::SameInstance,
        (false, true) => Within::NewInstance,
        (false, false) => {
            let detail = format!(
                "no locked pipeline leads from {} to the step {} of {}",
                parent.plugin, step.step, step.pipeline
            );
            return Err(no_edge(detail));
        }
    };
    let Place {
        pipeline,
        step,
        event_index,
        ..
    } = step.clone();
    let decided = DecisionOrigin::Step {
        parent: parent.id,
        pipeline: pipeline.clone(),
        step: step.clone(),
    };
    let contract = format!("pipeline:{pipeline}");
    // Our own signature is on the contract, so it tells for sure that the parent was decided about as a service.
    let endless = parent.contract == format!("service:{}", parent.plugin);
    let parent_job = Parent {
        job: parent.job,
        decided_at: parent.issued_at,
    };
    Ok((
        parent.principal,
        contract,
        decided,
        Uses::Edge {
            parent: parent_job,
            pipeline,
            step,
            event_index,
            endless,
            within,
        },
    ))
}

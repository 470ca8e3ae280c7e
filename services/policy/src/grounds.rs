//! On what grounds a call may be made. Everything here follows from what was signed and locked: no state, no I/O.

mod pipeline;
mod root;

use bailey_plugin::manifest::Access;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Decision, DecisionOrigin, Loaded, LockedPlugin, TrustFile, strict_json, verify,
};
use bailey_types::{
    AttemptNumber, CommandName, JobId, OriginId, PipelineName, PluginName, StepId, Timestamp,
};

use crate::denial::{Denial, Reason};
use crate::lock::View;
use crate::request::Members;

/// What the engine wants to run.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) job: JobId,
    pub(crate) attempt: AttemptNumber,
    pub(crate) plugin: PluginName,
    pub(crate) command: CommandName,
    /// The request without `config` and `secrets`.
    pub(crate) request: Vec<u8>,
    pub(crate) asked_by: AskedBy,
    pub(crate) step: Option<Place>,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum AskedBy {
    /// Somebody outside, as broker or scheduler saw it.
    Origin(Signed),
    /// A job that was decided about.
    Parent(Signed),
}

/// The place in a pipeline that is to run.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) pipeline: PipelineName,
    pub(crate) step: StepId,
    pub(crate) instance: String,
    pub(crate) event_type: String,
    pub(crate) event_index: u32,
}

/// Why a call may be made.
#[derive(Clone, Debug)]
pub(crate) struct Grounds {
    pub(crate) principal: String,
    pub(crate) contract: String,
    pub(crate) origin: DecisionOrigin,
    /// What the call uses up.
    pub(crate) uses: Uses,
    /// Whether it is what a service lasts by.
    pub(crate) lasts: bool,
    /// The exact bytes that the plugin gets, but for its secrets.
    pub(crate) request: Vec<u8>,
}

/// What can be used by one job only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Uses {
    Origin {
        origin: OriginId,
        asked_at: Timestamp,
        step: Option<(PipelineName, StepId)>,
    },
    Edge {
        parent: Parent,
        pipeline: PipelineName,
        step: StepId,
        event_index: u32,
        /// Whether the parent lasts: then its events have no end.
        endless: bool,
        within: Within,
    },
}

/// The job that a step follows from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) job: JobId,
    pub(crate) decided_at: Timestamp,
}

/// Whether a step goes on with its parent's pipeline or starts another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Within {
    SameInstance,
    NewInstance,
}

/// Decides whether signatures and lock allow the call.
pub(crate) fn find(
    call: &Call,
    trust: &TrustFile,
    loaded: &Loaded<View>,
) -> Result<Grounds, Denial> {
    let plugin = locked(&call.plugin, loaded)?;
    check_command(call, plugin)?;
    let members = Members::read(&call.request, call.job, &call.command)?;
    let (principal, contract, origin, uses) = match &call.asked_by {
        AskedBy::Origin(signed) => {
            let origin = root::read_origin(signed, trust)?;
            root::by_origin(call, &origin, &members, plugin, loaded)?
        }
        AskedBy::Parent(signed) => {
            let parent = verify::<Decision>(signed, &trust.signing.policy)
                .map_err(|e| Reason::ParentInvalid.because(e.to_string()))?;
            pipeline::by_parent(call, parent.statement, loaded)?
        }
    };
    let config = loaded
        .view
        .plugin_configs
        .get(&call.plugin)
        .map_or(b"{}".as_slice(), Vec::as_slice);
    let request = strict_json::splice_member(&call.request, "config", config)
        .map_err(|e| Reason::BadRequest.because(e.to_string()))?;
    Ok(Grounds {
        principal,
        contract,
        origin,
        uses,
        lasts: plugin.lasts(&call.command).is_some(),
        request,
    })
}

type Found = (String, String, DecisionOrigin, Uses);

/// The plugin as it is locked, if its configuration agrees with that.
pub(crate) fn locked<'a>(
    name: &PluginName,
    loaded: &'a Loaded<View>,
) -> Result<&'a LockedPlugin, Denial> {
    let plugin = loaded
        .lock
        .plugins
        .get(name)
        .zip(loaded.view.config.enabled_plugin(name));
    let (plugin, config) = plugin.ok_or_else(|| {
        Reason::PluginNotLocked.because(format!(
            "the plugin {name} is not locked; `bailey plugin lock --all` locks it"
        ))
    })?;
    let (locked, wanted) = (&plugin.proposed.account, &config.run_as);
    if locked != wanted {
        let detail =
            format!("{name} was locked for the account {locked}, its configuration names {wanted}");
        return Err(Reason::NotLockedAccount.because(detail));
    }
    Ok(plugin)
}

fn check_command(call: &Call, plugin: &LockedPlugin) -> Result<(), Denial> {
    if access(plugin, &call.command).is_some() {
        return Ok(());
    }
    let (name, command) = (&call.plugin, &call.command);
    Err(Reason::NoSuchCommand.because(format!("{name} has no command {command}")))
}

fn access(plugin: &LockedPlugin, command: &CommandName) -> Option<Access> {
    let commands = &plugin.proposed.manifest.commands;
    commands
        .iter()
        .find(|known| known.name == *command)
        .map(|known| known.access)
}

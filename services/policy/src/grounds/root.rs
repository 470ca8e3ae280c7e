//! Calls that an origin asks for: by a token, by a schedule, or by an event from outside.

use bailey_plugin::manifest::Access;
use bailey_proto::trust::v1::Signed;
use bailey_trust::{Asked, DecisionOrigin, Loaded, LockedPlugin, Origin, TrustFile, verify};
use bailey_types::{EventType, Sha256};

use super::pipeline::started_by;
use super::{Call, Found, Place, Uses, access};
use crate::denial::{Denial, Reason};
use crate::lock::View;
use crate::request::{HANDLE, Members};

/// Type of the event as which a call of `handle` reaches its plugin (reference: ductile 6.2).
const CALLED: &str = "api.trigger";

/// Whom the scheduler stands for when it starts what the lock says is to last.
const SERVICE: &str = "service:";

/// An origin is signed by the one who saw its principal: the broker sees tokens, the scheduler the lock's schedules and services.
pub(super) fn read_origin(signed: &Signed, trust: &TrustFile) -> Result<Origin, Denial> {
    let by_broker = verify::<Origin>(signed, &trust.signing.broker);
    let (origin, prefixes): (_, &[&str]) = match by_broker {
        Ok(origin) => (origin, &["token:"]),
        Err(error) => match verify::<Origin>(signed, &trust.signing.scheduler) {
            Ok(origin) => (origin, &["schedule:", SERVICE]),
            Err(_) => return Err(Reason::OriginInvalid.because(error.to_string())),
        },
    };
    let origin = origin.statement;
    if prefixes
        .iter()
        .any(|prefix| origin.principal.starts_with(prefix))
    {
        return Ok(origin);
    }
    Err(Reason::OriginInvalid.because(format!(
        "{:?} is not whom the signer can stand for",
        origin.principal
    )))
}

/// The contract under which an origin asks for the call.
pub(super) fn by_origin(
    call: &Call,
    origin: &Origin,
    members: &Members<'_>,
    plugin: &LockedPlugin,
    loaded: &Loaded<View>,
) -> Result<Found, Denial> {
    let no_contract = |detail: String| Err(Reason::NoContract.because(detail));
    members.check_nothing_added(&call.command)?;
    let (contract, step) = match (&origin.asked, &call.step) {
        (
            Asked::Call {
                plugin: asked,
                command,
                payload_sha256,
            },
            None,
        ) => {
            if (asked, command) != (&call.plugin, &call.command) {
                let detail = format!("{asked}.{command} was asked for");
                return Err(Reason::OriginInvalid.because(detail));
            }
            (
                check_call(call, origin, *payload_sha256, members, plugin, loaded)?,
                None,
            )
        }
        (
            Asked::Event {
                event_type,
                payload_sha256,
            },
            Some(place),
        ) => {
            let contract = check_event(call, place, origin, event_type, members, loaded)?;
            members.check_payload(*payload_sha256, &call.command)?;
            (contract, Some((place.pipeline.clone(), place.step.clone())))
        }
        (Asked::Call { .. }, Some(place)) => {
            return no_contract(format!(
                "a call does not start the pipeline {}",
                place.pipeline
            ));
        }
        (Asked::Event { event_type, .. }, None) => {
            return no_contract(format!("the event {event_type} starts pipelines only"));
        }
        (Asked::Check { upstream }, _) => {
            return no_contract(format!("a check of the upstream {upstream} starts nothing"));
        }
    };
    let decided = DecisionOrigin::Root {
        origin: origin.id,
        step: step.clone(),
    };
    let uses = Uses::Origin {
        origin: origin.id,
        asked_at: origin.issued_at,
        step,
    };
    Ok((origin.principal.clone(), contract, decided, uses))
}

fn check_event(
    call: &Call,
    place: &Place,
    origin: &Origin,
    event_type: &EventType,
    members: &Members<'_>,
    loaded: &Loaded<View>,
) -> Result<String, Denial> {
    let pipeline = started_by(call, place, loaded).filter(|pipeline| {
        // What comes from outside comes from no plugin.
        pipeline.on == *event_type && pipeline.from_plugin.is_none()
    });
    let Some(pipeline) = pipeline else {
        let Place { pipeline, step, .. } = place;
        let detail = format!("no locked pipeline {pipeline} starts at {step} with {event_type}");
        return Err(Reason::NoContract.because(detail));
    };
    // The scheduler signs what scopes it likes: what it may ask for are the locked schedules' calls, and nothing by scope.
    if !origin.principal.starts_with("token:") {
        let detail = format!("{} emits no events", origin.principal);
        return Err(Reason::NoContract.because(detail));
    }
    need_scope(origin, &["events:rw", "plugin:rw", "*"])?;
    if members.event_type()? != event_type.as_str() {
        let detail = format!("the event {event_type} was asked for");
        return Err(Reason::PayloadDiffers.because(detail));
    }
    Ok(format!("pipeline:{}", pipeline.name))
}

fn check_call(
    call: &Call,
    origin: &Origin,
    payload: Sha256,
    members: &Members<'_>,
    plugin: &LockedPlugin,
    loaded: &Loaded<View>,
) -> Result<String, Denial> {
    let contract = origin.principal.clone();
    if check_lasting(call, origin, members, plugin)? {
        members.check_payload(payload, &call.command)?;
        return Ok(contract);
    }
    let schedule = origin
        .principal
        .strip_prefix("schedule:")
        .map(|name| name.split_once(':').unwrap_or((name, "")));
    if let Some((name, id)) = schedule {
        let config = loaded
            .view
            .config
            .enabled_plugin(&call.plugin)
            .filter(|_| name == call.plugin.as_str());
        let mut schedules = config.into_iter().flat_map(|config| &config.schedules);
        let schedule = schedules
            .find(|schedule| schedule.id.as_str() == id && schedule.command == call.command);
        let Some(schedule) = schedule else {
            return Err(Reason::NoContract.because(format!(
                "no locked schedule {id} of {name} runs {}",
                call.command
            )));
        };
        let carried: Option<serde_json::Map<_, _>> = serde_json::from_str(members.payload()).ok();
        if carried.as_ref() != Some(&schedule.payload) {
            return Err(
                Reason::PayloadDiffers.because(format!("the schedule {id} has another payload"))
            );
        }
    } else {
        match access(plugin, &call.command) {
            Some(Access::Read) => need_scope(origin, &["plugin:invoke:ro", "plugin:rw", "*"])?,
            Some(Access::Write) | None => need_scope(origin, &["plugin:rw", "*"])?,
        }
    }
    if call.command.as_str() == HANDLE && members.event_type()? != CALLED {
        return Err(Reason::PayloadDiffers.because(format!(
            "a call of {HANDLE} is an event of the type {CALLED}"
        )));
    }
    members.check_payload(payload, &call.command)?;
    Ok(contract)
}

/// Whether the call is the one that a service lasts by. Its principal and its command belong together: nobody else asks for it, and it asks
/// for nothing else.
fn check_lasting(
    call: &Call,
    origin: &Origin,
    members: &Members<'_>,
    plugin: &LockedPlugin,
) -> Result<bool, Denial> {
    let (name, command) = (&call.plugin, &call.command);
    let lasts = plugin.lasts(command).is_some();
    match origin.principal.strip_prefix(SERVICE) {
        None if lasts => Err(Reason::Lasts.because(format!(
            "{name} is a service: its command {command} runs for as long as it is locked, and cannot be called"
        ))),
        None => Ok(false),
        Some(service) if service != name.as_str() || !lasts => Err(Reason::NoContract.because(
            format!("no locked service {service} runs {name}.{command}"),
        )),
        Some(_) if members.payload() != "{}" => {
            Err(Reason::PayloadDiffers.because("a service is started without a payload"))
        }
        Some(_) => Ok(true),
    }
}

fn need_scope(origin: &Origin, any_of: &[&str]) -> Result<(), Denial> {
    if any_of
        .iter()
        .any(|wanted| origin.scopes.iter().any(|scope| scope == wanted))
    {
        return Ok(());
    }
    Err(Reason::ScopeMissing.because(format!(
        "{} has none of the scopes {}",
        origin.principal,
        any_of.join(", ")
    )))
}

//! What becomes a container: only what this proxy derives itself from its own lock.

use std::collections::HashMap;

use bailey_cell::{
    Cell, Entry, Holder, Identity, Look, Probe, Seat, Spec, Target, create_body, name, state_volume,
};
use bailey_trust::LockedPlugin;
use bailey_types::{ImageId, JobId, PluginName, Serial};
use http::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Proxy, state};
use crate::answer::json_answer;
use crate::compare;
use crate::engine::{self, Body};
use crate::error::Error;
use crate::registry::{ContainerId, Record};

/// What the engine answers to a create.
#[derive(Deserialize)]
struct Made {
    #[serde(rename = "Id")]
    id: String,
}

/// A container that may be made.
struct Derived {
    body: Value,
    record: Record,
    /// Where its state will be, if the image does not see to it that the plugin may write there.
    closed: Option<&'static str>,
    /// The volume that it looks at: one that there must be, for the engine would make it.
    measured: Option<String>,
}

impl Proxy {
    pub(super) async fn create(&self, wanted: &str, body: &[u8]) -> Result<Response<Body>, Error> {
        let received = compare::read(body).map_err(Error::Refused)?;
        let labels = received.get("Labels").cloned().unwrap_or_default();
        let labels: HashMap<String, String> =
            serde_json::from_value(labels).map_err(|e| Error::refused(format!("Labels: {e}")))?;
        let identity = Identity::from_labels(&self.stack, &labels)
            .map_err(|e| Error::refused(format!("Labels: {e}")))?;
        let expected = identity.name(&self.stack);
        if wanted != expected {
            return Err(Error::Refused(format!(
                "the container's name must be {expected}"
            )));
        }
        // Before the engine is asked anything: of creates that run at once, each counts.
        let full = || Error::NotNow("there are too many containers already".into());
        let _slot = self.registry.reserve().ok_or_else(full)?;
        let derived = self.derive(identity).await?;
        if let Some(difference) = compare::first_difference(&derived.body, &received) {
            return Err(Error::Refused(format!(
                "the create body is not what the lock says: {difference}"
            )));
        }
        self.check_runtime(&derived.body).await?;
        if let Some(volume) = &derived.measured
            && !state::exists(self.engine(), volume).await?
        {
            return Err(Error::NoState);
        }
        if let Some(place) = derived.closed {
            self.open_state(&derived.body, place).await?;
        }
        let id = self.make(&expected, derived).await?;
        Ok(json_answer(
            StatusCode::CREATED,
            &json!({ "Id": id.as_str(), "Warnings": [] }),
        ))
    }

    async fn make(&self, name: &str, derived: Derived) -> Result<ContainerId, Error> {
        let Derived { body, record, .. } = derived;
        let holder = record.holder();
        if let (Some(holder), Identity::Cell { plugin, serial, .. }) = (&holder, &record.identity) {
            let claimed = self.registry.claim(holder, plugin, *serial);
            claimed.map_err(|e| Error::Refused(e.to_string()))?;
        }
        // Our bytes, not the runner's: the engine reads JSON in its own way.
        let path = format!("/containers/create?name={name}");
        let made = self
            .engine()
            .json(Method::POST, &path, Some(body.to_string().into()));
        let made: Made = match made.await {
            Ok(made) => made,
            Err(error) => {
                // An engine that did not answer may have made it: then nobody else gets the holder.
                if let (Some(holder), engine::Error::Answered { .. }) = (&holder, &error) {
                    self.registry.give_back(holder);
                }
                return Err(not_made(error, record.image));
            }
        };
        let id: ContainerId = made
            .id
            .parse()
            .map_err(|()| engine::Error::Unreadable("a created container has no full id".into()))?;
        tracing::info!(container.id = %id, "made {name}");
        self.registry.made(id.clone(), record);
        Ok(id)
    }

    /// The body that `identity` has under this proxy's own lock.
    async fn derive(&self, identity: Identity) -> Result<Derived, Error> {
        match &identity {
            Identity::Cell { plugin, serial, .. } => {
                let locked = self.locked(plugin, *serial)?;
                self.derive_cell(&locked, &identity)
            }
            Identity::Holder { plugin, id, serial } => {
                let locked = self.locked(plugin, *serial)?;
                self.derive_holder(&locked, plugin, *id, *serial).await
            }
            Identity::Probe { job, target } => self.derive_probe(*job, target).await,
        }
    }

    /// What is locked under that name, in the lock with that serial.
    fn locked(&self, plugin: &PluginName, serial: Serial) -> Result<LockedPlugin, Error> {
        let loaded = self.lock().map_err(Error::NotNow)?;
        if serial != loaded.lock.serial {
            let here = loaded.lock.serial;
            return Err(Error::NotNow(format!(
                "the container is of lock {serial}, here it is {here}"
            )));
        }
        let locked = loaded.lock.plugins.get(plugin).cloned();
        locked.ok_or_else(|| Error::Refused(format!("the plugin {plugin} is not locked")))
    }

    fn derive_cell(&self, locked: &LockedPlugin, identity: &Identity) -> Result<Derived, Error> {
        let Identity::Cell {
            plugin,
            seat,
            serial,
            untrusted,
            holder,
        } = identity
        else {
            return Err(Error::refused("only cells are made for jobs"));
        };
        let cell = Cell {
            stack: &self.stack,
            serial: *serial,
            plugin,
            locked,
            seat: *seat,
            untrusted: *untrusted,
            holder: holder.as_deref(),
        };
        check_cell(&cell)?;
        let derived = derived(&Spec::Cell(cell), locked.proposed.image, cell.has_egress())?;
        Ok(Derived {
            closed: state::closed(&cell),
            ..derived
        })
    }

    async fn derive_holder(
        &self,
        locked: &LockedPlugin,
        plugin: &PluginName,
        id: JobId,
        serial: Serial,
    ) -> Result<Derived, Error> {
        let image = self.holder_image().await?;
        let holder = Holder {
            stack: &self.stack,
            serial,
            plugin,
            locked,
            image: &image,
            id,
        };
        derived(&Spec::Holder(holder), image, holder.has_egress())
    }

    async fn derive_probe(&self, job: JobId, target: &Target) -> Result<Derived, Error> {
        let image = self.probe_image().await?;
        let derive = |look: Look<'_>| {
            let probe = Probe {
                stack: &self.stack,
                image: &image,
                job,
                look,
            };
            derived(&Spec::Probe(probe), image, false)
        };
        match target {
            Target::Walls => derive(Look::Walls),
            Target::Paths(plugin, serial) => derive(Look::Paths(Entry {
                serial: *serial,
                plugin,
                locked: &self.locked(plugin, *serial)?,
            })),
            Target::State(plugin, serial, pace) => {
                let locked = self.locked(plugin, *serial)?;
                if locked.quota().is_none() {
                    return Err(Error::refused("the plugin keeps nothing that is bounded"));
                }
                let volume = state_volume(&self.stack, plugin, locked.state_generation);
                let entry = Entry {
                    serial: *serial,
                    plugin,
                    locked: &locked,
                };
                let derived = derive(Look::State(entry, *pace))?;
                Ok(Derived {
                    measured: Some(volume),
                    ..derived
                })
            }
        }
    }

    /// An engine without the account's runtime says so by a number; this says it in words.
    async fn check_runtime(&self, body: &Value) -> Result<(), Error> {
        let runtime = body.pointer("/HostConfig/Runtime").and_then(Value::as_str);
        let Some(runtime) = runtime.filter(|runtime| *runtime != "runc") else {
            return Ok(());
        };
        let known = self.engine().describe().await?.runtimes;
        if known.iter().any(|name| name == runtime) {
            return Ok(());
        }
        let known = known.join(", ");
        Err(Error::Refused(format!(
            "the account's runtime {runtime} is not one of the Docker Engine's: it has {known}"
        )))
    }
}

/// What must hold between the fields of a cell that each for itself may have any value.
fn check_cell(cell: &Cell<'_>) -> Result<(), Error> {
    let (walls, pooled) = (
        &cell.locked.proposed.walls,
        matches!(cell.seat, Seat::Pool { .. }),
    );
    let checks = [
        (
            "there is no account untrusted",
            !cell.untrusted || walls.untrusted.is_some(),
        ),
        (
            "an untrusted cell is neither pooled nor held",
            !cell.untrusted || (!pooled && cell.holder.is_none()),
        ),
        (
            "the plugin has egress, so its cells need a holder",
            !cell.has_egress() || cell.holder.is_some(),
        ),
        ("the plugin keeps no warm cells", !pooled || walls.warm > 0),
        (
            "cells with state, egress or host paths are not started ahead",
            !pooled || cell.locked.proposed.carries().is_none(),
        ),
    ];
    match checks.iter().find(|(_, holds)| !holds) {
        Some((wrong, _)) => Err(Error::refused(*wrong)),
        None => Ok(()),
    }
}

/// Only an image can be missing from a create: that will not come back by itself.
fn not_made(error: engine::Error, image: ImageId) -> Error {
    let missing = matches!(
        error,
        engine::Error::Answered {
            status: StatusCode::NOT_FOUND,
            ..
        }
    );
    if missing {
        return Error::Refused(format!(
            "the image {image} is not in the Docker Engine any more"
        ));
    }
    error.into()
}

fn derived(spec: &Spec<'_>, image: ImageId, egress: bool) -> Result<Derived, Error> {
    let body = serde_json::to_value(create_body(spec)).map_err(|e| {
        Error::Refused(format!("the body of {} cannot be written: {e}", name(spec)))
    })?;
    let record = Record {
        identity: Identity::from(spec),
        image,
        egress,
    };
    Ok(Derived {
        body,
        record,
        closed: None,
        measured: None,
    })
}

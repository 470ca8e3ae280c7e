//! The calls of the runner, and what this proxy knows.

use std::collections::HashMap;
use std::sync::Arc;

use bailey_cell::{Cell, Identity, Probe, Spec, create_body, launch, name};
use bailey_error::Chain;
use bailey_trust::{Loaded, LockSource, SealingKey, TrustFile};
use bailey_types::{Clock, ImageId, JobId, StackId};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::answer::{cut, json_answer, set_json, status_only, text};
use crate::audit::Record as Audit;
use crate::engine::{self, Body, Engine};
use crate::error::Error;
use crate::launch::{Delivery, Keys, Refusal};
use crate::registry::{AttachError, ContainerId, Listed, Record, Registry};
use crate::remembered::Remembered;
use crate::room::Room;
use crate::route::{Call, Signal};
use crate::session::Patience;
use crate::{compare, own_image};

/// What the proxy is made of.
pub struct Parts {
    /// Public roots of trust.
    pub trust: Arc<TrustFile>,
    /// Opens what the broker seals.
    pub sealing: SealingKey,
    /// The lock, from this service's own mount.
    pub lock: LockSource<()>,
    /// The newest lock that was seen.
    pub remembered: Remembered,
    /// The Docker Engine.
    pub engine: Engine,
    /// The time.
    pub clock: Clock,
    /// The audit log.
    pub audit: Arc<dyn Audit>,
    /// Cancelled when the service stops.
    pub shutdown: CancellationToken,
    /// The image of probes; `None`: that of the container this process runs in.
    pub probe_image: Option<ImageId>,
    /// How long cells wait.
    pub patience: Patience,
}

/// The proxy.
pub struct Proxy {
    stack: StackId,
    parts: Parts,
    keys: Arc<Keys>,
    registry: Registry,
    room: Room,
    adopted: OnceCell<()>,
    probe_image: OnceCell<ImageId>,
}

/// What the engine answers to a create.
#[derive(Deserialize)]
struct Made {
    #[serde(rename = "Id")]
    id: String,
}

impl Proxy {
    /// A proxy that has not asked the engine anything yet.
    pub fn new(parts: Parts) -> Self {
        let keys = Keys {
            signing: parts.trust.signing.clone(),
            sealing: parts.sealing.clone(),
        };
        Self {
            stack: parts.trust.stack.clone(),
            probe_image: OnceCell::new_with(parts.probe_image),
            keys: Arc::new(keys),
            registry: Registry::default(),
            room: Room::default(),
            adopted: OnceCell::new(),
            parts,
        }
    }

    /// The stack whose containers these are.
    pub fn stack(&self) -> &StackId {
        &self.stack
    }

    /// The Docker Engine.
    pub fn engine(&self) -> &Engine {
        &self.parts.engine
    }

    /// The audit log.
    pub fn audit(&self) -> &dyn Audit {
        &*self.parts.audit
    }

    /// Cancelled when the service stops.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.parts.shutdown
    }

    /// How long cells wait.
    pub fn patience(&self) -> Patience {
        self.parts.patience
    }

    /// How much the runner may fill.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Why no cell can be made from the lock as it is; `None` where one can.
    pub fn lock_trouble(&self) -> Option<String> {
        self.lock().err()
    }

    fn lock(&self) -> Result<Arc<Loaded<()>>, String> {
        let loaded = self.parts.lock.current().map_err(|e| e.to_string())?;
        let seen = self.parts.remembered.seen(loaded.lock.serial);
        seen.map_err(|e| Chain(&e).to_string())?;
        Ok(loaded)
    }

    /// Takes over what an earlier life made, once: before that, nothing is known to be ours.
    pub async fn adopt(&self) -> Result<(), Error> {
        let adopt = async {
            let count = self.registry.adopt(&self.stack, &self.listed().await?);
            tracing::info!(
                container.count = count,
                "took over {count} containers of an earlier life"
            );
            Ok::<_, Error>(())
        };
        self.adopted.get_or_try_init(|| adopt).await.copied()
    }

    async fn listed(&self) -> Result<Vec<Listed>, Error> {
        // {"label":["bailey.stack=<stack>"]}
        let filters = format!(
            "%7B%22label%22%3A%5B%22bailey.stack%3D{}%22%5D%7D",
            self.stack
        );
        let path = format!("/containers/json?all=1&filters={filters}");
        Ok(self.engine().json(Method::GET, &path, None).await?)
    }

    /// Every call but an attach, which needs the connection itself.
    pub async fn answer(&self, call: &Call, body: &[u8]) -> Result<Response<Body>, Error> {
        if matches!(call, Call::Ping) {
            self.engine().ping().await?;
            return Ok(text(StatusCode::OK, "OK"));
        }
        self.adopt().await?;
        match call {
            Call::Ping => Ok(text(StatusCode::OK, "OK")),
            Call::ProbeImage => Ok(json_answer(
                StatusCode::OK,
                &json!({ "Id": self.probe_image().await? }),
            )),
            Call::Create(name) => self.create(name, body).await,
            Call::List => self.list().await,
            Call::Start(id) => self.pass_on(id, Method::POST, "/start").await,
            Call::Kill(id, signal) => self.kill(id, *signal).await,
            Call::Wait(id) => self.wait(id).await,
            Call::Remove(id) => self.remove(id).await,
            Call::Inspect(id) => self.inspect(id).await,
            Call::Attach(_) => Err(Error::refused("an attach needs its connection")),
        }
    }

    async fn probe_image(&self) -> Result<ImageId, Error> {
        let find = || own_image::find(self.engine());
        self.probe_image.get_or_try_init(find).await.copied()
    }

    async fn create(&self, wanted: &str, body: &[u8]) -> Result<Response<Body>, Error> {
        let received = compare::read(body).map_err(Error::Refused)?;
        let labels = received.get("Labels").cloned().unwrap_or_default();
        let labels: HashMap<String, String> =
            serde_json::from_value(labels).map_err(|e| Error::refused(format!("Labels: {e}")))?;
        let identity = Identity::from_labels(&self.stack, &labels)
            .map_err(|e| Error::refused(format!("Labels: {e}")))?;
        let (derived, image) = self.derive(&identity, wanted).await?;
        if let Some(difference) = compare::first_difference(&derived, &received) {
            return Err(Error::Refused(format!(
                "the create body is not what the lock says: {difference}"
            )));
        }
        if !self.registry.has_room() {
            return Err(Error::NotNow(
                "there are too many containers already".into(),
            ));
        }
        // Our bytes, not the runner's: the engine reads JSON in its own way.
        let path = format!("/containers/create?name={wanted}");
        let made = self
            .engine()
            .json(Method::POST, &path, Some(derived.to_string().into()));
        let made: Made = made.await?;
        let id: ContainerId = made
            .id
            .parse()
            .map_err(|()| engine::Error::Unreadable("a created container has no full id".into()))?;
        tracing::info!(container.id = %id, "made {wanted}");
        self.registry.made(id, identity, image);
        Ok(json_answer(
            StatusCode::CREATED,
            &json!({ "Id": made.id, "Warnings": [] }),
        ))
    }

    /// The body that `identity` has under this proxy's own lock.
    async fn derive(&self, identity: &Identity, wanted: &str) -> Result<(Value, ImageId), Error> {
        match identity {
            Identity::Cell {
                plugin,
                job,
                attempt,
                serial,
            } => {
                let loaded = self.lock().map_err(Error::NotNow)?;
                if *serial != loaded.lock.serial {
                    let here = loaded.lock.serial;
                    return Err(Error::NotNow(format!(
                        "the container is of lock {serial}, here it is {here}"
                    )));
                }
                let locked = loaded.lock.plugins.get(plugin);
                let locked = locked
                    .ok_or_else(|| Error::Refused(format!("the plugin {plugin} is not locked")))?;
                let (stack, serial, job, attempt) = (&self.stack, *serial, *job, *attempt);
                let cell = Cell {
                    stack,
                    serial,
                    plugin,
                    locked,
                    job,
                    attempt,
                };
                rendered(&Spec::Cell(cell), wanted).map(|body| (body, locked.proposed.image))
            }
            Identity::Probe { job } => self.derive_probe(*job, wanted).await,
        }
    }

    async fn derive_probe(&self, job: JobId, wanted: &str) -> Result<(Value, ImageId), Error> {
        let image = self.probe_image().await?;
        let probe = Probe {
            stack: &self.stack,
            image: &image,
            job,
        };
        rendered(&Spec::Probe(probe), wanted).map(|body| (body, image))
    }

    /// All of ours. What was made and never recorded, because the runner left in the middle, is taken over here.
    async fn list(&self) -> Result<Response<Body>, Error> {
        let listed = self.listed().await?;
        self.registry.adopt(&self.stack, &listed);
        let known = listed.iter().filter(|entry| {
            entry
                .id()
                .is_some_and(|id| self.registry.look_up(&id).is_some())
        });
        let known: Vec<&Listed> = known.collect();
        Ok(json_answer(StatusCode::OK, &json!(known)))
    }

    async fn inspect(&self, id: &ContainerId) -> Result<Response<Body>, Error> {
        self.known(id)?;
        let path = format!("/containers/{id}/json");
        let found: Value = self.engine().json(Method::GET, &path, None).await?;
        Ok(json_answer(
            StatusCode::OK,
            &cut(&found, &["Id", "Image", "State"]),
        ))
    }

    async fn kill(&self, id: &ContainerId, signal: Signal) -> Result<Response<Body>, Error> {
        self.pass_on(id, Method::POST, &format!("/kill?signal={}", signal.name()))
            .await
    }

    /// Waits until the container does not run. The head is answered at once, so that no reader takes the wait for a silence.
    async fn wait(&self, id: &ContainerId) -> Result<Response<Body>, Error> {
        self.known(id)?;
        let path = format!("/containers/{id}/wait?condition=not-running");
        let waiting = self.engine().call(Method::POST, &path, None).await?;
        let ended = async {
            let ended: Value = engine::read_json(waiting).await?;
            let bytes = cut(&ended, &["StatusCode", "Error"]).to_string();
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Frame::data(Bytes::from(bytes)))
        };
        let body = StreamBody::new(futures::stream::once(ended)).boxed_unsync();
        let mut answer = Response::new(body);
        set_json(&mut answer);
        Ok(answer)
    }

    async fn remove(&self, id: &ContainerId) -> Result<Response<Body>, Error> {
        self.known(id)?;
        let path = format!("/containers/{id}?force=1&v=1");
        match self.engine().call(Method::DELETE, &path, None).await {
            Ok(_) => {
                self.registry.forget(id);
                Ok(status_only(StatusCode::NO_CONTENT))
            }
            Err(engine::Error::Answered {
                status: StatusCode::NOT_FOUND,
                ..
            }) => {
                // Somebody else removed it, who may do so: the operator.
                self.registry.forget(id);
                Err(Error::NoSuchContainer)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn pass_on(
        &self,
        id: &ContainerId,
        method: Method,
        what: &str,
    ) -> Result<Response<Body>, Error> {
        self.known(id)?;
        let answer: Response<Incoming> = self
            .engine()
            .call(method, &format!("/containers/{id}{what}"), None)
            .await?;
        Ok(status_only(answer.status()))
    }

    fn known(&self, id: &ContainerId) -> Result<Record, Error> {
        self.registry.look_up(id).ok_or(Error::NoSuchContainer)
    }

    /// Uses up the container's one attach. It stays used when the engine then fails: a cell is cheap, a second reader is not.
    pub async fn attach(
        &self,
        id: &ContainerId,
    ) -> Result<(Record, hyper::upgrade::Upgraded), Error> {
        self.adopt().await?;
        let record = self
            .registry
            .begin_attach(id)
            .map_err(|error| match error {
                AttachError::Unknown => Error::NoSuchContainer,
                AttachError::Again | AttachError::NoCell => Error::Refused(error.to_string()),
            })?;
        let upgraded = self.engine().attach(id.as_str()).await?;
        Ok((record, upgraded))
    }

    /// Checks and opens an envelope, beside the other work: it may be 24 MiB.
    pub async fn open(
        &self,
        id: &ContainerId,
        record: &Record,
        envelope: launch::Envelope,
    ) -> Result<Delivery, Refusal> {
        let (keys, id, record) = (Arc::clone(&self.keys), id.clone(), record.clone());
        let now = self.parts.clock.now();
        let opening = tokio::task::spawn_blocking(move || keys.open(&id, &record, &envelope, now));
        opening
            .await
            .unwrap_or_else(|_| Err(Refusal("opening the envelope failed".into())))
    }

    /// Writes down that a cell got its request.
    pub fn launched(&self, id: &ContainerId, record: &Record, delivery: &Delivery) {
        let Identity::Cell {
            plugin,
            job,
            attempt,
            ..
        } = &record.identity
        else {
            return;
        };
        let fields = json!({
            "container": id.as_str(), "plugin": plugin, "job": job, "attempt": attempt,
            "image": record.image, "decision": delivery.decision, "ticket": delivery.ticket,
        });
        self.audit().record("launch.fed", fields, false);
    }
}

fn rendered(spec: &Spec<'_>, wanted: &str) -> Result<Value, Error> {
    let expected = name(spec);
    if wanted != expected {
        return Err(Error::Refused(format!(
            "the container's name must be {expected}"
        )));
    }
    serde_json::to_value(create_body(spec))
        .map_err(|e| Error::Refused(format!("the create body cannot be written: {e}")))
}

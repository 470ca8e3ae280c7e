//! The calls of the runner, and what this proxy knows.

pub mod collecting;
mod create;
mod events;
mod launching;
mod state;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use bailey_cell::Identity;
use bailey_error::Chain;
use bailey_trust::{Loaded, LockSource, SealingKey, SessionReader, TrustFile};
use bailey_types::{Clock, ImageId, StackId};
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::answer::{cut, json_answer, set_json, status_only, text};
use crate::audit::Record as Audit;
use crate::engine::{self, Body, Engine};
use crate::error::Error;
use crate::launch::Keys;
use crate::lease::Leases;
use crate::registry::{ContainerId, Listed, Record, Registry};
use crate::remembered::Remembered;
use crate::room::Room;
use crate::route::{Call, Signal};
use crate::session::Patience;
use crate::{own_image, seal};

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
    /// Reference of the image of holders.
    pub holder_image: Option<String>,
    /// How long cells wait.
    pub patience: Patience,
}

/// The proxy.
pub struct Proxy {
    stack: StackId,
    parts: Parts,
    keys: Arc<Keys>,
    registry: Registry,
    leases: Leases,
    room: Room,
    adopted: OnceCell<()>,
    /// State volumes that plugins may write to, by name.
    opened: Mutex<BTreeSet<String>>,
    probe_image: OnceCell<ImageId>,
    holder_image: OnceCell<ImageId>,
}

impl Proxy {
    /// A proxy that has not asked the engine anything yet.
    pub fn new(parts: Parts) -> Self {
        let sealing = SessionReader::new(parts.sealing.clone());
        let keys = Keys::new(parts.trust.signing.clone(), sealing, parts.clock.clone());
        Self {
            stack: parts.trust.stack.clone(),
            probe_image: OnceCell::new_with(parts.probe_image),
            keys: Arc::new(keys),
            registry: Registry::default(),
            leases: Leases::default(),
            holder_image: OnceCell::new(),
            room: Room::default(),
            adopted: OnceCell::new(),
            opened: Mutex::default(),
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

    /// The containers that are known.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The time now.
    pub fn now(&self) -> bailey_types::Timestamp {
        self.parts.clock.now()
    }

    /// The lock as it is now; the error is a sentence.
    pub fn lock(&self) -> Result<Arc<Loaded<()>>, String> {
        let loaded = self.parts.lock.current().map_err(|e| e.to_string())?;
        let seen = self.parts.remembered.seen(loaded.lock.serial);
        seen.map_err(|e| Chain(&e).to_string())?;
        Ok(loaded)
    }

    /// Takes over what an earlier life made, once: before that, nothing is known to be ours.
    pub async fn adopt(&self) -> Result<(), Error> {
        let adopt = async {
            let (_, count) = self.relist().await?;
            tracing::info!(
                container.count = count,
                "took over {count} containers of an earlier life"
            );
            Ok::<_, Error>(())
        };
        self.adopted.get_or_try_init(|| adopt).await.copied()
    }

    /// What the engine has of ours, and how much that is. The books are right by it: also what others removed is forgotten.
    async fn relist(&self) -> Result<(Vec<Listed>, usize), Error> {
        let listing = self.registry.begin_list();
        let listed = self.listed().await?;
        let settled = listing.settle(&self.stack, &listed);
        for id in &settled.gone {
            tracing::info!(container.id = %id, "a container was removed by somebody else");
            self.leases.forget(id);
        }
        Ok((listed, settled.ours))
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

    /// Whether cells of the container's lock may run: only those of the lock as it is now. The error is a sentence.
    pub fn same_lock(&self, record: &Record) -> Result<(), String> {
        let Identity::Cell { serial, .. } = &record.identity else {
            return Ok(());
        };
        let here = self.lock()?.lock.serial;
        if *serial == here {
            return Ok(());
        }
        Err(format!(
            "the container is of lock {serial}, here it is {here}"
        ))
    }

    /// Every call but an attach, which needs the connection itself. Not to be dropped where it changes something: engine and books would
    /// be at odds.
    pub async fn answer(&self, call: &Call, body: &[u8]) -> Result<Response<Body>, Error> {
        if matches!(call, Call::Ping) {
            self.engine().ping().await?;
            return Ok(text(StatusCode::OK, "OK"));
        }
        self.adopt().await?;
        match call {
            Call::Ping => Ok(text(StatusCode::OK, "OK")),
            Call::ProbeImage => Ok(image_answer(self.probe_image().await?)),
            Call::HolderImage => Ok(image_answer(self.holder_image().await?)),
            Call::Create(name) => self.create(name, body).await,
            Call::List => self.list().await,
            Call::Events => self.events().await,
            Call::Start(id) => self.start(id).await,
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

    /// Looked up once: a holder's image changes with the stack's version, never while it runs.
    async fn holder_image(&self) -> Result<ImageId, Error> {
        let find = || async {
            let reference = self.parts.holder_image.as_ref();
            let reference = reference.ok_or_else(|| {
                Error::NotNow("this proxy knows no image of holders: --holder-image".into())
            })?;
            let found = seal::find(self.engine(), reference).await;
            found.map_err(|e| Error::NotNow(format!("the image of holders: {e}")))
        };
        self.holder_image.get_or_try_init(find).await.copied()
    }

    /// All of ours. What was made and never recorded, because the runner left in the middle, is taken over here.
    async fn list(&self) -> Result<Response<Body>, Error> {
        let (listed, _) = self.relist().await?;
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
        self.registry.signalled(id);
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
                self.forget(id);
                Ok(status_only(StatusCode::NO_CONTENT))
            }
            Err(engine::Error::Answered {
                status: StatusCode::NOT_FOUND,
                ..
            }) => {
                // Somebody else removed it, who may do so: the operator.
                self.forget(id);
                Err(Error::NoSuchContainer)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn forget(&self, id: &ContainerId) {
        self.leases.forget(id);
        self.registry.forget(id);
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
}

fn image_answer(image: ImageId) -> Response<Body> {
    json_answer(StatusCode::OK, &json!({ "Id": image }))
}

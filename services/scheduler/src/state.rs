//! What timer and delivery share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bailey_db::Db;
use bailey_mesh::Mesh;
use bailey_trust::{LockSource, SigningKey};
use bailey_types::{Clock, PluginName};
use tokio::sync::Notify;

use crate::plan::Plan;
use crate::service::Service;

/// Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub db: Db,
    pub lock: Arc<LockSource<Plan>>,
    pub key: Arc<SigningKey>,
    pub mesh: Mesh,
    pub clock: Clock,
    /// The services of the lock. Not in the database: each life begins by telling the engine of all of them.
    pub services: Arc<Mutex<BTreeMap<PluginName, Service>>>,
    /// There is something to deliver.
    pub fired: Arc<Notify>,
}

impl State {
    pub fn new(db: Db, lock: LockSource<Plan>, key: SigningKey, mesh: Mesh, clock: Clock) -> Self {
        Self {
            db,
            lock: Arc::new(lock),
            key: Arc::new(key),
            mesh,
            clock,
            services: Arc::default(),
            fired: Arc::new(Notify::new()),
        }
    }

    /// The services of the lock, with what the engine was told of each.
    pub fn services(&self) -> MutexGuard<'_, BTreeMap<PluginName, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

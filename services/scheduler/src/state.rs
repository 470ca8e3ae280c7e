//! What timer and delivery share.

use std::sync::Arc;

use bailey_db::Db;
use bailey_mesh::Mesh;
use bailey_trust::{LockSource, SigningKey};
use bailey_types::Clock;
use tokio::sync::Notify;

use crate::plan::Plan;

/// Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub db: Db,
    pub lock: Arc<LockSource<Plan>>,
    pub key: Arc<SigningKey>,
    pub mesh: Mesh,
    pub clock: Clock,
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
            fired: Arc::new(Notify::new()),
        }
    }
}

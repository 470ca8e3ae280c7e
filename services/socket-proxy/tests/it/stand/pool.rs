//! Pooled cells, and what policy signs for them.

use std::time::Duration;

use bailey_cell::Seat;
use bailey_cell::launch::grant_to_bytes;
use bailey_trust::{PoolGrant, sign};
use bailey_types::{Clock, GrantId, JobId, Service};

use super::{Stand, WaitingCell};

impl Stand {
    /// A pooled cell that is attached to and not granted.
    pub async fn pooled(&self) -> WaitingCell {
        let id = JobId::new();
        let derived = self.derived_as(Seat::Pool { id }, false, None);
        self.cell_as(JobId::new(), derived).await
    }

    /// What policy would sign.
    pub fn grant(&self, cells: u32) -> PoolGrant {
        let now = Clock::system().now();
        PoolGrant {
            id: GrantId::new(),
            plugin: super::PLUGIN.parse().unwrap(),
            image: self.image(),
            lock_serial: self.lock.as_ref().unwrap().serial,
            cells,
            issued_at: now,
            expires_at: now.plus(Duration::from_mins(30)),
        }
    }

    pub fn grant_by(&self, grant: &PoolGrant, service: Service) -> Vec<u8> {
        let signed = sign(grant, &self.stack.signing_key(service)).unwrap();
        grant_to_bytes(&signed).unwrap()
    }

    pub fn granted(&self, cells: u32) -> Vec<u8> {
        self.grant_by(&self.grant(cells), Service::Policy)
    }
}

//! Pool grants: policy's leave to start cells of a plugin before there is a request for them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bailey_error::Kind;
use bailey_proto::policy::v1::pool_service_client::PoolServiceClient;
use bailey_proto::policy::v1::{GrantPoolRequest, grant_pool_response};
use bailey_proto::trust::v1::Signed;
use bailey_trust::{PoolGrant, VerifyingKey, verify};
use bailey_types::{Clock, ImageId, PluginName, Serial, Timestamp};

use crate::rpc::Channel;

/// Policy writes an audit entry per grant, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Policy says no, or what it gave cannot be used.
    #[error("{0}")]
    Refused(String),
    /// Policy does not answer, or not now.
    #[error("policy: {0}")]
    Unavailable(String),
}

/// A grant with what it says.
#[derive(Clone, Debug)]
pub struct Grant {
    /// As policy signed it.
    pub signed: Signed,
    /// What it says.
    pub said: PoolGrant,
}

impl Grant {
    /// Whether it is for this image under this lock, and not in the last quarter of its time: what is started under it should last.
    fn serves(&self, image: ImageId, serial: Serial, now: Timestamp) -> bool {
        let valid = self.said.expires_at.since(self.said.issued_at);
        let left = self.said.expires_at.since(now);
        self.said.image == image && self.said.lock_serial == serial && left > valid / 4
    }
}

/// Asks policy, and keeps what it gave while that serves.
pub struct Grants {
    client: PoolServiceClient<Channel>,
    key: VerifyingKey,
    clock: Clock,
    kept: Mutex<BTreeMap<PluginName, Grant>>,
}

impl Grants {
    /// Grants of the policy behind `channel`, signed with `key`.
    pub fn new(channel: Channel, key: VerifyingKey, clock: Clock) -> Self {
        Self {
            client: PoolServiceClient::new(channel),
            key,
            clock,
            kept: Mutex::default(),
        }
    }

    /// A grant for the plugin as it is locked.
    pub async fn of(
        &self,
        plugin: &PluginName,
        image: ImageId,
        serial: Serial,
    ) -> Result<Grant, Error> {
        let now = self.clock.now();
        let serves = |grant: &&Grant| grant.serves(image, serial, now);
        if let Some(grant) = self.kept().get(plugin).filter(serves) {
            return Ok(grant.clone());
        }
        let grant = self.ask(plugin).await?;
        let said = &grant.said;
        if said.plugin != *plugin || said.image != image || said.lock_serial != serial {
            // Either side may have read a newer lock than the other.
            return Err(Error::Unavailable(
                "its grant is for another lock than ours".into(),
            ));
        }
        said.check_time(now)
            .map_err(|e| Error::Refused(e.to_string()))?;
        self.kept().insert(plugin.clone(), grant.clone());
        Ok(grant)
    }

    /// How long what is started under it may wait.
    pub fn left(&self, grant: &Grant) -> Duration {
        grant.said.expires_at.since(self.clock.now())
    }

    /// A grant that socket-proxy would not take is not shown to it again.
    pub fn forget(&self, plugin: &PluginName) {
        self.kept().remove(plugin);
    }

    async fn ask(&self, plugin: &PluginName) -> Result<Grant, Error> {
        let mut client = self.client.clone();
        let asked = GrantPoolRequest {
            plugin: plugin.to_string(),
        };
        let answer = tokio::time::timeout(LIMIT, client.grant_pool(asked)).await;
        let outcome = match answer {
            Ok(Ok(answer)) => answer.into_inner().outcome,
            Ok(Err(status)) => return Err(refusal(&status)),
            Err(_) => return Err(Error::Unavailable(format!("no answer within {LIMIT:?}"))),
        };
        match outcome {
            Some(grant_pool_response::Outcome::Grant(signed)) => {
                let verified = verify::<PoolGrant>(&signed, &self.key);
                let said = verified
                    .map_err(|e| Error::Refused(e.to_string()))?
                    .statement;
                Ok(Grant { signed, said })
            }
            Some(grant_pool_response::Outcome::Denied(denied)) => {
                Err(Error::Refused(denied.detail))
            }
            None => Err(Error::Refused("policy's answer holds no grant".into())),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<PluginName, Grant>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(status: &tonic::Status) -> Error {
    let text = status.message().to_owned();
    match Kind::of(status.code()) {
        Kind::InvalidArgument | Kind::PermissionDenied | Kind::NotFound | Kind::AlreadyExists => {
            Error::Refused(text)
        }
        Kind::Unauthenticated
        | Kind::FailedPrecondition
        | Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::DeadlineExceeded
        | Kind::Internal => Error::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use bailey_types::{GrantId, Sha256};

    use super::*;

    #[test]
    fn a_grant_serves_its_image_and_lock_for_three_quarters_of_its_time() {
        let (image, other) = (ImageId(Sha256([1; 32])), ImageId(Sha256([2; 32])));
        let said = PoolGrant {
            id: GrantId::new(),
            plugin: "greet".parse().unwrap(),
            image,
            lock_serial: Serial(1),
            cells: 1,
            issued_at: Timestamp(0),
            expires_at: Timestamp(4000),
        };
        let signed = Signed::default();
        let grant = Grant { signed, said };
        assert!(grant.serves(image, Serial(1), Timestamp(2999)));
        assert!(!grant.serves(image, Serial(1), Timestamp(3000)));
        assert!(!grant.serves(other, Serial(1), Timestamp(0)));
        assert!(!grant.serves(image, Serial(2), Timestamp(0)));
    }
}

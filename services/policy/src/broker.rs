//! The broker's epoch: random at each of its starts, so that decisions of an earlier life are void.

use std::time::Duration;

use bailey_mesh::MeshChannel;
use bailey_proto::broker::v1::EpochRequest;
use bailey_proto::broker::v1::epoch_service_client::EpochServiceClient;
use tonic::Status;

use crate::error::Error;

/// The answer takes a fraction of a millisecond.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Broker(EpochServiceClient<MeshChannel>);

impl Broker {
    pub(crate) fn new(channel: MeshChannel) -> Self {
        Self(EpochServiceClient::new(channel))
    }

    /// Asked anew for every decision: a remembered epoch would be wrong exactly when it matters, after the broker's restart.
    pub(crate) async fn epoch(&self) -> Result<String, Error> {
        let mut client = self.0.clone();
        let asked = tokio::time::timeout(TIMEOUT, client.epoch(EpochRequest {})).await;
        let answer = asked.unwrap_or_else(|_| {
            Err(Status::deadline_exceeded(
                "the broker did not answer in time",
            ))
        });
        let answer = answer.map_err(Error::Epoch)?.into_inner();
        if !answer.hold.is_empty() {
            return Err(Error::Held(answer.hold));
        }
        Ok(answer.epoch)
    }
}

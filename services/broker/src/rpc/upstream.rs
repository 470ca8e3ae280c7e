//! `UpstreamKeyService`.

use std::sync::Arc;

use bailey_config::upstream::Key;
use bailey_error::{Chain, Classify as _, Kind, status};
use bailey_proto::broker::v1::upstream_key_service_server::UpstreamKeyService;
use bailey_proto::broker::v1::{ReleaseKeyRequest, ReleaseKeyResponse};
use bailey_types::{Serial, Service, UpstreamName};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::state::State;
use crate::upstream::{self, Denied, Released};

pub struct UpstreamKeys {
    state: Arc<State>,
}

impl UpstreamKeys {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn denied(
        &self,
        upstream: &UpstreamName,
        client: Service,
        key: Option<&Key>,
        denied: Denied,
    ) -> Status {
        let reason = denied.token();
        tracing::warn!(
            upstream.name = %upstream,
            "refused to release the key of the upstream {upstream} for {client}: {reason}"
        );
        let fields = json!({
            "upstream": upstream,
            "client": client,
            "secret": key.map(|key| &key.secret),
            "principal": key.map(|key| &key.principal),
            "reason": reason,
        });
        // What passes by itself is nobody's doing and would only fill the log.
        if denied.kind() != Kind::Unavailable {
            self.state.records.refusal("upstream.key_refused", &fields);
        }
        status(&denied)
    }
}

#[tonic::async_trait]
impl UpstreamKeyService for UpstreamKeys {
    async fn release_key(
        &self,
        request: Request<ReleaseKeyRequest>,
    ) -> Result<Response<ReleaseKeyResponse>, Status> {
        let ReleaseKeyRequest {
            upstream,
            client,
            lock_serial,
        } = request.into_inner();
        let upstream: UpstreamName = parse(&upstream)?;
        let client: Service = parse(&client)?;
        let lock = self.state.lock.current().map_err(|e| {
            let why = Chain(&e);
            Status::unavailable(format!("the broker has no usable lock: {why}"))
        })?;
        let vault = self.state.vault.state();
        let released = upstream::release(&vault, &lock, &upstream, client, Serial(lock_serial));
        let Released {
            secret,
            principal,
            value,
        } = released.map_err(|denied| {
            let locked = lock.view.upstreams.get(&upstream);
            let key = locked.and_then(|locked| locked.key.as_ref());
            self.denied(&upstream, client, key, denied)
        })?;
        let fields = json!({
            "upstream": upstream,
            "client": client,
            "secret": secret,
            "principal": principal,
        });
        // No value leaves the vault before audit has it on disk which.
        let recorded = self.state.records.before("upstream.key_released", &fields);
        recorded.await.map_err(|e| status(&e))?;
        Ok(Response::new(ReleaseKeyResponse {
            secret: secret.to_string(),
            value: value.expose().as_bytes().to_vec().into(),
        }))
    }
}

fn parse<T>(text: &str) -> Result<T, Status>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    let bad = |e: T::Err| Status::invalid_argument(e.to_string());
    text.parse().map_err(bad)
}

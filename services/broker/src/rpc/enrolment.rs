//! `EnrolmentService`: the one method that needs no certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_error::status;
use bailey_mesh::Authority;
use bailey_proto::broker::v1::enrolment_service_server::EnrolmentService;
use bailey_proto::broker::v1::{EnrolRequest, EnrolResponse};
use bailey_types::{Service, Timestamp};
use serde_json::json;
use tonic::{Request, Response, Status};

use crate::limiter::Limiter;
use crate::state::State;

/// Ten a minute, twenty at once.
const TRIES: Limiter = Limiter::new(20, Duration::from_secs(6));

pub struct Enrolment {
    state: Arc<State>,
    authority: Arc<Authority>,
    limits: Mutex<Limits>,
}

/// Those who know a service's secret and those who do not draw on different buckets: a stranger must not be able to keep a service out.
struct Limits {
    granted: BTreeMap<Service, Limiter>,
    refused: Limiter,
}

impl Enrolment {
    pub fn new(state: Arc<State>, authority: Arc<Authority>) -> Self {
        let limits = Limits {
            granted: BTreeMap::new(),
            refused: TRIES,
        };
        Self {
            state,
            authority,
            limits: Mutex::new(limits),
        }
    }

    /// The service whose secret this is.
    fn prove(&self, name: &str, secret: &[u8], now: Timestamp) -> Result<Service, Status> {
        let proved: Option<Service> = name.parse().ok();
        let proved =
            proved.filter(|service| self.state.trust.enrolment_secret_matches(*service, secret));
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = match proved {
            Some(service) => limits.granted.entry(service).or_insert(TRIES),
            None => &mut limits.refused,
        };
        if !bucket.take(now) {
            return Err(Status::resource_exhausted(
                "too many enrolments; try again in a minute",
            ));
        }
        proved.ok_or_else(|| {
            let claimed: String = name.chars().take(80).collect();
            tracing::warn!(
                caller.claimed = claimed,
                "refused an enrolment: wrong secret"
            );
            let fields = json!({ "claimed": claimed, "reason": "wrong_secret" });
            self.state.records.refusal("enrol.refused", &fields);
            // Not which of the two is wrong: names and secrets cannot be probed one by one.
            Status::permission_denied("the service or its enrolment secret is wrong")
        })
    }
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn enrol(
        &self,
        request: Request<EnrolRequest>,
    ) -> Result<Response<EnrolResponse>, Status> {
        let EnrolRequest {
            service,
            secret,
            csr,
        } = request.into_inner();
        let now = self.state.clock.now();
        let service = self.prove(&service, &secret, now)?;
        let chain = self
            .authority
            .issue(service, &csr, self.state.lifetime, now);
        let chain = chain.map_err(|e| {
            let fields = json!({ "claimed": service, "reason": "bad_request" });
            self.state.records.refusal("enrol.refused", &fields);
            status(&e)
        })?;
        tracing::info!(caller.id = %service, "enrolled {service}");
        self.state
            .records
            .note("enrol.granted", &json!({ "service": service }));
        Ok(Response::new(EnrolResponse {
            chain: chain.into_iter().map(Into::into).collect(),
        }))
    }
}

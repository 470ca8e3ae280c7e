//! `PkiService`, on the management socket.

use std::sync::Arc;

use bailey_error::status;
use bailey_mesh::CaCertificate;
use bailey_proto::management::v1::pki_service_server::PkiService;
use bailey_proto::management::v1::{
    Intermediate, PkiStatusRequest, PkiStatusResponse, RootCertificate, RotateIntermediateRequest,
    RotateIntermediateResponse, ServiceCertificate,
};
use bailey_types::Timestamp;
use tonic::{Request, Response, Status};

use crate::issuer::{Issuer, Reason};
use crate::state::State;

pub struct Pki {
    state: Arc<State>,
}

impl Pki {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl PkiService for Pki {
    async fn pki_status(
        &self,
        _: Request<PkiStatusRequest>,
    ) -> Result<Response<PkiStatusResponse>, Status> {
        let Some(issuer) = self.state.issuer.get() else {
            return Ok(Response::new(PkiStatusResponse {
                warnings: vec![SEALED.into()],
                ..PkiStatusResponse::default()
            }));
        };
        Ok(Response::new(told(issuer, self.state.clock.now())))
    }

    async fn rotate_intermediate(
        &self,
        _: Request<RotateIntermediateRequest>,
    ) -> Result<Response<RotateIntermediateResponse>, Status> {
        let issuer = self.state.issuer.get();
        let issuer = issuer.ok_or_else(|| Status::unavailable(SEALED))?;
        let rotated = issuer.rotate(&self.state, Reason::Asked).await;
        let rotated = rotated.map_err(|e| status(&e))?;
        Ok(Response::new(RotateIntermediateResponse {
            serial: rotated.current.serial.to_string(),
            replaced: rotated.replaced.serial.to_string(),
            last_certificate_ms: rotated.last_certificate.0,
        }))
    }
}

const SEALED: &str =
    "the broker is sealed and issues no certificates: `bailey vault status` says why";

fn told(issuer: &Issuer, now: Timestamp) -> PkiStatusResponse {
    let (root, current, retired) = (issuer.root(), issuer.current(), issuer.retired(now));
    let mut intermediates = vec![intermediate(&current, Timestamp(0), Timestamp(0))];
    intermediates.extend(retired.iter().map(|retired| {
        let (at, last) = (retired.since, retired.last_certificate);
        intermediate(&retired.certificate, at, last)
    }));
    let known: Vec<_> = std::iter::once(current)
        .chain(retired.iter().map(|retired| retired.certificate))
        .collect();
    let services = issuer.services().into_iter().map(|(service, peer)| {
        let of = peer.and_then(|peer| known.iter().find(|ca| Some(ca.key) == peer.issuer));
        ServiceCertificate {
            service: service.name().into(),
            serial: peer.map(|peer| peer.serial.to_string()).unwrap_or_default(),
            intermediate: of.map(|ca| ca.serial.to_string()).unwrap_or_default(),
            issued_at_ms: peer.map_or(0, |peer| peer.not_before.0),
            not_after_ms: peer.map_or(0, |peer| peer.not_after.0),
            current: peer.is_some_and(|peer| issuer.is_current(peer)),
        }
    });
    PkiStatusResponse {
        root: Some(RootCertificate {
            sha256: root.sha256.to_string(),
            not_before_ms: root.not_before.0,
            not_after_ms: root.not_after.0,
        }),
        intermediates,
        services: services.collect(),
        warnings: issuer.warnings(now),
    }
}

fn intermediate(of: &CaCertificate, retired_at: Timestamp, last: Timestamp) -> Intermediate {
    Intermediate {
        serial: of.serial.to_string(),
        not_before_ms: of.not_before.0,
        not_after_ms: of.not_after.0,
        retired_at_ms: retired_at.0,
        last_certificate_ms: last.0,
    }
}

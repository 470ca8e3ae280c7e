//! LeaseService.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bailey_proto::engine::v1::lease_request::Message;
use bailey_proto::engine::v1::lease_service_server::LeaseService;
use bailey_proto::engine::v1::{
    AmendRequest, AmendResponse, HeldLease, Hello, LeaseRequest, LeaseResponse, ReportRequest,
    ReportResponse, ReturnedSecret, TakeLineRequest, TakeLineResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, parse};
use crate::fleet::{self, Disagreement, Heartbeat, Lease, Link};
use crate::report::{self, Malformed, Returned, Seen};

/// Most jobs that a runner may run at a time.
const MAX_SLOTS: u32 = 256;

/// Longest id of an instance, bytes.
const MAX_INSTANCE: usize = 64;

/// Most secrets that one amendment may tell of.
const MAX_AMENDED_SECRETS: usize = 64;

/// Messages that wait for the runner to read them, beside one per slot: services, and what is cancelled.
const SPARE: usize = 64;

/// Tells connections apart; the same instance may have an old one that has not ended yet.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

#[tonic::async_trait]
impl LeaseService for Api {
    type LeaseStream = ReceiverStream<Result<LeaseResponse, Status>>;

    async fn lease(
        &self,
        request: Request<Streaming<LeaseRequest>>,
    ) -> Result<Response<Self::LeaseStream>, Status> {
        let mut stream = request.into_inner();
        let first = stream.message().await?.and_then(|request| request.message);
        let Some(Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument(
                "the first message must be a Hello",
            ));
        };
        let connection = Connection::new(hello)?;
        let (link, assignments) = mpsc::channel(connection.slots as usize + SPARE);
        let api = self.clone();
        // The answer must be on its way before the first assignment is in it.
        self.ctx.spawn("lease", async move {
            api.attend(connection, stream, link).await;
            Ok(())
        });
        Ok(Response::new(ReceiverStream::new(assignments)))
    }

    #[tracing::instrument(name = "job.report", skip_all, fields(job.id = request.get_ref().job_id))]
    async fn report(
        &self,
        request: Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let request = request.into_inner();
        let job = parse(&request.job_id).map_err(|e| *e)?;
        let outcome = request
            .outcome
            .ok_or_else(|| Status::invalid_argument("an outcome is needed"))?;
        let seen = Seen {
            timings: request.timings.unwrap_or_default(),
            returned: returned(request.returned_secrets)?,
            ..Seen::default()
        };
        let taken = report::take(&self.state, (job, request.attempt), outcome, seen).await;
        taken.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(ReportResponse {}))
    }

    #[tracing::instrument(name = "job.amend", skip_all, fields(job.id = request.get_ref().job_id))]
    async fn amend(
        &self,
        request: Request<AmendRequest>,
    ) -> Result<Response<AmendResponse>, Status> {
        let request = request.into_inner();
        let lease = (parse(&request.job_id).map_err(|e| *e)?, request.attempt);
        if request.returned_secrets.len() > MAX_AMENDED_SECRETS {
            return Err(Status::invalid_argument(format!(
                "at most {MAX_AMENDED_SECRETS} returned secrets are taken"
            )));
        }
        let secrets = returned(request.returned_secrets)?;
        let taken = report::amend(&self.state, lease, &request.stderr, &secrets).await;
        taken.map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(AmendResponse {}))
    }

    #[tracing::instrument(name = "job.line", skip_all, fields(job.id = request.get_ref().job_id))]
    async fn take_line(
        &self,
        request: Request<TakeLineRequest>,
    ) -> Result<Response<TakeLineResponse>, Status> {
        let request = request.into_inner();
        let job = parse(&request.job_id).map_err(|e| *e)?;
        let lease = (job, request.attempt);
        report::take_line(&self.state, lease, request.number, &request.line)
            .await
            .map_err(|e| bailey_error::status(&e))?;
        Ok(Response::new(TakeLineResponse {}))
    }
}

/// What a runner has said in its Hello.
struct Connection {
    number: u64,
    instance: String,
    slots: u32,
    held: BTreeSet<Lease>,
}

impl Connection {
    fn new(hello: Hello) -> Result<Self, Status> {
        if hello.instance_id.is_empty() || hello.instance_id.len() > MAX_INSTANCE {
            return Err(Status::invalid_argument(
                "instance_id must be 1 to 64 bytes",
            ));
        }
        if !(1..=MAX_SLOTS).contains(&hello.slots) {
            return Err(Status::invalid_argument("slots must be 1 to 256"));
        }
        Ok(Self {
            number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            instance: hello.instance_id,
            slots: hello.slots,
            held: leases(&hello.held)?,
        })
    }
}

impl Api {
    /// Listens to a runner until it goes, falls silent, or another connection takes its place.
    async fn attend(
        &self,
        connection: Connection,
        mut stream: Streaming<LeaseRequest>,
        link: Link,
    ) {
        let (instance, number) = (connection.instance.as_str(), connection.number);
        tracing::info!(
            runner.instance = instance,
            "runner {instance} is here with {} slots",
            connection.slots
        );
        let found = self.state.fleet.hello(
            instance,
            connection.slots,
            &connection.held,
            number,
            link.clone(),
        );
        self.settle(found, &link, "its runner was started again")
            .await;
        self.state.wake.notify_one();
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout(self.state.options.lease_expiry, stream.message()) => message,
                () = link.closed() => break,
                () = self.state.shutdown.cancelled() => break,
            };
            let Ok(Ok(Some(LeaseRequest {
                message: Some(Message::Heartbeat(heartbeat)),
            }))) = message
            else {
                break;
            };
            let Ok(held) = leases(&heartbeat.held) else {
                break;
            };
            let said = Heartbeat {
                held,
                trouble: heartbeat.trouble,
                posture: heartbeat.posture,
                quarantined: heartbeat
                    .quarantined
                    .into_iter()
                    .map(|entry| (entry.plugin, entry.reason))
                    .collect(),
            };
            let Some(found) = self.state.fleet.heartbeat(instance, number, &said) else {
                break;
            };
            self.settle(found, &link, "its runner does not hold it any more")
                .await;
            self.state.wake.notify_one();
        }
        tracing::info!(
            runner.instance = instance,
            "the connection of runner {instance} has ended"
        );
        self.state.fleet.disconnected(instance, number);
        self.state.wake.notify_one();
    }

    async fn settle(&self, found: Disagreement, link: &Link, why: &str) {
        for lease in found.cancelled {
            // A runner that does not read hears it again after its next heartbeat.
            if link.try_send(Ok(fleet::cancellation(lease))).is_err() {
                break;
            }
        }
        if let Err(error) = report::give_up(&self.state, &found.given_up, why).await {
            tracing::error!(error = %bailey_error::Chain(&error), "giving leases up failed");
        }
    }
}

fn returned(secrets: Vec<ReturnedSecret>) -> Result<Vec<Returned>, Status> {
    let read = secrets.into_iter().map(TryFrom::try_from);
    read.collect::<Result<_, Malformed>>()
        .map_err(|e| Status::invalid_argument(e.to_string()))
}

fn leases(held: &[HeldLease]) -> Result<BTreeSet<Lease>, Status> {
    held.iter()
        .map(|lease| Ok((parse(&lease.job_id).map_err(|e| *e)?, lease.attempt)))
        .collect()
}

//! The audit service's part: the real log, served over the real mesh.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bailey_audit_log::{Log, NewEntry};
use bailey_mesh::Caller;
use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_proto::audit::v1::{
    AppendRequest, AppendResponse, CheckpointRequest, CheckpointResponse, CosignRequest,
    CosignResponse, EntriesRequest, EntriesResponse, LatestRequest, LatestResponse,
};
use bailey_test::{Served, TestStack};
use bailey_trust::VerifyingKey;
use bailey_types::{Service, Timestamp};
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What becomes of an entry that is to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is on disk, and that is answered.
    Take,
    /// It is refused.
    Refuse,
    /// It is on disk, and nobody hears of it.
    Hold,
    /// That a change is kept is refused; everything else is on disk.
    RefuseKept,
    /// What is not all of a revocation or an alarm is refused, as at the end of the volume.
    Full,
    /// That a change is kept is on disk, and nobody hears of it.
    HoldKept,
    /// Everything is taken; of what there is nothing is told.
    Mute,
    /// Everything is taken; what there is cannot be read.
    Damaged,
    /// Everything is taken; what there is is looked through for ever, a part every two seconds.
    Endless,
}

/// What is taken in [`Mode::Full`].
const URGENT: [&str; 4] = [
    "token.revoked",
    "vault.kept",
    "vault.changed_outside",
    "vault.earlier_refused",
];

/// The log of a stack under test.
#[derive(Clone)]
pub struct Audit {
    log: Arc<Mutex<Log>>,
    broker: VerifyingKey,
    /// Size of the log, and how often the broker co-signed it.
    progress: Arc<watch::Sender<(u64, u64)>>,
    mode: Arc<watch::Sender<Mode>>,
    /// How often it was refused that a change is kept.
    refused: Arc<watch::Sender<u64>>,
}

impl Audit {
    pub fn new(stack: &TestStack) -> Self {
        let (trust, key) = (stack.trust(), stack.signing_key(Service::Audit));
        let (log, _) = Log::open(&stack.dir().join("log"), &trust.stack, key).unwrap();
        let (log, progress) = (
            Arc::new(Mutex::new(log)),
            Arc::new(watch::Sender::new((0, 0))),
        );
        Self {
            log,
            broker: trust.signing.broker,
            progress,
            mode: Arc::new(watch::Sender::new(Mode::Take)),
            refused: Arc::default(),
        }
    }

    pub fn behave(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Waits until it was refused so often that a change is kept.
    pub async fn refused_kept(&self, often: u64) {
        let mut refused = self.refused.subscribe();
        refused.wait_for(|times| *times >= often).await.unwrap();
    }

    /// How many entries of this kind there are now.
    pub fn count(&self, kind: &str) -> usize {
        let all = self.all();
        all.iter().filter(|entry| entry["kind"] == kind).count()
    }

    /// Serves the log on the mesh until the answer is dropped.
    pub fn serve(&self, stack: &TestStack) -> Served {
        let routes = Routes::new(AuditServiceServer::new(self.clone()));
        stack.serve(Service::Audit, routes)
    }

    /// Waits for an entry of this kind; answers its fields.
    pub async fn entry(&self, kind: &str) -> Json {
        self.entry_that(kind, |_| true).await
    }

    /// Waits for an entry of this kind whose fields are as wanted; answers them.
    pub async fn entry_that(&self, kind: &str, is: impl Fn(&Json) -> bool) -> Json {
        let mut progress = self.progress.subscribe();
        let wanted = |entry: &&Json| entry["kind"] == kind && is(&entry["fields"]);
        loop {
            progress.borrow_and_update();
            if let Some(found) = self.all().iter().find(wanted) {
                assert_eq!(found["actor"], "broker");
                return found["fields"].clone();
            }
            progress.changed().await.unwrap();
        }
    }

    /// Waits until the broker has co-signed so often.
    pub async fn cosigned(&self, often: u64) {
        self.progress
            .subscribe()
            .wait_for(|(_, times)| *times >= often)
            .await
            .unwrap();
    }

    /// All entries.
    pub fn all(&self) -> Vec<Json> {
        let entries = self.log().entries(0, 1000).unwrap();
        entries
            .iter()
            .map(|entry| serde_json::from_slice(entry).unwrap())
            .collect()
    }

    fn log(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn append(
        &self,
        request: Request<AppendRequest>,
    ) -> Result<Response<AppendResponse>, Status> {
        let actor = Caller::of(&request)?.service().to_string();
        let of_kept = |entry: &bailey_proto::audit::v1::Entry| entry.kind == "vault.kept";
        let is_kept = request.get_ref().entries.iter().any(of_kept);
        let mode = *self.mode.borrow();
        let is_urgent =
            |entry: &bailey_proto::audit::v1::Entry| URGENT.contains(&entry.kind.as_str());
        if mode == Mode::Full && !request.get_ref().entries.iter().all(is_urgent) {
            return Err(Status::resource_exhausted("the volume is nearly full"));
        }
        if mode == Mode::Refuse || mode == Mode::RefuseKept && is_kept {
            self.refused
                .send_modify(|times| *times += u64::from(is_kept));
            return Err(Status::invalid_argument("entry 0: it is refused"));
        }
        let new = |entry: &bailey_proto::audit::v1::Entry| NewEntry {
            at: Timestamp(0),
            actor: actor.clone(),
            kind: entry.kind.clone(),
            fields: RawValue::from_string(entry.fields_json.clone()).unwrap(),
        };
        let entries: Vec<_> = request.get_ref().entries.iter().map(new).collect();
        let (appended, checkpoint) = {
            let mut log = self.log();
            let appended = log.append(&entries).unwrap();
            (appended, log.note().to_vec().into())
        };
        self.progress.send_modify(|(size, _)| *size = appended.size);
        let mut mode = self.mode.subscribe();
        let answers = |mode: &Mode| *mode != Mode::Hold && (*mode != Mode::HoldKept || !is_kept);
        mode.wait_for(answers).await.unwrap();
        Ok(Response::new(AppendResponse {
            first_index: appended.first_index,
            checkpoint,
            consistency_proof: Vec::new(),
        }))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        let log = self.log();
        let proof = log.consistency(request.get_ref().known_size).unwrap();
        let consistency_proof = proof.iter().map(|hash| hash.0.to_vec().into()).collect();
        let checkpoint = log.note().to_vec().into();
        Ok(Response::new(CheckpointResponse {
            checkpoint,
            consistency_proof,
        }))
    }

    async fn cosign(
        &self,
        request: Request<CosignRequest>,
    ) -> Result<Response<CosignResponse>, Status> {
        let note = &request.get_ref().note;
        let kept = self
            .log()
            .keep_cosigned(note, Service::Broker, &self.broker);
        kept.map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.progress.send_modify(|(_, times)| *times += 1);
        Ok(Response::new(CosignResponse {}))
    }

    async fn entries(
        &self,
        _: Request<EntriesRequest>,
    ) -> Result<Response<EntriesResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    /// Looks at few entries at a time, so that the broker must ask again.
    async fn latest(
        &self,
        request: Request<LatestRequest>,
    ) -> Result<Response<LatestResponse>, Status> {
        let actor = Caller::of(&request)?.service();
        let LatestRequest { kinds, before } = request.into_inner();
        let mode = *self.mode.borrow();
        match mode {
            Mode::Mute => {
                let mut mode = self.mode.subscribe();
                mode.wait_for(|mode| *mode != Mode::Mute).await.unwrap();
            }
            Mode::Damaged => return Err(Status::internal("a bundle of it is damaged")),
            Mode::Endless => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let looked_from = if before == 0 { 1 << 40 } else { before - 1 };
                return Ok(Response::new(LatestResponse {
                    looked_from,
                    ..LatestResponse::default()
                }));
            }
            Mode::Take
            | Mode::Refuse
            | Mode::Hold
            | Mode::RefuseKept
            | Mode::Full
            | Mode::HoldKept => {}
        }
        let before = if before == 0 { u64::MAX } else { before };
        let latest = self.log().latest(actor.name(), &kinds, before, 1).unwrap();
        Ok(Response::new(LatestResponse {
            entry: latest.entry.unwrap_or_default().into(),
            looked_from: latest.looked_from,
        }))
    }
}

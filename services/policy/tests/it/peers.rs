//! The neighbours of policy: a broker that has an epoch, and an audit service around a real log, which can fail as real ones do.

use std::sync::{Arc, Mutex};

use bailey_audit_log::{Log, NewEntry};
use bailey_mesh::Caller;
use bailey_proto::audit::v1 as proto;
use bailey_proto::audit::v1::audit_service_server::{AuditService, AuditServiceServer};
use bailey_proto::broker::v1::epoch_service_server::{EpochService, EpochServiceServer};
use bailey_proto::broker::v1::{EpochRequest, EpochResponse};
use bailey_test::TestStack;
use bailey_types::{Clock, Service, Timestamp};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// And why nothing is to be decided, if a test says so.
#[derive(Clone, Default)]
pub(crate) struct Epoch {
    held: Arc<Mutex<String>>,
    /// Questions that are to have no answer.
    unanswered: watch::Sender<usize>,
}

impl Epoch {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(EpochServiceServer::new(self.clone()))
    }

    pub(crate) fn hold(&self, why: &str) {
        why.clone_into(&mut self.held.lock().unwrap());
    }

    /// Leaves the next question without an answer; answers when it has come.
    pub(crate) fn ignore_next(&self) -> impl Future<Output = ()> + use<> {
        self.unanswered.send_replace(1);
        let mut unanswered = self.unanswered.subscribe();
        async move {
            unanswered.wait_for(|left| *left == 0).await.unwrap();
        }
    }
}

#[tonic::async_trait]
impl EpochService for Epoch {
    async fn epoch(&self, _: Request<EpochRequest>) -> Result<Response<EpochResponse>, Status> {
        if self
            .unanswered
            .send_if_modified(|left| std::mem::take(left) > 0)
        {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(EpochResponse {
            epoch: "epoch-1".into(),
            hold: self.held.lock().unwrap().clone(),
        }))
    }
}

/// What a test does to audit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Good,
    Down,
    /// Another log, signed by the same key.
    Forked,
}

#[derive(Clone)]
pub(crate) struct Audit(Arc<Mutex<Inner>>);

struct Inner {
    mode: Mode,
    log: Log,
    fork: Log,
    cosigned: watch::Sender<usize>,
    appended: watch::Sender<usize>,
    /// A clock, and where an append sets it.
    sets: Option<(Clock, Timestamp)>,
}

impl Audit {
    pub(crate) fn new(stack: &TestStack) -> Self {
        let open = |name: &str| {
            let key = stack.signing_key(Service::Audit);
            Log::open(&stack.dir().join(name), &stack.trust().stack, key)
                .unwrap()
                .0
        };
        let mut fork = open("fork");
        for _ in 0..100 {
            fork.append(&[entry("engine", "job.dead", "{}")]).unwrap();
        }
        Self(Arc::new(Mutex::new(Inner {
            mode: Mode::Good,
            log: open("log"),
            fork,
            cosigned: watch::Sender::new(0),
            appended: watch::Sender::new(0),
            sets: None,
        })))
    }

    /// Sets a clock with each append.
    pub(crate) fn set_clock(&self, clock: &Clock, at: Timestamp) {
        self.0.lock().unwrap().sets = Some((clock.clone(), at));
    }

    pub(crate) fn routes(&self) -> Routes {
        Routes::new(AuditServiceServer::new(self.clone()))
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.0.lock().unwrap().mode = mode;
    }

    /// The entries of a kind that policy has appended, as JSON.
    pub(crate) fn entries(&self, kind: &str) -> Vec<serde_json::Value> {
        let inner = self.0.lock().unwrap();
        let all = inner.log.entries(0, usize::MAX).unwrap();
        let all = all
            .iter()
            .map(|leaf| serde_json::from_slice::<serde_json::Value>(leaf).unwrap());
        all.filter(|leaf| leaf["kind"] == kind && leaf["actor"] == "policy")
            .collect()
    }

    /// Waits for `count` entries of a kind that policy appends in its own time, and answers all of that kind.
    pub(crate) async fn recorded(&self, kind: &str, count: usize) -> Vec<serde_json::Value> {
        let mut appended = self.0.lock().unwrap().appended.subscribe();
        loop {
            let found = self.entries(kind);
            if found.len() >= count {
                return found;
            }
            appended.changed().await.unwrap();
        }
    }

    pub(crate) fn cosigned(&self) -> watch::Receiver<usize> {
        self.0.lock().unwrap().cosigned.subscribe()
    }
}

fn entry(actor: &str, kind: &str, fields: &str) -> NewEntry {
    let fields = RawValue::from_string(fields.to_owned()).unwrap();
    NewEntry {
        at: Clock::system().now(),
        actor: actor.into(),
        kind: kind.into(),
        fields,
    }
}

impl Inner {
    fn log(&mut self) -> Result<&mut Log, Status> {
        match self.mode {
            Mode::Good => Ok(&mut self.log),
            Mode::Down => Err(Status::unavailable("down")),
            Mode::Forked => Ok(&mut self.fork),
        }
    }
}

fn proof(log: &Log, known: u64) -> Result<Vec<tonic::codegen::Bytes>, Status> {
    let proof = log
        .consistency(known)
        .map_err(|e| Status::failed_precondition(e.to_string()))?;
    Ok(proof
        .into_iter()
        .map(|hash| hash.0.to_vec().into())
        .collect())
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn append(
        &self,
        request: Request<proto::AppendRequest>,
    ) -> Result<Response<proto::AppendResponse>, Status> {
        let actor = Caller::of(&request)?.service().to_string();
        let request = request.into_inner();
        let entries = request
            .entries
            .iter()
            .map(|new| entry(&actor, &new.kind, &new.fields_json));
        let entries: Vec<_> = entries.collect();
        let mut inner = self.0.lock().unwrap();
        if let Some((clock, at)) = &inner.sets {
            clock.set(*at);
        }
        let log = inner.log()?;
        let done = log
            .append(&entries)
            .map_err(|e| Status::internal(e.to_string()))?;
        let response = proto::AppendResponse {
            first_index: done.first_index,
            checkpoint: log.note().to_vec().into(),
            consistency_proof: proof(log, request.known_size)?,
        };
        inner.appended.send_modify(|count| *count += 1);
        Ok(Response::new(response))
    }

    async fn checkpoint(
        &self,
        request: Request<proto::CheckpointRequest>,
    ) -> Result<Response<proto::CheckpointResponse>, Status> {
        let mut inner = self.0.lock().unwrap();
        let log = inner.log()?;
        let consistency_proof = proof(log, request.into_inner().known_size)?;
        Ok(Response::new(proto::CheckpointResponse {
            checkpoint: log.note().to_vec().into(),
            consistency_proof,
        }))
    }

    async fn cosign(
        &self,
        _: Request<proto::CosignRequest>,
    ) -> Result<Response<proto::CosignResponse>, Status> {
        self.0
            .lock()
            .unwrap()
            .cosigned
            .send_modify(|count| *count += 1);
        Ok(Response::new(proto::CosignResponse {}))
    }

    async fn entries(
        &self,
        _: Request<proto::EntriesRequest>,
    ) -> Result<Response<proto::EntriesResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }

    async fn latest(
        &self,
        _: Request<proto::LatestRequest>,
    ) -> Result<Response<proto::LatestResponse>, Status> {
        Err(Status::unimplemented("nobody asks"))
    }
}

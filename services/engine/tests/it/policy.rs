//! A policy that allows nearly everything, with real signatures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bailey_proto::policy::v1 as wire;
use bailey_proto::policy::v1::decide_response::Outcome;
use bailey_proto::policy::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use bailey_test::{Served, TestStack};
use bailey_trust::{Decision, DecisionOrigin, SigningKey, sign, strict_json};
use bailey_types::{AttemptNumber, Clock, DecisionId, ImageId, OriginId, Serial, Service, Sha256};
use tokio::sync::Semaphore;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// What it was asked, and whether it answers.
pub struct Policy {
    shared: Arc<Shared>,
    _served: Served,
}

struct Shared {
    key: SigningKey,
    away: AtomicBool,
    asked: Mutex<Vec<wire::DecideRequest>>,
    /// One permit per question.
    questions: Semaphore,
}

/// Starts it.
pub fn start(stack: &TestStack) -> Policy {
    let shared = Arc::new(Shared {
        key: stack.signing_key(Service::Policy),
        away: AtomicBool::new(false),
        asked: Mutex::default(),
        questions: Semaphore::new(0),
    });
    let decisions = DecisionServiceServer::from_arc(Arc::clone(&shared));
    let routes = Routes::new(decisions.max_decoding_message_size(16 << 20));
    Policy {
        shared,
        _served: stack.serve(Service::Policy, routes),
    }
}

impl Policy {
    /// From now on it has no answer, or has one again.
    pub fn away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
    }

    /// Waits until it has been asked `count` more times.
    pub async fn asked(&self, count: u32) {
        self.shared
            .questions
            .acquire_many(count)
            .await
            .unwrap()
            .forget();
    }

    /// The last question.
    pub fn last(&self) -> wire::DecideRequest {
        self.shared.asked.lock().unwrap().last().unwrap().clone()
    }
}

#[tonic::async_trait]
impl DecisionService for Shared {
    async fn decide(
        &self,
        request: Request<wire::DecideRequest>,
    ) -> Result<Response<wire::DecideResponse>, Status> {
        let question = request.into_inner();
        self.asked.lock().unwrap().push(question.clone());
        let outcome = if self.away.load(Ordering::SeqCst) {
            Err(Status::unavailable("the audit log does not answer"))
        } else if question.plugin == "forbidden" {
            Ok(Outcome::Denied(wire::Denied {
                reason: "no_contract".into(),
                detail: "nothing allows it".into(),
            }))
        } else {
            Ok(Outcome::Allowed(self.allow(&question)))
        };
        self.questions.add_permits(1);
        outcome.map(|outcome| {
            Response::new(wire::DecideResponse {
                outcome: Some(outcome),
            })
        })
    }
}

impl Shared {
    fn allow(&self, question: &wire::DecideRequest) -> wire::Allowed {
        strict_json::check_object(&question.request, &["config", "secrets"]).unwrap();
        let request =
            strict_json::splice_member(&question.request, "config", br#"{"greeting":"hi"}"#)
                .unwrap();
        let now = Clock::system().now();
        let decision = Decision {
            id: DecisionId::new(),
            nonce: "00".repeat(16),
            job: question.job_id.parse().unwrap(),
            attempt: AttemptNumber(question.attempt),
            principal: "token:ops".into(),
            origin: DecisionOrigin::Root {
                origin: OriginId::new(),
                step: None,
            },
            plugin: question.plugin.parse().unwrap(),
            command: question.command.parse().unwrap(),
            request_sha256: Sha256::of(&request),
            lock_serial: Serial(1),
            image: ImageId(Sha256([4; 32])),
            account: "default".parse().unwrap(),
            egress: Vec::new(),
            contract: "token:ops".into(),
            broker_epoch: "epoch".into(),
            audit_index: 0,
            issued_at: now,
            expires_at: now.plus(Decision::MAX_VALIDITY),
        };
        wire::Allowed {
            decision: Some(sign(&decision, &self.key).unwrap()),
            request: request.into(),
        }
    }
}

//! What the engine of a test asks the runner for.

use std::time::Duration;

use bailey_proto::engine::v1::{Assignment, Cancel, lease_response};
use bailey_trust::{Decision, DecisionOrigin, Ticket, sign};
use bailey_types::{AttemptNumber, DecisionId, JobId, OriginId, Sha256, TicketId};

use super::World;

impl World {
    pub(in crate::tests) async fn assign(&self, job: JobId, time: Duration) {
        self.assign_with(job, time, |_| {}).await;
    }

    pub(in crate::tests) async fn assign_with(
        &self,
        job: JobId,
        time: Duration,
        change: impl FnOnce(&mut Decision),
    ) {
        let now = self.ctx.clock.now();
        let mut decision = Decision {
            id: DecisionId::new(),
            nonce: "00".repeat(16),
            job,
            attempt: AttemptNumber(1),
            principal: "token:test".into(),
            origin: DecisionOrigin::Root {
                origin: OriginId::new(),
                step: None,
            },
            plugin: "subject".parse().unwrap(),
            command: "poll".parse().unwrap(),
            request_sha256: Sha256::of(b""),
            lock_serial: *self.serial.lock().unwrap(),
            image: self.image,
            account: "default".parse().unwrap(),
            egress: Vec::new(),
            contract: "token:test".into(),
            broker_epoch: "1".into(),
            audit_index: 1,
            issued_at: now,
            expires_at: now.plus(Duration::from_mins(1)),
        };
        change(&mut decision);
        let request = format!(r#"{{"protocol":2,"command":"{}"}}"#, decision.command);
        decision.request_sha256 = Sha256::of(request.as_bytes());
        let salted = [&[7; 32], request.as_bytes()].concat();
        let ticket = Ticket {
            id: TicketId::new(),
            decision: decision.id,
            final_sha256: Sha256::of(&salted),
            plugin: decision.plugin.clone(),
            image: decision.image,
            container_kind: "cell".into(),
            issued_at: decision.issued_at,
            expires_at: decision.expires_at,
        };
        let assignment = Assignment {
            job_id: job.to_string(),
            attempt: 1,
            plugin: "subject".into(),
            command: decision.command.to_string(),
            decision: Some(sign(&decision, &self.policy).unwrap()),
            ticket: Some(sign(&ticket, &self.broker).unwrap()),
            sealed: self.sealing.seal(&salted).unwrap().into(),
            ticket_us: 700,
            timeout_ms: time.as_millis().try_into().unwrap(),
            lasts: time.is_zero(),
        };
        self.session
            .as_ref()
            .unwrap()
            .say(lease_response::Message::Assignment(assignment))
            .await;
    }

    pub(in crate::tests) async fn cancel(&self, job: JobId) {
        let cancel = Cancel {
            job_id: job.to_string(),
            attempt: 1,
        };
        self.session
            .as_ref()
            .unwrap()
            .say(lease_response::Message::Cancel(cancel))
            .await;
    }
}

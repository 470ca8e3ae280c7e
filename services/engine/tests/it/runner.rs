//! A runner without containers: it is told what each job came to.

use std::time::Duration;

use bailey_mesh::{Mesh, MeshChannel};
use bailey_proto::engine::v1 as wire;
use bailey_proto::engine::v1::lease_request::Message;
use bailey_proto::engine::v1::lease_response;
use bailey_proto::engine::v1::lease_service_client::LeaseServiceClient;
use bailey_proto::engine::v1::report_request::Outcome;
use bailey_types::Service;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// A connected runner.
pub struct TestRunner {
    client: LeaseServiceClient<MeshChannel>,
    requests: mpsc::Sender<wire::LeaseRequest>,
    responses: Streaming<wire::LeaseResponse>,
    /// What its plugins print of what they were given.
    pub returned: Vec<wire::ReturnedSecret>,
}

impl TestRunner {
    /// Says hello.
    pub async fn connect(
        mesh: &Mesh,
        instance: &str,
        slots: u32,
        held: Vec<wire::HeldLease>,
    ) -> Self {
        let mut client = LeaseServiceClient::new(mesh.channel(Service::Engine))
            .max_decoding_message_size(16 << 20);
        let (requests, stream) = mpsc::channel(8);
        let hello = wire::Hello {
            instance_id: instance.to_owned(),
            slots,
            held,
        };
        requests
            .send(wire::LeaseRequest {
                message: Some(Message::Hello(hello)),
            })
            .await
            .unwrap();
        let responses = client
            .lease(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        Self {
            client,
            requests,
            responses,
            returned: Vec::new(),
        }
    }

    /// Says how it is.
    pub async fn beat(&self, held: Vec<wire::HeldLease>, trouble: &str) {
        let heartbeat = wire::Heartbeat {
            held,
            trouble: trouble.to_owned(),
            posture: "confined".to_owned(),
            quarantined: Vec::new(),
        };
        self.requests
            .send(wire::LeaseRequest {
                message: Some(Message::Heartbeat(heartbeat)),
            })
            .await
            .unwrap();
    }

    /// Says that it starts nothing of these plugins.
    pub async fn quarantines(&self, held: Vec<wire::HeldLease>, plugins: &[&str]) {
        let entry = |plugin: &&str| wire::QuarantinedPlugin {
            plugin: (*plugin).to_owned(),
            reason: format!("{plugin} ended too often"),
        };
        let heartbeat = wire::Heartbeat {
            held,
            posture: "confined".to_owned(),
            quarantined: plugins.iter().map(entry).collect(),
            ..wire::Heartbeat::default()
        };
        let message = Some(Message::Heartbeat(heartbeat));
        let request = wire::LeaseRequest { message };
        self.requests.send(request).await.unwrap();
    }

    /// Hands on a line of a service.
    pub async fn line(
        &mut self,
        assignment: &wire::Assignment,
        number: u64,
        line: &str,
    ) -> Result<(), tonic::Status> {
        let line = wire::TakeLineRequest {
            job_id: assignment.job_id.clone(),
            attempt: assignment.attempt,
            number,
            line: line.to_owned().into(),
        };
        self.client.take_line(line).await.map(drop)
    }

    pub async fn next(&mut self) -> lease_response::Message {
        let next = tokio::time::timeout(Duration::from_secs(20), self.responses.message()).await;
        next.expect("a message comes")
            .unwrap()
            .unwrap()
            .message
            .unwrap()
    }

    /// The next job.
    pub async fn job(&mut self) -> wire::Assignment {
        match self.next().await {
            lease_response::Message::Assignment(assignment) => assignment,
            other @ (lease_response::Message::Cancel(_) | lease_response::Message::Clear(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// The next job, past cancellations: those are repeated until it shows that they were heard.
    pub async fn job_past_cancels(&mut self) -> wire::Assignment {
        loop {
            match self.next().await {
                lease_response::Message::Assignment(assignment) => return assignment,
                lease_response::Message::Cancel(_) => {}
                lease_response::Message::Clear(clear) => panic!("{clear:?}"),
            }
        }
    }

    /// The next cancellation.
    pub async fn cancel(&mut self) -> wire::Cancel {
        match self.next().await {
            lease_response::Message::Cancel(cancel) => cancel,
            other
            @ (lease_response::Message::Assignment(_) | lease_response::Message::Clear(_)) => {
                panic!("{other:?}")
            }
        }
    }

    /// Reports what a job came to.
    pub async fn report(&mut self, assignment: &wire::Assignment, outcome: Outcome) {
        let report = wire::ReportRequest {
            job_id: assignment.job_id.clone(),
            attempt: assignment.attempt,
            outcome: Some(outcome),
            timings: Some(wire::Timings {
                run_us: 7,
                start_kind: wire::StartKind::Warm.into(),
                ..wire::Timings::default()
            }),
            returned_secrets: self.returned.clone(),
        };
        self.client.report(report).await.unwrap();
    }

    /// Says later what its plugin had written to standard error by its end.
    pub async fn amend(
        &mut self,
        assignment: &wire::Assignment,
        stderr: &str,
    ) -> Result<(), tonic::Status> {
        let amendment = wire::AmendRequest {
            job_id: assignment.job_id.clone(),
            attempt: assignment.attempt,
            stderr: stderr.to_owned().into(),
            returned_secrets: self.returned.clone(),
        };
        self.client.amend(amendment).await.map(drop)
    }

    /// Reports that a job's plugin printed this.
    pub async fn printed(&mut self, assignment: &wire::Assignment, stdout: &str) {
        self.report(assignment, printed(stdout)).await;
    }
}

/// A plugin that printed this and exited with 0.
pub fn printed(stdout: &str) -> Outcome {
    Outcome::Finished(wire::Finished {
        stdout: stdout.to_owned().into(),
        stderr: "a word".into(),
        ..wire::Finished::default()
    })
}

/// The lease of an assignment.
pub fn held(assignment: &wire::Assignment) -> wire::HeldLease {
    wire::HeldLease {
        job_id: assignment.job_id.clone(),
        attempt: assignment.attempt,
    }
}

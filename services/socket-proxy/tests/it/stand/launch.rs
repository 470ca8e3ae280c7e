//! What policy and broker sign for a launch, and the runner's side of the attached stream.

use std::time::Duration;

use bailey_cell::launch::{Control, Envelope, Returned};
use bailey_trust::{Decision, DecisionOrigin, SealingSession, Ticket, sign};
use bailey_types::{AttemptNumber, Clock, DecisionId, JobId, OriginId, Service, Sha256, TicketId};
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use futures::StreamExt as _;
use tokio::io::AsyncWriteExt as _;

use super::{Stand, start};

impl Stand {
    /// What policy and broker would sign for this cell and these final bytes.
    pub fn launch(&self, cell: &WaitingCell, bytes: &str) -> Launch {
        let lock = self.lock.as_ref().unwrap();
        let (plugin, locked) = lock.plugins.iter().next().unwrap();
        let now = Clock::system().now();
        let sealed_bytes = [&[9; 32][..], bytes.as_bytes()].concat();
        let decision = Decision {
            id: DecisionId::new(),
            nonce: "00".repeat(16),
            job: cell.job,
            attempt: AttemptNumber(1),
            principal: "token:test".into(),
            origin: DecisionOrigin::Root {
                origin: OriginId::new(),
                step: None,
            },
            plugin: plugin.clone(),
            command: "echo".parse().unwrap(),
            request_sha256: Sha256::of(b""),
            lock_serial: lock.serial,
            image: locked.proposed.image,
            account: "default".parse().unwrap(),
            egress: Vec::new(),
            contract: "token:test".into(),
            broker_epoch: "epoch".into(),
            audit_index: 0,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(30)),
        };
        let ticket = Ticket {
            id: TicketId::new(),
            decision: decision.id,
            final_sha256: Sha256::of(&sealed_bytes),
            plugin: plugin.clone(),
            image: locked.proposed.image,
            container_kind: "cell".into(),
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(30)),
        };
        Launch {
            decision,
            ticket,
            sealed_bytes,
            policy: Service::Policy,
            broker: Service::Broker,
        }
    }

    pub fn envelope(&self, launch: &Launch) -> Vec<u8> {
        let decision = sign(&launch.decision, &self.stack.signing_key(launch.policy)).unwrap();
        let ticket = sign(&launch.ticket, &self.stack.signing_key(launch.broker)).unwrap();
        let session = SealingSession::new(self.stack.socket_proxy_key().recipient());
        let sealed = session.seal(&launch.sealed_bytes).unwrap();
        Envelope {
            decision,
            ticket,
            sealed: sealed.into(),
        }
        .to_bytes()
        .unwrap()
    }
}

/// What is signed for one launch, to be changed by a test before it is.
pub struct Launch {
    pub decision: Decision,
    pub ticket: Ticket,
    /// Salt and final bytes.
    pub sealed_bytes: Vec<u8>,
    /// Whose keys sign.
    pub policy: Service,
    pub broker: Service,
}

pub struct WaitingCell {
    pub id: String,
    pub job: JobId,
    pub attached: AttachContainerResults,
    pub docker: Docker,
}

/// Everything that came out of a cell.
#[derive(Debug, Default)]
pub struct Output {
    pub control: Option<Control>,
    pub returned: Vec<Returned>,
    pub out: Vec<u8>,
    pub err: Vec<u8>,
}

impl WaitingCell {
    pub async fn send(&mut self, envelope: &[u8]) {
        self.attached.input.write_all(envelope).await.unwrap();
        self.attached.input.flush().await.unwrap();
    }

    pub async fn control(&mut self) -> Control {
        let Some(Ok(LogOutput::StdIn { message })) = self.attached.output.next().await else {
            panic!("no control frame came first")
        };
        Control::from_json(&message).unwrap()
    }

    /// Sends an envelope that another attempt's may replace; answers why this one came to nothing.
    pub async fn put_off(&mut self, envelope: &[u8]) -> String {
        self.send(envelope).await;
        let said = self.control().await;
        let Control::NotNow(why) = said else {
            panic!("{said:?}")
        };
        let next = self.attached.output.next().await;
        assert!(next.is_none(), "{next:?}");
        why
    }

    /// Sends the envelope, starts the cell as soon as it may, and reads everything until the end.
    pub async fn run(&mut self, envelope: &[u8]) -> Output {
        self.send(envelope).await;
        let control = self.control().await;
        if control == Control::Launched(true) {
            start(&self.docker, &self.id).await.unwrap();
        }
        let output = self.output().await;
        Output {
            control: Some(control),
            ..output
        }
    }

    /// Everything until the end, with what the proxy says last.
    pub async fn output_and_control(&mut self) -> Output {
        let mut output = Output::default();
        while let Some(frame) = self.attached.output.next().await {
            match frame.unwrap() {
                LogOutput::StdIn { message } => match Control::from_json(&message).unwrap() {
                    Control::Returned(returned) => output.returned.push(returned),
                    control @ (Control::Granted(_)
                    | Control::Launched(_)
                    | Control::Refused(_)
                    | Control::NotNow(_)) => {
                        output.control = Some(control);
                    }
                },
                LogOutput::StdOut { message } => output.out.extend_from_slice(&message),
                LogOutput::StdErr { message } => output.err.extend_from_slice(&message),
                LogOutput::Console { message } => panic!("not a frame: {message:?}"),
            }
        }
        output
    }

    /// The next frame, as text.
    pub async fn attached_next(&mut self) -> String {
        self.attached
            .output
            .next()
            .await
            .unwrap()
            .unwrap()
            .to_string()
    }

    /// Everything until the end; the proxy says nothing more.
    pub async fn output(&mut self) -> Output {
        let output = self.output_and_control().await;
        assert_eq!(output.control, None);
        output
    }
}

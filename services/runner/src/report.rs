//! Tells the engine what became of an attempt, until it knows.

use std::future::Future;
use std::time::Duration;

use bailey_cell::launch::{OutputStream, Returned};
use bailey_error::Kind;
use bailey_proto::engine::v1::lease_service_client::LeaseServiceClient;
use bailey_proto::engine::v1::report_request;
use bailey_proto::engine::v1::{
    self as wire, AmendRequest, Finished, Lost, NotStarted, Refused, ReportRequest, ReturnedSecret,
    TakeLineRequest, TimedOut, Unhealthy,
};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::attach::Late;
use crate::attempt::{Outcome, StartKind, Timings};
use crate::backoff::Backoff;
use crate::rpc::Channel;

/// One try; a report is at most 10 MiB over a local network.
const LIMIT: Duration = Duration::from_secs(10);
/// What a stopping runner still spends on a report. The engine gives the lease up anyway when the next life says hello.
const PARTING: Duration = Duration::from_secs(1);
/// Waits between tries.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Secrets that the engine takes in one amendment.
const SECRETS_AT_ONCE: usize = 64;

/// Whoever takes reports.
pub trait Reports: Send + Sync + 'static {
    /// Takes one report.
    fn report(
        &self,
        report: ReportRequest,
    ) -> impl Future<Output = Result<(), tonic::Status>> + Send;

    /// Takes what was known of an attempt only after its report.
    fn amend(
        &self,
        amendment: AmendRequest,
    ) -> impl Future<Output = Result<(), tonic::Status>> + Send;

    /// Takes one line of a service.
    fn line(&self, line: TakeLineRequest)
    -> impl Future<Output = Result<(), tonic::Status>> + Send;
}

/// The engine, over the mesh.
#[derive(Clone)]
pub struct ToEngine(pub LeaseServiceClient<Channel>);

impl Reports for ToEngine {
    async fn report(&self, report: ReportRequest) -> Result<(), tonic::Status> {
        in_time(self.0.clone().report(report)).await
    }

    async fn amend(&self, amendment: AmendRequest) -> Result<(), tonic::Status> {
        in_time(self.0.clone().amend(amendment)).await
    }

    async fn line(&self, line: TakeLineRequest) -> Result<(), tonic::Status> {
        in_time(self.0.clone().take_line(line)).await
    }
}

/// What the engine says to what it was asked, if it says so in time.
async fn in_time<T>(
    asked: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<(), tonic::Status> {
    let late = |_| Err(tonic::Status::deadline_exceeded("no answer"));
    let answer = tokio::time::timeout(LIMIT, asked).await;
    answer.unwrap_or_else(late).map(drop)
}

/// Hands on one line of a service, again and again, until the engine has taken it; the error says why it never will. The engine may be away
/// for long: the service waits with its next line, and goes on as if nothing had been.
pub async fn deliver_line(to: &impl Reports, line: TakeLineRequest) -> Result<(), String> {
    let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
    loop {
        let Err(status) = to.line(line.clone()).await else {
            return Ok(());
        };
        if is_final(&status) {
            return Err(format!(
                "the engine takes no line of it: {}",
                status.message()
            ));
        }
        tracing::warn!(job.id = %line.job_id, error = %status.message(), "the engine did not take a line of a service; trying again");
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Tells the engine what a plugin said after its report, until it has taken that, says that it never will, or the runner stops.
pub async fn amend(
    to: &impl Reports,
    lease: (String, u32),
    late: Late,
    stopping: &CancellationToken,
) {
    let amendments = amendments(&lease, late.stderr, late.returned);
    tokio::select! {
        () = amended(to, &amendments) => {}
        () = stopping.cancelled() => {}
    }
}

/// Tells the engine which secrets a service has printed, until it has taken that or says that it never will. The service does not wait for
/// it; what was not taken when it ends is in its report.
pub async fn returned(to: &impl Reports, lease: (String, u32), returned: Vec<Returned>) {
    amended(to, &amendments(&lease, Bytes::new(), returned)).await;
}

/// As many as the secrets need; the first one has the rest.
fn amendments(
    (job_id, attempt): &(String, u32),
    stderr: Bytes,
    returned: Vec<Returned>,
) -> Vec<AmendRequest> {
    let mut secrets: Vec<_> = returned.into_iter().map(returned_secret).collect();
    let later = secrets.split_off(secrets.len().min(SECRETS_AT_ONCE));
    let amendment = |stderr, returned_secrets| AmendRequest {
        job_id: job_id.clone(),
        attempt: *attempt,
        stderr,
        returned_secrets,
    };
    let later = later.chunks(SECRETS_AT_ONCE);
    let later = later.map(|part| amendment(Bytes::new(), part.to_vec()));
    std::iter::once(amendment(stderr, secrets))
        .chain(later)
        .collect()
}

/// One after the other: only the first one of an ended attempt may have more than secrets.
async fn amended(to: &impl Reports, amendments: &[AmendRequest]) {
    for amendment in amendments {
        let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
        while let Err(status) = to.amend(amendment.clone()).await {
            tracing::warn!(job.id = %amendment.job_id, error = %status.message(), "the engine did not take what a plugin said beside its answer");
            if is_final(&status) {
                return;
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }
}

/// Tells the engine, again and again, until it has taken the report or says that it never will.
pub async fn deliver(to: &impl Reports, report: ReportRequest, stopping: &CancellationToken) {
    let parted = async {
        stopping.cancelled().await;
        tokio::time::sleep(PARTING).await;
    };
    tokio::select! {
        () = insist(to, &report) => {}
        () = parted => {
            tracing::warn!(job.id = %report.job_id, "the engine did not take the report of a job before the runner stopped");
        }
    }
}

async fn insist(to: &impl Reports, report: &ReportRequest) {
    let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
    loop {
        let Err(status) = to.report(report.clone()).await else {
            return;
        };
        if is_final(&status) {
            tracing::error!(job.id = %report.job_id, error = %status.message(), "the engine refuses the report of a job");
            return;
        }
        tracing::warn!(job.id = %report.job_id, error = %status.message(), "the engine did not take the report of a job; trying again");
        tokio::time::sleep(backoff.next()).await;
    }
}

/// Whether the engine will never take this report: then the attempt is given up when its lease is.
fn is_final(status: &tonic::Status) -> bool {
    match Kind::of(status.code()) {
        Kind::InvalidArgument | Kind::NotFound | Kind::AlreadyExists | Kind::FailedPrecondition => {
            true
        }
        Kind::Unauthenticated
        | Kind::PermissionDenied
        | Kind::ResourceExhausted
        | Kind::Unavailable
        | Kind::DeadlineExceeded
        | Kind::Internal => false,
    }
}

/// The report of an outcome.
pub fn of(
    job_id: String,
    attempt: u32,
    outcome: Outcome,
    (timings, returned): (Timings, Vec<Returned>),
) -> ReportRequest {
    let outcome = match outcome {
        Outcome::Finished {
            stdout,
            stderr,
            exit_code,
            out_of_memory,
        } => {
            // Exit codes are 0 to 255.
            let exit_code = i32::try_from(exit_code).unwrap_or(-1);
            report_request::Outcome::Finished(Finished {
                stdout,
                stderr,
                exit_code,
                out_of_memory,
            })
        }
        Outcome::TimedOut { stderr, killed } => {
            report_request::Outcome::TimedOut(TimedOut { stderr, killed })
        }
        Outcome::NotStarted(trouble) => {
            let reason = trouble.sentence().to_owned();
            report_request::Outcome::NotStarted(NotStarted { reason })
        }
        Outcome::Lost {
            reason,
            stderr,
            stopped,
        } => report_request::Outcome::Lost(Lost {
            reason,
            stderr,
            stopped,
        }),
        Outcome::Refused(reason) => report_request::Outcome::Refused(Refused { reason }),
        Outcome::Unhealthy { reason, stderr } => {
            report_request::Outcome::Unhealthy(Unhealthy { reason, stderr })
        }
    };
    let timings = Some(wire::Timings {
        create_us: micros(timings.create),
        ticket_us: micros(timings.ticket),
        start_us: micros(timings.start),
        run_us: micros(timings.run),
        start_kind: start_kind(timings.kind).into(),
    });
    ReportRequest {
        job_id,
        attempt,
        outcome: Some(outcome),
        timings,
        returned_secrets: returned.into_iter().map(returned_secret).collect(),
    }
}

fn returned_secret(
    Returned {
        secret,
        stream,
        count,
    }: Returned,
) -> ReturnedSecret {
    let stream = match stream {
        OutputStream::Stdout => wire::OutputStream::Stdout,
        OutputStream::Stderr => wire::OutputStream::Stderr,
    };
    ReturnedSecret {
        secret: secret.to_string(),
        stream: stream.into(),
        count,
    }
}

fn start_kind(kind: Option<StartKind>) -> wire::StartKind {
    match kind {
        None => wire::StartKind::Unspecified,
        Some(StartKind::Cold) => wire::StartKind::Cold,
        Some(StartKind::Held) => wire::StartKind::Held,
        Some(StartKind::Warm) => wire::StartKind::Warm,
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::attempt::Trouble;

    /// Fails as often as it is told, then takes the report.
    struct Deaf(
        Mutex<Vec<tonic::Status>>,
        Mutex<u32>,
        Mutex<Vec<AmendRequest>>,
    );

    impl Deaf {
        fn new(failures: Vec<tonic::Status>) -> Self {
            Self(Mutex::new(failures), Mutex::new(0), Mutex::default())
        }

        fn asked(&self) -> u32 {
            *self.1.lock().unwrap()
        }
    }

    impl Reports for Deaf {
        async fn report(&self, _: ReportRequest) -> Result<(), tonic::Status> {
            *self.1.lock().unwrap() += 1;
            self.0.lock().unwrap().pop().map_or(Ok(()), Err)
        }

        /// As the engine does, at most 64 secrets at a time.
        async fn amend(&self, amendment: AmendRequest) -> Result<(), tonic::Status> {
            if amendment.returned_secrets.len() > 64 {
                return Err(tonic::Status::invalid_argument("too many"));
            }
            *self.1.lock().unwrap() += 1;
            if let Some(status) = self.0.lock().unwrap().pop() {
                return Err(status);
            }
            self.2.lock().unwrap().push(amendment);
            Ok(())
        }

        async fn line(&self, _: TakeLineRequest) -> Result<(), tonic::Status> {
            *self.1.lock().unwrap() += 1;
            self.0.lock().unwrap().pop().map_or(Ok(()), Err)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_waits_for_an_engine_that_is_away_and_not_for_one_that_does_not_want_it() {
        let line = TakeLineRequest::default;
        let engine = Deaf::new(vec![tonic::Status::unavailable("away"); 7]);
        assert_eq!(deliver_line(&engine, line()).await, Ok(()));
        assert_eq!(engine.asked(), 8);
        let engine = Deaf::new(vec![tonic::Status::failed_precondition("over"); 3]);
        assert!(deliver_line(&engine, line()).await.is_err());
        assert_eq!(engine.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn more_secrets_than_one_amendment_takes_are_told_in_several() {
        let secrets = |count: u32| -> Vec<Returned> {
            let returned = |nth| Returned {
                secret: format!("secret-{nth}").parse().unwrap(),
                stream: OutputStream::Stderr,
                count: 1,
            };
            (0..count).map(returned).collect()
        };
        let lease = || ("job".to_owned(), 1);
        let told = |engine: &Deaf| -> Vec<(usize, usize)> {
            let amendments = engine.2.lock().unwrap();
            let sizes = |it: &AmendRequest| (it.stderr.len(), it.returned_secrets.len());
            amendments.iter().map(sizes).collect()
        };
        let engine = Deaf::new(vec![tonic::Status::unavailable("away")]);
        returned(&engine, lease(), secrets(130)).await;
        assert_eq!(told(&engine), [(0, 64), (0, 64), (0, 2)]);
        let late = |count| Late {
            stderr: Bytes::from_static(b"word"),
            returned: secrets(count),
        };
        for (count, expected) in [
            (0, vec![(4, 0)]),
            (64, vec![(4, 64)]),
            (65, vec![(4, 64), (0, 1)]),
        ] {
            let engine = Deaf::new(Vec::new());
            amend(&engine, lease(), late(count), &CancellationToken::new()).await;
            assert_eq!(told(&engine), expected);
        }
    }

    fn report() -> ReportRequest {
        let outcome = Outcome::NotStarted(Trouble::Other("x".into()));
        of("job".into(), 1, outcome, (Timings::default(), Vec::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_away_gets_its_report_when_it_is_back() {
        let engine = Deaf::new(vec![tonic::Status::unavailable("away"); 7]);
        deliver(&engine, report(), &CancellationToken::new()).await;
        assert_eq!(engine.asked(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_that_is_never_taken_is_not_repeated() {
        let engine = Deaf::new(vec![tonic::Status::invalid_argument("no"); 3]);
        deliver(&engine, report(), &CancellationToken::new()).await;
        assert_eq!(engine.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_runner_gives_a_report_up_in_time() {
        let engine = Deaf::new(vec![tonic::Status::unavailable("away"); 1000]);
        let stopping = CancellationToken::new();
        stopping.cancel();
        let started = tokio::time::Instant::now();
        deliver(&engine, report(), &stopping).await;
        assert_eq!(started.elapsed(), PARTING);
    }
}

//! The only way in for work: an origin that somebody signed, and what it asks for.

use std::time::Duration;

use bailey_error::{Classify, Kind};
use bailey_proto::trust::v1::Signed;
use bailey_trust::{
    Asked, LockSourceError, Origin, SERVE, StatementError, VerifyingKey, strict_json, verify,
};
use bailey_types::{
    CommandName, EventId, EventType, JobId, OriginId, PluginName, Service, Sha256, Timestamp,
};
use serde_json::value::RawValue;

use crate::db::origin::Used;
use crate::event::NewEvent;
use crate::job::{AskedBy, Input, NewJob};
use crate::spawn::{self, Cause};
use crate::state::State;
use crate::view::{self, Absent};
use crate::work::Work;
use crate::{db, request, route, service};

/// Largest payload, bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// Longest dedupe key, `source` or `submitted_by`, bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// Why work is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The origin is not signed by whoever must stand for it.
    #[error("the origin is refused")]
    Origin(#[source] StatementError),
    /// The origin asks for something else.
    #[error("the origin does not ask for this: {0}")]
    Mismatch(&'static str),
    /// The origin was used for something else.
    #[error("the origin was used for something else before")]
    Reused,
    /// The payload cannot be hashed and signed.
    #[error("the payload is refused: {0}")]
    Payload(String),
    /// A text is too long or not what it must be.
    #[error("{0} must be at most {MAX_TEXT_BYTES} bytes")]
    Text(&'static str),
    /// The engine's own name.
    #[error("the source {0:?} is not the sender's to use")]
    Source(String),
    /// There is no such command.
    #[error(transparent)]
    Absent(#[from] Absent),
    /// What the lock itself starts.
    #[error(
        "{0} is a service: its command {SERVE} is started by the lock and runs all the time, so it cannot be called"
    )]
    Lasts(PluginName),
    /// The scheduler goes by another lock than the engine; soon both go by the same.
    #[error("{0} is no service by the lock of now")]
    NoService(PluginName),
    /// Putting a service in.
    #[error(transparent)]
    Service(#[from] service::Error),
    /// There is no lock to go by.
    #[error(transparent)]
    Lock(#[from] LockSourceError),
    /// Making the event's envelope.
    #[error("writing the event")]
    Envelope(#[from] serde_json::Error),
    /// Making the jobs that it starts.
    #[error(transparent)]
    Spawn(#[from] spawn::Error),
    /// The database.
    #[error("storing the work")]
    Db(#[from] sqlx::Error),
}

impl Classify for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Origin(_) => Kind::PermissionDenied,
            Self::Mismatch(_)
            | Self::Payload(_)
            | Self::Text(_)
            | Self::Source(_)
            | Self::Absent(_)
            | Self::Lasts(_) => Kind::InvalidArgument,
            Self::NoService(_) => Kind::Unavailable,
            Self::Service(error) => error.kind(),
            Self::Reused => Kind::AlreadyExists,
            Self::Lock(_) => Kind::FailedPrecondition,
            Self::Envelope(_) | Self::Spawn(_) | Self::Db(_) => Kind::Internal,
        }
    }
}

/// Who hands the origin over: it decides whose signature must be on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// For API tokens, which the broker has verified.
    Gateway,
    /// For schedules and services, which it signs itself.
    Scheduler,
}

impl Sender {
    /// The sender that a service of the stack is, if it is one.
    pub fn of(service: Service) -> Option<Self> {
        (service == Service::Gateway)
            .then_some(Self::Gateway)
            .or((service == Service::Scheduler).then_some(Self::Scheduler))
    }
}

/// A call for a command.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub origin: Signed,
    /// The plugin.
    pub plugin: PluginName,
    /// The command.
    pub command: CommandName,
    /// JSON object text; empty: `{}`.
    pub payload: Vec<u8>,
    /// Empty: none.
    pub dedupe_key: String,
    /// "api", "schedule:<id>".
    pub submitted_by: String,
    /// How long the key also counts against queued and running jobs.
    pub dedupe_ttl: Option<Duration>,
}

/// An event from outside.
#[derive(Debug)]
pub struct Emit {
    /// Who asks.
    pub origin: Signed,
    /// Its type.
    pub event_type: EventType,
    /// JSON object text; empty: `{}`.
    pub payload: Vec<u8>,
    /// Empty: none.
    pub dedupe_key: String,
    /// Who emits it.
    pub source: String,
}

/// A job that was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job.
    pub job: JobId,
    /// It existed already.
    pub deduplicated: bool,
}

/// An event that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The event.
    pub event: EventId,
    /// What it started.
    pub jobs: Vec<JobId>,
    /// It existed already.
    pub deduplicated: bool,
}

/// Takes a call in.
pub async fn submit(state: &State, sender: Sender, mut call: Call) -> Result<Submitted, Error> {
    let origin = origin(state, sender, &call.origin)?;
    let (payload, sha256) = payload(std::mem::take(&mut call.payload))?;
    let wanted = Asked::Call {
        plugin: call.plugin.clone(),
        command: call.command.clone(),
        payload_sha256: sha256,
    };
    if origin.asked != wanted {
        return Err(Error::Mismatch("another plugin, command or payload"));
    }
    check_text(&call.dedupe_key, "a dedupe key")?;
    check_text(&call.submitted_by, "submitted_by")?;
    let locked = state.locked()?;
    let config = view::find(&locked, &call.plugin, &call.command)?;
    let definition = service::definition(&locked, &call.plugin, &call.command)?;
    let as_service = origin.principal.strip_prefix("service:");
    match (definition, as_service) {
        (None, None) => {}
        (None, Some(_)) => return Err(Error::NoService(call.plugin)),
        (Some(definition), Some(plugin)) if plugin == call.plugin.as_str() => {
            return put_in_service(state, origin, (call, payload), definition).await;
        }
        (Some(_), _) => return Err(Error::Lasts(call.plugin)),
    }

    let mut work = Work::begin(state).await?;
    let now = work.now();
    let since = now.minus(locked.view.config.service.dedupe_ttl);
    let live_since = call.dedupe_ttl.map(|ttl| now.minus(ttl));
    let key = (&call.plugin, &call.command, call.dedupe_key.as_str());
    let twin = db::job::find::duplicate(work.db(), key, since, live_since).await?;
    let mut job = new_job(call, origin.principal, payload, config.retry.max_attempts);
    let wanted = Used::Job(twin.unwrap_or(job.id));
    if !db::origin::remember(work.db(), origin.id, wanted).await? {
        return match db::origin::used(work.db(), origin.id).await? {
            Some(Used::Job(job)) => Ok(Submitted {
                job,
                deduplicated: true,
            }),
            Some(Used::Event(_)) | None => Err(Error::Reused),
        };
    }
    if let Some(job) = twin {
        work.commit(state).await?;
        tracing::info!(job.id = %job, "dropped a call: job {job} has the same dedupe key");
        return Ok(Submitted {
            job,
            deduplicated: true,
        });
    }
    if job.command.as_str() == request::HANDLE {
        trigger(&mut work, &mut job).await?;
    }
    work.enqueue(&job).await?;
    work.commit(state).await?;
    Ok(Submitted {
        job: job.id,
        deduplicated: false,
    })
}

/// Puts in the job of a service, which lasts.
async fn put_in_service(
    state: &State,
    origin: Origin,
    (call, payload): (Call, String),
    definition: Sha256,
) -> Result<Submitted, Error> {
    let job = NewJob {
        submitted_by: service::KEY.to_owned(),
        dedupe_key: service::KEY.to_owned(),
        ..new_job(call, origin.principal, payload, 0)
    };
    let (job, deduplicated) = service::submit(state, origin.id, job, definition).await?;
    Ok(Submitted { job, deduplicated })
}

/// The job of a call, which nothing else has led to.
fn new_job(call: Call, principal: String, payload: String, max_attempts: u32) -> NewJob {
    NewJob {
        id: JobId::new(),
        plugin: call.plugin,
        command: call.command,
        max_attempts,
        submitted_by: call.submitted_by,
        dedupe_key: call.dedupe_key,
        parent: None,
        source_event: None,
        place: None,
        route_depth: 0,
        generation: 0,
        principal,
        input: Input {
            payload,
            context: "{}".to_owned(),
            asked_by: AskedBy::Origin(call.origin),
        },
    }
}

/// Wraps a call of `handle` as an event, which starts this job and nothing else (reference: ductile 6.2).
async fn trigger(work: &mut Work, job: &mut NewJob) -> Result<(), Error> {
    let event = NewEvent {
        id: EventId::new(),
        kind: "api.trigger".parse().map_err(db::corrupt)?,
        source: job.submitted_by.clone(),
        payload: std::mem::take(&mut job.input.payload),
        dedupe_key: job.dedupe_key.clone(),
        at: work.now(),
        job: None,
    };
    work.emit(&event).await?;
    job.input.payload = event.envelope(serde_json::from_str::<&RawValue>(&event.payload)?)?;
    job.source_event = Some(event.id);
    Ok(())
}

/// Takes an event in, with one job per pipeline that it starts.
pub async fn emit(state: &State, sender: Sender, mut emit: Emit) -> Result<Emitted, Error> {
    let origin = origin(state, sender, &emit.origin)?;
    let (payload, sha256) = payload(std::mem::take(&mut emit.payload))?;
    let wanted = Asked::Event {
        event_type: emit.event_type.clone(),
        payload_sha256: sha256,
    };
    if origin.asked != wanted {
        return Err(Error::Mismatch("another event type or payload"));
    }
    check_text(&emit.dedupe_key, "a dedupe key")?;
    check_text(&emit.source, "a source")?;
    if emit.source.is_empty() || emit.source.starts_with("bailey.") {
        return Err(Error::Source(emit.source));
    }
    let locked = state.locked()?;
    let routes = route::from_outside(&locked.view.config, &emit.event_type);

    let mut work = Work::begin(state).await?;
    let since = work.now().minus(locked.view.config.service.dedupe_ttl);
    let known = known_event(&mut work, origin.id, &emit, since).await?;
    if let Some(event) = known {
        let jobs = db::job::list::started_by(work.db(), event).await?;
        work.commit(state).await?;
        return Ok(Emitted {
            event,
            jobs,
            deduplicated: true,
        });
    }
    let event = NewEvent {
        id: EventId::new(),
        kind: emit.event_type,
        source: emit.source,
        payload,
        dedupe_key: emit.dedupe_key,
        at: work.now(),
        job: None,
    };
    work.emit(&event).await?;
    let cause = Cause {
        event: &event,
        parent: None,
        asked_by: AskedBy::Origin(emit.origin),
        principal: &origin.principal,
    };
    let jobs = spawn::start(&mut work, &locked.view.config, routes, &cause).await?;
    db::origin::remember(work.db(), origin.id, Used::Event(event.id)).await?;
    work.commit(state).await?;
    Ok(Emitted {
        event: event.id,
        jobs,
        deduplicated: false,
    })
}

/// The event that was taken in for this origin, or the one with the same dedupe key.
async fn known_event(
    work: &mut Work,
    origin: OriginId,
    emit: &Emit,
    since: Timestamp,
) -> Result<Option<EventId>, Error> {
    match db::origin::used(work.db(), origin).await? {
        Some(Used::Event(event)) => return Ok(Some(event)),
        Some(Used::Job(_)) => return Err(Error::Reused),
        None => {}
    }
    let same = db::event::duplicate(
        work.db(),
        &emit.event_type,
        &emit.source,
        &emit.dedupe_key,
        since,
    );
    let known = same.await?;
    if let Some(event) = known {
        db::origin::remember(work.db(), origin, Used::Event(event)).await?;
    }
    Ok(known)
}

/// Checks who asks. Policy checks it again before anything runs; here it keeps nonsense out of the queue.
fn origin(state: &State, sender: Sender, signed: &Signed) -> Result<Origin, Error> {
    let (key, prefixes): (&VerifyingKey, &[&str]) = match sender {
        Sender::Gateway => (&state.keys.broker, &["token:"]),
        Sender::Scheduler => (&state.keys.scheduler, &["schedule:", "service:"]),
    };
    let origin = verify::<Origin>(signed, key)
        .map_err(Error::Origin)?
        .statement;
    if !prefixes
        .iter()
        .any(|prefix| origin.principal.starts_with(prefix))
    {
        return Err(Error::Mismatch(
            "a principal that this sender does not speak for",
        ));
    }
    Ok(origin)
}

/// Checks a payload, and hashes it as policy will.
fn payload(bytes: Vec<u8>) -> Result<(String, Sha256), Error> {
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(Error::Payload(format!(
            "it is {} bytes; at most {MAX_PAYLOAD_BYTES} are allowed",
            bytes.len()
        )));
    }
    if bytes.is_empty() {
        return Ok(("{}".to_owned(), Sha256::of(b"{}")));
    }
    strict_json::check_object(&bytes, &[]).map_err(|e| Error::Payload(e.to_string()))?;
    // Only so are the bytes between the object's braces all that there is to hash, for everybody.
    if bytes.first() != Some(&b'{') || bytes.last() != Some(&b'}') {
        return Err(Error::Payload(
            "there is white space around the object".to_owned(),
        ));
    }
    let sha256 = Sha256::of(&bytes);
    let text = String::from_utf8(bytes).map_err(|e| Error::Payload(e.to_string()))?;
    Ok((text, sha256))
}

fn check_text(text: &str, what: &'static str) -> Result<(), Error> {
    if text.len() > MAX_TEXT_BYTES {
        Err(Error::Text(what))
    } else {
        Ok(())
    }
}

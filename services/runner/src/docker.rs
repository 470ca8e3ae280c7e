//! The Docker API as socket-proxy offers it. Every container is named by its full id; nothing here knows what a job is.

use std::path::PathBuf;
use std::pin::Pin;

use bailey_cell::{Identity, Spec, create_body};
use bailey_types::{ImageId, StackId};
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error as ApiError;
use bollard::models::{
    ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum, EventMessage,
    EventMessageTypeEnum,
};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::{Stream, StreamExt as _};
use tokio::io::AsyncWrite;

/// No call but `wait` takes longer on an engine that works.
const CALL_SECONDS: u64 = 30;
/// `wait` ends with the container; its time is bounded by the job's, not by this.
const WAIT_SECONDS: u64 = 7 * 24 * 3600;

/// What went wrong between the runner and a container.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct Error {
    doing: &'static str,
    source: ApiError,
}

/// What an [`Error`] means for the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Docker or socket-proxy does not answer as it should; later it may.
    Unwell,
    /// socket-proxy has another lock than this service.
    OtherLock,
    /// There is no such container any more.
    Gone,
    /// Refused: asking again gets the same answer.
    Refused,
}

impl Error {
    /// What it means.
    pub fn meaning(&self) -> Meaning {
        match self.status() {
            Some(404) => Meaning::Gone,
            Some(409) => Meaning::OtherLock,
            Some(408 | 429 | 500..) | None => Meaning::Unwell,
            Some(_) => Meaning::Refused,
        }
    }

    fn status(&self) -> Option<u16> {
        if let ApiError::DockerResponseServerError { status_code, .. } = &self.source {
            return Some(*status_code);
        }
        None
    }

    /// One sentence for people.
    pub fn sentence(&self) -> String {
        if let ApiError::DockerResponseServerError { message, .. } = &self.source {
            return format!("{}: {}", self.doing, message.trim());
        }
        bailey_error::Chain(self).to_string()
    }
}

/// The end of a container, if that is what the event tells.
fn death(event: EventMessage) -> Option<Death> {
    let is_death = event.typ == Some(EventMessageTypeEnum::CONTAINER)
        && event.action.as_deref() == Some("die");
    let actor = event.actor.filter(|_| is_death)?;
    let mut attributes = actor.attributes.unwrap_or_default();
    Some(Death {
        id: actor.id?,
        exit_code: attributes.remove("exitCode").unwrap_or_default(),
    })
}

#[cfg(test)]
impl Error {
    /// What the engine answers with `status_code`.
    pub fn for_test(status_code: u16, message: &str) -> Self {
        let message = message.to_owned();
        let source = ApiError::DockerResponseServerError {
            status_code,
            message,
        };
        Self {
            doing: "testing",
            source,
        }
    }
}

impl Error {
    /// A stream of the engine's has ended that only ends with it.
    pub fn ended(doing: &'static str) -> Self {
        let error = "the connection was closed".to_owned();
        let source = ApiError::DockerStreamError { error };
        Self { doing, source }
    }
}

fn doing(doing: &'static str) -> impl FnOnce(ApiError) -> Error {
    move |source| Error { doing, source }
}

/// A signal for a cell's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Asks it to end.
    Terminate,
    /// Ends it.
    Kill,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Kill => "SIGKILL",
        }
    }
}

/// How a container ended, or that it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Whether it was ever started.
    pub was_started: bool,
    /// Whether it still runs.
    pub running: bool,
    /// Its exit code, 0 while it runs.
    pub exit_code: i64,
    /// Whether the kernel killed one of its processes for its memory.
    pub out_of_memory: bool,
}

/// Both directions of an attached container.
pub struct Attached {
    /// Frames of standard output and error; of "standard input" for what socket-proxy says itself.
    pub output: Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>,
    /// Where the envelope goes.
    pub input: Pin<Box<dyn AsyncWrite + Send>>,
}

/// A container of this stack, as listed.
pub struct Listed {
    /// Full id.
    pub id: String,
    /// Who it is.
    pub identity: Identity,
    /// Whether it runs.
    pub running: bool,
}

/// The end of a container, as the engine tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Full id.
    pub id: String,
    /// Its exit code, as the engine writes it; empty where it does not.
    pub exit_code: String,
}

/// The way to the engine. Connects for each call: an engine that comes back is noticed by the next one.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
}

impl Engine {
    /// The engine behind the Unix socket at `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    fn client(&self, seconds: u64) -> Result<Docker, Error> {
        let path = self.socket.to_string_lossy();
        Docker::connect_with_unix(&path, seconds, API_DEFAULT_VERSION)
            .map_err(doing("connecting to socket-proxy"))
    }

    /// Whether the engine answers.
    pub async fn ping(&self) -> Result<(), Error> {
        let pong = self.client(CALL_SECONDS)?.ping().await;
        pong.map(drop)
            .map_err(doing("asking Docker whether it is there"))
    }

    /// Makes a container and answers its id.
    pub async fn create(&self, spec: &Spec<'_>) -> Result<String, Error> {
        let options = CreateContainerOptionsBuilder::new()
            .name(&bailey_cell::name(spec))
            .build();
        let client = self.client(CALL_SECONDS)?;
        let made = client
            .create_container(Some(options), create_body(spec))
            .await;
        made.map(|made| made.id)
            .map_err(doing("creating the container"))
    }

    /// Takes hold of a container's streams; possible once, before it starts.
    pub async fn attach(&self, id: &str) -> Result<Attached, Error> {
        let options = AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = self
            .client(CALL_SECONDS)?
            .attach_container(id, Some(options))
            .await;
        let AttachContainerResults { output, input } =
            attached.map_err(doing("attaching to the container"))?;
        let output = output.map(|frame| frame.map_err(doing("reading from the container")));
        Ok(Attached {
            output: Box::pin(output),
            input,
        })
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let started = self.client(CALL_SECONDS)?.start_container(id, None).await;
        started.map_err(doing("starting the container"))
    }

    /// Waits until a container has ended; answers its exit code.
    pub async fn wait(&self, id: &str) -> Result<i64, Error> {
        let options = WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let client = self.client(WAIT_SECONDS)?;
        let mut answers = std::pin::pin!(client.wait_container(id, Some(options)));
        let lost = || ApiError::DockerStreamError {
            error: "the connection was closed".into(),
        };
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            // bollard takes every exit code but 0 for an error.
            Some(Err(ApiError::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(doing("waiting for the container")(error)),
            None => Err(doing("waiting for the container")(lost())),
        }
    }

    /// Sends a signal. One that comes too late is no error.
    pub async fn kill(&self, id: &str, signal: Signal) -> Result<(), Error> {
        let options = KillContainerOptionsBuilder::new()
            .signal(signal.name())
            .build();
        let killed = self
            .client(CALL_SECONDS)?
            .kill_container(id, Some(options))
            .await;
        match killed.map_err(doing("signalling the container")) {
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            other => other,
        }
    }

    /// How a container ended.
    pub async fn inspect(&self, id: &str) -> Result<Ended, Error> {
        let inspected = self.client(CALL_SECONDS)?.inspect_container(id, None).await;
        let state = inspected
            .map_err(doing("inspecting the container"))?
            .state
            .unwrap_or_default();
        let status = state.status.unwrap_or(ContainerStateStatusEnum::EMPTY);
        Ok(Ended {
            was_started: status != ContainerStateStatusEnum::CREATED,
            running: status == ContainerStateStatusEnum::RUNNING || state.running == Some(true),
            exit_code: state.exit_code.unwrap_or_default(),
            out_of_memory: state.oom_killed.unwrap_or_default(),
        })
    }

    /// Removes a container, running or not, with whatever it made. One that is gone already is no error.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = self
            .client(CALL_SECONDS)?
            .remove_container(id, Some(options))
            .await;
        match removed.map_err(doing("removing the container")) {
            // 409: a removal of it is under way already.
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            other => other,
        }
    }

    /// Every container of `stack`: ours is what has the stack's labels *and* the name that belongs to them. What else there is is not even
    /// mentioned, so that nobody can touch it.
    pub async fn list(&self, stack: &StackId) -> Result<Vec<Listed>, Error> {
        let options = ListContainersOptionsBuilder::new().all(true).build();
        let listed = self
            .client(CALL_SECONDS)?
            .list_containers(Some(options))
            .await;
        let summaries = listed.map_err(doing("listing the stack's containers"))?;
        let read = |summary: ContainerSummary| {
            let labels = summary.labels.unwrap_or_default();
            let identity = Identity::from_labels(stack, &labels).ok()?;
            let name = format!("/{}", identity.name(stack));
            let is_named = summary.names.unwrap_or_default().contains(&name);
            summary.id.filter(|_| is_named).map(|id| Listed {
                id,
                identity,
                running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
            })
        };
        Ok(summaries.into_iter().filter_map(read).collect())
    }

    /// The ends of containers from now on. The stream ends when the engine or socket-proxy does; it asks nothing before it is first polled.
    pub fn deaths(&self) -> Result<impl Stream<Item = Result<Death, Error>> + Send + use<>, Error> {
        let client = self.client(CALL_SECONDS)?;
        let events = client
            .events(None)
            .map(|event| event.map_err(doing("following the engine's events")));
        Ok(events.filter_map(|event| {
            let death = event.map(death).transpose();
            std::future::ready(death)
        }))
    }

    /// Id of the image that `name` stands for.
    pub async fn image(&self, name: &str) -> Result<Option<ImageId>, Error> {
        let inspected = self.client(CALL_SECONDS)?.inspect_image(name).await;
        let image = inspected.map_err(doing("looking up an image"))?;
        Ok(image.id.and_then(|id| id.parse().ok()))
    }
}

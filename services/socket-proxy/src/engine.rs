//! The Docker Engine behind its socket: our own requests, our own bytes, one connection each.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use bailey_service::Process;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// Body of a request to the engine, or of a response to the runner.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// Largest answer of the engine that is read whole, bytes.
const ANSWER_LIMIT_BYTES: usize = 8 << 20;
/// How long the engine may take until it answers; starting a container on a busy disk takes seconds.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// Fields of the spec exist since this version; an engine that needs a newer one gets its oldest.
const API_VERSION: Version = Version {
    major: 1,
    minor: 41,
};

/// Why the engine did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not answer at all.
    #[error("the Docker Engine does not answer: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the Docker Engine answered {status}: {message}")]
    Answered {
        /// Its status.
        status: StatusCode,
        /// Its message, cut to 1,000 characters.
        message: String,
    },
    /// It said something that is not an answer.
    #[error("the Docker Engine's answer cannot be read: {0}")]
    Unreadable(String),
    /// It is older than what Bailey needs.
    #[error("the Docker Engine speaks API {0}; Bailey needs 1.41 (Docker 20.10) or newer")]
    TooOld(String),
}

/// What an engine can do.
#[derive(Clone, Debug)]
pub struct Description {
    /// OCI runtimes by name.
    pub runtimes: Vec<String>,
    /// As in `docker info`.
    pub security: Vec<String>,
    /// Its version.
    pub version: String,
}

/// The Docker Engine.
pub struct Engine {
    socket: PathBuf,
    process: Process,
    /// Path prefix with the API version, once it is known.
    prefix: Mutex<Option<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

#[derive(Deserialize)]
struct Versions {
    #[serde(rename = "ApiVersion")]
    newest: String,
    #[serde(rename = "MinAPIVersion", default)]
    oldest: String,
}

impl Engine {
    /// The engine behind `socket`. Nothing is asked yet.
    pub fn new(socket: PathBuf, process: Process) -> Self {
        Self {
            socket,
            process,
            prefix: Mutex::new(None),
        }
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        checked(
            self.send(request(Method::GET, "/_ping", None, empty())?)
                .await?,
        )
        .await
        .map(drop)
    }

    /// Whether the engine's socket, as this process sees it, has been removed. A container is given the file, not its name: an engine that has
    /// restarted listens on another one, and the old one never answers again.
    pub fn is_cut_off(&self) -> bool {
        std::fs::metadata(&self.socket).is_ok_and(|socket| socket.nlink() == 0)
    }

    /// Sends a request and reads its answer as JSON.
    pub async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, Error> {
        let answer = self.call(method, path, body).await?;
        read_json(answer).await
    }

    /// Sends a request; the answer's body has not been read.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Error> {
        let target = format!("{}{path}", self.prefix().await?);
        let kind = body.is_some().then_some("application/json");
        let body = body.map_or_else(empty, |bytes| full(bytes.into()));
        checked(self.send(request(method, &target, kind, body)?).await?).await
    }

    /// Sends a tar as it comes; only the end of `tar` or its error ends the upload.
    pub async fn upload(&self, path: &str, tar: Body) -> Result<(), Error> {
        let target = format!("{}{path}", self.prefix().await?);
        let request = request(Method::PUT, &target, Some("application/x-tar"), tar)?;
        // No time limit of ours: the sender of the tar has one.
        let answer = self
            .connect()
            .await?
            .send_request(request)
            .await
            .map_err(unreachable)?;
        checked(answer).await.map(drop)
    }

    /// What it says it can do.
    pub async fn describe(&self) -> Result<Description, Error> {
        #[derive(Deserialize)]
        struct Info {
            #[serde(rename = "Runtimes", default)]
            runtimes: serde_json::Map<String, serde_json::Value>,
            #[serde(rename = "SecurityOptions", default)]
            security: Vec<String>,
            #[serde(rename = "ServerVersion", default)]
            version: String,
        }

        let info: Info = self.json(Method::GET, "/info", None).await?;
        Ok(Description {
            runtimes: info.runtimes.keys().cloned().collect(),
            security: info.security,
            version: info.version,
        })
    }

    /// Attaches to standard input, output and error of the container.
    pub async fn attach(&self, id: &str) -> Result<Upgraded, Error> {
        let query = "stream=1&stdin=1&stdout=1&stderr=1";
        let target = format!("{}/containers/{id}/attach?{query}", self.prefix().await?);
        let mut request = request(Method::POST, &target, None, empty())?;
        request
            .headers_mut()
            .insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
        request
            .headers_mut()
            .insert(UPGRADE, http::HeaderValue::from_static("tcp"));
        let answer = checked(self.send(request).await?).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Unreadable(format!(
                "{} to an attach",
                answer.status()
            )));
        }
        hyper::upgrade::on(answer)
            .await
            .map_err(|e| Error::Unreadable(e.to_string()))
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let answer = async {
            self.connect()
                .await?
                .send_request(request)
                .await
                .map_err(unreachable)
        };
        let late = |_| Error::Unreachable(format!("no answer within {ANSWER_TIME:?}"));
        tokio::time::timeout(ANSWER_TIME, answer)
            .await
            .map_err(late)?
    }

    async fn connect(&self) -> Result<http1::SendRequest<Body>, Error> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream =
            stream.map_err(|e| Error::Unreachable(format!("{}: {e}", self.socket.display())))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(unreachable)?;
        let shutdown = self.process.shutdown.clone();
        self.process.spawn("docker connection", async move {
            tokio::select! {
                ended = connection.with_upgrades() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection to the Docker Engine broke");
                    }
                }
                () = shutdown.cancelled() => {}
            }
            Ok(())
        });
        Ok(sender)
    }

    async fn prefix(&self) -> Result<String, Error> {
        let mut prefix = self.prefix.lock().await;
        if let Some(prefix) = &*prefix {
            return Ok(prefix.clone());
        }
        let answer = self
            .send(request(Method::GET, "/version", None, empty())?)
            .await?;
        let versions: Versions = read_json(checked(answer).await?).await?;
        let unreadable = || Error::Unreadable(format!("its version is {:?}", versions.newest));
        let newest = Version::parse(&versions.newest).ok_or_else(unreadable)?;
        if newest < API_VERSION {
            return Err(Error::TooOld(versions.newest));
        }
        let version = Version::parse(&versions.oldest)
            .unwrap_or(API_VERSION)
            .max(API_VERSION);
        let text = format!("/v{}.{}", version.major, version.minor);
        Ok(prefix.insert(text).clone())
    }
}

/// Reads an answer whole, as JSON.
pub async fn read_json<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, Error> {
    let bytes = read(answer).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Unreadable(e.to_string()))
}

/// Reads an answer whole.
pub async fn read(answer: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(answer.into_body(), ANSWER_LIMIT_BYTES)
        .collect()
        .await;
    Ok(body
        .map_err(|e| Error::Unreadable(e.to_string()))?
        .to_bytes())
}

async fn checked(answer: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }

    let status = answer.status();
    if !status.is_client_error() && !status.is_server_error() {
        return Ok(answer);
    }
    let bytes = read(answer).await?;
    let said = serde_json::from_slice(&bytes).map(|said: Said| said.message);
    let message = said.unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned());
    Err(Error::Answered {
        status,
        message: message.chars().take(1000).collect(),
    })
}

fn request(
    method: Method,
    target: &str,
    kind: Option<&'static str>,
    body: Body,
) -> Result<Request<Body>, Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(HOST, "docker");
    if let Some(kind) = kind {
        request = request.header(CONTENT_TYPE, kind);
    }
    request
        .body(body)
        .map_err(|e| Error::Unreadable(e.to_string()))
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn unreachable(error: hyper::Error) -> Error {
    Error::Unreachable(error.to_string())
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is there already.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

//! The management sockets of broker and socket-proxy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use crate::Misconfigured;
use crate::home::Home;

/// Largest answer: a lock of 16 MiB and what frames it.
pub(crate) const MAX_MESSAGE_BYTES: usize = 17 << 20;

/// A channel to a service's management socket.
pub(crate) async fn connect(home: &Home, service: &'static str) -> anyhow::Result<Channel> {
    let socket = home.manage_socket(service);
    let wanted = socket.clone();
    let connector = tower::service_fn(move |_: Uri| open(wanted.clone()));
    let endpoint =
        Endpoint::from_static("http://management").connect_timeout(Duration::from_secs(5));
    let channel = endpoint.connect_with_connector(connector).await;
    channel.with_context(|| {
        format!(
            "{service} does not answer at {}; is it running? (docker compose ps)",
            socket.display()
        )
    })
}

async fn open(socket: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    UnixStream::connect(socket).await.map(TokioIo::new)
}

/// The admin token, as the broker wants it with each request.
pub(crate) struct Admin(MetadataValue<Ascii>);

impl Admin {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|e| {
                let way = if e.kind() == io::ErrorKind::PermissionDenied {
                    "`make up` sets its owner"
                } else {
                    "`bailey vault init` writes it with a new vault, and of a vault that is there `bailey vault rotate-admin-token` makes another"
                };
                Misconfigured(format!("reading the admin token {}: {e}; {way}", path.display()))
            })?;
        let header = Zeroizing::new(format!("Bearer {}", text.trim()));
        let mut value: MetadataValue<Ascii> = header.parse().map_err(|_| {
            Misconfigured(format!("{} does not hold an admin token", path.display()))
        })?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// `message` with the token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        request
    }
}

/// What a service said, for people.
pub(crate) fn refused(service: &'static str) -> impl Fn(Status) -> anyhow::Error {
    move |status| {
        let said = crate::output::plain(status.message());
        match status.code() {
            Code::InvalidArgument => Misconfigured(said).into(),
            Code::Unavailable => anyhow!("{service} cannot do that now: {said}"),
            Code::Internal | Code::Unknown => {
                anyhow!("{service} failed: {said} (docker compose logs {service})")
            }
            Code::Ok
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => anyhow!("{service}: {said}"),
        }
    }
}

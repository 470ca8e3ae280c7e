//! Connections to one upstream: dialled under the same rules as a plugin's, with TLS of our own on top.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bailey_config::Upstream;
use bailey_config::upstream::Authorities;
use bailey_plugin::egress::{Host, Reach};
use bailey_types::UpstreamName;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::failure::Why;
use crate::dial::{self, Target, dial};
use crate::outside::{Asker, Outside};

/// How long a handshake may take.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Makes connections to one upstream.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Way>);

struct Way {
    name: UpstreamName,
    outside: Arc<dyn Outside>,
    host: Host,
    port: u16,
    reach: Reach,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct Error(#[from] pub(crate) Why);

/// An open connection.
pub(crate) struct Link {
    stream: Box<dyn Stream>,
    line: Line,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What an exchange knows of its connection, and can do to it.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// Where it leads.
    pub(crate) address: IpAddr,
    cut: CancellationToken,
    /// Whether something waits for the other end to take it.
    waits: Arc<AtomicBool>,
    /// When it was last given something of a request.
    wrote: Arc<Mutex<Option<Instant>>>,
}

impl Line {
    /// Ends the connection, whatever its driver waits for: one that cannot send does not ask whether it still should.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }

    /// Whether something waits for the other end to take it.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Whether it was given something of a request since `then`, of which it may have taken a part also where it failed. One request at a time is on it.
    pub(crate) fn wrote_since(&self, then: Instant) -> bool {
        let wrote = *self.wrote.lock().unwrap_or_else(PoisonError::into_inner);
        wrote.is_some_and(|wrote| wrote >= then)
    }

    fn wrote_now(&self) {
        *self.wrote.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connector {
    /// A way to `upstream`; `web` is the TLS of those that bring no authority of their own.
    pub(crate) fn new(
        outside: Arc<dyn Outside>,
        name: &UpstreamName,
        upstream: &Upstream,
        web: &Arc<ClientConfig>,
    ) -> Result<Self, Why> {
        let url = &upstream.url;
        let tls = if url.tls() {
            let config = match &upstream.ca {
                Some(authorities) => Arc::new(trusting(&own(authorities)?)?),
                None => Arc::clone(web),
            };
            Some((TlsConnector::from(config), server_name(url.host())?))
        } else {
            None
        };
        Ok(Self(Arc::new(Way {
            name: name.clone(),
            outside,
            host: url.host().clone(),
            port: url.port(),
            reach: upstream.reach,
            tls,
        })))
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Link>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let way = Arc::clone(&self.0);
        Box::pin(async move { Ok(TokioIo::new(way.connect().await?)) })
    }
}

impl Way {
    async fn connect(&self) -> Result<Link, Why> {
        let target = Target {
            host: &self.host,
            port: self.port,
            reach: self.reach,
            asker: Asker::Upstream(self.name.clone()),
        };
        let dialled = dial(self.outside.as_ref(), &target).await;
        let (stream, address) = dialled.map_err(|error| self.undialled(error))?;
        let stream: Box<dyn Stream> = match &self.tls {
            Some((connector, name)) => Box::new(shake(connector, name, stream).await?),
            None => Box::new(stream),
        };
        Ok(Link::new(stream, address))
    }

    fn undialled(&self, error: dial::Error) -> Why {
        match (error, self.reach) {
            (dial::Error::Unresolved(why), _) => Why::Unresolved(why),
            (dial::Error::Unreachable(why), _) => Why::Unreachable(why),
            (dial::Error::NotAllowed, Reach::At(address)) => Why::Forbidden(address),
            (dial::Error::NotAllowed, Reach::LocalName) => Why::Inside,
            (dial::Error::NotAllowed, Reach::PublicName) => Why::Private,
        }
    }
}

async fn shake(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Why> {
    match timeout(HANDSHAKE_TIME, connector.connect(name.clone(), stream)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(unshaken(&error)),
        Err(_) => Err(Why::Tls("the handshake took longer than 10 s".to_owned())),
    }
}

/// In our own words: a certificate holds whatever its owner wrote into it.
fn unshaken(error: &io::Error) -> Why {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(wrong)) => Why::Untrusted(untrusted(wrong)),
        Some(rustls::Error::AlertReceived(alert)) => {
            Why::Tls(format!("the other end refuses ({alert:?})"))
        }
        Some(rustls::Error::PeerIncompatible(why)) => Why::Tls(format!(
            "the other end speaks no TLS that is spoken here ({why:?})"
        )),
        Some(_) => Why::Tls("the other end does not speak TLS as it should".to_owned()),
        None => Why::Tls(error.kind().to_string()),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls adds kinds; what is not named here is said in general"
)]
fn untrusted(wrong: &CertificateError) -> String {
    let reason = match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: look at the clocks"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "its certificate is for other names than the host of the url"
        }
        CertificateError::UnknownIssuer => {
            "its certificate is from an authority that is not trusted here: if it is your own, write it into `ca:`"
        }
        CertificateError::Revoked => "its certificate was revoked",
        _ => "its certificate is not accepted",
    };
    reason.to_owned()
}

/// TLS for upstreams that the web's authorities vouch for.
pub(crate) fn web() -> Result<ClientConfig, Why> {
    trusting(&RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    })
}

fn own(authorities: &Authorities) -> Result<RootCertStore, Why> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities.certificates() {
        let added = roots.add(certificate.clone());
        added.map_err(|error| Why::Untrusted(format!("`ca:` cannot be used: {error}")))?;
    }
    Ok(roots)
}

fn trusting(roots: &RootCertStore) -> Result<ClientConfig, Why> {
    let unusable = |error: rustls::Error| Why::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(unusable)?;
    let mut config = config
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session is not checked against the authorities of the moment.
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Why> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|_| Why::Untrusted("no certificate can be for that host".to_owned())),
    }
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.line.clone())
    }
}

impl Link {
    fn new(stream: Box<dyn Stream>, address: IpAddr) -> Self {
        let line = Line {
            address,
            cut: CancellationToken::new(),
            waits: Arc::default(),
            wrote: Arc::default(),
        };
        Self {
            stream,
            cut: Box::pin(line.cut.clone().cancelled_owned()),
            line,
        }
    }

    fn uncut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Takes down whether what was to be sent waits.
    fn sent<T>(&self, polled: Poll<T>) -> Poll<T> {
        self.line
            .waits
            .store(polled.is_pending(), Ordering::Release);
        polled
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.uncut(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.uncut(cx)?;
        // Before it is: a connection may take some of it and fail then, and whoever looks meanwhile must not read that nothing was sent.
        if !bytes.is_empty() {
            self.line.wrote_now();
        }
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.uncut(cx)?;
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.sent(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.uncut(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn what_was_taken_before_a_request_is_not_of_it() {
        let (stream, _other) = tokio::io::duplex(64);
        let mut link = Link::new(Box::new(stream), IpAddr::from([127, 0, 0, 1]));
        let known = link.line.clone();
        let first = Instant::now();
        assert!(!known.wrote_since(first));
        link.write_all(b"one").await.unwrap();
        assert!(known.wrote_since(first));
        let second = Instant::now();
        assert!(!known.wrote_since(second));
        link.write_all(b"another").await.unwrap();
        assert!(known.wrote_since(second));
    }

    #[tokio::test]
    async fn what_a_failing_connection_was_given_may_have_been_sent() {
        let (stream, other) = tokio::io::duplex(64);
        let mut link = Link::new(Box::new(stream), IpAddr::from([127, 0, 0, 1]));
        let (known, begun) = (link.line.clone(), Instant::now());
        drop(other);
        assert!(link.write_all(b"one").await.is_err());
        assert!(known.wrote_since(begun));
    }

    #[tokio::test]
    async fn a_connection_is_cut_whatever_it_waits_for() {
        let (stream, _other) = tokio::io::duplex(8);
        let mut link = Link::new(Box::new(stream), IpAddr::from([127, 0, 0, 1]));
        let known = link.line.clone();
        link.write_all(b"fits").await.unwrap();
        assert!(!known.waits());
        // The other end never reads, so this waits until it is cut.
        let cut = async {
            while !known.waits() {
                tokio::task::yield_now().await;
            }
            known.cut();
        };
        let (written, ()) = tokio::join!(link.write_all(b"more than fits"), cut);
        assert_eq!(
            written.unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
        assert!(link.flush().await.is_err());
    }
}

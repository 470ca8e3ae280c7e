//! One connection for each request: TLS with the stack's own CA, HTTP/1.1.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Answer;
use crate::Misconfigured;

/// Shorter than any limit of a whole answer: whoever cannot even be connected to must not be said to hang.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Nobody listens, or somebody else does.
#[derive(Debug, thiserror::Error)]
#[error("nothing answers at {url}; is the stack up? (docker compose ps)")]
pub(crate) struct Unreachable {
    url: String,
    #[source]
    source: std::io::Error,
}

/// Where the API is, and how its certificate is checked.
pub(crate) struct Server {
    url: String,
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Server {
    pub(crate) fn new(url: &str, ca: &Path) -> anyhow::Result<Self> {
        let wrong = |why: &str| Misconfigured(format!("{url:?} is not the URL of an API: {why}"));
        let uri: Uri = url
            .parse()
            .map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        // A token never travels in the clear, not even to this machine: whoever holds the port would have it.
        if uri.scheme_str() != Some("https")
            || !matches!(uri.path(), "" | "/")
            || uri.query().is_some()
        {
            return Err(wrong("write https://host:port").into());
        }
        let host = uri
            .host()
            .ok_or_else(|| wrong("it has no host"))?
            .trim_matches(['[', ']'])
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|e| wrong(&e.to_string()))?;
        let port = uri.port_u16().unwrap_or(443);
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self {
            url,
            host,
            port,
            name,
            tls: connector(ca)?,
        })
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Answer> {
        let unreachable = |source| Unreachable {
            url: self.url.clone(),
            source,
        };
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT_TIME, connect)
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(unreachable)?;
        stream.set_nodelay(true)?;
        let tls = self
            .tls
            .connect(self.name.clone(), stream)
            .await
            .map_err(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let asked = async {
            let response = sender
                .send_request(self.request(method, path, token, body)?)
                .await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await;
            let body = body
                .map_err(|e| anyhow::anyhow!("reading the answer: {e}"))?
                .to_bytes();
            anyhow::Ok(Answer { status, body })
        };
        // The connection is driven here and ends with the answer: no task is left behind.
        tokio::pin!(connection);
        tokio::select! {
            answer = asked => answer.with_context(|| format!("asking {}", self.url)),
            ended = &mut connection => {
                ended.with_context(|| format!("asking {}", self.url))?;
                anyhow::bail!("{} closed the connection without an answer", self.url)
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(ACCEPT, "application/json");
        request = request.header(HOST, format!("{}:{}", bracketed(&self.host), self.port));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Misconfigured("the API token's file does not hold a token".to_owned())
            })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request.body(Full::new(Bytes::from(body.unwrap_or_default())))?)
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

fn connector(ca: &Path) -> anyhow::Result<TlsConnector> {
    let unusable = |why: String| {
        Misconfigured(format!(
            "{}: {why}; `bailey init` makes it, or say where it is with --home or --ca",
            ca.display()
        ))
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca).map_err(|e| unusable(e.to_string()))?;
    for certificate in certificates {
        let added = certificate
            .map_err(|e| e.to_string())
            .and_then(|der| roots.add(der).map_err(|e| e.to_string()));
        added.map_err(unusable)?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()).into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

//! A small HTTPS client that trusts the stack's own CA only.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A client of one stack's `ingress-local`.
pub struct Client {
    runtime: tokio::runtime::Runtime,
    connector: TlsConnector,
    port: u16,
    token: String,
    kept: Option<SendRequest<Full<Bytes>>>,
}

/// An answer: status and JSON body (`null` where it is not JSON), with the text as it came.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, if it is JSON.
    pub json: Value,
    /// The body as text.
    pub text: String,
    /// Headers.
    pub headers: http::HeaderMap,
}

impl Client {
    /// A client for 127.0.0.1:`port` with the CA in `ca` and the given token.
    pub fn new(ca: &Path, port: u16, token: &str) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).context("reading the stack's CA")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self {
            runtime,
            connector,
            port,
            token: token.to_owned(),
            kept: None,
        })
    }

    /// The same client with another token; an empty one is not sent.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send("GET", path, &[], Bytes::new())
    }

    /// `POST path` with a JSON body.
    pub fn post(&mut self, path: &str, body: &Value) -> anyhow::Result<Answer> {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string().into(),
        )
    }

    /// Any request; a connection is kept and made anew when it was closed.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", format!("localhost:{}", self.port));
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let Self {
            runtime,
            connector,
            port,
            kept,
            ..
        } = self;
        runtime.block_on(async {
            let mut sender = match alive(kept.take()).await {
                Some(sender) => sender,
                None => connect(connector, *port).await?,
            };
            let response = sender.send_request(request).await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.into_body().collect().await?.to_bytes();
            *kept = Some(sender);
            let text = String::from_utf8_lossy(&body).into_owned();
            Ok(Answer {
                status,
                json: serde_json::from_str(&text).unwrap_or(Value::Null),
                text,
                headers,
            })
        })
    }
}

/// The kept connection, if the other side has not closed it.
async fn alive(kept: Option<SendRequest<Full<Bytes>>>) -> Option<SendRequest<Full<Bytes>>> {
    let mut sender = kept?;
    sender.ready().await.is_ok().then_some(sender)
}

async fn connect(connector: &TlsConnector, port: u16) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .context("connecting to ingress-local")?;
    stream.set_nodelay(true)?;
    let stream = connector
        .connect(ServerName::try_from("localhost")?, stream)
        .await
        .context("the TLS handshake")?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the connection ends with its sender; a test has no Context"
    )]
    tokio::spawn(connection);
    Ok(sender)
}

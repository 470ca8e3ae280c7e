//! A web site on 127.0.0.1: says what it was asked, and serves a folder.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A running site.
pub struct Site {
    pub address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Site {
    /// Serves files below `folder`, and at other paths what it was asked.
    pub async fn start(name: &'static str, folder: PathBuf, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (folder, tls) = (folder.clone(), tls.clone());
                clients.spawn(async move {
                    let service = service_fn(move |request| answer(name, request, folder.clone()));
                    let mut http = http1::Builder::new();
                    http.half_close(true);
                    // A client that breaks off is no failure of the site.
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn answer(
    name: &str,
    request: Request<Incoming>,
    folder: PathBuf,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/').to_owned();
    if let Ok(file) = std::fs::read(folder.join(&path)) {
        return Ok(Response::new(Full::new(file.into())));
    }
    if path.contains(".git") {
        let mut absent = Response::new(Full::default());
        *absent.status_mut() = StatusCode::NOT_FOUND;
        return Ok(absent);
    }
    let headers: Map<String, Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    let body = body.collect().await.unwrap().to_bytes();
    let said = json!({
        "site": name,
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    Ok(Response::new(Full::new(said.to_string().into())))
}

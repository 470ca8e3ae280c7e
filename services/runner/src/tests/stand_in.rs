//! Plays socket-proxy's part before the real engine of this machine: passes calls on unchanged, feeds attached containers from their envelope.
//! It opens what is sealed to it and checks nothing; what the real one refuses is tested where it lives.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bailey_cell::launch::{Control, Envelope};
use bailey_trust::SealingKey;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::TaskTracker;

const DOCKER: &str = "/var/run/docker.sock";
const PROBE: &str = "probe";

type Body = BoxBody<Bytes, hyper::Error>;

/// What it does with an envelope.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// Feeds the cell.
    Launch,
    /// Refuses with this reason.
    Refuse(&'static str),
    /// Closes the stream without a word.
    HangUp,
}

pub(super) struct StandIn {
    pub(super) manner: Mutex<Manner>,
    pub(super) is_down: AtomicBool,
    /// Removals fail.
    pub(super) is_sticky: AtomicBool,
    /// What probes exit with.
    pub(super) probe_code: Mutex<i64>,
    opener: SealingKey,
    tasks: TaskTracker,
}

impl StandIn {
    pub(super) fn start(socket: &Path, opener: SealingKey) -> Arc<Self> {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let stand_in = Arc::new(Self {
            manner: Mutex::new(Manner::Launch),
            is_down: AtomicBool::new(false),
            is_sticky: AtomicBool::new(false),
            probe_code: Mutex::new(0),
            opener,
            tasks: TaskTracker::new(),
        });
        let accepting = Arc::clone(&stand_in);
        stand_in.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&accepting);
                accepting.tasks.spawn(async move {
                    let service = service_fn(|request| serving.answer(request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades();
                    // A client that goes away early is no failure of the test.
                    connection.await.ok();
                });
            }
        });
        stand_in
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        if self.is_down.load(Ordering::SeqCst) {
            return Ok(json(502, r#"{"message":"Docker does not answer"}"#));
        }
        let path = request.uri().path().to_owned();
        let of_probe = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("-probe-"));
        if path == "/images/bailey-probe/json" {
            let id = "5".repeat(64);
            return Ok(json(200, &format!(r#"{{"Id":"sha256:{id}"}}"#)));
        }
        if path == "/containers/create" && of_probe {
            return Ok(json(201, &format!(r#"{{"Id":"{PROBE}","Warnings":[]}}"#)));
        }
        if path == format!("/containers/{PROBE}/wait") {
            let code = *self.probe_code.lock().unwrap();
            return Ok(json(200, &format!(r#"{{"StatusCode":{code}}}"#)));
        }
        if path.starts_with(&format!("/containers/{PROBE}")) {
            return Ok(json(204, ""));
        }
        if request.method() == Method::DELETE && self.is_sticky.load(Ordering::SeqCst) {
            return Ok(json(500, r#"{"message":"device or resource busy"}"#));
        }
        if path.ends_with("/attach") {
            return self.attach(request).await;
        }
        let (parts, body) = request.into_parts();
        Ok(self
            .pass(Request::from_parts(parts, body))
            .await?
            .map(BodyExt::boxed))
    }

    async fn pass<B>(&self, request: Request<B>) -> Result<Response<Incoming>, hyper::Error>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let stream = UnixStream::connect(DOCKER)
            .await
            .expect("these tests need a running Docker Engine");
        let (mut client, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn(async move {
            connection.with_upgrades().await.ok();
        });
        client.send_request(request).await
    }

    async fn attach(&self, mut request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let ours = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let answer = self
            .pass(Request::from_parts(parts, Full::new(Bytes::new())))
            .await?;
        if answer.status() != 101 {
            return Ok(answer.map(BodyExt::boxed));
        }
        let (parts, body) = answer.into_parts();
        let mut upgraded = Response::from_parts(parts.clone(), body);
        let theirs = hyper::upgrade::on(&mut upgraded);
        let manner = self.manner.lock().unwrap().clone();
        let opener = self.opener.clone();
        self.tasks.spawn(async move {
            let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
            let (from_runner, to_runner) = tokio::io::split(TokioIo::new(ours));
            let (from_cell, to_cell) = tokio::io::split(TokioIo::new(theirs));
            let to_runner = tokio::sync::Mutex::new(to_runner);
            let feeding = feed(manner, &opener, from_runner, to_cell, &to_runner);
            // The cell's own frames pass from the beginning.
            let ((), ()) = tokio::join!(feeding, frames(from_cell, &to_runner));
            to_runner.lock().await.shutdown().await.ok();
        });
        Ok(Response::from_parts(parts, empty()))
    }
}

async fn feed(
    manner: Manner,
    opener: &SealingKey,
    mut from_runner: impl AsyncRead + Unpin,
    mut to_cell: impl AsyncWrite + Unpin,
    to_runner: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
) {
    let Ok(length) = from_runner.read_u32().await else {
        return;
    };
    let mut json = vec![0; length as usize];
    from_runner.read_exact(&mut json).await.unwrap();
    let envelope = Envelope::from_json(&json).unwrap();
    let control = match manner {
        Manner::Launch => {
            // A cell that has ended already takes nothing any more.
            let plain = opener.open(&envelope.sealed, 16 << 20).unwrap();
            to_cell.write_all(&plain[32..]).await.ok();
            to_cell.write_all(b"\n").await.ok();
            to_cell.shutdown().await.ok();
            Control::Launched(true)
        }
        Manner::Refuse(reason) => Control::Refused(reason.into()),
        Manner::HangUp => {
            to_runner.lock().await.shutdown().await.ok();
            return;
        }
    };
    let mut to_runner = to_runner.lock().await;
    write_frame(&mut *to_runner, 0, &control.to_json()).await;
}

async fn frames(
    mut from_cell: impl AsyncRead + Unpin,
    to_runner: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
) {
    let mut header = [0; 8];
    while from_cell.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let mut payload = vec![0; length as usize];
        from_cell.read_exact(&mut payload).await.unwrap();
        write_frame(&mut *to_runner.lock().await, header[0], &payload).await;
    }
}

async fn write_frame(to: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let frame = [&[kind, 0, 0, 0], &length[..], payload].concat();
    // The runner stops reading when it has seen enough.
    to.write_all(&frame).await.ok();
}

fn json(status: u16, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::from(text.to_owned()))
        .map_err(|never| match never {})
        .boxed();
    let answer = Response::builder()
        .status(status)
        .header("Content-Type", "application/json");
    answer.body(body).unwrap()
}

fn empty() -> Body {
    Full::new(Bytes::new())
        .map_err(|never| match never {})
        .boxed()
}

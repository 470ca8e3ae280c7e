//! Plays socket-proxy's part before the real engine of this machine: passes calls on unchanged, feeds attached containers from their envelope.
//! It opens what is sealed to it and checks no signature; what it does hold the runner to is the order of things: no cell starts before it is
//! granted or launched, no two cells are in one holder. Whatever else the real one refuses is tested where it lives.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bailey_cell::launch::{Control, Message};
use bailey_trust::{SealingKey, SessionReader};
use bailey_types::ImageId;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
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
    /// Says that another attempt may be fed, and why this one is not.
    PutOff(&'static str),
    /// Closes the stream without a word.
    HangUp,
}

/// A start that nobody answers well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// The engine did it.
    Done,
    /// The engine never heard of it.
    Dropped,
}

pub(super) struct StandIn {
    pub(super) manner: Mutex<Manner>,
    pub(super) is_down: AtomicBool,
    /// Removals fail.
    pub(super) is_sticky: AtomicBool,
    /// What becomes of the next start of a cell.
    pub(super) next_start: Mutex<Option<Start>>,
    /// Ends every stream of events.
    pub(super) events_cut: Arc<tokio::sync::Notify>,
    /// What probes exit with.
    pub(super) probe_code: Mutex<i64>,
    /// Of holders.
    holder_image: ImageId,
    books: Mutex<Books>,
    opener: SessionReader,
    tasks: TaskTracker,
}

/// What it knows of the containers that were made through it.
#[derive(Default)]
struct Books {
    /// Cells, each with the holder that it is in.
    cells: BTreeMap<String, Option<String>>,
    /// Cells that may be started.
    free: BTreeSet<String>,
}

impl StandIn {
    pub(super) fn start(socket: &Path, opener: SealingKey, holder_image: ImageId) -> Arc<Self> {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let stand_in = Arc::new(Self {
            manner: Mutex::new(Manner::Launch),
            is_down: AtomicBool::new(false),
            is_sticky: AtomicBool::new(false),
            next_start: Mutex::default(),
            events_cut: Arc::default(),
            probe_code: Mutex::new(0),
            holder_image,
            books: Mutex::default(),
            opener: SessionReader::new(opener),
            tasks: TaskTracker::new(),
        });
        let accepting = Arc::clone(&stand_in);
        stand_in.tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = Arc::clone(&accepting);
                accepting.tasks.spawn(async move {
                    let service = service_fn(|request| Arc::clone(&serving).answer(request));
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

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, hyper::Error> {
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
        if path == "/images/bailey-holder/json" {
            let id = self.holder_image;
            return Ok(json(200, &format!(r#"{{"Id":"{id}"}}"#)));
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
        if path == "/events" {
            return self.events(request).await;
        }
        if path == "/containers/create" {
            return self.create(request).await;
        }
        let id = path.split('/').nth(2).unwrap_or_default();
        if path.ends_with("/start") {
            let (is_cell, is_free) = {
                let books = self.books.lock().unwrap();
                (books.cells.contains_key(id), books.free.contains(id))
            };
            if is_cell && !is_free {
                return Ok(json(403, r#"{"message":"neither granted nor launched"}"#));
            }
            let fate = is_cell.then(|| self.next_start.lock().unwrap().take());
            if let Some(start) = fate.flatten() {
                if start == Start::Done {
                    self.pass(request).await?;
                }
                return Ok(json(503, r#"{"message":"the engine does not answer"}"#));
            }
        }
        let is_removal = request.method() == Method::DELETE;
        let (parts, body) = request.into_parts();
        let answer = self.pass(Request::from_parts(parts, body)).await?;
        if is_removal && answer.status().is_success() {
            self.books.lock().unwrap().cells.remove(id);
        }
        Ok(answer.map(BodyExt::boxed))
    }

    async fn events(&self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let cut = Arc::clone(&self.events_cut).notified_owned();
        let (parts, body) = self.pass(request).await?.into_parts();
        let events = BodyStream::new(body).take_until(cut);
        let body = BodyExt::boxed(StreamBody::new(events));
        Ok(Response::from_parts(parts, body))
    }

    async fn create(&self, request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let spec: Value = serde_json::from_slice(&body).unwrap();
        let is_cell = spec["Labels"]["bailey.kind"] == "cell";
        let holder = spec["Labels"]["bailey.holder"].as_str().map(str::to_owned);
        let is_taken = |cells: &BTreeMap<_, Option<String>>| {
            holder.is_some() && cells.values().any(|other| *other == holder)
        };
        if is_cell && is_taken(&self.books.lock().unwrap().cells) {
            return Ok(json(403, r#"{"message":"another cell is in that holder"}"#));
        }
        let answer = self
            .pass(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        let made: Value = serde_json::from_slice(&body).unwrap();
        if let (true, Some(id)) = (is_cell, made["Id"].as_str()) {
            self.books
                .lock()
                .unwrap()
                .cells
                .insert(id.to_owned(), holder);
        }
        let body = Full::new(body).map_err(|never| match never {}).boxed();
        Ok(Response::from_parts(parts, body))
    }

    fn may_start(&self, id: &str) {
        self.books.lock().unwrap().free.insert(id.to_owned());
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

    async fn attach(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, hyper::Error> {
        let id = request.uri().path().split('/').nth(2).unwrap().to_owned();
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
        let stand_in = Arc::clone(self);
        self.tasks.spawn(async move {
            let (ours, theirs) = (ours.await.unwrap(), theirs.await.unwrap());
            let (from_runner, to_runner) = tokio::io::split(TokioIo::new(ours));
            let (from_cell, to_cell) = tokio::io::split(TokioIo::new(theirs));
            let to_runner = tokio::sync::Mutex::new(to_runner);
            let feeding = stand_in.feed(&id, from_runner, to_cell, &to_runner);
            // The cell's own frames pass from the beginning.
            let ((), ()) = tokio::join!(feeding, frames(from_cell, &to_runner));
            to_runner.lock().await.shutdown().await.ok();
        });
        Ok(Response::from_parts(parts, empty()))
    }

    async fn feed(
        &self,
        id: &str,
        mut from_runner: impl AsyncRead + Unpin,
        mut to_cell: impl AsyncWrite + Unpin,
        to_runner: &tokio::sync::Mutex<impl AsyncWrite + Unpin>,
    ) {
        while let Ok(length) = from_runner.read_u32().await {
            let mut json = vec![0; length as usize];
            from_runner.read_exact(&mut json).await.unwrap();
            let envelope = match Message::from_json(&json).unwrap() {
                Message::Grant(_) => {
                    self.may_start(id);
                    say(to_runner, &Control::Granted(true)).await;
                    continue;
                }
                Message::Envelope(envelope) => envelope,
            };
            let manner = self.manner.lock().unwrap().clone();
            match manner {
                Manner::Launch => {
                    self.may_start(id);
                    // Before anything that the cell can write once it is fed.
                    say(to_runner, &Control::Launched(true)).await;
                    let plain = self.opener.open(&envelope.sealed, 16 << 20).unwrap();
                    // A cell that has ended already takes nothing any more.
                    to_cell.write_all(&plain[32..]).await.ok();
                    to_cell.write_all(b"\n").await.ok();
                    to_cell.shutdown().await.ok();
                }
                Manner::Refuse(reason) => say(to_runner, &Control::Refused(reason.into())).await,
                Manner::PutOff(why) => say(to_runner, &Control::NotNow(why.into())).await,
                Manner::HangUp => {
                    to_runner.lock().await.shutdown().await.ok();
                }
            }
            return;
        }
    }
}

async fn say(to_runner: &tokio::sync::Mutex<impl AsyncWrite + Unpin>, control: &Control) {
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

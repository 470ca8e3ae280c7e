//! A proxy whose engine is a recording stand-in, and what may reach that: exactly what the proxy's own requests are, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailey_cell::{Cell, Entry, Holder, Look, Pace, Probe, Seat, Spec, create_body, name};
use bailey_service::{Context, Readiness};
use bailey_test::TestStack;
use bailey_trust::{Lock, LockedPlugin, StateKind};
use bailey_types::{AttemptNumber, ImageId, JobId, Serial, Service, Sha256, StackId, Timestamp};
use serde_json::Value;
use socket_proxy::audit::Record;
use socket_proxy::{Args, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long one answer may take; nothing here takes more than a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// After that long without an end the proxy is taken to wait.
const SILENCE: Duration = Duration::from_millis(40);
/// Stands behind everything that is thrown, so that the proxy closes when it has answered all.
const LAST: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n";
/// Of the image of probes and holders.
const IMAGE: ImageId = ImageId(Sha256([6; 32]));

struct Deaf;

impl Record for Deaf {
    fn record(&self, _: &'static str, _: Value, _: bool) {}
}

/// What reached the stand-in, each once.
type Heard = Arc<Mutex<BTreeSet<Vec<u8>>>>;

/// See the module.
pub struct World {
    runtime: Runtime,
    ctx: Context,
    heard: Heard,
    allowed: BTreeSet<Vec<u8>>,
    valid: Vec<Vec<u8>>,
    _stack: TestStack,
}

impl World {
    /// A proxy that has answered every valid request once; what it then asked its engine is what may be asked again.
    pub fn new(mut locked: LockedPlugin) -> Self {
        // So that there is something to measure; on a base of ours, which has the folder.
        locked.proposed.state = StateKind::Data;
        locked.proposed.base = Some(IMAGE);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let id: StackId = "mutations".parse().unwrap();
        let stack = TestStack::named(&id);
        let lock = Lock {
            version: 1,
            stack: id.clone(),
            serial: Serial(1),
            signed_at: Timestamp(0),
            config_files: BTreeMap::new(),
            plugins: BTreeMap::from([("fixture".parse().unwrap(), locked)]),
            next_uid: 20_002,
        };
        stack.write_lock(&lock);
        let ctx = stack.context(Service::SocketProxy);
        let heard = Heard::default();
        runtime.block_on(start(&ctx, &heard));
        let valid = valid_requests(&id, &lock);
        let mut world = Self {
            runtime,
            ctx,
            heard,
            allowed: BTreeSet::new(),
            valid,
            _stack: stack,
        };
        for request in world.valid.clone() {
            world.send(&request);
        }
        world.allowed.clone_from(&world.heard.lock().unwrap());
        world
    }

    /// Requests that are answered as they are.
    pub fn valid(&self) -> &[Vec<u8>] {
        &self.valid
    }

    /// How much there is that may reach the engine.
    pub fn allowed(&self) -> usize {
        self.allowed.len()
    }

    /// The entry for a fuzzer: throws any bytes at the proxy, and fails if anything reaches the engine that is not the proxy's own. Answers
    /// what came back.
    pub fn throw(&self, bytes: &[u8]) -> Vec<u8> {
        let answer = self.send(bytes);
        self.check();
        answer
    }

    /// Fails if anything has reached the engine that is not the proxy's own.
    pub fn check(&self) {
        let heard = self.heard.lock().unwrap();
        if let Some(foreign) = heard.difference(&self.allowed).next() {
            panic!(
                "this reached the engine: {:?}",
                String::from_utf8_lossy(foreign)
            );
        }
    }

    fn send(&self, bytes: &[u8]) -> Vec<u8> {
        let socket = self.ctx.settings.run_dir.join("docker/docker.sock");
        let talk = async {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            // The proxy may have heard enough before it has read all.
            let sent = stream.write_all(&[bytes, LAST].concat()).await;
            let mut answer = Vec::new();
            if timeout(SILENCE, stream.read_to_end(&mut answer))
                .await
                .is_err()
            {
                // It waits for more: the last request was taken for a part of the one before.
                let closed = stream.shutdown().await;
                let read = stream.read_to_end(&mut answer).await;
                drop((closed, read));
            }
            drop(sent);
            answer
        };
        self.runtime
            .block_on(async { timeout(PATIENCE, talk).await.unwrap() })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ctx.shutdown.cancel();
    }
}

async fn start(ctx: &Context, heard: &Heard) {
    let run = &ctx.settings.run_dir;
    let manage = ctx.settings.management_socket(Service::SocketProxy);
    std::fs::create_dir_all(manage.parent().unwrap()).unwrap();
    std::fs::create_dir_all(run.join("docker")).unwrap();
    let socket = run.join("engine.sock");
    let uid = rustix::process::geteuid().as_raw();
    let args = Args {
        docker_socket: socket.clone(),
        runner_uid: uid,
        cli_uid: uid,
        probe_image: Some(IMAGE),
        holder_image: Some("bailey/holder:test".into()),
        idle_seconds: 60,
        envelope_seconds: 5,
        keep_images_seconds: 3600,
    };
    let mut presence = ctx.process.presence();
    let (process, heard) = (ctx.process.clone(), Arc::clone(heard));
    let listener = UnixListener::bind(&socket).unwrap();
    ctx.process.spawn("stand-in", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            process.spawn("call", async move {
                answer(stream, &heard).await;
                Ok(())
            });
        }
        Ok(())
    });
    ctx.process
        .spawn("proxy", serve(ctx.clone(), args, Arc::new(Deaf)));
    let ready = presence.wait_for(|p| p.readiness != Readiness::Starting);
    ready.await.unwrap();
}

/// One connection: a request, its answer, and whatever else is written after an attach.
async fn answer(mut stream: UnixStream, heard: &Heard) {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !is_whole(&request) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    if request.is_empty() {
        // The thrower left when the proxy had connected and asked nothing yet.
        return;
    }
    heard.lock().unwrap().insert(without_clock(&request));
    let text = String::from_utf8_lossy(&request).into_owned();
    let (status, body) = say(text.lines().next().unwrap_or_default());
    let length = body.len();
    let start = if status.starts_with("101") {
        "Connection: Upgrade\r\nUpgrade: tcp".to_owned()
    } else {
        format!("Content-Type: application/json\r\nContent-Length: {length}")
    };
    let said = format!("HTTP/1.1 {status}\r\n{start}\r\n\r\n{body}");
    if stream.write_all(said.as_bytes()).await.is_err() {
        return;
    }
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest).await;
    if read.is_ok() && !rest.is_empty() {
        heard.lock().unwrap().insert(rest);
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length.map_or(0, |length| length.parse().unwrap()) <= body.len()
}

/// The one thing in the proxy's requests that is another every time: the moment from which it wants events.
fn without_clock(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    match text.split_once("/events?since=") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            format!("{before}/events?since={after}").into_bytes()
        }
        None => request.to_vec(),
    }
}

fn say(line: &str) -> (&'static str, String) {
    let id = |digit: &str| format!(r#"{{"Id":"{}"}}"#, digit.repeat(64));
    let path = line.split(' ').nth(1).unwrap_or_default();
    let call = path.strip_prefix("/v1.41").unwrap_or(path);
    match call.split('?').next().unwrap_or_default() {
        "/_ping" => ("200 OK", "OK".into()),
        "/version" => (
            "200 OK",
            r#"{"ApiVersion":"1.41","MinAPIVersion":"1.12"}"#.into(),
        ),
        "/containers/create" if call.contains("-probe-") => ("201 Created", id("b")),
        "/containers/create" if call.contains("-holder-") => ("201 Created", id("c")),
        "/containers/create" => ("201 Created", id("a")),
        // What is not listed is forgotten.
        "/containers/json" => ("200 OK", listed()),
        "/images/json" => ("200 OK", "[]".into()),
        "/volumes" => ("200 OK", r#"{"Volumes":null}"#.into()),
        volume if volume.starts_with("/volumes/") => ("200 OK", "{}".into()),
        "/events" => ("200 OK", String::new()),
        image if image.starts_with("/images/") => {
            ("200 OK", format!(r#"{{"Id":"{IMAGE}","Config":null}}"#))
        }
        attach if attach.ends_with("/attach") => ("101 UPGRADED", String::new()),
        wait if wait.ends_with("/wait") => ("200 OK", r#"{"StatusCode":0}"#.into()),
        inspect if inspect.ends_with("/json") => ("200 OK", id("a")),
        _ => ("204 No Content", String::new()),
    }
}

/// All that can be made, without names: so only what was made here is taken for the proxy's.
fn listed() -> String {
    let entry = |digit: &str| format!(r#"{{"Id":"{}","ImageID":"{IMAGE}"}}"#, digit.repeat(64));
    format!("[{}]", ["a", "b", "c"].map(entry).join(","))
}

fn valid_requests(stack: &StackId, lock: &Lock) -> Vec<Vec<u8>> {
    let (plugin, locked) = lock.plugins.iter().next().unwrap();
    let job: JobId = "0192a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
    let cell = Spec::Cell(Cell {
        stack,
        serial: lock.serial,
        plugin,
        locked,
        seat: Seat::Job {
            job,
            attempt: AttemptNumber(1),
        },
        untrusted: false,
        holder: None,
    });
    let holder = Spec::Holder(Holder {
        stack,
        serial: lock.serial,
        plugin,
        locked,
        image: &IMAGE,
        id: job,
    });
    let probe = Spec::Probe(Probe {
        stack,
        image: &IMAGE,
        job,
        look: Look::Walls,
    });
    let measure = |pace| {
        let entry = Entry {
            serial: lock.serial,
            plugin,
            locked,
        };
        Spec::Probe(Probe {
            stack,
            image: &IMAGE,
            job,
            look: Look::State(entry, pace),
        })
    };
    let specs = [
        cell,
        holder,
        probe,
        measure(Pace::Once),
        measure(Pace::Watching),
    ];
    let mut requests: Vec<Vec<u8>> = specs.map(|spec| create(&spec)).into();
    let plain = |line: String| {
        format!("{line} HTTP/1.1\r\nHost: docker\r\nContent-Length: 0\r\n\r\n").into_bytes()
    };
    let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
    requests.extend(
        [
            "GET /_ping".into(),
            "GET /images/bailey-probe/json".into(),
            "GET /images/bailey-holder/json".into(),
            "GET /containers/json?all=true".into(),
            "GET /events".into(),
            format!("GET /containers/{a}/json"),
            format!("POST /containers/{b}/start"),
            format!("POST /containers/{c}/start"),
            format!("POST /containers/{a}/wait?condition=not-running"),
            format!("POST /containers/{a}/kill?signal=SIGTERM"),
            format!("POST /containers/{a}/kill?signal=SIGKILL"),
        ]
        .map(plain),
    );
    requests.push(
        format!(
            "POST /containers/{a}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes(),
    );
    requests.extend([a, b, c].map(|id| plain(format!("DELETE /containers/{id}?force=1&v=1"))));
    requests
}

fn create(spec: &Spec<'_>) -> Vec<u8> {
    let (name, body) = (
        name(spec),
        serde_json::to_string(&create_body(spec)).unwrap(),
    );
    let length = body.len();
    format!(
        "POST /containers/create?name={name} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

//! An upstream that does as a test says: HTTP written by hand, so that it can be as wrong as it likes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::server::listen;

/// What takes longer than this will not happen.
const LIMIT: Duration = Duration::from_secs(30);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Request line and headers, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Heard {
    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1);
        lines.find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }
}

/// What it does next.
#[derive(Clone)]
pub enum Step {
    /// Says this, and has it on its way before the next.
    Say(Vec<u8>),
    /// Says these, as fast as they are taken, so often.
    Repeat(Vec<u8>, usize),
    /// Waits until the test lets it go on.
    Wait,
    /// Hangs up.
    Close,
}

type Script = dyn Fn(&Heard) -> Vec<Step> + Send + Sync;

/// A running one.
pub struct Scripted {
    pub address: SocketAddr,
    pub heard: Arc<Mutex<Vec<Heard>>>,
    shared: Shared,
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    heard: Arc<Mutex<Vec<Heard>>>,
    requests: watch::Sender<usize>,
    opened: watch::Sender<usize>,
    ended: watch::Sender<usize>,
    /// Bytes of answers that were taken.
    said: watch::Sender<usize>,
    go: Arc<Semaphore>,
}

/// A whole answer with a body of a known length.
pub fn answer(head: &str, body: &[u8]) -> Vec<Step> {
    let text = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![Step::Say([text.as_bytes(), body].concat())]
}

/// `body` as one chunk.
pub fn chunk(body: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", body.len());
    [size.as_bytes(), body, b"\r\n"].concat()
}

impl Scripted {
    /// Over TLS where `tls` is given.
    pub async fn start(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Heard) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let shared = Shared {
            script: Arc::new(script),
            heard: Arc::default(),
            requests: watch::Sender::new(0),
            opened: watch::Sender::new(0),
            ended: watch::Sender::new(0),
            said: watch::Sender::new(0),
            go: Arc::new(Semaphore::new(0)),
        };
        let kept = shared.clone();
        let (address, tasks) = listen(tls, move |stream| {
            let shared = kept.clone();
            async move { serve(stream, &shared).await }
        })
        .await;
        Self {
            address,
            heard: Arc::clone(&shared.heard),
            shared,
            _tasks: tasks,
        }
    }

    /// Lets one that waits go on.
    pub fn go_on(&self) {
        self.shared.go.add_permits(1);
    }

    /// Waits until it was asked so often, in all.
    pub async fn asked(&self, times: usize) {
        reach(&self.shared.requests, times).await;
    }

    /// Waits until so many connections have ended, in all.
    pub async fn ended(&self, times: usize) {
        reach(&self.shared.ended, times).await;
    }

    /// Tells how many bytes of answers were taken, whenever there are more.
    pub fn said(&self) -> watch::Receiver<usize> {
        self.shared.said.subscribe()
    }

    /// How many connections there were.
    pub fn opened(&self) -> usize {
        *self.shared.opened.borrow()
    }

    /// The request of this number.
    pub fn request(&self, number: usize) -> Heard {
        self.heard.lock().unwrap()[number].clone()
    }
}

async fn reach(count: &watch::Sender<usize>, times: usize) {
    let mut count = count.subscribe();
    let waiting = count.wait_for(|count| *count >= times);
    timeout(LIMIT, waiting).await.unwrap().unwrap();
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) {
    shared.opened.send_modify(|count| *count += 1);
    while let Some(heard) = request(&mut stream).await {
        let steps = (shared.script)(&heard);
        shared.heard.lock().unwrap().push(heard);
        shared.requests.send_modify(|count| *count += 1);
        if perform(&mut stream, steps, shared).await.is_none() {
            break;
        }
    }
    drop(stream.shutdown().await);
    shared.ended.send_modify(|count| *count += 1);
}

/// `None` where the connection is over.
async fn perform(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    steps: Vec<Step>,
    Shared { said, go, .. }: &Shared,
) -> Option<()> {
    for step in steps {
        let (bytes, times) = match step {
            Step::Say(bytes) => (bytes, 1),
            Step::Repeat(bytes, times) => (bytes, times),
            Step::Close => return None,
            Step::Wait => {
                tokio::select! {
                    permit = go.acquire() => permit.unwrap().forget(),
                    // Who is read from while it should only listen has hung up, or is wrong.
                    _ = stream.read_u8() => return None,
                }
                continue;
            }
        };
        for _ in 0..times {
            stream.write_all(&bytes).await.ok()?;
            said.send_modify(|said| *said += bytes.len());
        }
        stream.flush().await.ok()?;
    }
    Some(())
}

async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Heard> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(text).unwrap();
    let mut heard = Heard {
        head: text.trim_end().to_owned(),
        body: Vec::new(),
    };
    if heard.line().contains("/deaf") {
        // Its body is never taken.
        return Some(heard);
    }
    if let Some(length) = heard.header("content-length") {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.ok()?;
        heard.body = body;
    } else if heard.header("transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            while !size.ends_with("\r\n") {
                size.push(char::from(stream.read_u8().await.ok()?));
            }
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut piece = vec![0; size + 2];
            stream.read_exact(&mut piece).await.ok()?;
            heard.body.extend(&piece[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Some(heard)
}

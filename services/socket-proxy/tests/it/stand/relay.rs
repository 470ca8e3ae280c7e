//! A way to the engine that can be held up: its answers are late then, as those of a busy engine are.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::DOCKER;

/// How long the proxy may take to hang up, if it does.
const HANG_UP_TIME: Duration = Duration::from_millis(500);

/// Engine behind a socket of its own; every request that begins with `held` waits.
pub struct Relay {
    pub socket: PathBuf,
    held: mpsc::Receiver<Held>,
    _dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

/// A request that the engine has answered, which the proxy has not heard.
pub struct Held {
    proxy: UnixStream,
    answer: Vec<u8>,
}

impl Relay {
    pub fn new(held: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, receiver) = mpsc::channel(8);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                connections.spawn(async move { relay(stream, held, sender).await });
            }
        });
        Self {
            socket,
            held: receiver,
            _dir: dir,
            _tasks: tasks,
        }
    }

    /// Waits until the engine has done what is held.
    pub async fn held(&mut self) -> Held {
        self.held.recv().await.unwrap()
    }
}

impl Held {
    /// Gives the proxy the time to hang up, and then the answer.
    pub async fn release(mut self) {
        let mut byte = [0; 1];
        let hung_up = self.proxy.read(&mut byte);
        if tokio::time::timeout(HANG_UP_TIME, hung_up).await.is_err() {
            self.proxy.write_all(&self.answer).await.unwrap();
        }
    }
}

/// The proxy's requests are small: each comes whole, at once or in two pieces.
async fn relay(mut proxy: UnixStream, held: &str, sender: mpsc::Sender<Held>) {
    let mut first = vec![0; 64 << 10];
    let read = proxy.read(&mut first).await.unwrap();
    first.truncate(read);
    let mut engine = UnixStream::connect(DOCKER).await.unwrap();
    engine.write_all(&first).await.unwrap();
    if !is_held(&first, held) {
        // Whoever ends it first has ended it.
        drop(tokio::io::copy_bidirectional(&mut proxy, &mut engine).await);
        return;
    }
    let mut answer = Vec::new();
    let (mut more, mut buffer) = ([0; 4096], [0; 4096]);
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        tokio::select! {
            read = proxy.read(&mut more) => {
                let read = read.unwrap();
                engine.write_all(&more[..read]).await.unwrap();
            }
            read = engine.read(&mut buffer) => {
                let read = read.unwrap();
                assert!(read > 0, "the engine hung up");
                answer.extend_from_slice(&buffer[..read]);
            }
        }
    }
    drop(sender.send(Held { proxy, answer }).await);
}

/// `held` is a method and what the path contains.
fn is_held(request: &[u8], held: &str) -> bool {
    let text = String::from_utf8_lossy(request);
    let line = text.lines().next().unwrap_or_default();
    let (method, path) = held.split_once(' ').unwrap();
    line.starts_with(method) && line.contains(path)
}

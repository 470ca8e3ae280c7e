//! Bytes from one stream to another, both ways, until both are done or nothing moves.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

const PIECE_BYTES: usize = 16 << 10;

/// When something last moved, in either direction: an event stream is silent one way for hours.
struct LastMoved(Mutex<Instant>);

impl LastMoved {
    fn touch(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Passes bytes both ways. Half-closes pass too.
pub(crate) async fn both_ways(
    one: &mut TcpStream,
    other: &mut TcpStream,
    idle: Duration,
) -> io::Result<()> {
    let moved = LastMoved(Mutex::new(Instant::now()));
    let (from_one, to_one) = one.split();
    let (from_other, to_other) = other.split();
    let both = async {
        tokio::try_join!(
            one_way(from_one, to_other, &moved),
            one_way(from_other, to_one, &moved)
        )
    };
    tokio::select! {
        passed = both => passed.map(|_| ()),
        () = silence(&moved, idle) => {
            Err(io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {idle:?}")))
        }
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &LastMoved,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        moved.touch();
    }
}

async fn silence(moved: &LastMoved, idle: Duration) {
    loop {
        let end = moved.at() + idle;
        if end <= Instant::now() {
            return;
        }
        sleep_until(end).await;
    }
}

//! One call, one write.
//!
//! A call goes out in three pieces: its head, its message, its end. Each becomes known a moment after the one before, when another task has
//! run, and the connection would write and flush each by itself: three TLS records, three system calls, and on the other side three wake-ups for one
//! request. So a flush lets the other tasks go first, a few times, and then writes what has come together.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How often a flush lets others go first: for a call's message, and for its end.
const TURNS: u8 = 2;

/// What is gathered at most, bytes: one TLS record. What is larger is not worth waiting for.
const LIMIT: usize = 16 << 10;

/// A stream whose small writes are gathered until they are flushed.
pub(crate) struct Gather<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How much of it is written already.
    written: usize,
    /// How often the present flush has let others go first.
    turns: u8,
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            waiting: Vec::new(),
            written: 0,
            turns: 0,
        }
    }

    /// Writes all that waits.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.waiting.get(self.written..).filter(|r| !r.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.waiting.clear();
        self.written = 0;
        self.turns = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.waiting.len() + bytes.len() > LIMIT {
            ready!(self.poll_written(cx))?;
        }
        if bytes.len() > LIMIT {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() && self.written == 0 && self.turns < TURNS {
            self.turns += 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.poll_written(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Notes each write.
    #[derive(Default)]
    struct Notes(Vec<Vec<u8>>);

    impl AsyncWrite for Notes {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_comes_while_a_flush_lets_others_go_first_goes_with_it() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut gather = Gather::new(Notes::default());
        for piece in [b"head".as_slice(), b"message", b"end"] {
            assert!(Pin::new(&mut gather).poll_write(&mut cx, piece).is_ready());
            if piece != b"end" {
                assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_pending());
            }
        }
        assert!(gather.stream.0.is_empty());
        assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_ready());
        assert_eq!(gather.stream.0, [b"headmessageend"]);

        // The next one has its turns again; with nothing to write there is nothing to wait for.
        assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_ready());
        assert!(
            Pin::new(&mut gather)
                .poll_write(&mut cx, b"next")
                .is_ready()
        );
        assert!(Pin::new(&mut gather).poll_flush(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn large_and_small_writes_keep_their_order() {
        let (ours, mut theirs) = tokio::io::duplex(1000);
        let mut gather = Gather::new(ours);
        let pieces = [10, LIMIT, 1, LIMIT + 1, 5, 3 * LIMIT, 7];
        let sent = async {
            for (piece, byte) in pieces.into_iter().zip(0..) {
                gather.write_all(&vec![byte; piece]).await.unwrap();
            }
            gather.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (read, ()) = tokio::join!(theirs.read_to_end(&mut received), sent);
        read.unwrap();
        let expected = pieces.into_iter().zip(0..);
        let expected: Vec<u8> = expected.flat_map(|(size, byte)| vec![byte; size]).collect();
        assert!(received == expected);
    }
}

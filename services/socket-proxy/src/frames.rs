//! Docker's stream frames: one byte of type, three zero bytes, four bytes of length (big-endian), the payload.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest piece of a payload that is handed on at once; longer frames become several.
const PIECE_BYTES: usize = 32 << 10;

/// Which stream of the container a frame belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    /// The type byte.
    pub const fn code(self) -> u8 {
        match self {
            Self::Out => 1,
            Self::Err => 2,
        }
    }
}

/// Why a stream of frames cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection broke.
    #[error("reading the engine's stream")]
    Read(#[from] std::io::Error),
    /// A frame that a cell's stream does not have.
    #[error("the engine sent a frame of type {0}")]
    Type(u8),
}

/// Reads frames in pieces.
pub struct Reader<R> {
    from: R,
    /// Of the frame that is being read.
    stream: Stream,
    left: usize,
    /// The header of the next frame, as far as it came.
    header: [u8; 8],
    header_bytes: usize,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// A reader at the beginning of a frame.
    pub fn new(from: R) -> Self {
        Self {
            from,
            stream: Stream::Out,
            left: 0,
            header: [0; 8],
            header_bytes: 0,
            buffer: vec![0; PIECE_BYTES],
        }
    }

    /// The next piece; `None` at the end. A frame that is cut short ends the stream too: the container is gone. Whoever stops waiting
    /// for the piece loses nothing: the next call goes on where this one stopped.
    pub async fn next(&mut self) -> Result<Option<(Stream, &[u8])>, Error> {
        while self.left == 0 {
            let room = self.header.get_mut(self.header_bytes..).unwrap_or_default();
            if !room.is_empty() {
                let read = self.from.read(room).await?;
                if read == 0 {
                    return Ok(None);
                }
                self.header_bytes += read;
                continue;
            }
            self.header_bytes = 0;
            let [kind, _, _, _, length @ ..] = self.header;
            self.stream = match kind {
                1 => Stream::Out,
                2 => Stream::Err,
                other => return Err(Error::Type(other)),
            };
            self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        }
        let wanted = self.left.min(self.buffer.len());
        let room = self.buffer.get_mut(..wanted).unwrap_or_default();
        let read = self.from.read(room).await?;
        if read == 0 {
            return Ok(None);
        }
        self.left -= read;
        Ok(self.buffer.get(..read).map(|piece| (self.stream, piece)))
    }
}

/// One frame. Invariant: `payload` is shorter than 4 GiB.
pub fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(8 + payload.len());
    frame.extend_from_slice(&[kind, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_read_back_in_pieces() {
        let long = vec![7; PIECE_BYTES + 5];
        let bytes = [frame(1, b"hello"), frame(2, b""), frame(2, &long)].concat();
        let mut reader = Reader::new(&bytes[..]);
        assert_eq!(
            reader.next().await.unwrap(),
            Some((Stream::Out, &b"hello"[..]))
        );
        let mut read = 0;
        while let Some((stream, piece)) = reader.next().await.unwrap() {
            assert_eq!(stream, Stream::Err);
            read += piece.len();
        }
        assert_eq!(read, long.len());
    }

    #[tokio::test]
    async fn who_stops_waiting_in_the_middle_of_a_header_loses_nothing() {
        let (mut engine, proxy) = tokio::io::duplex(64);
        let mut reader = Reader::new(proxy);
        let bytes = frame(1, b"hello");
        let (first, rest) = bytes.split_at(3);
        tokio::io::AsyncWriteExt::write_all(&mut engine, first)
            .await
            .unwrap();
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, reader.next()).await.is_err());
        tokio::io::AsyncWriteExt::write_all(&mut engine, rest)
            .await
            .unwrap();
        assert_eq!(
            reader.next().await.unwrap(),
            Some((Stream::Out, &b"hello"[..]))
        );
    }

    #[tokio::test]
    async fn a_control_frame_from_the_engine_is_refused() {
        let bytes = frame(0, br#"{"launched":true}"#);
        assert!(matches!(
            Reader::new(&bytes[..]).next().await,
            Err(Error::Type(0))
        ));
    }

    #[tokio::test]
    async fn a_frame_that_is_cut_short_ends_the_stream() {
        let bytes = frame(1, b"hello");
        let mut reader = Reader::new(&bytes[..10]);
        assert_eq!(
            reader.next().await.unwrap(),
            Some((Stream::Out, &b"he"[..]))
        );
        assert_eq!(reader.next().await.unwrap(), None);
    }
}

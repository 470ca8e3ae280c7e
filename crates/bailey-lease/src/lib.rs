#![doc = include_str!("../README.md")]

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Where egress-proxy listens, as a holder sees it.
pub const SOCKET: &str = "/run/bailey/egress/egress.sock";
/// Longest line with a signed decision, bytes.
pub const MAX_DECISION_BYTES: usize = 128 << 10;
/// Longest host, bytes: its length is one byte.
pub const MAX_HOST_BYTES: usize = 255;

const TOKEN_BYTES: usize = 32;
const LEASE: u8 = b'L';
const CONNECT: u8 = b'C';
const GRANTED: u8 = 0;

/// Proves that a connection belongs to a lease.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; TOKEN_BYTES]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// How a connection begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// The signed decision, in the form of a lock file (`payload` and `signature`, base64).
    Lease(Vec<u8>),
    /// A connection under a lease.
    Connect(Connect),
}

/// A connection under a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Of the lease.
    pub token: Token,
    /// As the client wrote it: a name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What is refused, so that a client can be told in its own protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No lease, or none any more.
    NoLease,
    /// Not granted, or at an address that is not allowed.
    NotAllowed,
    /// The name has no address.
    Unresolved,
    /// Nobody answers there.
    Unreachable,
    /// A limit of the call is reached.
    Limit,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::NoLease,
        Self::NotAllowed,
        Self::Unresolved,
        Self::Unreachable,
        Self::Limit,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::NoLease => 1,
            Self::NotAllowed => 2,
            Self::Unresolved => 3,
            Self::Unreachable => 4,
            Self::Limit => 5,
        }
    }
}

/// Why a connection is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is refused.
    pub kind: Kind,
    /// In words, for who wrote the plugin. At most 255 bytes go over the line.
    pub reason: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Refusal {}

impl Opening {
    /// Reads how a connection begins. The caller limits the time that it may take.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        match stream.read_u8().await? {
            LEASE => {
                let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
                if length > MAX_DECISION_BYTES {
                    return Err(malformed("the decision is too long"));
                }
                // Read as it comes: a length alone claims no memory.
                let mut decision = Vec::new();
                let limit = u64::try_from(length).unwrap_or(u64::MAX);
                stream.take(limit).read_to_end(&mut decision).await?;
                if decision.len() < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Self::Lease(decision))
            }
            CONNECT => {
                let mut token = [0; TOKEN_BYTES];
                stream.read_exact(&mut token).await?;
                let port = stream.read_u16().await?;
                let mut host = vec![0; usize::from(stream.read_u8().await?)];
                stream.read_exact(&mut host).await?;
                let host = String::from_utf8(host).map_err(|_| malformed("the host is no text"))?;
                let token = Token(token);
                Ok(Self::Connect(Connect { token, host, port }))
            }
            _ => Err(malformed("the connection does not begin as it must")),
        }
    }

    /// Writes it in one piece.
    pub async fn write(&self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut bytes = Vec::new();
        match self {
            Self::Lease(decision) => {
                let length = u32::try_from(decision.len())
                    .map_err(|_| malformed("the decision is too long"))?;
                bytes.push(LEASE);
                bytes.extend(length.to_be_bytes());
                bytes.extend(decision);
            }
            Self::Connect(Connect { token, host, port }) => {
                let length =
                    u8::try_from(host.len()).map_err(|_| malformed("the host is too long"))?;
                bytes.push(CONNECT);
                bytes.extend(token.0);
                bytes.extend(port.to_be_bytes());
                bytes.push(length);
                bytes.extend(host.as_bytes());
            }
        }
        stream.write_all(&bytes).await
    }
}

/// Answers a [`Opening::Lease`].
pub async fn write_token(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: Result<&Token, &Refusal>,
) -> io::Result<()> {
    match answer {
        Ok(token) => {
            let mut bytes = vec![GRANTED];
            bytes.extend(token.0);
            stream.write_all(&bytes).await
        }
        Err(refusal) => write_refusal(stream, refusal).await,
    }
}

/// Answers a [`Opening::Connect`].
pub async fn write_open(
    stream: &mut (impl AsyncWrite + Unpin),
    answer: Result<(), &Refusal>,
) -> io::Result<()> {
    match answer {
        Ok(()) => stream.write_all(&[GRANTED]).await,
        Err(refusal) => write_refusal(stream, refusal).await,
    }
}

/// Reads the answer to a [`Opening::Lease`].
pub async fn read_token(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Token, Refusal>> {
    if let Err(refusal) = read_open(stream).await? {
        return Ok(Err(refusal));
    }
    let mut token = [0; TOKEN_BYTES];
    stream.read_exact(&mut token).await?;
    Ok(Ok(Token(token)))
}

/// Reads the answer to a [`Opening::Connect`].
pub async fn read_open(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<(), Refusal>> {
    let code = stream.read_u8().await?;
    if code == GRANTED {
        return Ok(Ok(()));
    }
    let kind = Kind::ALL.into_iter().find(|kind| kind.code() == code);
    let kind = kind.ok_or_else(|| malformed("the answer is of no known kind"))?;
    let mut reason = vec![0; usize::from(stream.read_u8().await?)];
    stream.read_exact(&mut reason).await?;
    let reason = String::from_utf8_lossy(&reason).into_owned();
    Ok(Err(Refusal { kind, reason }))
}

async fn write_refusal(
    stream: &mut (impl AsyncWrite + Unpin),
    refusal: &Refusal,
) -> io::Result<()> {
    let end = refusal.reason.floor_char_boundary(usize::from(u8::MAX));
    let reason = refusal.reason.get(..end).unwrap_or_default();
    let mut bytes = vec![
        refusal.kind.code(),
        u8::try_from(reason.len()).unwrap_or(u8::MAX),
    ];
    bytes.extend(reason.as_bytes());
    stream.write_all(&bytes).await
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use proptest::prelude::*;

    use super::*;

    fn wait<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(future)
    }

    fn written(opening: &Opening) -> Vec<u8> {
        let mut bytes = Vec::new();
        wait(opening.write(&mut bytes)).unwrap();
        bytes
    }

    fn read(mut bytes: &[u8]) -> io::Result<Opening> {
        wait(Opening::read(&mut bytes))
    }

    #[test]
    fn the_bytes_are_the_documented_ones() {
        assert_eq!(written(&Opening::Lease(b"{}".to_vec())), b"L\0\0\0\x02{}");
        let connect = Connect {
            token: Token([7; 32]),
            host: "a.b".into(),
            port: 443,
        };
        let expected = [&b"C"[..], &[7; 32], b"\x01\xbb", b"\x03a.b"].concat();
        assert_eq!(written(&Opening::Connect(connect)), expected);
    }

    #[test]
    fn a_decision_that_is_too_long_or_cut_short_is_refused() {
        let long = u32::try_from(MAX_DECISION_BYTES + 1).unwrap().to_be_bytes();
        let refused = read(&[&b"L"[..], &long].concat()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        let short = read(b"L\0\0\0\x09{}").unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
        let longest = Opening::Lease(vec![b' '; MAX_DECISION_BYTES]);
        assert_eq!(read(&written(&longest)).unwrap(), longest);
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(format!("{:?}", Token([65; 32])), "Token");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let refusal = Refusal::new(Kind::Limit, "ä".repeat(200));
        let mut bytes = Vec::new();
        wait(write_open(&mut bytes, Err(&refusal))).unwrap();
        let read = wait(read_open(&mut bytes.as_slice())).unwrap();
        assert_eq!(read, Err(Refusal::new(Kind::Limit, "ä".repeat(127))));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_itself(token: [u8; 32], host in ".{0,60}", port: u16, kind in 0..5_usize) {
            let opening = Opening::Connect(Connect { token: Token(token), host: host.clone(), port });
            prop_assert_eq!(read(&written(&opening)).unwrap(), opening);
            for answer in [Ok(Token(token)), Err(Refusal::new(Kind::ALL[kind], host.clone()))] {
                let mut bytes = Vec::new();
                wait(write_token(&mut bytes, answer.as_ref())).unwrap();
                prop_assert_eq!(wait(read_token(&mut bytes.as_slice())).unwrap(), answer);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = wait(read_token(&mut bytes.as_slice()));
        }
    }
}

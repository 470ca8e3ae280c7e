//! What a client sends first: on TLS, the name that it wants there must be the one that was granted.

use std::io;
use std::time::Duration;

use bailey_plugin::egress::Host;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// The port on which nothing but TLS may be spoken.
const TLS_PORT: u16 = 443;
/// First byte of a TLS record that can hold a ClientHello (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;
/// With post-quantum key shares a ClientHello has about 2 KiB.
const MAX_HELLO_BYTES: usize = 16 << 10;
/// How long a ClientHello may take.
const HELLO_TIME: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 4 << 10;

/// Fatal alert `access_denied` (RFC 8446, section 6), so that a client can tell a refusal from a broken line.
pub(crate) const DENIED: [u8; 7] = [21, 3, 3, 0, 2, 2, 49];

/// Why a client's first bytes go no further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Port 443 with something else.
    #[error("on port 443 only TLS passes")]
    NotTls,
    /// Cut short, too long, too slow or malformed.
    #[error("the TLS client hello is {0}")]
    Hello(&'static str),
    /// Another name than the granted one.
    #[error("TLS asks for {0}, which is not the host that was asked for")]
    OtherName(String),
    /// No name at all.
    #[error("TLS does not say which host it wants")]
    NoName,
    /// The client broke off.
    #[error("reading from the client")]
    Read(#[from] io::Error),
}

/// Reads until it is known that the bytes may pass to `host`, and answers them. Empty: the client ended without a byte.
pub(crate) async fn first_bytes(
    client: &mut (impl AsyncRead + Unpin),
    host: &Host,
    port: u16,
) -> Result<Vec<u8>, Error> {
    let slow = |_| Error::Hello("too slow");
    let mut bytes = Vec::new();
    if port == TLS_PORT {
        timeout(HELLO_TIME, more(client, &mut bytes))
            .await
            .map_err(slow)??;
    } else {
        more(client, &mut bytes).await?;
    }
    match bytes.first() {
        Some(&HANDSHAKE) => {
            let reading = hello(client, bytes, host);
            timeout(HELLO_TIME, reading).await.map_err(slow)?
        }
        Some(_) if port == TLS_PORT => Err(Error::NotTls),
        None | Some(_) => Ok(bytes),
    }
}

/// One read; whether there was anything.
async fn more(client: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; PIECE_BYTES];
    let read = client.read(&mut piece).await?;
    bytes.extend(piece.iter().take(read));
    Ok(read > 0)
}

async fn hello(
    client: &mut (impl AsyncRead + Unpin),
    mut bytes: Vec<u8>,
    host: &Host,
) -> Result<Vec<u8>, Error> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while let Some(mut rest) = bytes.get(fed..).filter(|rest| !rest.is_empty()) {
            let taken = acceptor.read_tls(&mut rest);
            fed += taken.map_err(|_| Error::Hello("malformed"))?;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    check(host, accepted.client_hello().server_name())?;
                    return Ok(bytes);
                }
                Ok(None) => {}
                Err(_) => return Err(Error::Hello("malformed")),
            }
        }
        if bytes.len() > MAX_HELLO_BYTES {
            return Err(Error::Hello("too long"));
        }
        if !more(client, &mut bytes).await? {
            return Err(Error::Hello("cut short"));
        }
    }
}

/// An address has no name in TLS (RFC 6066, section 3), and must have none.
fn check(host: &Host, name: Option<&str>) -> Result<(), Error> {
    match (host, name) {
        (Host::Name(host), Some(name)) if name.eq_ignore_ascii_case(host) => Ok(()),
        (Host::Address(_), None) => Ok(()),
        (Host::Name(_) | Host::Address(_), Some(name)) => Err(Error::OtherName(name.to_owned())),
        (Host::Name(_), None) => Err(Error::NoName),
    }
}

#[cfg(test)]
mod tests;

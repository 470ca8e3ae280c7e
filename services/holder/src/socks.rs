//! SOCKS5 (RFC 1928): `CONNECT` without authentication. The namespace is the authentication.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bailey_lease::{Kind, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::way::{self, Way};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

const SUCCEEDED: u8 = 0;
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;

/// How long a client may take to say what it wants.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Serves one client.
pub(crate) async fn serve(mut client: TcpStream, way: Arc<Way>) {
    // A client that breaks off, or speaks something else, is simply gone.
    drop(converse(&mut client, &way).await);
}

async fn converse(client: &mut TcpStream, way: &Way) -> io::Result<()> {
    let head = async {
        greet(client).await?;
        request(client).await
    };
    let (host, port) = match timeout(HEAD_TIME, head).await?? {
        Ok(target) => target,
        Err(reply) => return answer(client, reply).await,
    };
    match way.open(host, port).await {
        Ok(mut server) => {
            answer(client, SUCCEEDED).await?;
            way::join(client, &mut server).await;
            Ok(())
        }
        Err(refusal) => answer(client, reply(&refusal)).await,
    }
}

/// Section 3.
async fn greet(client: &mut TcpStream) -> io::Result<()> {
    let version = client.read_u8().await?;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut methods = vec![0; usize::from(client.read_u8().await?)];
    client.read_exact(&mut methods).await?;
    if methods.contains(&NO_AUTHENTICATION) {
        return client.write_all(&[VERSION, NO_AUTHENTICATION]).await;
    }
    client.write_all(&[VERSION, NO_METHOD]).await?;
    Err(io::ErrorKind::InvalidData.into())
}

/// Section 4: the target, or the reply that refuses it.
async fn request(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<(String, u16), u8>> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _reserved, kind] = head;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let host = match kind {
        IPV4 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            Ipv4Addr::from(octets).to_string()
        }
        IPV6 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            Ipv6Addr::from(octets).to_string()
        }
        NAME => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData)?
        }
        _ => return Ok(Err(ADDRESS_NOT_SUPPORTED)),
    };
    let port = client.read_u16().await?;
    if command != CONNECT {
        return Ok(Err(COMMAND_NOT_SUPPORTED));
    }
    Ok(Ok((host, port)))
}

/// Section 6.
async fn answer(client: &mut TcpStream, reply: u8) -> io::Result<()> {
    let bound = [0; 6];
    let answer = [&[VERSION, reply, 0, IPV4][..], &bound].concat();
    client.write_all(&answer).await
}

fn reply(refusal: &Refusal) -> u8 {
    match refusal.kind {
        Kind::NoLease | Kind::Limit => 1,
        Kind::NotAllowed => 2,
        Kind::Unresolved => 4,
        Kind::Unreachable => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> io::Result<Result<(String, u16), u8>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(request(&mut bytes))
    }

    #[test]
    fn names_and_both_kinds_of_addresses_are_read() {
        let name = read(b"\x05\x01\x00\x03\x03a.b\x01\xbb").unwrap();
        assert_eq!(name, Ok(("a.b".into(), 443)));
        let four = read(b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50").unwrap();
        assert_eq!(four, Ok(("10.0.0.1".into(), 80)));
        let six = [&b"\x05\x01\x00\x04"[..], &[0; 15], &[1], b"\x00\x16"].concat();
        assert_eq!(read(&six).unwrap(), Ok(("::1".into(), 22)));
    }

    #[test]
    fn bind_udp_and_unknown_addresses_are_refused() {
        for command in [2, 3, 0, 9] {
            let asked = [5, command, 0, 1, 10, 0, 0, 1, 0, 80];
            assert_eq!(read(&asked).unwrap(), Err(COMMAND_NOT_SUPPORTED));
        }
        assert_eq!(read(&[5, 1, 0, 2]).unwrap(), Err(ADDRESS_NOT_SUPPORTED));
    }

    #[test]
    fn another_version_a_short_request_and_a_name_that_is_no_text_end_it() {
        assert!(read(&[4, 1, 0, 1, 1, 1, 1, 1, 0, 80]).is_err());
        assert!(read(&[5, 1, 0, 1, 1]).is_err());
        assert!(read(&[5, 1, 0, 3, 1, 0xff, 0, 80]).is_err());
    }
}

//! From a host to a connection. A name is looked up once, each address is looked at, and what was looked at is connected to.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bailey_plugin::egress::{Host, Reach};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::address::may_be_at;
use crate::outside::{Asker, Outside};

/// How long a name may take.
const RESOLVE_TIME: Duration = Duration::from_secs(10);
/// How long connecting may take, over all addresses of a name.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Who is to be connected to.
pub(crate) struct Target<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: u16,
    pub(crate) reach: Reach,
    /// For whom a name is looked up.
    pub(crate) asker: Asker,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The name has no address.
    #[error("{0}")]
    Unresolved(String),
    /// None of its addresses may be spoken to.
    #[error("it is at an address that must be listed by itself")]
    NotAllowed,
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
}

/// Connects, and says to which address.
pub(crate) async fn dial(
    outside: &dyn Outside,
    target: &Target<'_>,
) -> Result<(TcpStream, IpAddr), Error> {
    let addresses = addresses(outside, target).await?;
    let trying = async {
        let mut last = None;
        for address in &addresses {
            match outside
                .connect(SocketAddr::new(*address, target.port))
                .await
            {
                Ok(server) => return Ok((server, *address)),
                Err(error) => last = Some(format!("connecting to {address}: {error}")),
            }
        }
        Err(Error::Unreachable(last.unwrap_or_default()))
    };
    let late = || Err(Error::Unreachable("connecting took too long".to_owned()));
    let tried = timeout(CONNECT_TIME, trying).await;
    let (server, address) = tried.unwrap_or_else(|_| late())?;
    let prompt = server.set_nodelay(true);
    prompt.map_err(|error| Error::Unreachable(error.to_string()))?;
    Ok((server, address))
}

/// Where the host may be connected to. What is answered here is what is connected to: nobody asks the name again.
async fn addresses(outside: &dyn Outside, target: &Target<'_>) -> Result<Vec<IpAddr>, Error> {
    let found = match (target.reach, target.host) {
        (Reach::At(address), _) => vec![address],
        (_, Host::Address(address)) => vec![*address],
        (Reach::PublicName, Host::Name(name)) => {
            resolve(outside, target, format!("{name}.")).await?
        }
        // Hosts files and local resolvers know such names without a dot at the end.
        (Reach::LocalName, Host::Name(name)) => resolve(outside, target, name.clone()).await?,
    };
    let own = outside.own_networks().map_err(|error| {
        tracing::error!(%error, "the networks of this process cannot be read, so nothing goes out: {error}");
        Error::Unreachable("egress-proxy does not know its own networks".to_owned())
    })?;
    let mut allowed = found;
    allowed.retain(|address| may_be_at(target.reach, *address, &own));
    allowed.truncate(MAX_ADDRESSES);
    if allowed.is_empty() {
        return Err(Error::NotAllowed);
    }
    Ok(allowed)
}

async fn resolve(
    outside: &dyn Outside,
    target: &Target<'_>,
    name: String,
) -> Result<Vec<IpAddr>, Error> {
    let asked = name.trim_end_matches('.').to_owned();
    match timeout(RESOLVE_TIME, outside.resolve(target.asker.clone(), name)).await {
        Ok(Ok(found)) if !found.is_empty() => Ok(found),
        Ok(Ok(_)) => Err(Error::Unresolved(format!("{asked} has no address"))),
        Ok(Err(error)) => Err(Error::Unresolved(format!("{asked}: {error}"))),
        Err(_) => {
            let why = format!(
                "{asked}: no answer from the name servers, or all lookups are busy with other names"
            );
            Err(Error::Unresolved(why))
        }
    }
}

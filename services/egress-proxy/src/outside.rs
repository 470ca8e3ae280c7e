//! The world beyond: names and connections. Tests put their own world here.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bailey_types::UpstreamName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::address::{self, Prefix};

/// Names that are looked up at once: each has a thread for as long as the system's resolver takes.
const MAX_LOOKUPS: usize = 8;
/// Of these, for one plugin's holders or one upstream: whoever owns a name server decides how long an answer takes.
const MAX_LOOKUPS_OF_ONE: usize = 2;
/// What the kernel may hold of one connection in each direction; it adds as much for its own books.
const BUFFER_BYTES: u32 = 128 << 10;

/// For whom a name is looked up. Each has its share of the lookups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// A holder with this uid.
    Holder(u32),
    /// The way to this upstream.
    Upstream(UpstreamName),
}

/// What is beyond.
#[async_trait]
pub trait Outside: Send + Sync {
    /// The addresses of `name`, which a dot ends where no search domain may be added.
    async fn resolve(&self, asker: Asker, name: String) -> io::Result<Vec<IpAddr>>;

    /// A connection to one address. What may be connected to has been decided before.
    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream>;

    /// The networks that this process is on.
    fn own_networks(&self) -> io::Result<Vec<Prefix>>;
}

type Resolver = fn(&str) -> io::Result<Vec<IpAddr>>;

/// What the host's networks lead to.
pub struct Internet {
    resolver: Resolver,
    lookups: Arc<Semaphore>,
    of_asker: Mutex<HashMap<Asker, Arc<Semaphore>>>,
}

impl Internet {
    /// The world.
    pub fn new() -> Self {
        Self::with(system_resolver)
    }

    fn with(resolver: Resolver) -> Self {
        Self {
            resolver,
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            of_asker: Mutex::default(),
        }
    }

    fn lookups_of(&self, asker: Asker) -> Arc<Semaphore> {
        let mut of_asker = self.of_asker.lock().unwrap_or_else(PoisonError::into_inner);
        // Lookups, and those who wait for one, hold theirs.
        of_asker.retain(|_, lookups| Arc::strong_count(lookups) > 1);
        let new = || Arc::new(Semaphore::new(MAX_LOOKUPS_OF_ONE));
        Arc::clone(of_asker.entry(asker).or_insert_with(new))
    }
}

impl Default for Internet {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Outside for Internet {
    async fn resolve(&self, asker: Asker, name: String) -> io::Result<Vec<IpAddr>> {
        // The own place first: in the queue for the common ones nobody has more of them than he may use.
        let own_place = self.lookups_of(asker).acquire_owned().await;
        let own_place = own_place.map_err(io::Error::other)?;
        let place = Arc::clone(&self.lookups).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let resolver = self.resolver;
        let lookup = tokio::task::spawn_blocking(move || {
            // Kept until the thread is free, though nobody may wait for it any more.
            let _places = (own_place, place);
            resolver(&name)
        });
        lookup.await.map_err(io::Error::other)?
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        socket(to)?.connect(to).await
    }

    fn own_networks(&self) -> io::Result<Vec<Prefix>> {
        address::own_networks()
    }
}

fn system_resolver(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = (name, 0).to_socket_addrs()?;
    Ok(found.map(|address| address.ip()).collect())
}

/// A socket with buffers of a fixed size: left to itself the kernel lets each grow to megabytes, which the container's memory must hold.
fn socket(to: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // The window is agreed on in the handshake, so before it.
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    Ok(socket)
}

#[cfg(test)]
mod tests;

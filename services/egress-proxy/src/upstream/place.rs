//! Places for exchanges: so many at once, and some that no single client takes from the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailey_types::Service;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// What each client may have of them.
    shares: BTreeMap<Service, Arc<Semaphore>>,
}

/// A place, until it is dropped.
pub(crate) struct Place(
    #[expect(dead_code, reason = "held, not looked at")] [OwnedSemaphorePermit; 2],
);

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The client has all that it may have.
    Share,
    /// All are taken.
    All,
}

impl Places {
    /// `most` places for `clients`, of which each has `share` at most.
    pub(crate) fn new(most: usize, share: usize, clients: impl Iterator<Item = Service>) -> Self {
        let shares = clients.map(|client| (client, Arc::new(Semaphore::new(share))));
        Self {
            all: Arc::new(Semaphore::new(most)),
            shares: shares.collect(),
        }
    }

    /// A place for `client`.
    pub(crate) fn take(&self, client: Service) -> Result<Place, Full> {
        let of = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let all = of(&self.all).ok_or(Full::All)?;
        let own = self.shares.get(&client).and_then(of).ok_or(Full::Share)?;
        Ok(Place([all, own]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_leaves_some_to_the_others() {
        let clients = [Service::Engine, Service::Worker];
        let places = Places::new(4, 3, clients.into_iter());
        let take = |client| places.take(client);
        let mut taken: Vec<_> = (0..3)
            .map(|_| take(Service::Engine).ok().unwrap())
            .collect();
        assert_eq!(take(Service::Engine).err(), Some(Full::Share));
        taken.push(take(Service::Worker).ok().unwrap());
        assert_eq!(take(Service::Worker).err(), Some(Full::All));
        // Who is refused keeps nothing.
        taken.clear();
        let again = [Service::Worker, Service::Worker, Service::Worker].map(take);
        assert!(again.iter().all(Result::is_ok));
        assert!(take(Service::Engine).is_ok());
        assert_eq!(take(Service::Runner).err(), Some(Full::Share));
    }
}

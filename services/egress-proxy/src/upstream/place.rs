//! Places for exchanges: so many at once, and some that no single client takes from the others. Where there is one place for two clients, they
//! take turns.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailey_types::Service;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// See the module.
pub(crate) struct Places {
    all: Arc<Semaphore>,
    /// What each client may have of them.
    shares: BTreeMap<Service, Arc<Semaphore>>,
    /// Whether one client's share could be all there is, while there are others: then who has none waits, and is the next.
    turns: bool,
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
        let shares: BTreeMap<_, _> = shares.collect();
        Self {
            all: Arc::new(Semaphore::new(most)),
            turns: share >= most && shares.len() > 1,
            shares,
        }
    }

    /// A place for `client`. It is waited for only where clients take turns, and then by one request of each client at most.
    pub(crate) async fn take(&self, client: Service) -> Result<Place, Full> {
        if !self.turns {
            return self.take_now(client);
        }
        let own = self.own(client)?;
        // First come, first served: whoever has just had the place comes after the one that waits.
        let all = Arc::clone(&self.all).acquire_owned().await;
        Ok(Place([all.map_err(|_| Full::All)?, own]))
    }

    /// A place for `client` that is free.
    pub(crate) fn take_now(&self, client: Service) -> Result<Place, Full> {
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| Full::All)?;
        Ok(Place([all, self.own(client)?]))
    }

    fn own(&self, client: Service) -> Result<OwnedSemaphorePermit, Full> {
        let own = self.shares.get(&client).ok_or(Full::Share)?;
        Arc::clone(own).try_acquire_owned().map_err(|_| Full::Share)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};

    use super::*;

    #[test]
    fn a_client_leaves_some_to_the_others() {
        let clients = [Service::Engine, Service::Worker];
        let places = Places::new(4, 3, clients.into_iter());
        let take = |client| places.take_now(client);
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

    /// Whether `place` is not there yet.
    async fn is_waited_for<T>(place: Pin<&mut impl Future<Output = T>>) -> bool {
        tokio::select! {
            biased;
            _ = place => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn two_clients_of_one_place_take_turns() {
        let places = Places::new(1, 1, [Service::Engine, Service::Worker].into_iter());
        let first = places.take(Service::Engine).await.ok().unwrap();
        let mut worker = pin!(places.take(Service::Worker));
        assert!(is_waited_for(worker.as_mut()).await);
        // One that waits is enough, and the engine has its place already.
        assert_eq!(places.take(Service::Worker).await.err(), Some(Full::Share));
        assert_eq!(places.take(Service::Engine).await.err(), Some(Full::Share));
        drop(first);
        // The engine is there before the worker has noticed, and still comes after it.
        let mut engine = pin!(places.take(Service::Engine));
        assert!(is_waited_for(engine.as_mut()).await);
        let second = worker.await.ok().unwrap();
        assert!(is_waited_for(engine.as_mut()).await);
        drop(second);
        assert!(engine.await.is_ok());
    }

    #[tokio::test]
    async fn nobody_waits_where_each_has_a_place_of_its_own() {
        for places in [
            Places::new(1, 1, [Service::Engine].into_iter()),
            Places::new(2, 1, [Service::Engine, Service::Worker].into_iter()),
        ] {
            let _held = places.take(Service::Engine).await.ok().unwrap();
            assert!(places.take(Service::Engine).await.is_err());
        }
    }
}

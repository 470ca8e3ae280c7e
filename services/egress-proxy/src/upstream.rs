//! Exchanges of the stack's own services with the upstreams of the lock. The key is put in here and taken out of the answer here; the client
//! has neither it nor the connection.

mod answer;
mod asked;
mod connect;
mod exchange;
mod failure;
mod key;
mod origin;
mod outgoing;
mod place;
mod rate;
mod record;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailey_config::Upstream;
use bailey_config::upstream::Client as Caller;
use bailey_mesh::{Auditor, Mesh};
use bailey_service::Context;
use bailey_trust::{Loaded, LockSource};
use bailey_types::{Serial, Service, UpstreamName};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::lock::View;
use crate::outside::Outside;
use crate::refusals::ByUid;
use connect::Connector;
use failure::Why;
use key::Keys;
use origin::Origins;
use outgoing::Outgoing;
use place::{Full, Place, Places};
use rate::{Beginner, Rates};

pub(crate) use answer::Told;
pub(crate) use failure::Failure;
pub(crate) use outgoing::MESSAGE_LIMIT_BYTES;

/// Exchanges at once, with all upstreams together.
const MAX_EXCHANGES: usize = 64;
/// Of these, for one client: a captured one keeps the other out of nothing.
const SHARE: usize = 48;
/// Requests of one client that have not said yet what they want.
const UNSAID: usize = 64;
/// Connections to one upstream that are kept while nobody uses them, and for how long.
const MAX_IDLE: usize = 4;
const IDLE_TIME: Duration = Duration::from_mins(1);

/// All upstreams of the lock.
pub(crate) struct Upstreams {
    ctx: Context,
    lock: Arc<LockSource<View>>,
    outside: Arc<dyn Outside>,
    auditor: Auditor,
    keys: Keys,
    origins: Origins,
    /// TLS of upstreams without authorities of their own.
    web: Arc<ClientConfig>,
    places: Places,
    /// For those whose head has not come yet, of which each may hold a message.
    unsaid: Places,
    /// By the uid of the client.
    refusals: ByUid,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    /// The lock that `live` is of.
    serial: Option<Serial>,
    live: BTreeMap<UpstreamName, Arc<Live>>,
}

/// An upstream that somebody has called under the lock of the moment.
struct Live {
    name: UpstreamName,
    upstream: Upstream,
    /// With the connections that it keeps, which are those of one lock.
    client: Client<Connector, Outgoing>,
    places: Arc<Places>,
    rates: Arc<Rates>,
    /// Cancelled when a lock changes the upstream or takes it away.
    over: CancellationToken,
}

impl Upstreams {
    pub(crate) fn new(
        ctx: &Context,
        mesh: &Mesh,
        lock: Arc<LockSource<View>>,
        outside: Arc<dyn Outside>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            ctx: ctx.clone(),
            lock,
            outside,
            auditor: mesh.auditor(),
            keys: Keys::new(mesh.channel(Service::Broker)),
            origins: Origins::new(ctx),
            web: Arc::new(connect::web()?),
            places: Places::new(MAX_EXCHANGES, SHARE, services(&Caller::ALL)),
            unsaid: Places::new(Caller::ALL.len() * UNSAID, UNSAID, services(&Caller::ALL)),
            refusals: ByUid::default(),
            book: Mutex::default(),
        })
    }

    /// Ends exchanges and kept connections of what a new lock changes or takes away.
    pub(crate) fn review(&self) {
        // Without a usable lock nothing new begins meanwhile, and the usable one that follows is reviewed.
        if let Ok(lock) = self.lock.current() {
            self.book().follow(self, &lock);
        }
    }

    /// Records how many refusals were only counted, in the minutes that are over at `now` or in all.
    pub(crate) fn summarise(&self, now: Option<Instant>) {
        for (uid, count) in self.refusals.only_counted(now) {
            let client = Service::ALL.iter().find(|service| service.uid() == uid);
            let client = client.map_or("?", |client| client.name());
            tracing::warn!(
                caller.id = client,
                "refused {client} an upstream {count} times more"
            );
            let fields = json!({ "client": client, "count": count });
            self.auditor.append_refusal("upstream.refused", &fields);
        }
    }

    /// The upstream `name` under the lock of the moment, for `client`.
    fn live(&self, name: &str, client: Service) -> Result<Arc<Live>, Why> {
        let lock = self.lock.current();
        let lock = lock.map_err(|error| Why::NoLock(error.to_string()))?;
        let found = lock.view.upstreams.iter().find(|(n, _)| n.as_str() == name);
        let (name, upstream) = found.ok_or(Why::NoSuch)?;
        if !upstream.serves(client) {
            let client = client.name();
            return Err(Why::NotAClient { client });
        }
        let mut book = self.book();
        book.follow(self, &lock);
        if let Some(live) = book.live.get(name) {
            return Ok(Arc::clone(live));
        }
        let live = Live {
            name: name.clone(),
            upstream: upstream.clone(),
            client: self.client(name, upstream)?,
            places: Arc::new(Places::new(
                upstream.max_concurrent as usize,
                share(upstream) as usize,
                services(&upstream.clients),
            )),
            rates: Arc::new(Rates::new(upstream.rate)),
            over: CancellationToken::new(),
        };
        let live = Arc::new(live);
        book.live.insert(name.clone(), Arc::clone(&live));
        Ok(live)
    }

    /// The serial of the lock of the moment, as far as `live` is in it as it is.
    fn serial(&self, live: &Live) -> Result<Serial, Why> {
        let lock = self.lock.current();
        let lock = lock.map_err(|error| Why::NoLock(error.to_string()))?;
        let same = lock.view.upstreams.get(&live.name) == Some(&live.upstream);
        same.then_some(lock.lock.serial).ok_or(Why::Relocked)
    }

    /// A place among all exchanges.
    fn place(&self, client: Service) -> Result<Place, Why> {
        self.places.take_now(client).map_err(|full| match full {
            Full::All => Why::AllBusy {
                most: MAX_EXCHANGES,
            },
            Full::Share => Why::AllShareBusy {
                client: client.name(),
                most: SHARE,
            },
        })
    }

    /// A place for a request of `client` until it has said what it wants.
    fn unsaid(&self, client: Service) -> Result<Place, Why> {
        let client_name = client.name();
        let place = self.unsaid.take_now(client);
        place.map_err(|_| Why::Unsaid {
            client: client_name,
            most: UNSAID,
        })
    }

    fn client(
        &self,
        name: &UpstreamName,
        upstream: &Upstream,
    ) -> Result<Client<Connector, Outgoing>, Why> {
        let connector = Connector::new(Arc::clone(&self.outside), name, upstream, &self.web)?;
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_headers(answer::MAX_HEADERS)
            .http1_max_buf_size(answer::HEAD_LIMIT_BYTES)
            .build(connector);
        Ok(client)
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says and records that nothing was sent for `client`, or for the principal that had it ask.
    fn refused(&self, client: Service, principal: Option<&str>, failure: &Failure) {
        if !self.refusals.take(client.uid(), Instant::now()) {
            return;
        }
        let (client, upstream, why) = (client.name(), &failure.upstream, &failure.why);
        tracing::warn!(
            caller.id = client,
            upstream.name = upstream,
            "refused {client} an exchange with the upstream {upstream}: {why}"
        );
        let fields = json!({
            "client": client,
            "principal": principal,
            "upstream": upstream,
            "reason": why.to_string(),
        });
        self.auditor.append_refusal("upstream.refused", &fields);
    }
}

impl Live {
    /// A place among its exchanges, when it is the client's turn.
    async fn place(&self, client: Service) -> Result<Place, Why> {
        let upstream = &self.upstream;
        let taken = self.places.take(client).await;
        taken.map_err(|full| match full {
            Full::Share if upstream.max_concurrent > 1 => Why::ShareBusy {
                client: client.name(),
                most: share(upstream),
            },
            Full::Share => Why::Turn {
                client: client.name(),
            },
            Full::All => Why::Busy {
                most: upstream.max_concurrent,
            },
        })
    }

    /// Counts an exchange that begins now.
    fn begin(&self, beginner: Beginner) -> Result<(), Why> {
        let taken = self.rates.take(beginner, Instant::now());
        taken.map_err(|spent| match beginner {
            Beginner::Client(client) => Why::Rate {
                client: client.name(),
                spent,
            },
            Beginner::Check => Why::Checks(spent),
        })
    }
}

/// What one client may have of an upstream's exchanges: all but one, where there are others.
fn share(upstream: &Upstream) -> u32 {
    let kept = u32::from(upstream.clients.len() > 1);
    upstream.max_concurrent.saturating_sub(kept).max(1)
}

fn services<'a>(clients: impl IntoIterator<Item = &'a Caller>) -> impl Iterator<Item = Service> {
    clients.into_iter().map(|client| client.service())
}

impl Book {
    /// Goes over to `lock`, if it is another one.
    fn follow(&mut self, upstreams: &Upstreams, lock: &Loaded<View>) {
        let serial = Some(lock.lock.serial);
        if self.serial == serial {
            return;
        }
        self.serial = serial;
        for (name, live) in std::mem::take(&mut self.live) {
            let still = lock.view.upstreams.get(&name);
            // The same upstream has its exchanges end by themselves, and new connections from now on.
            let same = still.filter(|still| **still == live.upstream);
            let client = same.and_then(|same| upstreams.client(&name, same).ok());
            let Some(client) = client else {
                tracing::warn!(upstream.name = %name, "a new lock ends what was open with the upstream {name}");
                live.over.cancel();
                continue;
            };
            let next = Live {
                name: name.clone(),
                upstream: live.upstream.clone(),
                client,
                places: Arc::clone(&live.places),
                rates: Arc::clone(&live.rates),
                over: live.over.clone(),
            };
            self.live.insert(name, Arc::new(next));
        }
    }
}

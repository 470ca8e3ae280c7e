//! The Unix socket of the holders: who is there, what they ask for, how many they are.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bailey_lease::{Connect, Kind, Opening, Refusal, write_open, write_token};
use bailey_mesh::Auditor;
use bailey_service::Context;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::lease::{Lease, Leases};
use crate::outside::Outside;
use crate::refusals::ByUid;
use crate::tunnel;

/// Connections at once, and of one plugin's holders among them.
const MAX_CONNECTIONS: usize = 1024;
const MAX_OF_ONE_UID: usize = 256;
/// How long a connection may take to say what it wants.
const OPENING_TIME: Duration = Duration::from_secs(10);

/// What every connection needs.
pub(crate) struct Door {
    pub(crate) leases: Arc<Leases>,
    pub(crate) outside: Arc<dyn Outside>,
    pub(crate) auditor: Auditor,
    refusals: ByUid,
    inside: Arc<Inside>,
}

/// Records, when the lease ends in whatever way, how many of its refusals were only counted.
struct Summary<'a> {
    door: &'a Door,
    lease: Arc<Lease>,
}

/// How many connections there are, by the uid of the peer.
#[derive(Default)]
struct Inside(Mutex<HashMap<u32, usize>>);

/// One connection of the count.
struct Counted {
    inside: Arc<Inside>,
    uid: u32,
}

impl Door {
    pub(crate) fn new(leases: Arc<Leases>, outside: Arc<dyn Outside>, auditor: Auditor) -> Self {
        Self {
            leases,
            outside,
            auditor,
            refusals: ByUid::default(),
            inside: Arc::default(),
        }
    }

    /// Records how many refusals without a lease were only counted, in the minutes that are over at `now` or in all.
    pub(crate) fn summarise(&self, now: Option<Instant>) {
        for (uid, count) in self.refusals.only_counted(now) {
            tracing::warn!(
                peer.uid = uid,
                "refused holders with the uid {uid} {count} times more"
            );
            let fields = json!({ "holder_uid": uid, "count": count });
            self.auditor.append_refusal("egress.refused", &fields);
        }
    }
}

/// Opens the socket. Whoever mounts the volume may connect; the uid and a signed decision are what counts.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves holders until the service stops.
pub(crate) async fn serve(
    ctx: Context,
    listener: UnixListener,
    door: Arc<Door>,
) -> anyhow::Result<()> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ctx.shutdown.cancelled() => return Ok(()),
        };
        let admitted = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
        let (uid, stream) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => {
                // Descriptors are short until another connection ends.
                tracing::warn!(%error, "accepting a holder failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Some(counted) = door.inside.enter(uid) else {
            refused(&door, uid, "too many connections");
            continue;
        };
        let (door, shutdown) = (Arc::clone(&door), ctx.shutdown.clone());
        ctx.spawn("holder connection", async move {
            tokio::select! {
                () = connection(&door, stream, uid) => {}
                () = shutdown.cancelled() => {}
            }
            drop(counted);
            Ok(())
        });
    }
}

async fn connection(door: &Door, mut stream: UnixStream, uid: u32) {
    match timeout(OPENING_TIME, Opening::read(&mut stream)).await {
        Ok(Ok(Opening::Lease(line))) => lease(door, stream, uid, &line).await,
        Ok(Ok(Opening::Connect(asked))) => connect(door, stream, uid, &asked).await,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            refused(door, uid, &error.to_string());
        }
        Ok(Err(error)) => tracing::debug!(%error, "a holder broke off"),
        Err(_) => tracing::debug!("a holder did not say what it wants"),
    }
}

/// Opens a lease, which lasts until the holder ends this connection.
async fn lease(door: &Door, mut stream: UnixStream, uid: u32, line: &[u8]) {
    let held = match door.leases.open(uid, line) {
        Ok(held) => held,
        Err(refusal) => {
            refused(door, uid, &refusal.reason);
            if let Err(error) = write_token(&mut stream, Err(&refusal)).await {
                tracing::debug!(%error, "a holder did not wait for its answer");
            }
            return;
        }
    };
    let _summary = Summary {
        door,
        lease: Arc::clone(&held.lease),
    };
    let plugin = held.lease.decision.plugin.clone();
    let job = held.lease.decision.job;
    tracing::info!(plugin.name = %plugin, job.id = %job, "{plugin} has a way out for the job {job}");
    if write_token(&mut stream, Ok(held.token())).await.is_ok() {
        let mut byte = [0; 1];
        // The end, a broken line, or a byte that has no meaning here: the lease ends with each, and by a new lock.
        tokio::select! {
            read = stream.read(&mut byte) => drop(read),
            () = held.lease.over.cancelled() => {}
        }
    }
    tracing::debug!(plugin.name = %plugin, job.id = %job, "the lease of the job {job} has ended");
}

async fn connect(door: &Door, mut stream: UnixStream, uid: u32, asked: &Connect) {
    if let Some(lease) = door.leases.find(uid, &asked.token) {
        return tunnel::serve(door, stream, &lease, asked).await;
    }
    let refusal = Refusal::new(Kind::NoLease, "there is no such lease, or not any more");
    refused(door, uid, &refusal.reason);
    if let Err(error) = write_open(&mut stream, Err(&refusal)).await {
        tracing::debug!(%error, "a holder did not wait for its answer");
    }
}

fn refused(door: &Door, uid: u32, reason: &str) {
    if !door.refusals.take(uid, Instant::now()) {
        return;
    }
    tracing::warn!(
        peer.uid = uid,
        "refused a holder with the uid {uid}: {reason}"
    );
    let fields = json!({ "holder_uid": uid, "reason": reason });
    door.auditor.append_refusal("egress.refused", &fields);
}

impl Drop for Summary<'_> {
    fn drop(&mut self) {
        tunnel::summarise(self.door, &self.lease);
    }
}

impl Inside {
    fn enter(self: &Arc<Self>, uid: u32) -> Option<Counted> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = inside.values().sum();
        let own = inside.entry(uid).or_default();
        if all >= MAX_CONNECTIONS || *own >= MAX_OF_ONE_UID {
            return None;
        }
        *own += 1;
        Some(Counted {
            inside: Arc::clone(self),
            uid,
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut inside = self.inside.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = inside.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                inside.remove(&self.uid);
            }
        }
    }
}

//! Telling the broker every ten seconds, and at each change, how we are.

use std::time::Duration;

use bailey_proto::broker::v1::presence_service_client::PresenceServiceClient;
use bailey_proto::broker::v1::{BeatRequest, Readiness as Wire};
use bailey_service::{Context, Presence, Readiness};
use bailey_types::{Service, Timestamp};

use crate::Mesh;

const EVERY: Duration = Duration::from_secs(10);
const LONGEST_CALL: Duration = Duration::from_secs(5);

/// The longest detail that the broker takes, bytes.
const MAX_DETAIL_BYTES: usize = 512;

pub(crate) async fn beat(ctx: Context, mesh: Mesh) -> anyhow::Result<()> {
    let started = ctx.clock.now();
    let mut presence = ctx.presence();
    let mut client = PresenceServiceClient::new(mesh.channel(Service::Broker));
    loop {
        let request = request(&presence.borrow_and_update().clone(), started);
        let used = mesh.identity();
        match tokio::time::timeout(LONGEST_CALL, client.beat(request)).await {
            Ok(Ok(answer)) => {
                if answer.into_inner().renew {
                    mesh.renew(&used);
                }
            }
            Ok(Err(status)) => {
                tracing::debug!(error = status.message(), "the broker did not take the beat");
            }

            Err(_) => tracing::debug!("the broker did not answer the beat"),
        }
        if ctx.shutdown.is_cancelled() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            changed = presence.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
            }
            // The broker knows from our connection which certificate we have.
            () = mesh.renewed() => {}
            // Once more, to say that we are stopping.
            () = ctx.shutdown.cancelled() => {}
        }
    }
}

/// A beat that says how a service is. The broker keeps itself on its own roll with it.
pub fn request(presence: &Presence, started: Timestamp) -> BeatRequest {
    let readiness = match presence.readiness {
        Readiness::Starting => Wire::Starting,
        Readiness::Ready => Wire::Ready,
        Readiness::Degraded => Wire::Degraded,
        Readiness::Stopping => Wire::Stopping,
    };
    let end = presence.detail.floor_char_boundary(MAX_DETAIL_BYTES);
    BeatRequest {
        readiness: readiness.into(),
        detail: presence.detail.get(..end).unwrap_or_default().to_owned(),
        version: Context::VERSION.to_owned(),
        started_at_ms: started.0,
        rss_bytes: rss_bytes().unwrap_or(0),
        lock_serial: presence.lock_serial,
    }
}

/// Resident pages of this process (proc_pid_statm(5)), in bytes.
pub(crate) fn rss_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

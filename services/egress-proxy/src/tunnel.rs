//! One connection of a cell to the outside.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailey_lease::{Connect, Kind, Refusal, write_open};
use bailey_plugin::egress::Host;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::dial::{self, Target, dial};
use crate::door::Door;
use crate::grant::Grant;
use crate::hello::{self, first_bytes};
use crate::lease::{Lease, Place};
use crate::outside::Asker;
use crate::pass::{self, Direction, Meter, one_way};

/// How long a client may take to accept the alert that ends its connection.
const ALERT_TIME: Duration = Duration::from_secs(1);

/// A granted target, before anything is sent to it.
struct Opened {
    server: TcpStream,
    address: IpAddr,
    host: Host,
    grant: Grant,
    _place: Place,
}

/// Why a connection that was open has ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("{0}")]
    Refused(hello::Error),
    #[error("{0}")]
    Passed(#[from] pass::Error),
    #[error("it has lasted as long as it may")]
    Time,
    #[error("the lease ended")]
    Lease,
}

/// Serves a connection under `lease`.
pub(crate) async fn serve(
    door: &Door,
    mut client: UnixStream,
    lease: &Arc<Lease>,
    connect: &Connect,
) {
    let opened = tokio::select! {
        opened = open(door, lease, connect) => opened,
        () = lease.over.cancelled() => return,
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            refused(door, lease, connect, &refusal.reason);
            return answer(&mut client, Err(&refusal)).await;
        }
    };
    answer(&mut client, Ok(())).await;
    pass(door, client, lease, connect, opened).await;
}

/// A client that is gone already learns nothing, and needs to.
async fn answer(client: &mut UnixStream, answer: Result<(), &Refusal>) {
    if let Err(error) = write_open(client, answer).await {
        tracing::debug!(%error, "a holder did not wait for its answer");
    }
}

async fn open(door: &Door, lease: &Arc<Lease>, connect: &Connect) -> Result<Opened, Refusal> {
    let (text, port) = (&connect.host, connect.port);
    let no = |kind, reason: String| Refusal::new(kind, reason);
    let host = Host::parse(text).ok_or_else(|| {
        no(
            Kind::NotAllowed,
            "that is neither a name nor an address".into(),
        )
    })?;
    let grant = door.leases.grant(lease)?;
    let reach = grant.reach(lease.entries(), &host, port);
    let not_granted = || {
        let plugin = &grant.plugin;
        no(
            Kind::NotAllowed,
            format!("{host}:{port} is not granted to {plugin}"),
        )
    };
    let reach = reach.ok_or_else(not_granted)?;
    let limits = grant.limits;
    let place = lease.place(limits.connections).ok_or_else(|| {
        let most = limits.connections;
        no(
            Kind::Limit,
            format!("the call has {most} connections open, which is as many as it may"),
        )
    })?;
    if !lease.has_bytes_left(limits.total_bytes) {
        return Err(no(Kind::Limit, pass::Error::Spent.to_string()));
    }
    let target = Target {
        host: &host,
        port,
        reach,
        asker: Asker::Holder(lease.uid),
    };
    let dialled = dial(door.outside.as_ref(), &target).await;
    let (server, address) = dialled.map_err(|error| refusal(&host, error))?;
    Ok(Opened {
        server,
        address,
        host,
        grant,
        _place: place,
    })
}

/// What a client is told, and in which words the audit log has it.
fn refusal(host: &Host, error: dial::Error) -> Refusal {
    match error {
        dial::Error::Unresolved(why) => Refusal::new(Kind::Unresolved, why),
        dial::Error::Unreachable(why) => Refusal::new(Kind::Unreachable, why),
        dial::Error::NotAllowed => Refusal::new(
            Kind::NotAllowed,
            format!(
                "{host} is at an address that is not for plugins, and was not listed by that address"
            ),
        ),
    }
}

async fn pass(
    door: &Door,
    mut client: UnixStream,
    lease: &Arc<Lease>,
    connect: &Connect,
    mut opened: Opened,
) {
    let limits = opened.grant.limits;
    let meter = Meter::new(lease, limits.total_bytes);
    let began = Instant::now();
    let longest = Duration::from_secs(u64::from(limits.connection_seconds));
    let end = tokio::select! {
        end = both_ways(&mut client, &mut opened, connect.port, &meter) => end,
        () = tokio::time::sleep(longest) => Err(End::Time),
        () = lease.over.cancelled() => Err(End::Lease),
    };
    if let Err(End::Refused(why)) = &end {
        refused(door, lease, connect, &why.to_string());
    }
    let denied = matches!(&end, Err(End::Refused(_)));
    let why = end.err().map(|end| end.to_string());
    closed(
        door,
        lease,
        connect,
        &opened,
        &meter,
        began.elapsed(),
        why.as_deref(),
    );
    drop(opened);
    if denied {
        // Who is gone does not need it, and who does not read must not be waited for.
        let alert = client.write_all(&hello::DENIED);
        drop(timeout(ALERT_TIME, alert).await);
    }
}

async fn both_ways(
    client: &mut UnixStream,
    opened: &mut Opened,
    port: u16,
    meter: &Meter<'_>,
) -> Result<(), End> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = opened.server.split();
    let outward = async {
        let first = first_bytes(&mut from_client, &opened.host, port).await;
        let first = first.map_err(End::Refused)?;
        let sent = one_way(
            &first,
            &mut from_client,
            &mut to_server,
            meter,
            Direction::Sent,
        );
        match sent.await {
            // A server may answer and hang up before it has heard everything: its answer must still arrive.
            Ok(()) | Err(pass::Error::Broken(_)) => Ok(()),
            Err(enough @ pass::Error::Spent) => Err(enough.into()),
        }
    };
    let inward = async {
        one_way(
            &[],
            &mut from_server,
            &mut to_client,
            meter,
            Direction::Received,
        )
        .await?;
        Ok(())
    };
    tokio::try_join!(outward, inward).map(|((), ())| ())
}

/// What every event of a lease says, and `more`.
fn fields<const N: usize>(lease: &Lease, more: [(&str, Value); N]) -> Value {
    let decision = &lease.decision;
    let mut fields = json!({
        "plugin": decision.plugin,
        "job": decision.job,
        "attempt": decision.attempt,
        "decision": decision.id,
    });
    if let Some(fields) = fields.as_object_mut() {
        fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
    }
    fields
}

/// Records how many refusals of `lease` were only counted.
pub(crate) fn summarise(door: &Door, lease: &Lease) {
    let count = lease.refusals.only_counted();
    if count == 0 {
        return;
    }
    let plugin = &lease.decision.plugin;
    tracing::warn!(
        plugin.name = %plugin,
        job.id = %lease.decision.job,
        "refused {plugin} a way out {count} times more"
    );
    let fields = fields(lease, [("count", count.into())]);
    door.auditor.append_refusal("egress.refused", &fields);
}

fn refused(door: &Door, lease: &Lease, connect: &Connect, reason: &str) {
    if !lease.refusals.take() {
        return;
    }
    let plugin = &lease.decision.plugin;
    tracing::warn!(
        plugin.name = %plugin,
        job.id = %lease.decision.job,
        egress.host = connect.host,
        "refused {plugin} a way out to {}:{}: {reason}",
        connect.host,
        connect.port
    );
    let fields = fields(
        lease,
        [
            ("host", connect.host.as_str().into()),
            ("port", connect.port.into()),
            ("reason", reason.into()),
        ],
    );
    door.auditor.append_refusal("egress.refused", &fields);
}

fn closed(
    door: &Door,
    lease: &Lease,
    connect: &Connect,
    opened: &Opened,
    meter: &Meter<'_>,
    lasted: Duration,
    why: Option<&str>,
) {
    let (sent, received) = (meter.sent_bytes(), meter.received_bytes());
    let plugin = &lease.decision.plugin;
    tracing::info!(
        plugin.name = %plugin,
        job.id = %lease.decision.job,
        egress.host = connect.host,
        egress.sent_bytes = sent,
        egress.received_bytes = received,
        "a connection of {plugin} to {}:{} has ended",
        connect.host,
        connect.port
    );
    let millis = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    let fields = fields(
        lease,
        [
            ("host", connect.host.as_str().into()),
            ("port", connect.port.into()),
            ("address", opened.address.to_string().into()),
            ("sent_bytes", sent.into()),
            ("received_bytes", received.into()),
            ("duration_ms", millis.into()),
            ("cut", why.map_or(Value::Null, Value::from)),
        ],
    );
    door.auditor.append("egress.closed", &fields);
}

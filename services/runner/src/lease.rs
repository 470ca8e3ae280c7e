//! The stream on which the engine leases jobs to this runner.

use std::sync::Arc;
use std::time::Duration;

use bailey_proto::engine::v1::lease_service_client::LeaseServiceClient;
use bailey_proto::engine::v1::{
    Heartbeat, Hello, LeaseRequest, LeaseResponse, QuarantinedPlugin, lease_request, lease_response,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::backoff::Backoff;
use crate::desk::Desk;
use crate::quarantine::Held;
use crate::report::Reports;
use crate::rpc::Channel;

/// The engine gives a lease up after 20 s without one.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A peer on the same machine answers at once or not at all.
const CONNECT: Duration = Duration::from_secs(5);
/// Waits between connections.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(3);
/// A request of 10 MiB, its secrets, and what surrounds them.
const MESSAGE_LIMIT_BYTES: usize = 20 << 20;
/// Messages that wait to be sent. More means that nothing is sent any more.
const QUEUE: usize = 16;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("the engine closed the stream")]
    Closed,
    #[error("the engine does not answer")]
    Silent,
}

/// The engine's lease service behind `channel`.
pub fn client(channel: Channel) -> LeaseServiceClient<Channel> {
    LeaseServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT_BYTES)
}

/// Leases jobs until the runner stops and holds none; connects again whenever the stream ends.
pub async fn keep<R>(mut client: LeaseServiceClient<Channel>, desk: Arc<Desk<R>>)
where
    R: Reports,
{
    // Tells the engine that whatever an earlier life held is lost.
    let instance_id = format!("{:032x}", rand::random::<u128>());
    let mut backoff = Backoff::new(FIRST_WAIT, LAST_WAIT);
    loop {
        let mut greeted = false;
        let ended = session(&mut client, &desk, &instance_id, &mut greeted).await;
        let Err(error) = ended else { return };
        if greeted {
            backoff.reset();
            tracing::warn!(%error, "the lease stream ended; connecting again");
        } else {
            tracing::debug!(%error, "the engine cannot be reached; trying again");
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            // Nobody assigns anything now; running jobs end by themselves.
            () = desk.ctx.shutdown.cancelled() => return,
        }
    }
}

/// One connection. `Ok`: the runner stops and holds nothing.
async fn session<R>(
    client: &mut LeaseServiceClient<Channel>,
    desk: &Arc<Desk<R>>,
    instance_id: &str,
    greeted: &mut bool,
) -> Result<(), Error>
where
    R: Reports,
{
    let (send, receive) = mpsc::channel(QUEUE);
    let mut standing = desk.care.standing();
    let mut held = desk.held.subscribe();
    let say = |message| {
        send.try_send(LeaseRequest {
            message: Some(message),
        })
        .map_err(|_| Error::Silent)
    };
    say(hello(desk, instance_id))?;
    say(heartbeat(desk))?;
    let opened = tokio::time::timeout(CONNECT, client.lease(ReceiverStream::new(receive))).await;
    let mut answers = opened.map_err(|_| Error::Silent)??.into_inner();
    *greeted = true;
    tracing::info!("the engine leases jobs to this runner");
    let mut beat = tokio::time::interval(HEARTBEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut stopping = false;
    loop {
        if stopping && held.borrow_and_update().is_empty() {
            return Ok(());
        }
        tokio::select! {
            answer = answers.message() => take(desk, answer?.ok_or(Error::Closed)?),
            _ = beat.tick() => say(heartbeat(desk))?,
            // The sender lives in the desk; it cannot be gone.
            Ok(()) = standing.changed() => say(heartbeat(desk))?,
            Ok(()) = held.changed(), if stopping => {}
            () = desk.ctx.shutdown.cancelled(), if !stopping => {
                stopping = true;
                say(heartbeat(desk))?;
            }
        }
    }
}

fn take<R>(desk: &Arc<Desk<R>>, answer: LeaseResponse)
where
    R: Reports,
{
    match answer.message {
        Some(lease_response::Message::Assignment(assignment)) => desk.assign(assignment),
        Some(lease_response::Message::Cancel(cancel)) => desk.cancel(&cancel),
        Some(lease_response::Message::Clear(clear)) => desk.care.clear(&clear),
        None => tracing::warn!("the engine sent an empty message"),
    }
}

fn hello<R>(desk: &Desk<R>, instance_id: &str) -> lease_request::Message
where
    R: Reports,
{
    lease_request::Message::Hello(Hello {
        instance_id: instance_id.to_owned(),
        slots: u32::try_from(desk.slots).unwrap_or(u32::MAX),
        held: desk.held(),
    })
}

fn heartbeat<R>(desk: &Desk<R>) -> lease_request::Message
where
    R: Reports,
{
    let standing = desk.care.standing().borrow().clone();
    let trouble = if desk.ctx.shutdown.is_cancelled() {
        "the runner stops".to_owned()
    } else {
        standing.trouble
    };
    lease_request::Message::Heartbeat(Heartbeat {
        held: desk.held(),
        trouble,
        posture: standing.posture,
        quarantined: standing.quarantined.into_iter().map(quarantined).collect(),
    })
}

fn quarantined(held: Held) -> QuarantinedPlugin {
    QuarantinedPlugin {
        plugin: held.plugin.to_string(),
        reason: held.reason,
    }
}

//! The engine's services on the mesh. Here messages become types, and errors statuses; nothing is decided.

mod intake;
mod lease;
mod message;
mod plugin;
mod query;
mod tend;
mod upstream;

use std::str::FromStr;
use std::time::Duration;

use bailey_proto::engine::v1::intake_service_server::IntakeServiceServer;
use bailey_proto::engine::v1::lease_service_server::LeaseServiceServer;
use bailey_proto::engine::v1::plugin_service_server::PluginServiceServer;
use bailey_proto::engine::v1::query_service_server::QueryServiceServer;
use bailey_proto::engine::v1::retention_service_server::RetentionServiceServer;
use bailey_proto::engine::v1::schedule_service_server::ScheduleServiceServer;
use bailey_proto::engine::v1::upstream_service_server::UpstreamServiceServer;
use bailey_service::Context;
use tonic::Status;
use tonic::service::Routes;

use crate::state::{MAX_MESSAGE_BYTES, MAX_TICKET_BYTES, State};

/// What each service needs.
#[derive(Clone)]
struct Api {
    state: State,
    ctx: Context,
}

/// All services.
pub fn routes(state: &State, ctx: &Context) -> Routes {
    let api = Api {
        state: state.clone(),
        ctx: ctx.clone(),
    };
    Routes::new(IntakeServiceServer::new(api.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(
            QueryServiceServer::new(api.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            LeaseServiceServer::new(api.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_TICKET_BYTES),
        )
        .add_service(PluginServiceServer::new(api.clone()))
        .add_service(ScheduleServiceServer::new(api.clone()))
        .add_service(RetentionServiceServer::new(api.clone()))
        .add_service(UpstreamServiceServer::new(api))
}

fn parse<T>(text: &str) -> Result<T, Box<Status>>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| Box::new(Status::invalid_argument(e.to_string())))
}

/// How long an answer may wait for a job.
fn longest_wait(ms: i64) -> Result<Duration, Box<Status>> {
    let longest = u64::try_from(ms).map(Duration::from_millis).ok();
    let longest = longest.filter(|wait| *wait <= crate::query::MAX_WAIT);
    longest.ok_or_else(|| Box::new(Status::invalid_argument("a wait must be 0 to 300000 ms")))
}

/// Empty text stands for nothing.
fn optional<T>(text: &str) -> Result<Option<T>, Box<Status>>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() {
        Ok(None)
    } else {
        parse(text).map(Some)
    }
}

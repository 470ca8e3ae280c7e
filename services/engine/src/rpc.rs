//! The engine's services on the mesh. Here messages become types, and errors statuses; nothing is decided.

mod intake;
mod lease;
mod message;
mod plugin;
mod query;
mod tend;

use std::str::FromStr;

use bailey_proto::engine::v1::intake_service_server::IntakeServiceServer;
use bailey_proto::engine::v1::lease_service_server::LeaseServiceServer;
use bailey_proto::engine::v1::plugin_service_server::PluginServiceServer;
use bailey_proto::engine::v1::query_service_server::QueryServiceServer;
use bailey_proto::engine::v1::retention_service_server::RetentionServiceServer;
use bailey_proto::engine::v1::schedule_service_server::ScheduleServiceServer;
use bailey_service::Context;
use tonic::Status;
use tonic::service::Routes;

use crate::state::{MAX_MESSAGE_BYTES, State};

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
    Routes::new(IntakeServiceServer::new(api.clone()))
        .add_service(
            QueryServiceServer::new(api.clone()).max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(
            LeaseServiceServer::new(api.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .add_service(PluginServiceServer::new(api.clone()))
        .add_service(ScheduleServiceServer::new(api.clone()))
        .add_service(RetentionServiceServer::new(api))
}

fn parse<T>(text: &str) -> Result<T, Box<Status>>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|e: T::Err| Box::new(Status::invalid_argument(e.to_string())))
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
